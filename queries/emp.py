"""Candidates for extremely metal-poor stars: one calibrated probability a star, its evidence beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from specclip_search.atlas.columns import table_from_columns
from specclip_search.atlas.files import text_digest
from specclip_search.errors import QueryError
from specclip_search.keys import ACCEPTANCE_SPLIT, split_of

from .emp_evidence import InstrumentEvidence, instrument_evidence
from .emp_flags import HOT_TEFF, flag
from .emp_probability import Calibration, fit
from .emp_stars import Stars, read_stars
from .emp_table import PARTS, SIDES, emp_schema
from .known_stars import KnownStars, read_known
from .labels import row_labels
from .pairs import LRS, XP
from .provenance import stamp
from .seeds import Seeds, emulator_seeds
from .space import Space, open_space

if TYPE_CHECKING:
    import pandas as pd

    from specclip_search.atlas import Atlas

REVISION = 1
# where no star of the atlas is known to lie below, the poorest ones that are known serve as seeds
FEWEST_SEEDS = 20
HOT_FACTOR = 0.05
# hot stars that no catalogue gives [Fe/H] are taught as ordinary ones: weak lines alone prove nothing
HOT_FEH = 0.0
SHARD_ROWS = 65_536
LABELS = ("teff", "logg", "feh", "alpha_fe", "alpha_m", "c_fe")
Progress = Callable[..., None]


@dataclass
class EmpScores:
    """Probability and evidence of every star.

    Attributes
    ----------
    stars
        The stars, with the rows of their spectra.
    probability, feh, feh_err
        (N,) float64.
    parts
        Evidence columns by name, (N,) float64, NaN where there is none.
    flags
        (N,) object: space-separated words, empty where there is nothing to say.
    notes
        What a user should know about seeds and calibration.
    """

    stars: Stars
    probability: np.ndarray
    feh: np.ndarray
    feh_err: np.ndarray
    parts: dict[str, np.ndarray]
    flags: np.ndarray
    notes: list[str]


def emp_candidates(
    atlas: Atlas,
    below: float = -3.0,
    known: Any = None,
    top: int = 100,
    model: str | None = None,
    *,
    builtin_seeds: bool = True,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Stars most likely to be of [Fe/H] < `below`.

    Parameters
    ----------
    below
        The metallicity asked for, between -6 and 0.
    known
        The user's own known metal-poor stars: a file or table with `source_id`, or `ra` and `dec`
        in degrees (matched within 3 arcsec), and `feh` where known.
    top
        How many rows to return.
    model
        Whose vectors; the active model by default.
    builtin_seeds
        Use the emulator's model spectra as reference stars, too.
    progress
        Called with (done, total, note).

    Returns
    -------
    pandas.DataFrame
        rank, source_id, lrs_spec_id, xp_spec_id, probability, feh (combined estimate), feh_err,
        evidence of each instrument (`lrs_...`, `xp_...`: labelled neighbours' median and scatter,
        linear estimate, similarity to the nearest EMP seed, seeds among the neighbours, similarity to
        the nearest labelled star), flags, then position and labels. A star's own label is never
        evidence for itself. `.attrs` holds model, digests, options, seeds and calibration.

    Raises
    ------
    QueryError
        If nothing is labelled and there are no seeds, or an argument is not usable.
    """
    if not -6.0 <= below <= 0.0:
        raise QueryError(f"below must lie between -6 and 0; found {below:g}.", "-3 is extremely, -2 very metal-poor.")
    if top < 1:
        raise QueryError(f"top must be at least 1; found {top}.", "Ask for one row or more.")
    space = open_space(atlas, model)
    known_stars = None if known is None else read_known(atlas, known)
    scores = score_stars(space, below, known_stars, builtin_seeds, progress)
    _store(space, scores, below)
    frame = _top(space, scores, top)
    options = {
        "below": below,
        "known": None if known is None else str(known) if not hasattr(known, "columns") else "table",
        "top": top,
        "builtin_seeds": builtin_seeds,
    }
    return stamp(frame, "emp", options, **space.origin(), notes=scores.notes)


