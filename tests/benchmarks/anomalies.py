"""Anomalies of a simulated survey: average precision by class beside two rivals, what scores follow, time and memory.

    python tests/benchmarks/anomalies.py ATLAS                all of it
    python tests/benchmarks/anomalies.py ATLAS --no-rivals    our score alone
    python tests/benchmarks/anomalies.py ATLAS --plot FILE    and the p-values of clean stars as a picture

ATLAS was made by `specclip-search simulate`, `embed`, `index build` and `translate`; scores are
computed anew, so that their time and memory are this run's. Rivals rank the same pairs: an
isolation forest over both vectors, and the reconstruction error of both spectra. Intervals are
bootstrap, 95 %.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("atlas")
    parser.add_argument("--no-rivals", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    from rivals import isolation_forest, pair_vectors, reconstruction_error

    from specclip_search.atlas import Atlas
    from specclip_search.queries.anomalies.anomalies import WEIGHTS, score
    from specclip_search.queries.anomalies.local_quantities import NAMES
    from specclip_search.queries.evaluation.truth import Truth
    from specclip_search.queries.space.space import open_space

    space = open_space(Atlas(options.atlas))
    truth = Truth.read(space.atlas)
    wall, cpu = time.perf_counter(), time.process_time()
    pairs, features, scores, _ = score(space)
    spent = {"pairs": len(pairs), "wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu,
             "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}  # fmt: skip
    lists = {"ours": scores.score}
    if not options.no_rivals:
        lists["isolation forest"] = isolation_forest(pair_vectors(space, pairs))
        lists["reconstruction error"] = reconstruction_error(space, pairs)
    row = truth.spectra(pairs.lrs_spec_id)
    known = row >= 0
    seen = np.where(known, truth.seen[np.maximum(row, 0)], "")[known]
    lists = {name: values[known] for name, values in lists.items()}
    rows = by_class(lists, seen)
    rows += single_quantities({name: features.column(name)[known] for name in NAMES if WEIGHTS[name] > 0}, seen)
    rows += following(scores.score[known], seen, truth, row[known], pairs.source_id[known])
    p_value = scores.p_value[known][seen == ""]
    print(f"clean pairs with p < 0.01: {(p_value < 0.01).mean():.4f}, < 0.05: {(p_value < 0.05).mean():.4f}, "
          f"< 0.5: {(p_value < 0.5).mean():.4f} (of {len(p_value)}; reference {scores.reference}, "
          f"{scores.reference_stars} stars)")  # fmt: skip
    cost(spent)
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "cost": spent}, indent=1))
    if options.plot:
        plot(p_value, options.plot)


def by_class(lists: dict[str, np.ndarray], seen: np.ndarray) -> list[dict[str, object]]:
    """Average precision of every list, class by class."""
    from specclip_search.queries.evaluation.measures import ranked

    classes = {"any oddity": seen != ""} | {name: seen == name for name in np.unique(seen[seen != ""])}
    print(f"{'average precision':22s} {'n':>5s}  " + "".join(f"{name:>28s}" for name in lists))
    rows = []
    for name, positive in classes.items():
        judged = positive | (seen == "")
        found = {label: ranked("ap", name, values[judged], positive[judged], 0) for label, values in lists.items()}
        rows += [{"list": label, "class": name, "ap": m.value, "low": m.low, "high": m.high, "n": m.n}
                 for label, m in found.items()]  # fmt: skip
        cells = "".join(f"{f'{m.value:.3f} ({m.low:.3f} - {m.high:.3f})':>28s}" for m in found.values())
        print(f"{name:22s} {int(positive.sum()):5d}  {cells}", flush=True)
    return rows


def single_quantities(columns: dict[str, np.ndarray], seen: np.ndarray) -> list[dict[str, object]]:
    """The classes that each quantity finds best by itself."""
    from specclip_search.queries.evaluation.measures import average_precision

    rows: list[dict[str, object]] = []
    print("\nquantity by itself: average precision of the three classes it finds best")
    for name, values in columns.items():
        found = {}
        for label in np.unique(seen[seen != ""]):
            judged = (seen == label) | (seen == "")
            found[label] = average_precision(values[judged].astype(np.float64), (seen == label)[judged])
        best = sorted(found, key=lambda label: -found[label])[:3]
        rows += [{"list": f"z_{name}", "class": label, "ap": found[label]} for label in found]
        print(f"{name:18s} " + ", ".join(f"{label} {found[label]:.2f}" for label in best))
    return rows


def following(
    score: np.ndarray, seen: np.ndarray, truth: object, row: np.ndarray, source_id: np.ndarray
) -> list[dict[str, object]]:
    """Rank correlation of normal stars' scores with what they must not follow."""
    from specclip_search.queries.evaluation.measures import rank_correlation

    normal = seen == ""
    star = truth.stars(source_id)  # type: ignore[attr-defined]
    numbers = truth.numbers  # type: ignore[attr-defined]
    things = {"S/N": truth.snr[row], "|RV|": np.abs(numbers["true_rv"][star]), "E(B-V)": numbers["ebv"][star]}  # type: ignore[attr-defined]
    rows = []
    print()
    for name, values in things.items():
        m = rank_correlation("follows", name, score[normal], values[normal])
        rows.append({"list": "rank correlation", "class": name, "value": m.value, "low": m.low, "high": m.high})
        print(f"rank correlation of normal stars' score with {name}: {m.value:+.3f} ({m.low:+.3f} to {m.high:+.3f})")
    return rows


def cost(spent: dict[str, float]) -> None:
    """Time and memory of the ranking, and what they come to for more pairs."""
    each = spent["cpu_s"] / spent["pairs"]
    print(f"ranking {spent['pairs']} pairs: {spent['wall_s']:.0f} s, {spent['cpu_s']:.0f} s of processor "
          f"({1e3 * each:.2f} ms a pair), {spent['memory_mib']:.0f} MiB at most")  # fmt: skip
    for pairs in (1e6, 1e7):
        print(f"in proportion, {pairs:.0e} pairs: {each * pairs / 3600:.1f} h of one core")


def plot(p_value: np.ndarray, path: Path) -> None:
    """Distribution of clean stars' p-values against the uniform one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 4), layout="constrained")
    axes[0].hist(p_value, bins=20, range=(0, 1), density=True, color="0.6")
    axes[0].axhline(1.0, color="k", lw=1)
    axes[0].set(xlabel="p-value of clean simulated stars", ylabel="density")
    ordered = np.sort(p_value)
    axes[1].loglog(np.arange(1, len(ordered) + 1) / (len(ordered) + 1), ordered, color="0.3")
    axes[1].loglog([1e-4, 1], [1e-4, 1], color="k", lw=1, ls="--")
    axes[1].set(xlabel="share of stars below", ylabel="p-value")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
