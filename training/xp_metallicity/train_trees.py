"""Train the XP trees of the EMP search.

    python -m specclip_search.training.xp_metallicity.train_trees --atlas ATLAS

Needs scikit-learn (histogram gradient boosting); searching does not. Only real labelled stars
are used, because trees would separate simulated from real spectra by small differences. Of the
stars above -0.8 a quarter is used.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from specclip_search.atlas.files import whole_file
from specclip_search.keys import split_of

from .networks import GROUPS, TRAIN_SPLITS
from .train_networks import Stars, principal_axes, read_stars
from .trees import WEIGHTS, XpTrees, features, pack
from .weighting import inverse_density

log = logging.getLogger(__name__)

COMPONENTS = 40
LEAVES = 15
NODES = 2 * LEAVES - 1
ORDINARY_FEH = -0.8
ORDINARY_SHARE = 0.25


def train(stars: Stars, seed: int, trees: int, rate: float, bins: int = 255) -> XpTrees:
    """Trees of all groups; each feature is cut into `bins` steps."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    split = split_of(stars.source_id)
    real = (split < TRAIN_SPLITS) & ~stars.simulated
    mean, axes = principal_axes(stars.flux[real], COMPONENTS)
    values = features(stars.flux, mean, axes)
    rng = np.random.default_rng(seed)
    groups = []
    for group in range(GROUPS):
        drawn = (stars.feh < ORDINARY_FEH) | (rng.random(len(split)) < ORDINARY_SHARE)
        taught = np.flatnonzero(real & (split // 2 != group) & drawn)
        model = HistGradientBoostingRegressor(
            max_iter=trees, learning_rate=rate, max_bins=bins, max_leaf_nodes=LEAVES, min_samples_leaf=10,
            l2_regularization=1.0, early_stopping=False, random_state=seed,
        )  # fmt: skip
        model.fit(values[taught], stars.feh[taught], np.sqrt(inverse_density(stars.feh[taught])))
        groups.append(_arrays(model))
        log.info("group %d: %d stars, %d trees", group, len(taught), trees)
    columns = {name: np.stack([one[name] for one in groups]) for name in groups[0]}
    return XpTrees(mean.astype(np.float32), axes.astype(np.float32), **columns)


def _arrays(model: Any) -> dict[str, np.ndarray]:
    """The fitted trees as arrays of equal length; leaves and unused nodes point to themselves."""
    trees = [one[0].nodes for one in model._predictors]
    shape = (len(trees), NODES)
    itself = np.broadcast_to(np.arange(NODES, dtype=np.uint8), shape)
    feature, left, right = np.zeros(shape, np.uint8), itself.copy(), itself.copy()
    threshold, value = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for number, nodes in enumerate(trees):
        inner = np.flatnonzero(nodes["is_leaf"] == 0)
        feature[number, inner] = nodes["feature_idx"][inner]
        # rounded down, so that a float32 value equal to the next number stays on its side
        limits = nodes["num_threshold"][inner].astype(np.float32)
        high = limits > nodes["num_threshold"][inner]
        threshold[number, inner] = np.where(high, np.nextafter(limits, np.float32(-np.inf)), limits)
        left[number, inner], right[number, inner] = nodes["left"][inner], nodes["right"][inner]
        value[number, : len(nodes)] = np.where(nodes["is_leaf"], nodes["value"], 0.0)
    baseline = np.asarray(model._baseline_prediction, dtype=np.float64).ravel()[0]
    return {"feature": feature, "left": left, "right": right, "threshold": threshold, "value": value,
            "baseline": np.asarray(baseline)}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Train the XP trees of the EMP search.")
    parser.add_argument("--atlas", type=Path, required=True, help="atlas with labelled XP stars")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "weights" / WEIGHTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trees", type=int, default=250, help="trees in each of the four groups")
    parser.add_argument("--rate", type=float, default=0.08)
    options = parser.parse_args(argv)
    from specclip_search.atlas import Atlas

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    stars = read_stars(Atlas(options.atlas))
    trees = train(stars, options.seed, options.trees, options.rate)
    with whole_file(options.output) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, **pack(trees, f"{int((~stars.simulated).sum())} real stars, seed {options.seed}"))
    log.info("wrote %s (%d kB)", options.output, options.output.stat().st_size // 1024)


if __name__ == "__main__":
    main()
