"""Learning from verdicts, with an honest oracle: recall against the number of labels.

    python tests/benchmarks/feedback.py ATLAS [--seeds 8] [--batch 20] [--classes emission,s_process]

ATLAS holds a simulated survey with anomaly scores (`simulate`, `embed`, `index build`, `translate`,
`anomalies`). Its stars are halved by each seed. From one half the first of the list, a batch at a time,
are shown to an oracle that sees the true class of what a spectrum shows: it calls astrophysical oddities
interesting, instrumental ones artifact, all else normal. The other half is never shown; it is ranked by
what was learned, and the share of its interesting stars that stand among its first 200 and 500 is told
(of as many as can stand there), as mean and standard deviation over seeds. Beside ours: no learning at all, and the
weighted mean of the verdicts nearby. `--classes` asks besides for an oracle that wants one class alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

DEPTHS = (200, 500)
MARKS = (0, 20, 40, 100, 200)
Learner = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Survey:
    """One pair a star, oddest first, all that have a truth."""

    score: np.ndarray
    vectors: np.ndarray
    z: np.ndarray
    seen: np.ndarray

    @classmethod
    def read(cls, path: str) -> Survey:
        from specclip_search.atlas import Atlas
        from specclip_search.queries.anomalies.local_quantities import NAMES
        from specclip_search.queries.anomalies.pair_table import vector_rows
        from specclip_search.queries.evaluation.truth import Truth
        from specclip_search.queries.space.space import open_space
        from specclip_search.surveys import LRS, XP

        space = open_space(Atlas(path))
        names = [f"z_{name}" for name in NAMES]
        ids = ["lrs_spec_id", "lrs_release", "xp_spec_id", "xp_release", "source_id", "score"]
        table = space.atlas.results("anomalies").read([*ids, *names])
        truth = Truth.read(space.atlas)
        row = truth.spectra(table["lrs_spec_id"].to_numpy())
        score = table["score"].to_numpy()
        order = np.lexsort((table["lrs_spec_id"].to_numpy(), -score))
        order = order[row[order] >= 0]
        order = order[np.sort(np.unique(table["source_id"].to_numpy()[order], return_index=True)[1])]
        rows = {side: vector_rows(space.keys(modality), table[f"{side}_spec_id"], table[f"{side}_release"])[order]
                for side, modality in (("lrs", LRS), ("xp", XP))}  # fmt: skip
        vectors = [space.index(modality).vectors(rows[side]) for side, modality in (("lrs", LRS), ("xp", XP))]
        z = np.column_stack([table[name].to_numpy() for name in names])[order]
        seen = truth.seen[row[order]].astype(str)
        return cls(score[order], (np.concatenate(vectors, axis=1) / np.sqrt(2)).astype(np.float32), z, seen)


def unmoved(vectors: np.ndarray, z: np.ndarray, judged: np.ndarray, value: np.ndarray) -> np.ndarray:
    """No learning."""
    return np.zeros(len(vectors))


def nearby_mean(vectors: np.ndarray, z: np.ndarray, judged: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Kernel-weighted mean of the verdicts around each star, pulled to none."""
    patterns = np.maximum(z, 0.0)
    patterns = patterns / np.maximum(np.linalg.norm(patterns, axis=1, keepdims=True), 1e-6)
    exponent = 0.5 * (1.0 - vectors @ vectors[judged].T) / 0.25**2
    exponent += 0.5 * (2.0 - 2.0 * patterns @ patterns[judged].T) / 0.35**2
    kernel = np.exp(-exponent)
    kernel[judged, np.arange(len(judged))] *= 10.0
    return np.asarray(2.0 * (kernel @ value) / (kernel.sum(axis=1) + 0.3))


def ours(vectors: np.ndarray, z: np.ndarray, judged: np.ndarray, value: np.ndarray) -> np.ndarray:
    """What `specclip-search anomalies` does."""
    from specclip_search.queries.statistics.learned_shift import STRENGTH, learned_shift, odd_patterns

    return STRENGTH * learned_shift(vectors, odd_patterns(z), judged, value)


LEARNERS: dict[str, Learner] = {"no learning": unmoved, "mean of verdicts nearby": nearby_mean, "ours": ours}


def session(survey: Survey, wanted: np.ndarray, learner: Learner, seed: int, batch: int) -> dict[int, list[float]]:
    """Recall at `DEPTHS`, and the interesting ones among those shown, after each number of labels in `MARKS`."""
    from specclip_search.queries.anomalies.listing import LEARNING_POOL

    shown = np.random.default_rng(seed).random(len(wanted)) < 0.5
    candidates, held = np.flatnonzero(shown)[:LEARNING_POOL], np.flatnonzero(~shown)[:LEARNING_POOL]
    pool = np.concatenate([candidates, held])
    vectors, z, base = survey.vectors[pool], survey.z[pool], np.log(survey.score[pool])
    there = int(wanted[~shown].sum())
    judged, moved, found = np.empty(0, np.int64), base, {}
    while True:
        if len(judged) in MARKS:
            listed = wanted[held][np.argsort(-moved[len(candidates) :], kind="stable")]
            recall = [listed[:depth].sum() / max(min(there, depth), 1) for depth in DEPTHS]
            found[len(judged)] = [*recall, float(wanted[pool[judged]].sum())]
        if len(judged) >= max(MARKS):
            return found
        open_ones = moved[: len(candidates)].copy()
        open_ones[judged] = -np.inf
        judged = np.append(judged, np.argsort(-open_ones, kind="stable")[:batch])
        value = np.where(wanted[pool[judged]], 1.0, -1.0)
        moved = base + learner(vectors, z, judged, value)


def table(survey: Survey, wanted: np.ndarray, title: str, seeds: int, batch: int) -> None:
    """Print one oracle's results as Markdown."""
    print(f"\n{title}: {int(wanted.sum())} of {len(wanted)} stars are interesting; batches of {batch}, {seeds} seeds\n")
    print("| labels | list | " + " | ".join(f"recall in {depth}" for depth in DEPTHS) + " | interesting among shown |")
    print("|---|---|" + "---|" * (len(DEPTHS) + 1))
    runs = {name: [session(survey, wanted, learner, seed, batch) for seed in range(seeds)]
            for name, learner in LEARNERS.items()}  # fmt: skip
    for mark in (mark for mark in MARKS if mark in next(iter(runs.values()))[0]):
        for name, found in runs.items():
            values = np.array([one[mark] for one in found])
            mean, spread = values.mean(axis=0), values.std(axis=0, ddof=1) if seeds > 1 else np.zeros(len(DEPTHS) + 1)
            cells = [f"{mean[i]:.3f} ± {spread[i]:.3f}" for i in range(len(DEPTHS))]
            print(f"| {mark} | {name} | {' | '.join(cells)} | {mean[-1]:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("atlas")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--classes", default="", help="comma-separated classes, each wanted alone by an oracle")
    options = parser.parse_args()

    from specclip_search.simulation.samples.oddities import ASTROPHYSICAL, ODDITIES

    survey = Survey.read(options.atlas)
    astrophysical = np.array([ODDITIES.get(name) == ASTROPHYSICAL for name in survey.seen])
    table(survey, astrophysical, "All astrophysical oddities", options.seeds, options.batch)
    for name in filter(None, options.classes.split(",")):
        table(survey, survey.seen == name, f"`{name}` alone", options.seeds, options.batch)


if __name__ == "__main__":
    main()
