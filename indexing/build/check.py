"""Verify an index: digests, keys, store, lists and recall. Returns findings and prints nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from specclip_search.atlas import Atlas
from specclip_search.atlas.files import file_digest
from specclip_search.errors import SpecclipError
from specclip_search.surveys import XP

from ..search.index import VectorIndex
from ..vectors.index_folder import DIGESTS, current_generation
from ..vectors.keys import KeyTable
from ..vectors.means import centre
from ..vectors.table import VectorTable
from .costs import folder_bytes, group_size
from .recall import Recall, exact_truth, measure_recall, query_groups

HALF_STEP = 1e-3
SAMPLED_ROWS = 2000
RECALL_SLACK = 0.01


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """Result of one check: `ok` or `problem`, and a description."""

    status: Literal["ok", "problem"]
    subject: str
    finding: str


@dataclass(frozen=True, slots=True)
class IndexCheck:
    """Findings of `check_index`; `recall` is measured again."""

    modality: str
    findings: list[CheckFinding]
    recall: list[Recall]

    @property
    def ok(self) -> bool:
        return all(finding.status == "ok" for finding in self.findings)


def index_info(atlas: Atlas, model: str | None = None, modality: str = XP) -> dict[str, Any]:
    """Contents of `index.toml` of the index in use, with `current` and its size on disk in bytes.

    Raises
    ------
    VectorIndexError
        If there is no index.
    """
    name = atlas.require_model(model)
    table = VectorTable(atlas, name, modality)
    generation = current_generation(atlas, name, modality)
    if generation is None:
        VectorIndex.open(atlas, name, modality)
    assert generation is not None
    current = generation.manifest["vectors_digest"] == table.digest
    return generation.manifest | {"current": current, "disk": folder_bytes(generation.folder), "vectors": table.rows}


def check_index(atlas: Atlas, model: str | None = None, modality: str = XP, *, full: bool = False,
                seed: int = 1) -> IndexCheck:
    """Verify an index against the vectors it was built from.

    Parameters
    ----------
    full
        Re-read every shard and compare all stored vectors instead of a sample.
    """
    findings: list[CheckFinding] = []
    try:
        index = VectorIndex.open(atlas, model, modality)
    except SpecclipError as error:
        return IndexCheck(modality, [CheckFinding("problem", "index", f"{error.message} {error.hint}".strip())], [])
    table = VectorTable(atlas, index.model, modality)
    findings.append(CheckFinding("ok", "vectors", f"digest {index.digest[:19]}, {index.rows:,} vectors"))
    if full:
        broken = table.stage.verify()
        findings.append(_finding(not broken, "shards", "every shard matches the digest in its sidecar",
                                 f"changed since written: {', '.join(broken)}"))
    looks = {
        "files": lambda: _check_files(index, table),
        "keys": lambda: _check_keys(index, table),
        "store": lambda: _check_store(index, table, full, seed),
    }
    for subject, look in looks.items():
        try:
            findings.append(look())
        except SpecclipError as error:
            findings.append(CheckFinding("problem", subject, f"{error.message} {error.hint}".strip()))
    if index.lists is not None:
        findings.append(_finding(index.lists.rows == index.rows, "lists", f"{index.rows:,} codes",
                                 f"{index.lists.rows:,} codes for {index.rows:,} vectors"))
    # recall of a damaged index is meaningless
    sound = all(finding.status == "ok" for finding in findings)
    recall = _recall_now(index, seed) if sound else []
    findings += _check_recall(index, recall)
    return IndexCheck(modality, findings, recall)


def _check_files(index: VectorIndex, _table: VectorTable) -> CheckFinding:
    try:
        kept = dict(json.loads((index.folder / DIGESTS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        return CheckFinding("problem", "files", f"{DIGESTS} cannot be read ({error}); run `index build --fresh`")
    wrong = [name for name, digest in kept.items() if not (index.folder / name).exists()
             or file_digest(index.folder / name) != digest]
    return _finding(not wrong, "files", f"{len(kept)} files match their digests",
                    f"changed or missing: {', '.join(wrong)}; run `index build --fresh`")


def _check_keys(index: VectorIndex, table: VectorTable) -> CheckFinding:
    fresh = KeyTable.of(table)
    kept = index.keys
    same = (len(kept) == len(fresh) and kept.releases == fresh.releases
            and all(np.array_equal(getattr(kept, name), getattr(fresh, name))
                    for name in ("spec_id", "source_id", "release", "by_spec", "by_source")))
    return _finding(same, "keys", f"{len(fresh):,} keys match their vectors",
                    "the keys stored with the index do not match the vectors; run `index build --fresh`")


def _check_store(index: VectorIndex, table: VectorTable, full: bool, seed: int) -> CheckFinding:
    """Compare stored vectors with those of the shards, centred again."""
    mean = index.mean_of(index.modality)
    worst = 0.0
    if full:
        for first, half in table.batches():
            rows = np.arange(first, first + len(half))
            worst = max(worst, _difference(index, rows, centre(half.astype(np.float32), mean)))
    else:
        rng = np.random.default_rng([seed, 47])
        first = int(rng.integers(0, max(1, table.rows - SAMPLED_ROWS)))
        near = np.arange(first, min(first + SAMPLED_ROWS, table.rows))
        rows = np.unique(np.concatenate([near, rng.choice(table.rows, min(20, table.rows), replace=False)]))
        worst = _difference(index, rows, centre(table.read_rows(rows), mean))
    return _finding(worst < HALF_STEP, "store", f"largest difference from the shards' vectors {worst:.1e}",
                    f"stored vectors differ from the shards' by up to {worst:.1e}; run `index build --fresh`")


def _difference(index: VectorIndex, rows: np.ndarray, expected: np.ndarray) -> float:
    largest = np.abs(index.vectors(rows) - expected).max(initial=0)
    # damaged float16 values may be NaN, which would compare as no difference
    return float(np.nan_to_num(largest, nan=np.inf))


def _recall_now(index: VectorIndex, seed: int) -> list[Recall]:
    if index.kind != "ivfpq":
        return []
    groups = query_groups(index, group_size(index.rows), seed)
    return measure_recall(index, groups, exact_truth(index, groups))


def _check_recall(index: VectorIndex, measured: list[Recall]) -> list[CheckFinding]:
    """Compare recall with the target; rare strata are reported only."""
    wished = float(index.manifest["search"].get("wished_recall", 0.0))
    findings = []
    for recall in measured:
        text = (f"{recall.group}: recall@10 {recall.at_10:.4f}, recall@100 {recall.at_100:.4f} "
                f"of {recall.queries} queries")
        judged = recall.group.startswith(("in-instrument", "cross-instrument"))
        low = judged and min(recall.at_10, recall.at_100) < wished - RECALL_SLACK
        findings.append(CheckFinding("problem" if low else "ok", "recall",
                                     f"{text}; target {wished}, run `index tune`" if low else text))
    return findings


def _finding(good: bool, subject: str, right: str, wrong: str) -> CheckFinding:
    return CheckFinding("ok" if good else "problem", subject, right if good else wrong)
