"""Opening a finished build before it is used: tuning it and measuring what it is worth."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from specclip_search.version import __version__

from .costs import group_size
from ..vectors.index_folder import Generation
from ..vectors.means import ModalityMean
from .meter import Meter
from .recall import Recall, centring_gain, exact_truth, measure_recall
from ..search.index import VectorIndex
from .steps import Plan
from .strata import query_groups
from .tune import choose_settings, recall_rows, split_halves

START_NPROBE = 32
START_RERANK = 4.0


def judge(plan: Plan, mean: ModalityMean, asked: str, wished: float, meter: Meter) -> dict[str, Any]:
    """Tune the finished build on one half of the queries and measure it on the other; returns its manifest."""
    manifest = _identity(plan, mean, asked)
    plan.progress(plan.table.rows, plan.table.rows, "measuring")
    recall: list[Recall] = []
    if plan.recipe.kind == "ivfpq":
        with meter("recall"):
            index = _opened(plan, manifest)
            groups = query_groups(index, group_size(index.rows), plan.seed)
            tuning, reported = split_halves(groups, exact_truth(index, groups))
            chosen = choose_settings(index, *tuning, wished)
            manifest["search"] = {"nprobe": chosen.nprobe, "rerank": chosen.rerank, "wished_recall": wished,
                                  "reached": chosen.reached}
            recall = measure_recall(_opened(plan, manifest), *reported)
    with meter("centring"):
        gains = centring_gain(_opened(plan, manifest), plan.seed)
    return manifest | {"recall": recall_rows(recall), "centring": [asdict(gain) for gain in gains]}


def _opened(plan: Plan, manifest: dict[str, Any]) -> VectorIndex:
    return VectorIndex(plan.atlas, plan.table.model, plan.table.modality, Generation(plan.folder, manifest),
                       plan.engine)


def _identity(plan: Plan, mean: ModalityMean, asked: str) -> dict[str, Any]:
    """What `index.toml` says of an index before it is measured."""
    table = plan.table
    lists = plan.recipe.kind == "ivfpq"
    return {
        "model": table.model, "model_digest": table.model_digest, "modality": table.modality,
        "vectors_digest": table.digest, "rows": table.rows, "dim": table.dim, "seed": plan.seed,
        "mean_digest": mean.digest, "mean_length": mean.length, "version": __version__,
        "recipe": plan.recipe.to_dict() | {"factory": str(plan.recipe), "asked": asked},
        "learnt": plan.learnt,
        "search": {"nprobe": START_NPROBE if lists else 0, "rerank": START_RERANK if lists else 1.0},
        "parts": {"numbers": [p.number for p in table.parts], "digests": [p.digest for p in table.parts],
                  "rows": [p.rows for p in table.parts]},
    }
