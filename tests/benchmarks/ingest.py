"""How fast spectra are read, prepared and ingested, beside the plain ways of doing the same.

    python tests/benchmarks/ingest.py [--data DIR] [--memory 10000 100000] [--quick]

All rates are per second of processor time of one core, so that other load on the machine hardly
changes them. The real files are those of ../shared/data (or SPECCLIP_TEST_DATA).
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "specclip_search" / "preparation"))

from published_continuum import published_lrs_input

from specclip_search.atlas import Atlas
from specclip_search.ingest import ingest_gaia_xp, ingest_lamost
from specclip_search.ingest.files import FITS_SUFFIXES, find_files
from specclip_search.ingest.pipeline import Ingest
from specclip_search.ingest.plan import Plan
from specclip_search.ingest.spectra import by_count
from specclip_search.readers import gaia_bases
from specclip_search.readers.content import look
from specclip_search.readers.gaia_xp import iter_xp
from specclip_search.readers.lamost import observe_lamost, read_lamost, read_with_astropy
from specclip_search.surveys import GAIA_XP, LAMOST_LRS
from specclip_search.surveys.batch import prepare_arrays

ROWS_XP = 400
LRS_SURVEY, XP_SURVEY = 10_000_000, 220_000_000


def rate(label: str, count: int, work: Callable[[], object], repeats: int = 3) -> float:
    """Best of some runs, in items a second of processor time; printed."""
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    print(f"  {label:<58} {count / best:>12,.0f} /s/core   {best / count * 1e6:>9,.1f} us each")
    return count / best


def reading(files: list[Path]) -> None:
    def gunzip_and_read() -> None:
        for file in files:
            gzip.decompress(file.read_bytes())

    print("\nReading LAMOST LRS, real files")
    plain = rate("gunzip and a bare read of the bytes", len(files), gunzip_and_read)
    ours = rate("ours: arrays, header, masks", len(files), lambda: [observe_lamost(file) for file in files])
    astropy = rate("astropy: arrays and header of the same files", len(files),
                   lambda: [read_with_astropy(file, gzip.decompress(file.read_bytes())) for file in files], repeats=1)
    print(f"  time of ours over gunzip and read: {plain / ours:.2f}; astropy's over ours: {ours / astropy:.1f}")


def preparing(files: list[Path]) -> float:
    spectra = [s for s in map(read_lamost, files) if len(s.wavelength) >= 3904 and s.wavelength[0] < 3700][:60]
    wavelength = spectra[0].wavelength[:3904]
    flux = np.stack([s.flux[:3904] for s in spectra]).astype(np.float32)
    ivar = np.stack([s.ivar[:3904] for s in spectra]).astype(np.float32)
    many, weights = np.tile(flux, (40, 1)), np.tile(ivar, (40, 1))
    print("\nContinuum and common grid, real spectra")
    published = rate("the published algorithm, written plainly", len(flux),
                     lambda: [published_lrs_input(wavelength, row) for row in flux])
    exact = rate("Modality.prepare, batched", len(many), lambda: LAMOST_LRS.prepare(wavelength, many))
    double = rate("Modality.prepare, batched, from float64", len(many),
                  lambda: LAMOST_LRS.prepare(wavelength, many.astype(np.float64)))
    whole = rate("with errors, repair and quality", len(many),
                 lambda: prepare_arrays(LAMOST_LRS, wavelength, many, weights))
    truth = np.stack([published_lrs_input(wavelength, row) for row in flux])
    difference = np.abs(LAMOST_LRS.prepare(wavelength, flux) - truth).max()
    print(f"  ratio to the published algorithm: {exact / published:.0f} (float64: {double / published:.0f}, "
          f"with quality: {whole / published:.0f}); largest difference {difference:.1e}")
    return whole


def copies(files: list[Path], folder: Path, count: int) -> None:
    """`count` gzipped files under obsids of their own."""
    decoded = [gzip.decompress(file.read_bytes()) for file in files]
    for number in range(count):
        data = decoded[number % len(decoded)]
        at = data.index(b"OBSID   =")
        card = f"OBSID   = {10**9 + number:>20d}".ljust(80).encode()
        target = folder / f"{number // 1000:04d}" / f"spec-{number:07d}.fits.gz"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(gzip.compress(data[:at] + card + data[at + 80 :], 6))


def ingesting_lrs(files: list[Path], folder: Path, count: int) -> float:
    copies(files, folder, count)

    def run() -> None:
        with tempfile.TemporaryDirectory(dir=folder.parent) as place:
            report = ingest_lamost(Atlas.create(Path(place) / "atlas"), [folder], workers=1)
            assert report.kept == count, report

    print(f"\nWhole ingest of {count:,} LAMOST files: find, read, prepare, check, write")
    return rate("ours, one process", count, run, repeats=2)


def bulk_xp(data: Path, target: Path) -> None:
    """A bulk file of the archive's form: real coefficients under ids of their own."""
    import csv

    lines = (data / "gaia_xp/continuous/XP_CONTINUOUS_RAW.ecsv").read_text().splitlines()
    names, *rows = csv.reader(line for line in lines if not line.startswith("#"))
    with gzip.open(target, "wt", newline="") as stream:
        stream.write("\n".join(line for line in lines if line.startswith("#")) + "\n")
        writer = csv.writer(stream)
        writer.writerow(names)
        for number in range(ROWS_XP):
            writer.writerow([str(5853498713190525696 + number), *rows[number % 2][1:]])


