"""How near the stars found by labels come to these labels: ``python tests/benchmarks/physics.py --atlas demo-atlas``.

Each star drawn from those of the atlas with catalogue labels is asked for by its labels alone, and the labels of the
K nearest real stars are compared with it. The same stars' own spectra are searched with for comparison.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from specclip_search import Atlas
from specclip_search.errors import SpecclipError
from specclip_search.queries.similar.search import search_targets
from specclip_search.queries.space.made_stars import galactic_alpha
from specclip_search.queries.space.space import open_space
from specclip_search.queries.space.targets import resolve_targets

LABELS = ("teff", "logg", "feh")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atlas", type=Path, required=True)
    parser.add_argument("--within", default="gaia_xp")
    parser.add_argument("--stars", type=int, default=300)
    parser.add_argument("-k", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    space = open_space(Atlas(given.atlas))
    rows = space.atlas.sql(
        "SELECT spec_id, teff, logg, feh FROM spectra WHERE modality = ? AND NOT simulated AND snr > 30 "
        "AND teff IS NOT NULL AND logg IS NOT NULL AND feh IS NOT NULL ORDER BY spec_id",
        [given.within],
    ).fetchnumpy()
    spec_id = np.asarray(rows["spec_id"], np.int64)
    labels = np.stack([np.asarray(rows[name], float) for name in LABELS], axis=1)
    of_star = dict(zip(spec_id.tolist(), labels, strict=True))
    drawn = np.random.default_rng(given.seed).permutation(len(spec_id))[: given.stars]
    results: dict[str, list[np.ndarray]] = {"by its labels": [], "by its own spectrum": []}
    truth, uncovered = [], 0
    for i in drawn.tolist():
        teff, logg, feh = labels[i]
        asked = f"teff={teff:.1f},logg={logg:.3f},feh={feh:.3f},alpha_fe={galactic_alpha(feh):.3f}"
        try:
            targets = resolve_targets(space, [asked, f"gaia:{spec_id[i]}"])
        except SpecclipError:
            uncovered += 1
            continue
        truth.append(labels[i])
        for name, hits in zip(results, search_targets(space, targets, given.k + 1, [given.within]), strict=True):
            found = np.asarray(space.keys(given.within).spec_id[hits[0].rows])
            found = found[found != spec_id[i]][: given.k]
            known = [of_star[key] for key in found.tolist() if key in of_star]
            results[name].append(np.median(known, axis=0) if known else np.full(3, np.nan))
    print(f"{len(truth)} stars asked for, {uncovered} outside the models")
    print(f"medians of the {given.k} nearest {given.within}:")
    print("searched           |  Teff bias, scatter [K] |  log g bias, scatter |  [Fe/H] bias, scatter")
    for name, medians in results.items():
        off = np.array(medians) - np.array(truth)
        middle = np.nanmedian(off, axis=0)
        scatter = 1.4826 * np.nanmedian(np.abs(off - middle), axis=0)
        print(f"{name:18s} | {middle[0]:+7.0f} {scatter[0]:6.0f}          | {middle[1]:+7.2f} {scatter[1]:6.2f}       "
              f"| {middle[2]:+7.3f} {scatter[2]:6.3f}")


if __name__ == "__main__":
    sys.exit(main())
