"""Gaia DR4's rows beside DR3's: processor time of a whole ingest, from a bulk file to shards.

    python tests/benchmarks/gaia_dr4.py [--data DIR] [--rows 50000] [--repeats 2]

Both files hold the two real solutions of the archive's test file, tiled under ids of their own. DR4's are these,
cut to 51 BP coefficients, calibrated with a made basis (tests/dr4_files.py), as DR4's own is not published yet.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib.util
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from specclip_search.atlas import Atlas
from specclip_search.ingest import ingest_gaia_xp

# by its path: the folder of tests has a folder of the package's name
_spec = importlib.util.spec_from_file_location("dr4_files", Path(__file__).parents[1] / "dr4_files.py")
assert _spec is not None
assert _spec.loader is not None
dr4_files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(dr4_files)

BLOCK = 1000
BP = 51


def tiled(data: Path, target: Path, rows: int, dr4: bool) -> None:
    """A gzipped bulk file of `rows` rows, written block by block: each block is a member of its own."""
    with open(data / "gaia_xp" / "continuous" / "XP_CONTINUOUS_RAW.csv", newline="", encoding="utf-8") as stream:
        names, *real = csv.reader(stream)
    if dr4:
        real = [cut(dict(zip(names, row, strict=True))) for row in real]
    with open(target, "wb") as out:
        for first in range(0, rows, BLOCK):
            lines = [] if first else [",".join(names)]
            for number in range(first, min(first + BLOCK, rows)):
                row = [f'"{value}"' if "," in value else value for value in real[number % len(real)]]
                row[names.index("source_id")] = str(5_000_000_000_000_000_000 + number)
                lines.append(",".join(row))
            out.write(gzip.compress(("\n".join(lines) + "\n").encode(), 1))


def cut(row: dict[str, str]) -> list[str]:
    """A row with the first 51 of its BP coefficients, and the bases' numbers of the made DR4."""
    for name, count in (("coefficients", BP), ("coefficient_errors", BP),
                        ("coefficient_correlations", BP * (BP - 1) // 2)):
        values = row[f"bp_{name}"].strip("()[]").split(",")
        row[f"bp_{name}"] = "(" + ",".join(values[:count]) + ")"
    row |= {"bp_n_parameters": str(BP), "bp_basis_function_id": str(dr4_files.BP_BASIS),
            "rp_basis_function_id": str(dr4_files.RP_BASIS)}
    return list(row.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[3] / "shared" / "data")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place, dr4_files.installed():
        files = {name: Path(place) / f"{name}.csv.gz" for name in ("dr3", "dr4")}
        for name, file in files.items():
            tiled(options.data, file, options.rows, name == "dr4")
            print(f"{name}: {options.rows:,} rows, {file.stat().st_size / 1e6:,.0f} MB")
        for _ in range(options.repeats):  # in turn, so that other load falls on both
            for name, file in files.items():
                with tempfile.TemporaryDirectory(dir=place) as folder:
                    started = time.process_time()
                    report = ingest_gaia_xp(Atlas.create(Path(folder) / "atlas"), [file], workers=1)
                    seconds = time.process_time() - started
                assert (report.read, report.kept) == (options.rows, options.rows), report
                best[name] = min(best.get(name, seconds), seconds)
    for name, seconds in best.items():
        print(f"{name}: {seconds / options.rows * 1e6:,.0f} us of processor time a row")
    print(f"dr4 / dr3: {best['dr4'] / best['dr3']:.3f}")


if __name__ == "__main__":
    main()
