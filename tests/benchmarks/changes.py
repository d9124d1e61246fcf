"""The table of docs/changes.md: p-values and planted changes on real repeats, over random halves of the stars.

    python tests/benchmarks/changes.py ../shared/data
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
from scipy.stats import kstest

from specclip_search.queries.changes.calibration import calibrate

HALVINGS = 10


def main(shared_data: Path) -> None:
    place = Path(__file__).parents[1] / "queries" / "changes" / "repeats.py"
    spec = importlib.util.spec_from_file_location("repeats", place)
    assert spec is not None
    assert spec.loader is not None
    repeats = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(repeats)
    stars = [repeats.spectra_of(files) for files in repeats.files_by_star(shared_data)]
    star = np.concatenate([np.full(len(one) - 1, number) for number, one in enumerate(stars)])
    plain = repeats.pairs_of(stars)
    planted = {name: repeats.pairs_of(stars, plant) for name, plant in repeats.PLANTED.items()}
    bright = repeats.snr_of(stars) > 30
    # one star moves by itself: what is planted there may cancel
    still = np.array([one.velocity >= 0.01 for one in repeats.judged(plain, calibrate(plain))])
    velocity = np.array([one.shift.velocity for one in plain])
    scatter = 1.4826 * np.median(np.abs(velocity - np.median(velocity)))
    print(f"{len(stars)} stars, {len(plain)} comparisons, {bright.sum()} with S/N > 30; velocity scatter {scatter:.1f} "
          f"km/s a pair, {scatter / np.sqrt(2):.1f} a visit; floor {calibrate(plain).velocity_floor:.1f}")
    rng, rows, ks, small = np.random.default_rng(0), {}, [], []
    for _ in range(HALVINGS):
        learned = np.isin(star, rng.permutation(len(stars))[: len(stars) // 2])
        known = calibrate([one for one, use in zip(plain, learned, strict=True) if use])

        def p_of(pairs, known=known, learned=learned):
            told = repeats.judged(pairs, known)
            table = np.array([[one.velocity, one.shape, one.second, one.any] for one in told])
            return table[~learned], [repeats.named(pairs[i], known) for i in np.flatnonzero(~learned)]

        p, _ = p_of(plain)
        ks.append([kstest(column, "uniform").pvalue for column in p.T])
        small.append([(p < limit).mean(axis=0) for limit in (0.01, 0.1)])
        for name, pairs in planted.items():
            p, names = p_of(pairs)
            here = (bright & still)[~learned]
            named = np.array(names)[here] == name.split(" ")[0].replace("-", "")
            rows.setdefault(name, []).append([*(p[here] < 0.01).mean(axis=0), named.mean()])
    print(f"{(~still).sum()} comparisons with p_velocity < 0.01, learned from all; without these:")
    print("columns: velocity, lines, second lines, any of the three")
    print("KS of p-values on the other half, median:", np.median(ks, axis=0).round(2))
    print("share of p below 0.01, 0.1:", np.mean(small, axis=0).round(3).tolist())
    for name, share in rows.items():
        print(f"{name:32s}", np.mean(share, axis=0).round(3), "(last: named)")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
