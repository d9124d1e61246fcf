"""The user's own list of known metal-poor stars, found in the atlas by id or by position."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from specclip_search.errors import QueryError, SpecclipError

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

MATCH_ARCSEC = 3.0


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
    notes
        Values of the list that were not used, and why.
    """

    source_id: np.ndarray
    feh: np.ndarray
    c_fe: np.ndarray
    listed: int
    by: str
    notes: list[str] = field(default_factory=list)


def read_known(atlas: Atlas, known: Any) -> KnownStars:
    """Read a list of known stars and find them in the atlas.

    Parameters
    ----------
    known
        Path of a catalogue of any format that `ingest catalog` reads, or a table with named columns (pandas,
        astropy, Arrow). It has `source_id`, or `ra` and `dec` (matched within 3 arcsec); `feh` and `c_fe`
        are used where given. Names, missing values and limits are understood as in catalogues.

    Raises
    ------
    QueryError
        If the file cannot be read or has neither ids nor positions.
    """
    try:
        table, notes = _read(known)
    except QueryError:
        raise
    except SpecclipError as error:
        raise QueryError(f"The list of known stars cannot be used: {error.message}", error.hint) from None
    listed = table.num_rows
    feh, c_fe = (_floats(table, name) for name in ("feh", "c_fe"))
    if "source_id" in table.column_names and table["source_id"].null_count < listed:
        ids = table["source_id"]
        place = np.flatnonzero(ids.is_valid().to_numpy())
        source_id, by = ids.drop_null().to_numpy(), "source_id"
        here = np.isin(source_id, _atlas_stars(atlas)[0])
        place, source_id = place[here], source_id[here]
    else:
        ra, dec = _floats(table, "ra"), _floats(table, "dec")
        if not (np.isfinite(ra) & np.isfinite(dec)).any():
            raise QueryError(
                f"The list of known stars has neither source_id nor ra and dec in degrees; "
                f"found columns {', '.join(table.column_names)}.",
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
        notes,
    )


def _read(known: Any) -> tuple[pa.Table, list[str]]:
    """The list's columns as catalogues have them, and what became null on the way."""
    from specclip_search.catalogs.arrow import astropy_to_arrow, table_in_memory
    from specclip_search.catalogs.columns import convert_chunk, plan_columns
    from specclip_search.catalogs.formats import open_catalog
    from specclip_search.catalogs.ingest import holds_ids

    if isinstance(known, str | Path):
        path = Path(known)
        if not path.exists():
            raise QueryError(f"There is no file {path} with known stars.", "Check --known.")
        opened = open_catalog(path)
    else:
        try:
            opened = table_in_memory(_arrow(known, astropy_to_arrow))
        except (ValueError, TypeError, pa.ArrowInvalid) as error:
            raise QueryError(
                f"The list of known stars is not a table ({error}).", "Give a file or a table with named columns."
            ) from error
    plan = plan_columns(opened.schema, looks_like_id=lambda name: holds_ids(opened, name))
    wanted = [column.source for column in plan.columns]
    pieces, counts = [plan.schema.empty_table()], Counter[tuple[str, str]]()
    for chunk in opened.chunks(wanted):
        done = convert_chunk(chunk, plan, keep_all=True)
        pieces.append(done.table)
        for name, found in done.cleaned.items():
            counts.update({(name, what): count for what, count in found.items()})
        counts.update({(name, "no valid id"): count for name, count in done.invalid_ids.items()})
    words = {"missing": "codes for a missing value", "implausible": "values that no star can have", "limits": "limits",
             "not_numbers": "values that are no number", "no valid id": "values that are no valid id"}
    notes = [f"the list of known stars: {count} {words[what]} in {name} not used"
             for (name, what), count in sorted(counts.items()) if name in ("source_id", "feh", "c_fe", "ra", "dec")]
    return pa.concat_tables(pieces), notes


def _arrow(known: Any, from_astropy: Callable[[Any], pa.Table]) -> pa.Table:
    from astropy.table import Table

    if isinstance(known, pa.Table):
        return known
    return from_astropy(Table.from_pandas(known) if hasattr(known, "iloc") else Table(known))


def _floats(table: pa.Table, name: str) -> np.ndarray:
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    return table[name].cast(pa.float64()).to_numpy().astype(np.float64)


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
