"""The most anomalous spectra of one instrument, with or without a partner in the other.

Three things are tested: how well the model reconstructs a spectrum from its own vector (total,
strongest narrow feature, named patterns; see `specclip_search.queries.translation.residual_measures`), whether it
has close neighbours, and how sparsely the space is populated around it compared with its neighbours
(`specclip_search.queries.statistics.local_density`). The first two are corrected for S/N and position in the space, and
the first is also compared with the neighbours' values; local density is corrected for low S/N alone. The score joins
local density, the strongest named pattern and all other quantities together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.errors import QueryError
from specclip_search.keys import ACCEPTANCE_SPLIT, split_of
from specclip_search.progress import Progress
from specclip_search.surveys import LRS
from specclip_search.tables.provenance import stamp, to_frame

from ..space.neighbours import nearest_rows
from ..space.space import open_space
from ..statistics.learning_stars import learning_rows
from ..statistics.local_density import density_reason, joined, local_density, low_snr_covariate
from ..statistics.p_values import surprise
from ..translation.double_lined import double_lined
from ..translation.residual_measures import SELF, Measured, SpectrumResidualModel, learn
from ..translation.schema import PATTERNS, UNITS
from ..views.star_estimates import UNLIKE, unlike_training
from .global_quantities import standardised
from .local_quantities import against_neighbours, log_distance, snr_weights
from .reasons import PATTERN_WORDS
from .scoring import calibrated, reference_pairs, score_pairs

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from specclip_search.atlas import Atlas

    from ..space.space import Space

MIN_STARS = 150
LEARNING_STARS = 4000
BATCH_ROWS = 1024
PLACE_AXES = 3
Tick = Callable[[int], None]


@dataclass(frozen=True)
class WithinScores:
    """Scores of all spectra of one instrument, in the order of its vectors.

    Attributes
    ----------
    measured
        Totals, patterns and strongest features of the spectra against their reconstruction.
    names, z
        Quantities and their robust z, (N, m).
    score, p_value, q_value
        (N,).
    density
        (N,) ln of the local outlier factor.
    """

    measured: Measured
    names: tuple[str, ...]
    z: np.ndarray
    score: np.ndarray
    p_value: np.ndarray
    q_value: np.ndarray
    reference: str
    reference_stars: int
    density: np.ndarray


def score_within(
    space: Space, modality: str, k: int = 32, model: Any = None, tick: Tick | None = None
) -> WithinScores:
    """Score all spectra of one instrument.

    Raises
    ------
    QueryError
        If the instrument has no vectors, or the model cannot reconstruct.
    """
    space.require(modality)
    keys = space.keys(modality)
    total = len(keys)
    star = np.where(np.asarray(keys.source_id) > 0, keys.source_id, keys.spec_id).astype(np.int64)
    rows = np.arange(total)
    neighbour, similarity = nearest_rows(space, modality, rows, k, tick)
    measured, double, snr = _measure(space, modality, star, model or space.loaded_model())
    covariates = np.column_stack([np.log10(np.maximum(np.nan_to_num(snr), 0.1)), _place(space, modality, total)])
    able = split_of(star) != ACCEPTANCE_SPLIT
    able = able if able.any() else np.ones(total, dtype=bool)
    last = np.maximum((neighbour >= 0).sum(axis=1) - 1, 0)
    raw = {
        "own": 0.5 * np.log(np.maximum(measured.chi2.astype(np.float64), 1e-6)),
        "own_peak": np.log(np.abs(measured.peak.astype(np.float64)) + 0.1),
        "isolation": log_distance(similarity[rows, last]),
        **{name: measured.patterns[:, i].astype(np.float64) for i, name in enumerate(PATTERNS[_side(modality)])},
    }
    if modality == LRS:
        raw["double_lined"] = double
    z = {name: standardised(values, covariates, able) for name, values in raw.items()}
    weights = snr_weights(covariates[:, 0], neighbour)
    z["own_local"] = against_neighbours(raw["own"][:, None], covariates, able, neighbour, weights)[:, 0]
    scores = score_pairs(np.column_stack(list(z.values())).astype(np.float32), star, np.ones(len(z)))
    density = local_density(space.index(modality).vectors, star, able)
    z["density"] = standardised(density, low_snr_covariate(covariates[:, 0]), able)
    matrix = np.column_stack(list(z.values())).astype(np.float32)
    patterns = [z[name] for name in (*PATTERNS[_side(modality)], "double_lined") if name in z]
    strongest = np.max(patterns, axis=0)
    named = surprise(strongest, strongest[reference_pairs(matrix, star)[0]])
    found = calibrated(joined(z["density"], z["isolation"], named, scores.score), matrix, star)
    return WithinScores(
        measured, tuple(z), matrix, found.score, found.p_value, found.q_value, found.reference,
        found.reference_stars, density,
    )  # fmt: skip


def within_names(modality: str) -> tuple[str, ...]:
    """Quantities that the spectra of one instrument can be ranked by."""
    double = ("double_lined",) if modality == LRS else ()
    return ("own", "own_peak", "own_local", "isolation", "density", *PATTERNS[_side(modality)], *double)


def _side(modality: str) -> str:
    return "lrs" if modality == LRS else "xp"


def _place(space: Space, modality: str, total: int) -> np.ndarray:
    """(N, 3) leading principal components of the vectors."""
    index = space.index(modality)
    some = index.vectors(np.unique(np.linspace(0, total - 1, min(total, LEARNING_STARS)).astype(np.int64)))
    centre = some.mean(axis=0)
    axes = np.linalg.svd(some - centre, full_matrices=False)[2][:PLACE_AXES]
    blocks = [index.vectors(np.arange(start, min(start + 8192, total))) for start in range(0, total, 8192)]
    return np.concatenate([(block - centre) @ axes.T for block in blocks]).astype(np.float64)


def _measure(space: Space, modality: str, star: np.ndarray, model: Any) -> tuple[Measured, np.ndarray, np.ndarray]:
    """Measures, the double-lined share (0 for XP) and S/N of every spectrum, in two passes: learn, then apply."""
    parts = space.atlas.vectors(space.model, modality).parts()
    residuals = _learn(space, modality, parts, star, model)
    side, found, double, snr = _side(modality), [], [], []
    wavelength = _wavelength(modality)
    for part in parts:
        path = space.atlas.spectra(modality).shard_path(part.number)
        for batch in pq.ParquetFile(path).iter_batches(BATCH_ROWS, columns=["snr", "flux", "error"]):
            table = pa.Table.from_batches([batch])
            flux, noise = _arrays(table)
            given = np.asarray(model.reconstruct(modality, flux.astype(np.float32)), dtype=np.float64)
            found.append(residuals.measure(side, SELF, flux, noise, given))
            double.append(double_lined(flux, noise, given, wavelength) if modality == LRS else np.zeros(len(flux)))
            snr.append(table["snr"].to_numpy().astype(np.float64))
    names = ("chi2", "patterns", "peak", "peak_at")
    columns = (np.concatenate([getattr(one, name) for one in found]) for name in names)
    return Measured(*columns), np.concatenate(double), np.concatenate(snr)


def _learn(space: Space, modality: str, parts: list[Any], star: np.ndarray, model: Any) -> SpectrumResidualModel:
    chosen, _ = learning_rows(star, MIN_STARS, LEARNING_STARS)
    if len(chosen) == 0:
        raise QueryError(
            "Every spectrum belongs to the acceptance split, from which nothing may be learned.",
            "Ingest more spectra: normal spectra are learned from the others.",
        )
    start, pieces = 0, []
    for part in parts:
        here = chosen[(chosen >= start) & (chosen < start + part.rows)] - start
        start += part.rows
        if len(here):
            path = space.atlas.spectra(modality).shard_path(part.number)
            pieces.append(pq.ParquetFile(path).read(columns=["flux", "error"]).take(pa.array(here)))
    flux, noise = _arrays(pa.concat_tables(pieces))
    given = np.asarray(model.reconstruct(modality, flux.astype(np.float32)), dtype=np.float64)
    return learn(_side(modality), SELF, flux, noise, given)


def _arrays(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    return column_to_matrix(table["flux"]).astype(np.float64), column_to_matrix(table["error"]).astype(np.float64)


def _wavelength(modality: str) -> np.ndarray:
    from specclip_search.surveys import get_modality

    return np.asarray(get_modality(modality).wavelength)


CLEAR_Z = 4.0


def anomalies_within(
    atlas: Atlas,
    modality: str,
    top: int = 100,
    model: Any = None,
    k: int = 32,
    *,
    group: bool = True,
    by: str | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """The `top` highest-scoring spectra of one instrument, with or without a partner in the other.

    Parameters
    ----------
    model
        A model's name, a loaded model, or None for the atlas's active one.
    k
        Number of neighbours for isolation and reconstruction error.
    group
        Return one row per star, its highest-scoring spectrum.
    by
        Rank by the z of this quantity instead of the score: own, own_peak, own_local, isolation, density, or one of
        the instrument's patterns.

    Returns
    -------
    pandas.DataFrame
        rank, modality, spec_id, release, source_id, score, p_value, q_value, reason, own_chi2,
        own_peak [sigma], own_peak_at [Angstrom or nm], then the robust z of every quantity
        (see `specclip_search.queries.anomalies.one_instrument`) and position and labels of the star.

    Raises
    ------
    QueryError
        If `top`, `k` or `by` is invalid or the instrument has no vectors.
    """
    from ..views.annotate import annotate
    from ..views.connection import connect

    if top < 1 or not 4 <= k <= 1000:
        raise QueryError(f"top must be at least 1, k between 4 and 1000; found {top} and {k}.", "Use 100 and 32.")
    if by is not None and by not in within_names(modality):
        raise QueryError(
            f"Within {modality} there is no quantity '{by}'.", f"Choose one of {', '.join(within_names(modality))}."
        )
    loaded = None if model is None or isinstance(model, str) else model
    space = open_space(atlas, model if loaded is None else loaded.name)
    total = 2 * len(space.keys(modality)) if modality in space.modalities else 0
    tick = None if progress is None else lambda done: progress(done, total, f"{modality} neighbours")
    found = score_within(space, modality, k, loaded, tick)
    keys = space.keys(modality)
    ranked = found.score if by is None else found.z[:, found.names.index(by)]
    order = np.lexsort((np.asarray(keys.spec_id), -ranked))
    if group:
        star = np.where(np.asarray(keys.source_id) > 0, keys.source_id, keys.spec_id)[order]
        order = order[np.sort(np.unique(star, return_index=True)[1])]
    order = order[:top]
    names = list(keys.releases)
    hits = pa.table(
        {
            "modality": pa.array([modality] * len(order), pa.string()),
            "release": pa.array([names[code] for code in np.asarray(keys.release)[order]], pa.string()),
            "spec_id": pa.array(np.asarray(keys.spec_id)[order], pa.int64()),
        }
    )
    with connect(atlas) as connection:
        extra = annotate(connection, hits)
    table = hits.add_column(0, "rank", pa.array(np.arange(1, len(order) + 1)))
    for name, values in _columns(found, modality, order).items():
        table = table.append_column(name, pa.array(values))
    for name in extra.column_names:
        if name not in table.column_names:
            table = table.append_column(name, extra[name])
    unlike = unlike_training(atlas, space.model, modality, hits) if modality == LRS else None
    if unlike is not None:
        table = table.append_column(UNLIKE, unlike)
    options = {"modality": modality, "top": top, "k": k, "group": group, "by": by}
    account = {"reference": found.reference, "reference_stars": found.reference_stars}
    return stamp(to_frame(table), "anomalies", options, **{**space.origin(), **account})


def _columns(found: WithinScores, modality: str, rows: np.ndarray) -> dict[str, Any]:
    measured = found.measured
    return {
        "score": found.score[rows],
        "p_value": found.p_value[rows],
        "q_value": found.q_value[rows],
        "reason": [within_reason(found, modality, int(row)) for row in rows],
        "own_chi2": measured.chi2[rows],
        "own_peak": measured.peak[rows],
        "own_peak_at": measured.peak_at[rows],
        **{f"z_{name}": found.z[rows, i] for i, name in enumerate(found.names)},
    }


def within_reason(found: WithinScores, modality: str, row: int) -> str:
    """Reasons why a spectrum is anomalous, in words, strongest first."""
    z = dict(zip(found.names, found.z[row].tolist(), strict=True))
    side = "lrs" if modality == LRS else "xp"
    unit = "A" if UNITS[side] == "Angstrom" else UNITS[side]
    peak, place = float(found.measured.peak[row]), float(found.measured.peak_at[row])
    grounds = [(z[name], PATTERN_WORDS[name]) for name in (*PATTERNS[side], "double_lined") if name in z]
    grounds = [(value, f"{words}, {value:+.0f} sigma") for value, words in grounds]
    grounds += [
        (z["own_peak"], f"a feature at {place:.0f} {unit} that its vector does not give back, {peak:+.0f} sigma"),
        (z["density"], density_reason(float(np.exp(found.density[row])))),
        (z["isolation"], f"no close neighbours, {z['isolation']:+.0f} sigma farther than stars of its kind"),
        (max(z["own"], z["own_local"]), f"the model does not give it back, {max(z['own'], z['own_local']):+.0f} sigma"),
    ]
    ordered = sorted(grounds, key=lambda ground: -ground[0])
    clear = [words for value, words in ordered[:3] if value >= CLEAR_Z]
    return "; ".join(clear or [ordered[0][1]])