def score_stars(
    space: Space,
    below: float,
    known: KnownStars | None = None,
    builtin_seeds: bool = True,
    progress: Progress | None = None,
) -> EmpScores:
    """Evidence and probability of all stars, without storing them."""
    stars = read_stars(space)
    notes: list[str] = []
    evidence, label = {}, np.full(len(stars), np.nan)
    instruments = [modality for modality in (LRS, XP) if modality in space.modalities]
    for turn, modality in enumerate(instruments):
        if progress is not None:
            progress(turn, len(instruments), f"evidence of {modality}")
        evidence[modality], own = _evidence(space, modality, below, known, builtin_seeds, notes)
        # what a catalogue says of the star itself: only ever compared with, never used as evidence for it
        label = np.where(np.isfinite(label), label, stars.take(modality, own))
    if known is not None:
        notes.append(f"{len(known.source_id)} of {known.listed} listed stars found by {known.by}")
    parts = {
        f"{side}_{name}": stars.take(modality, getattr(evidence[modality], name))
        if modality in evidence
        else np.full(len(stars), np.nan)
        for side, modality in SIDES.items()
        for name in PARTS
    }
    probability, feh, feh_err = _combine(stars, parts, label, below, notes)
    flags, hot = flag(space, stars, parts, feh, feh_err, probability)
    probability = np.where(hot, HOT_FACTOR * probability, probability)
    if progress is not None:
        progress(len(instruments), len(instruments), "")
    return EmpScores(stars, probability, feh, feh_err, parts, flags, notes)


def _evidence(
    space: Space, modality: str, below: float, known: KnownStars | None, builtin_seeds: bool, notes: list[str]
) -> tuple[InstrumentEvidence, np.ndarray]:
    """Evidence of one instrument's spectra, and the catalogues' [Fe/H] of each."""
    keys = space.keys(modality)
    source_id = np.asarray(keys.source_id)
    found = row_labels(space.atlas, keys, modality, LABELS)
    nothing = np.full(len(keys), np.nan)
    labels = {name: found.get(name, nothing.copy()) for name in LABELS}
    # acceptance stars are searched, but what is known of them teaches nothing
    may_teach = ~((source_id >= 0) & (split_of(source_id) == ACCEPTANCE_SPLIT))
    own = np.where(may_teach, labels["feh"], np.nan)
    contrast = may_teach & ~np.isfinite(own) & (labels["teff"] > HOT_TEFF)
    labels["feh"] = np.where(contrast, HOT_FEH, labels["feh"])
    usable = may_teach & np.isfinite(labels["feh"])
    is_seed = usable & (labels["feh"] < below)
    if known is not None:
        is_seed |= _add_known(labels, usable, source_id, known, below)
    if is_seed.sum() < FEWEST_SEEDS and usable.any():
        poorest = np.sort(labels["feh"][usable])[min(FEWEST_SEEDS, int(usable.sum())) - 1]
        notes.append(
            f"{modality}: {int(is_seed.sum())} known stars below [Fe/H] = {below:g}; "
            f"those up to {poorest:.2f} serve as seeds"
        )
        is_seed |= usable & (labels["feh"] <= poorest)
    extra = Seeds.none(space.index(modality).dim)
    if builtin_seeds:
        extra = emulator_seeds(space, modality, {name: np.where(usable, labels[name], np.nan) for name in LABELS})
        notes.append(f"{modality}: {len(extra)} built-in model stars")
    if not usable.any() and len(extra) == 0:
        raise QueryError(
            f"No {modality} star of this atlas has [Fe/H], and there are no other seeds.",
            "Ingest a catalogue with feh, give --known FILE, or allow built-in seeds.",
        )
    return instrument_evidence(space, modality, labels, usable, is_seed, extra, below), own


def _add_known(
    labels: dict[str, np.ndarray], usable: np.ndarray, source_id: np.ndarray, known: KnownStars, below: float
) -> np.ndarray:
    """Give the user's known stars their labels; returns which rows they are."""
    place = np.minimum(np.searchsorted(known.source_id, source_id), max(len(known.source_id) - 1, 0))
    here = (known.source_id[place] == source_id) if len(known.source_id) else np.zeros(len(source_id), dtype=bool)
    feh = np.where(np.isfinite(known.feh), known.feh, below)
    labels["feh"][here] = feh[place[here]]
    labels["c_fe"][here] = known.c_fe[place[here]]
    usable |= here
    return here


