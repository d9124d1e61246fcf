"""The most anomalous stars of an atlas: one calibrated score per pair, its likely kind and a reason in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.files import text_digest
from specclip_search.errors import AtlasError, QueryError
from specclip_search.keys import ACCEPTANCE_SPLIT, split_of
from specclip_search.progress import Progress
from specclip_search.surveys import LRS, XP
from specclip_search.tables.provenance import stamped, to_frame

from ..space.neighbours import nearest_blocks
from ..space.space import Space, open_space
from ..statistics.learning_stars import first_visits
from .evidence import gather
from .identity import IDENTITY, load_identity
from .listing import anomalies_schema, listed
from .local_quantities import NAMES, Features, Neighbours, compute_features, pair_neighbours
from .pair_table import PairTable
from .reasons import explain
from .scoring import Scores, score_pairs
from .verdicts import read_verdicts
from .weights import load_tails, load_weights

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from specclip_search.atlas import Atlas

# increase when a formula changes: stored scores are then recomputed
REVISION = 9
DEFAULT_K = 32
EXPLAIN_BELOW_P = 0.01
WEIGHTS = load_weights(NAMES)
TAILS = load_tails(NAMES)


def anomalies(
    atlas: Atlas,
    top: int = 100,
    model: str | None = None,
    k: int = DEFAULT_K,
    *,
    group: bool = True,
    learn: bool = True,
    by: str | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """The `top` highest-scoring pairs.

    Scores of all pairs are computed once and stored under `results/anomalies`. They are computed
    again when translations, vectors, `k` or the code's formulas have changed.

    Parameters
    ----------
    top
        Number of rows to return.
    model
        Model of the vectors and translations; the active model by default.
    k
        Number of neighbours that a star is compared with.
    group
        Return one row per star, its highest-scoring pair, with the number of visits; else one row per pair.
    learn
        Let stored verdicts (see `specclip_search.queries.anomalies.verdicts`) change the ranks; scores and
        p-values do not change.
    by
        Rank by the z of this quantity of `specclip_search.queries.anomalies.local_quantities.NAMES` instead of the
        score; verdicts are then ignored. ``change`` gives `specclip_search.changes`.
    progress
        Called with (done, total, note) while scores are computed.

    Returns
    -------
    pandas.DataFrame
        rank, lrs_spec_id, xp_spec_id, source_id, score, p_value, q_value, kind, reason, then the
        translation errors, S/N, the two spectra's similarity, the z of every quantity (see
        `specclip_search.queries.anomalies.local_quantities`), n_visits, n_odd_visits (p < 0.01), verdict and learned
        (-1 to 1) if there are verdicts, lrs_simulated, xp_simulated, and position and labels of the star.
        `.attrs` names model, digests, version, options and the reference of the p-values.

    Raises
    ------
    QueryError
        If there are no translation errors, or `top`, `k` or `by` is invalid.
    VectorIndexError
        If an index is missing or stale.
    """
    if by == "change":
        from ..changes.changes import changes

        return changes(atlas, top, progress=progress)
    return to_frame(
        anomalies_table(atlas, top, model, k, group=group, learn=learn, by=by, progress=progress)
    )


def anomalies_table(
    atlas: Atlas,
    top: int = 100,
    model: str | None = None,
    k: int = DEFAULT_K,
    *,
    group: bool = True,
    learn: bool = True,
    by: str | None = None,
    progress: Progress | None = None,
) -> pa.Table:
    """As `anomalies`, as an Arrow table with the provenance in its metadata: nothing of pandas is loaded."""
    if top < 1:
        raise QueryError(f"top must be at least 1; found {top}.", "Ask for one row or more.")
    if not 4 <= k <= 1000:
        raise QueryError(f"k must lie between 4 and 1000; found {k}.", "Use 32, the default.")
    if by is not None and by not in NAMES:
        raise QueryError(f"There is no quantity '{by}'.", f"Choose one of {', '.join((*NAMES, 'change'))}.")
    space = open_space(atlas, model)
    _need_pairs(space)
    account = score_atlas(space, k, progress)
    verdicts = read_verdicts(atlas) if learn and by is None else None
    table = listed(space, top, group, verdicts, "score" if by is None else f"z_{by}")
    options = {"top": top, "k": k, "group": group, "learn": learn, "by": by}
    told = {"verdicts": 0 if verdicts is None else len(verdicts)}
    return stamped(table, "anomalies", options, **{**space.origin(), **account, **told})


def _need_pairs(space: Space) -> None:
    """Send an atlas of one instrument to what works there, instead of to `translate`, which needs two."""
    lacking = [modality for modality in (LRS, XP) if modality not in space.modalities]
    if lacking and len(space.modalities) == 1:
        only = space.modalities[0]
        raise QueryError(
            f"Anomalies of pairs need vectors of both instruments; this atlas holds those of {only} alone.",
            f"Rank its spectra by themselves: `specclip-search anomalies --within {only}`.",
        )


def score_atlas(space: Space, k: int = DEFAULT_K, progress: Progress | None = None) -> dict[str, Any]:
    """Bring `results/anomalies` up to date; return the contents of the sidecars."""
    stage = space.atlas.results("anomalies")
    whole = _inputs(space, k)
    # asked before the write lock is taken, so that a read-only atlas answers from what is stored
    kept = _current(space, whole)
    if kept is not None:
        stage.tidy()
        return kept
    with stage.lock():
        kept = _current(space, whole)
        if kept is not None:
            return kept
        parts = space.atlas.translations(space.model).parts()
        inputs = {part.number: text_digest(whole, part.digest) for part in parts}
        pairs, features, scores, neighbours = score(space, k, progress)
        account = {
            "model": space.model,
            "k": k,
            "revision": REVISION,
            "weights": WEIGHTS,
            "identity_weights": dict(zip(IDENTITY, load_identity(), strict=True)),
            "reference": scores.reference,
            "reference_stars": scores.reference_stars,
            "pairs": len(pairs),
            "unembedded": pairs.unembedded,
            "inputs": whole,
        }
        _store(space, pairs, features, scores, neighbours, inputs, account)
    return account


def _current(space: Space, whole: str) -> dict[str, Any] | None:
    """What the sidecars of stored scores say, where they are those of these inputs; None where not."""
    stage = space.atlas.results("anomalies")
    inputs = {
        part.number: text_digest(whole, part.digest) for part in space.atlas.translations(space.model).parts()
    }
    try:
        stored = stage.parts()
    except AtlasError:
        # shards are missing or damaged: they are made again
        return None
    if inputs and {part.number: part.inputs for part in stored} == inputs:
        return dict(stored[0].extra)
    return None


def _inputs(space: Space, k: int) -> str:
    """Digest of everything the scores depend on."""
    digests = [space.index(modality).digest for modality in (LRS, XP)]
    return text_digest(
        str(REVISION),
        str(k),
        str(WEIGHTS),
        str(TAILS),
        str(load_identity()),
        space.atlas.translations(space.model).digest,
        *digests,
        *(space.atlas.estimates(modality, space.model).digest for modality in (LRS, XP)),
        *(space.atlas.catalog(name).digest for name in space.atlas.catalogs()),
    )


def score(
    space: Space,
    k: int = DEFAULT_K,
    progress: Progress | None = None,
) -> tuple[PairTable, Features, Scores, dict[str, Neighbours]]:
    """Features and scores of all pairs, without storing them."""
    for modality in (LRS, XP):
        space.require(modality)
    pairs = PairTable.read(space)
    total = 3 * len(pairs)
    neighbours = {}
    for turn, (modality, rows) in enumerate(((LRS, pairs.lrs_row), (XP, pairs.xp_row))):
        tick = _tick(progress, turn * len(pairs), total, f"{modality} neighbours")
        blocks = nearest_blocks(space, modality, rows, k, tick)
        neighbours[modality] = pair_neighbours(pairs, modality, blocks, k, len(space.keys(modality)))
    learn = first_visits(pairs.source_id)
    if (learn & (split_of(pairs.source_id) != ACCEPTANCE_SPLIT)).any():
        learn &= split_of(pairs.source_id) != ACCEPTANCE_SPLIT
    features = compute_features(space, pairs, neighbours, learn, _tick(progress, 2 * len(pairs), total, "comparing"))
    weights = np.array([WEIGHTS[name] for name in NAMES])
    return pairs, features, score_pairs(features.z, pairs.source_id, weights, TAILS), neighbours


def _tick(progress: Progress | None, base: int, total: int, note: str) -> Callable[[int], None] | None:
    return None if progress is None else lambda done: progress(base + done, total, note)


def _store(
    space: Space,
    pairs: PairTable,
    features: Features,
    scores: Scores,
    neighbours: dict[str, Neighbours],
    inputs: dict[int, str],
    account: dict[str, Any],
) -> None:
    stage = space.atlas.results("anomalies")
    schema = anomalies_schema()
    kind, reason = _explained(space, pairs, features, scores, neighbours)
    columns: dict[str, Any] = {
        "lrs_spec_id": pairs.lrs_spec_id,
        "lrs_release": pairs.lrs_release,
        "xp_spec_id": pairs.xp_spec_id,
        "xp_release": pairs.xp_release,
        "source_id": pairs.source_id,
        "score": scores.score,
        "p_value": scores.p_value,
        "q_value": scores.q_value,
        "similarity": features.mutual_similarity,
        "kind": kind,
        "reason": reason,
        **pairs.values,
        **{f"z_{name}": features.column(name) for name in NAMES},
    }
    with stage.replaced() as new:
        for number, digest in inputs.items():
            here = np.flatnonzero(pairs.part == number)
            table = table_from_columns({name: columns[name][here] for name in schema.names}, schema)
            new.write(number, table, schema=schema, inputs=digest, extra=account)


def _explained(
    space: Space, pairs: PairTable, features: Features, scores: Scores, neighbours: dict[str, Neighbours]
) -> tuple[np.ndarray, np.ndarray]:
    """Kind and reason of every pair with a small p-value; empty text for the others."""
    kind, reason = np.full(len(pairs), "", dtype=object), np.full(len(pairs), "", dtype=object)
    chosen = np.flatnonzero(scores.p_value < EXPLAIN_BELOW_P)
    # a small atlas has few p-values below the limit; explain its highest-scoring stars anyway
    highest = np.argsort(-scores.score, kind="stable")[:100]
    chosen = np.union1d(chosen, highest)
    for i, evidence in zip(chosen, gather(space, pairs, features, scores.parts, neighbours, chosen), strict=True):
        kind[i], reason[i] = explain(evidence)
    return kind, reason
