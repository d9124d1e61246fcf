"""What changed between the visits of a star, beyond noise: where, by how much, and when.

Each visit is compared with the star's visit of most signal. Velocities, lines and a second set of lines are measured
for every comparison; what unchanged stars differ by is learned from all comparisons of the atlas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from specclip_search.atlas.files import text_digest
from specclip_search.errors import QueryError
from specclip_search.progress import Progress
from specclip_search.stages.run import Made, Shard, run_stage
from specclip_search.surveys import MODALITIES, get_modality
from specclip_search.tables.provenance import stamp, to_frame

from ..space.observed import observed_spectra
from ..space.resolve import resolve
from ..statistics.p_values import benjamini_hochberg
from .calibration import LEAST_COMPARISONS, Calibration, calibrate, chances, of_smallest
from .compare import Comparison, Visit, compare, on_grid
from .differences import WINDOWS
from .schema import STARS, VISITS
from .visits import VisitTable, visit_table

if TYPE_CHECKING:
    import pandas as pd

    from specclip_search.atlas import Atlas

_FORMAT = "1"
STARS_AT_ONCE = 128
CHANGED = 0.01
"""p-value below which a change is named."""
# km/s between two visits: what real LAMOST repeats show (docs/changes.md), where an atlas has too few of its own
USUAL_FLOOR = 5.0
# a named line is preferred to a window around it that differs little more
_PREFER_LINE = 0.6


def changes(atlas: Atlas, top: int = 100, *, key: str | None = None, progress: Progress | None = None) -> pd.DataFrame:
    """Stars with several visits, those that changed most first; with `key` the visits of one star.

    Parameters
    ----------
    top
        How many stars.
    key
        A key, name or position of a star.
    progress
        Called with (visits compared, visits in all, instrument).

    Returns
    -------
    DataFrame
        Columns of the results `changes`, or for one star of `visit_changes`. p-values are learned from the atlas's own
        repeats, most of which must be of unchanged stars, and are missing where there are fewer than 20.

    Raises
    ------
    QueryError
        If no star has two visits that are kept as observed, or `key` is not one of those.

    Examples
    --------
    >>> from specclip_search import Atlas, changes
    >>> changes(Atlas("my-atlas"), top=10)[["spec_id", "kind", "p_value", "what"]]    # doctest: +SKIP
    """
    if top < 1:
        raise QueryError(f"top must be at least 1; found {top}.", "Give a positive number.")
    modalities = [name for name in atlas.observed_names() if name in MODALITIES and _is_compared(name)]
    if not modalities:
        raise QueryError(
            "The atlas holds no spectra as observed whose stars could have several visits.",
            "Run `specclip-search ingest lamost ... --observed`.",
        )
    _update(atlas, modalities, progress)
    if key is not None:
        return _of_one(atlas, key)
    table = atlas.results("changes").read()
    if not table.num_rows:
        raise _no_visits()
    order = np.lexsort((table["spec_id"].to_numpy(), -_strength(table), _p(table)))
    table = table.take(pa.array(order))
    p = _p(table)
    q = np.where(np.isfinite(p), benjamini_hochberg(np.where(np.isfinite(p), p, 1.0)), np.nan)
    table = table.set_column(
        table.column_names.index("q_value"), STARS.field("q_value"), pa.array(q, pa.float64(), from_pandas=True)
    )
    return stamp(to_frame(table.slice(0, top)), "changes", {"top": top})


def _is_compared(modality: str) -> bool:
    """Optical instruments whose spectra are single observations; Gaia's mean spectra are not."""
    known = get_modality(modality)
    return known.unit == "Angstrom" and not known.names_stars


def _no_visits() -> QueryError:
    return QueryError(
        "No star of the atlas has two visits that are kept as observed.",
        "Ingest more visits; `specclip-search ingest ... --observed` adds observed spectra of those that are there.",
    )


def _p(table: pa.Table) -> np.ndarray:
    return np.asarray(table["p_value"].to_numpy(), np.float64)


def _strength(table: pa.Table) -> np.ndarray:
    """What orders stars without p-values: the larger of the two significances."""
    velocity = np.abs(table["rv_change"].to_numpy() / table["rv_change_err"].to_numpy())
    return np.asarray(np.fmax(velocity, np.abs(table["window_sigma"].to_numpy())))


def _of_one(atlas: Atlas, key: str) -> pd.DataFrame:
    found = resolve(atlas, key, files=False)
    table = atlas.results("visit_changes").read()
    spec_id, modality = table["spec_id"].to_numpy(), np.array(table["modality"].to_pylist(), object)
    for one in found.keys:
        mine = np.flatnonzero((spec_id == one.spec_id) & (modality == one.modality))
        if len(mine):
            # all visits that are compared with the same one are of this star
            names = ("modality", "compared_with", "compared_epoch")
            star = table.select(names).take(pa.array(mine[:1])).to_pylist()[0]
            rows = table.select(names).to_pylist()
            chosen = table.take(pa.array([number for number, row in enumerate(rows) if row == star]))
            return stamp(to_frame(chosen.sort_by([("time", "ascending")])), "changes", {"key": key})
    raise QueryError(
        f"{key} has only one visit that is kept as observed.", "`specclip-search changes` lists stars with several."
    )


