"""The user's own list of known metal-poor stars, found in the atlas by id or by position."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specclip_search.errors import QueryError
from specclip_search.keys import parse_int64

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

MATCH_ARCSEC = 3.0
_ID_NAMES = ("source_id", "gaia_source_id", "gaia_dr3_source_id", "dr3_source_id", "gaiaedr3_source_id")
_RA_NAMES, _DEC_NAMES = ("ra", "raj2000", "ra_deg", "_ra"), ("dec", "dej2000", "dec_deg", "decj2000", "_de")
_FEH_NAMES = ("feh", "fe_h", "[fe/h]")
_CFE_NAMES = ("c_fe", "cfe", "[c/fe]")


@dataclass(frozen=True, slots=True)
class KnownStars:
    """Stars of the user's list that are in the atlas.

    Attributes
    ----------
    source_id
        (n,) int64, distinct.
    feh, c_fe
        (n,) float64, NaN if not given.
    listed
        Number of rows in the list.
    by
        ``source_id`` or ``position``.
    """

    source_id: np.ndarray
    feh: np.ndarray
    c_fe: np.ndarray
    listed: int
    by: str


def read_known(atlas: Atlas, known: Any) -> KnownStars:
    """Read a list of known stars and find them in the atlas.

    Parameters
    ----------
    known
        Path of a CSV, ECSV, FITS or VOTable file, or a table with named columns (pandas, astropy).
        It has `source_id`, or `ra` and `dec` in degrees (matched within 3 arcsec); `feh` and `c_fe`
        are used if given.

    Raises
    ------
    QueryError
        If the file cannot be read or has neither ids nor positions.
    """
    table = _read(known)
    names = {str(name).strip().lower(): str(name) for name in table.colnames}
    listed = len(table)
    feh, c_fe = (_floats(table, names, aliases) for aliases in (_FEH_NAMES, _CFE_NAMES))
    id_name = next((names[name] for name in _ID_NAMES if name in names), None)
    if id_name is not None:
        place, source_id, by = *_by_id(table[id_name]), "source_id"
        here = np.isin(source_id, _atlas_stars(atlas)[0])
        place, source_id = place[here], source_id[here]
    else:
        ra, dec = (_floats(table, names, aliases) for aliases in (_RA_NAMES, _DEC_NAMES))
        if not (np.isfinite(ra) & np.isfinite(dec)).any():
            raise QueryError(
                f"The list of known stars has neither source_id nor ra and dec in degrees; "
                f"found columns {', '.join(map(str, table.colnames))}.",
                "Name a column source_id, or two columns ra and dec.",
            )
        place, source_id, by = *_by_position(atlas, ra, dec), "position"
    # several rows of one star (one per reference): use their median
    distinct, inverse = np.unique(source_id, return_inverse=True)
    return KnownStars(
        distinct,
        _medians(feh[place], inverse, len(distinct)),
        _medians(c_fe[place], inverse, len(distinct)),
        listed,
        by,
    )


def _read(known: Any) -> Any:
    from astropy.table import Table

    if not isinstance(known, str | Path):
        try:
            return Table.from_pandas(known) if hasattr(known, "iloc") else Table(known)
        except (ValueError, TypeError) as error:
            raise QueryError(
                f"The list of known stars is not a table ({error}).", "Give a file or a table with named columns."
            ) from error
    path = Path(known)
    if not path.is_file():
        raise QueryError(f"There is no file {path} with known stars.", "Check --known.")
    kinds = {
        ".csv": "ascii.csv",
        ".ecsv": "ascii.ecsv",
        ".fits": "fits",
        ".fit": "fits",
        ".vot": "votable",
        ".xml": "votable",
    }
    kind = kinds.get(Path(path.name.removesuffix(".gz")).suffix.lower())
    try:
        return Table.read(path, format=kind)
    except Exception as error:  # astropy's readers raise many kinds
        raise QueryError(
            f"{path} cannot be read as a table of known stars ({str(error).splitlines()[0]}).",
            "Give a CSV, ECSV, FITS or VOTable file with source_id, or ra and dec.",
        ) from error


def _floats(table: Any, names: dict[str, str], aliases: tuple[str, ...]) -> np.ndarray:
    name = next((names[alias] for alias in aliases if alias in names), None)
    if name is None:
        return np.full(len(table), np.nan)
    column = np.ma.asarray(table[name])
    values = np.ma.filled(column, np.nan) if column.dtype.kind == "f" else np.ma.filled(column.astype(object), np.nan)
    return np.array([_number(value) for value in values], dtype=np.float64)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _by_id(column: Any) -> tuple[np.ndarray, np.ndarray]:
    if column.dtype.kind == "f":
        raise QueryError(
            "The list's source_id column holds floating-point numbers, which cannot hold Gaia ids exactly.",
            "Store it as integers or text.",
        )
    mask = np.ma.getmaskarray(np.ma.asarray(column))
    place = np.flatnonzero(~mask)
    ids = [
        parse_int64(value if column.dtype.kind in "iu" else str(value), "source_id of the list")
        for value in column[place]
    ]
    return place, np.array(ids, dtype=np.int64)


def _atlas_stars(atlas: Atlas) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """source_id, ra and dec of all stars with spectra, each star once."""
    pieces = []
    for modality in atlas.modalities():
        for _, batch in atlas.spectra(modality).iter_batches(["source_id", "ra", "dec"], 65536):
            kept = np.asarray(batch.column("source_id").is_valid())
            pieces.append(
                [
                    batch.column("source_id").fill_null(0).to_numpy(zero_copy_only=False)[kept],
                    *(batch.column(name).to_numpy(zero_copy_only=False)[kept] for name in ("ra", "dec")),
                ]
            )
    if not pieces:
        return np.empty(0, np.int64), np.empty(0), np.empty(0)
    ids, ra, dec = (np.concatenate(column) for column in zip(*pieces, strict=True))
    # prefer rows with a position
    order = np.lexsort((~np.isfinite(ra), ids))
    _, first = np.unique(ids[order], return_index=True)
    return ids[order][first], ra[order][first], dec[order][first]


def _by_position(atlas: Atlas, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from astropy import units
    from astropy.coordinates import SkyCoord

    ids, star_ra, star_dec = _atlas_stars(atlas)
    placed = np.flatnonzero(np.isfinite(star_ra) & np.isfinite(star_dec))
    asked = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    if len(placed) == 0:
        raise QueryError(
            "The list gives positions, and the atlas holds none.",
            "Add source_id to the list, or ingest a catalogue with ra and dec.",
        )
    stars = SkyCoord(star_ra[placed], star_dec[placed], unit="deg")
    nearest, distance, _ = SkyCoord(ra[asked], dec[asked], unit="deg").match_to_catalog_sky(stars)
    close = distance < MATCH_ARCSEC * units.arcsec
    return asked[close], ids[placed[nearest[close]]]


def _medians(values: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    result = np.full(groups, np.nan)
    for number in range(groups):
        members = values[(group == number) & np.isfinite(values)]
        if len(members):
            result[number] = np.median(members)
    return result