@contextlib.contextmanager
def _no_bar() -> Iterator[None]:
    """GaiaXPy draws its progress bar on the stdout it found when it was imported."""
    import gaiaxpy.calibrator.calibrator as theirs

    drawn = theirs.tqdm
    theirs.tqdm = lambda rows, **options: rows
    try:
        yield
    finally:
        theirs.tqdm = drawn


def calibrating(data: Path, folder: Path) -> float:
    from gaiaxpy import calibrate
    from gaiaxpy.input_reader.input_reader import InputReader

    bulk, plain = folder / "XpContinuousMeanSpectrum_000000-003111.csv.gz", folder / "plain.csv"
    bulk_xp(data, bulk)
    lines = gzip.decompress(bulk.read_bytes()).decode().splitlines()
    plain.write_text("\n".join(line for line in lines if not line.startswith("#")))
    bases = [gaia_bases.choose(band, 55, release="dr3") for band in gaia_bases.BANDS]
    for basis in bases:
        gaia_bases.operator(basis)
    print(f"\nGaia XP, {ROWS_XP} rows of continuous spectra, with errors and correlations")

    def theirs() -> None:
        with contextlib.redirect_stdout(io.StringIO()), _no_bar():
            calibrate(str(plain), save_file=False)

    def their_reading() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            InputReader(str(plain), calibrate, truncation=False, disable_info=True, user=None, password=None).read()

    gaiaxpy = rate("GaiaXPy: read and calibrate the CSV", ROWS_XP, theirs, repeats=1)
    gaiaxpy_reading = rate("GaiaXPy: read the CSV", ROWS_XP, their_reading, repeats=1)
    gunzip = rate("gunzip of the bulk file alone", ROWS_XP, lambda: gzip.decompress(bulk.read_bytes()))
    ours = rate("ours: read and calibrate the gzipped bulk file", ROWS_XP, lambda: list(iter_xp(look(bulk))))
    columns = _coefficients(bulk)
    parts = [(bases[0], *columns[:3]), (bases[1], *columns[3:])]
    both = rate("ours: calibration alone, flux and errors", ROWS_XP * 5, lambda: [
        gaia_bases.calibrate(parts) for _ in range(5)])
    alone = 1 / (1 / gaiaxpy - 1 / gaiaxpy_reading)
    print(f"  ratio to GaiaXPy: file to spectra {ours / gaiaxpy:.0f}; calibration alone, flux and errors "
          f"{both / alone:.0f}; our time over gunzip's: {gunzip / ours:.2f}")

    def run() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            assert ingest_gaia_xp(Atlas.create(Path(place) / "atlas"), [bulk], workers=1).kept == ROWS_XP

    return rate("whole ingest of the bulk file", ROWS_XP, run, repeats=2)