def _combine(
    stars: Stars, parts: dict[str, np.ndarray], label: np.ndarray, below: float, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probability, [Fe/H] and error of every star; stars with both, one or the other instrument apart."""
    probability, feh, feh_err = np.zeros(len(stars)), np.full(len(stars), np.nan), np.full(len(stars), np.nan)
    has = {side: np.isfinite(parts[f"{side}_feh"]) for side in SIDES}
    for sides in (("lrs", "xp"), ("lrs",), ("xp",)):
        here = np.all([has[side] if side in sides else ~has[side] for side in SIDES], axis=0)
        if not here.any():
            continue
        evidence, terms = _columns(stars, parts, sides)
        everyone = np.all([has[side] for side in sides], axis=0)
        learn = everyone & np.isfinite(label) & np.isfinite(evidence).all(axis=1)
        calibration: Calibration = fit(evidence[learn], terms[learn], label[learn], below)
        if calibration.note:
            notes.append(f"{' and '.join(sides)}: {calibration.note}")
        rows = np.flatnonzero(here)
        feh[rows], feh_err[rows], probability[rows] = calibration.predict(evidence[rows], terms[rows], below)
    return np.nan_to_num(probability), feh, feh_err


def _columns(stars: Stars, parts: dict[str, np.ndarray], sides: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Evidence columns ([Fe/H] estimates) and what the error depends on, for stars with these instruments."""
    evidence, terms = [], []
    for side in sides:
        neighbours, linear = parts[f"{side}_feh"], parts[f"{side}_linear_feh"]
        seeded = parts[f"{side}_seeded_feh"]
        evidence += [neighbours, *(np.where(np.isfinite(column), column, neighbours) for column in (linear, seeded))]
        snr = stars.snr[SIDES[side]]
        terms += [
            np.nan_to_num(np.log10(np.maximum(snr, 1.0)), nan=1.0),
            np.nan_to_num(parts[f"{side}_feh_sigma"], nan=0.5),
            np.nan_to_num(np.abs(linear - neighbours), nan=0.5),
        ]
    return np.column_stack(evidence), np.column_stack(terms)


def _rows_table(space: Space, scores: EmpScores, chosen: np.ndarray) -> pa.Table:
    schema = emp_schema()
    stars = scores.stars
    columns: dict[str, Any] = {"source_id": np.ma.masked_less(stars.source_id[chosen], 0)}
    for side, modality in SIDES.items():
        row = stars.row[modality][chosen]
        keys = space.keys(modality) if modality in space.modalities else None
        ids = np.full(len(row), -1, dtype=np.int64)
        release = np.full(len(row), None, dtype=object)
        if keys is not None:
            ids[row >= 0] = keys.spec_id[row[row >= 0]]
            release[row >= 0] = keys.release_names(row[row >= 0])
        columns |= {
            f"{side}_spec_id": np.ma.masked_less(ids, 0),
            f"{side}_release": release,
            f"{side}_snr": stars.snr[modality][chosen],
        }
    columns |= {
        "probability": scores.probability[chosen],
        "feh": scores.feh[chosen],
        "feh_err": scores.feh_err[chosen],
        "flags": scores.flags[chosen],
        **{name: values[chosen] for name, values in scores.parts.items()},
    }
    for name in schema.names:
        if pa.types.is_floating(schema.field(name).type):
            columns[name] = np.ma.masked_invalid(np.asarray(columns[name], dtype=np.float64))
    return table_from_columns({name: columns[name] for name in schema.names}, schema)


def _store(space: Space, scores: EmpScores, below: float) -> None:
    """Keep every star's score under `results/emp`."""
    stage, schema = space.atlas.results("emp"), emp_schema()
    inputs = text_digest(
        str(REVISION),
        str(below),
        *(space.index(modality).digest for modality in space.modalities),
        *(space.atlas.catalog(name).digest for name in space.atlas.catalogs()),
        *scores.notes,
    )
    with stage.lock():
        blocks = [
            np.arange(start, min(start + SHARD_ROWS, len(scores.stars)))
            for start in range(0, len(scores.stars), SHARD_ROWS)
        ]
        for number, rows in enumerate(blocks):
            stage.write(
                number,
                _rows_table(space, scores, rows),
                schema=schema,
                inputs=inputs,
                extra={"model": space.model, "below": below, "notes": scores.notes},
            )
        for part in stage.parts():
            if part.number >= len(blocks):
                stage.remove(part.number)


def _top(space: Space, scores: EmpScores, top: int) -> pd.DataFrame:
    from .similar import to_frame
    from .sql import connect
    from .stars import annotate

    order = np.lexsort((scores.stars.source_id, np.nan_to_num(scores.feh, nan=9.0), -scores.probability))[:top]
    table = _rows_table(space, scores, order)
    on_xp = np.asarray(table["xp_spec_id"].is_valid())
    hits = pa.table(
        {
            "modality": pa.array(np.where(on_xp, XP, LRS), pa.string()),
            "release": pa.array(
                np.where(on_xp, table["xp_release"].to_pylist(), table["lrs_release"].to_pylist()), pa.string()
            ),
            "spec_id": pa.array(
                np.where(
                    on_xp, table["xp_spec_id"].fill_null(0).to_numpy(), table["lrs_spec_id"].fill_null(0).to_numpy()
                ),
                pa.int64(),
            ),
        }
    )
    with connect(space.atlas) as connection:
        extra = annotate(connection, hits)
    table = table.add_column(0, "rank", pa.array(np.arange(1, table.num_rows + 1)))
    for name in extra.column_names:
        if name in (*hits.column_names, "source_id", "snr"):
            continue
        # the catalogue's own [Fe/H] stands beside the estimate, under a name of its own
        table = table.append_column(f"catalog_{name}" if name in table.column_names else name, extra[name])
    return to_frame(table)