def _update(atlas: Atlas, modalities: Sequence[str], progress: Progress | None) -> None:
    """Bring both results up to date, a shard an instrument."""
    known = {name: number for number, name in enumerate(MODALITIES)}
    catalogues = [f"{name}:{atlas.catalog(name).digest}" for name in atlas.catalogs()]
    measured: dict[str, tuple[pa.Table, pa.Table, dict[str, Any]]] = {}

    def made(which: int, modality: str) -> Made:
        if modality not in measured:
            measured[modality] = _measured(atlas, modality, progress)
        visits, stars, counts = measured[modality]
        table = stars if which else visits
        return Made(table, table.schema, counts)

    shards = [
        Shard(
            known[name],
            text_digest(_FORMAT, atlas.observed(name).digest, atlas.spectra(name).digest, *catalogues),
            1,
            name,
        )
        for name in modalities
    ]
    for which, result in enumerate(("visit_changes", "changes")):
        stage = atlas.results(result)
        with stage.lock():
            run_stage(stage, shards, partial(made, which))


@dataclass
class _Star:
    """One star while it is measured: rows of the visit table, the compared one first, and the comparisons."""

    rows: list[int]
    comparisons: list[Comparison | None]


def _measured(atlas: Atlas, modality: str, progress: Progress | None) -> tuple[pa.Table, pa.Table, dict[str, Any]]:
    """Rows of `visit_changes` and `changes`, and counts: visits = compared + without overlap."""
    table = visit_table(atlas, modality)
    stars = _compared(atlas, table, progress)
    found = [one for star in stars for one in star.comparisons if one is not None]
    known = calibrate(found) if len(found) >= LEAST_COMPARISONS else None
    rows = table.rows.to_pylist()
    visits: list[dict[str, Any]] = []
    summaries: list[dict[str, Any]] = []
    for star in stars:
        told = _visits_of(modality, [rows[number] for number in star.rows], star.comparisons, known)
        visits += told
        summary = _summary(told, star.comparisons, known)
        if summary is not None:
            summaries.append(summary)
    counts = {
        "visits": len(table),
        "compared": len(found) + sum(any(one is not None for one in star.comparisons) for star in stars),
        "comparisons": len(found),
        "calibration": None if known is None else known.to_dict(),
    }
    return pa.Table.from_pylist(visits, VISITS), pa.Table.from_pylist(summaries, STARS), counts


def _compared(atlas: Atlas, table: VisitTable, progress: Progress | None) -> list[_Star]:
    """Compare the visits of each star with that of most signal, some stars at a time."""
    keys = list(zip(*(table.rows[name].to_pylist() for name in ("spec_id", "release", "epoch")), strict=True))
    edges = np.searchsorted(table.star, np.arange(table.star[-1] + 2)) if len(table) else np.zeros(1, np.int64)
    stars = []
    for first in range(0, len(edges) - 1, STARS_AT_ONCE):
        some = edges[first : first + STARS_AT_ONCE + 1]
        spectra = observed_spectra(atlas, table.modality, keys[some[0] : some[-1]])
        visits = [Visit.of(*on_grid(one.wavelength, one.flux, one.ivar)) for one in spectra]
        for lo, hi in pairwise(some):
            mine = visits[lo - some[0] : hi - some[0]]
            best = int(np.argmax([one.weight for one in mine]))
            order = [best, *(i for i in range(len(mine)) if i != best)]
            stars.append(_Star([int(lo) + i for i in order], [compare(mine[i], mine[best]) for i in order[1:]]))
        if progress is not None:
            progress(int(some[-1]), len(table), table.modality)
    return stars


def _visits_of(
    modality: str, rows: Sequence[dict[str, Any]], comparisons: Sequence[Comparison | None], known: Calibration | None
) -> list[dict[str, Any]]:
    """Rows of `visit_changes` of one star, the compared visit first."""
    floor = USUAL_FLOOR if known is None else known.velocity_floor
    changed = [0.0, *(None if one is None else one.shift.velocity for one in comparisons)]
    pairs = [(row["survey_rv"], v) for row, v in zip(rows, changed, strict=True)]
    given = [rv - v for rv, v in pairs if rv is not None and v is not None]
    zero = float(np.median(given)) if given else None
    told = []
    for number, (row, v) in enumerate(zip(rows, changed, strict=True)):
        one = comparisons[number - 1] if number else None
        statistical = 0.0 if one is None else one.shift.error
        entry: dict[str, Any] = {
            "modality": modality,
            **{name: row[name] for name in ("spec_id", "release", "epoch", "source_id", "time", "time_scale", "snr")},
            "compared_with": rows[0]["spec_id"],
            "compared_epoch": rows[0]["epoch"],
            "survey_rv": row["survey_rv"],
            "rv_change": v,
            "rv": None if v is None or zero is None else zero + v,
            "rv_err": None if v is None else float(np.hypot(statistical, floor / np.sqrt(2.0))),
            "_ra": row["ra"],
            "_dec": row["dec"],
        }
        if one is not None:
            entry |= _differs(one, known, row, rows[0])
        told.append(entry)
    return told