def _coefficients(bulk: Path) -> list[np.ndarray]:
    from specclip_search.readers.gaia_tables import iter_rows

    rows = [row for batch in iter_rows(look(bulk)) for row in batch]
    return [np.stack([row[f"{band}_{name}"] for row in rows]) for band in ("bp", "rp")
            for name in ("coefficients", "coefficient_errors", "coefficient_correlations")]


def memory(data: Path, counts: list[int], folder: Path) -> None:
    print("\nPeak memory of an ingest of LAMOST files, one process")
    for count in counts:
        place = folder / f"memory-{count}"
        place.mkdir()
        command = [sys.executable, __file__, "--data", str(data), "--memory-run", str(count), "--folder", str(place)]
        print("  " + subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def numbered(path: str, release: str | None) -> Iterator:
    """A real file under the obsid that its name says, so that links can stand for a survey."""
    spectrum = observe_lamost(Path(path), release)
    spectrum.spec_id = int(Path(path).name.split("-")[1])
    spectrum.meta["source"] = path
    yield spectrum


def memory_run(data: Path, count: int, folder: Path) -> None:
    originals = real_files(data)
    for number in range(count):
        target = folder / f"{number // 1000:04d}" / f"spec-{number:07d}-.fits.gz"
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(originals[number % len(originals)])
    atlas = Atlas.create(folder / "atlas")
    before = peak_mib()
    started = time.process_time()
    stage = atlas.spectra(LAMOST_LRS.name)
    with stage.lock():
        plan = Plan(stage.folder)
        plan.update((f for f in find_files([folder], FITS_SUFFIXES) if "atlas" not in f.path), by_count(2048), None)
        report = Ingest(atlas, LAMOST_LRS.name, plan, numbered, workers=1).run()
    assert report.kept == count, report
    rows = count / (time.process_time() - started)
    print(f"{count:>9,} spectra: {peak_mib():,.0f} MiB ({before:,.0f} MiB before it began), "
          f"{rows:,.0f} spectra/s/core")


def peak_mib() -> float:
    """Most memory this process has held, MiB. `getrusage` would count the parent's before the program was loaded."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def real_files(data: Path) -> list[Path]:
    return sorted((data / "lamost").rglob("*.fits.gz"))


def extrapolate(lrs: float, xp: float) -> None:
    print("\nWhole surveys, at these rates (processors alone; disks and networks may be slower)")
    for name, count, speed in (("LAMOST LRS", LRS_SURVEY, lrs), ("Gaia XP continuous", XP_SURVEY, xp)):
        hours = {cores: count / speed / cores / 3600 for cores in (2, 64)}
        print(f"  {count / 1e6:>5,.0f} M {name:<20} {hours[2]:>8.1f} h on 2 cores {hours[64]:>8.2f} h on 64 cores")


def main() -> None:
    parser = argparse.ArgumentParser()
    default = os.environ.get("SPECCLIP_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--memory", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--memory-run", type=int)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.memory_run:
        memory_run(options.data, options.memory_run, options.folder)
        return
    files = real_files(options.data)
    if not files:
        print(f"no LAMOST files below {options.data}; this benchmark needs the real spectra")
        return
    print(f"{len(files)} real LAMOST files, {LAMOST_LRS.size} and {GAIA_XP.size} points")
    reading(files)
    preparing(files)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "lrs").mkdir()
        lrs = ingesting_lrs(files, folder / "lrs", 300 if options.quick else 2400)
        xp = calibrating(options.data, folder)
        memory(options.data, [2000] if options.quick else options.memory, folder)
    extrapolate(lrs, xp)


if __name__ == "__main__":
    main()