def _differs(
    one: Comparison, known: Calibration | None, row: dict[str, Any], other: dict[str, Any]
) -> dict[str, Any]:
    """What a comparison shows, as columns of `visit_changes`."""
    scale = np.ones(len(WINDOWS)) if known is None else known.window_scale
    place = _telling(one, scale)
    width, sigma = float(one.difference.width[place]), float(one.difference.sigma[place] / scale[place])
    entry: dict[str, Any] = {"window": WINDOWS[place].name, "window_width": width, "window_sigma": sigma}
    if known is None:
        return entry
    p = chances(one, known)
    said = []
    if p.second < CHANGED:
        double = row if one.second_in_first else other
        said.append(
            f"two sets of lines {abs(one.second.separation):.0f} km/s apart, the fainter with "
            f"{100 * one.second.share:.0f} % of the light, {_when(double)}"
        )
    if p.shape < CHANGED:
        more = row if width > 0 else other
        much = f"{abs(width):.2f} Angstrom more flux, {abs(sigma):.1f} sigma"
        said.append(f"{WINDOWS[place].name}: {much}, {_when(more)}")
    if p.velocity < CHANGED:
        error = np.hypot(one.shift.error, known.velocity_floor)
        said.append(f"velocity {one.shift.velocity:+.0f} +- {error:.0f} km/s {_when(row)}, against {_when(other)}")
    return entry | {
        "p_velocity": p.velocity,
        "p_lines": p.shape,
        "p_second": p.second,
        "what": "; ".join(said) or None,
    }


def _telling(one: Comparison, scale: np.ndarray) -> int:
    """The window that differs most; the named line in it where that differs nearly as much."""
    strength = np.nan_to_num(np.abs(one.difference.sigma) / scale)
    place = int(np.argmax(strength))
    near = [
        i
        for i, window in enumerate(WINDOWS)
        if window.line and window.lo < WINDOWS[place].hi and window.hi > WINDOWS[place].lo
    ]
    best = max(near, key=lambda i: strength[i], default=place)
    return best if strength[best] >= _PREFER_LINE * strength[place] else place


def _when(row: dict[str, Any]) -> str:
    return f"at {row['time_scale']} {row['time']:.2f}" if row["time"] is not None else f"in {row['spec_id']}"


def _summary(
    visits: Sequence[dict[str, Any]], comparisons: Sequence[Comparison | None], known: Calibration | None
) -> dict[str, Any] | None:
    """The row of `changes` of one star; None where no two of its visits could be compared."""
    there = [(row, one) for row, one in zip(visits[1:], comparisons, strict=True) if one is not None]
    if not there:
        return None
    floor = USUAL_FLOOR if known is None else known.velocity_floor
    first = visits[0]
    times = [row["time"] for row in visits if row["time"] is not None]
    fast, shift = max(
        ((row, one.shift) for row, one in there),
        key=lambda pair: abs(pair[1].velocity) / np.hypot(pair[1].error, floor),
    )
    line = max((row for row, _ in there), key=lambda row: abs(row["window_sigma"]))
    entry: dict[str, Any] = {
        **{name: first[name] for name in ("modality", "spec_id", "release", "epoch", "source_id", "time_scale")},
        "visits": len(visits),
        "first_time": min(times, default=None),
        "last_time": max(times, default=None),
        "rv_change": fast["rv_change"],
        "rv_change_err": float(np.hypot(shift.error, floor)),
        **{name: line[name] for name in ("window", "window_width", "window_sigma")},
        "window_time": (line if line["window_width"] > 0 else first)["time"],
        "ra": first["_ra"],
        "dec": first["_dec"],
    }
    if known is None:
        return entry
    names = ("p_velocity", "p_lines", "p_second")
    p = {name: of_smallest(min(row[name] for row, _ in there), len(there)) for name in names}
    double, _ = min(there, key=lambda pair: pair[0]["p_second"])
    second = next(one for row, one in there if row is double).second
    if p["p_second"] < CHANGED:
        entry |= {"kind": "double_lined", "separation": abs(second.separation), "share": second.share}
    else:
        entry["kind"] = "line" if p["p_lines"] < min(CHANGED, p["p_velocity"]) else "velocity"
        if min(p["p_lines"], p["p_velocity"]) >= CHANGED:
            entry["kind"] = "none"
    told = min(there, key=lambda pair: min(pair[0][name] for name in p))[0]
    return entry | p | {
        "p_value": of_smallest(min(p.values()), known.tests),
        "rv_variable": p["p_velocity"] < CHANGED,
        "what": told["what"] if entry["kind"] != "none" else None,
    }
