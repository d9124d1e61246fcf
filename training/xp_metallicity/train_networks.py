"""Train the XP networks of the EMP search.

    python -m specclip_search.training.xp_metallicity.train_networks --atlas ATLAS

The atlas holds real labelled XP stars and simulated metal-poor ones (`specclip-search ingest
library` and `simulate metal-poor`). Real stars are sampled inversely to their frequency in [Fe/H], those
below -1 more often and each time with different dust and noise, because plain networks
mistake reddened and faint stars for metal-poor ones. Simulated stars are used where there are no real
ones, below -2.3, and for [C/Fe]; with a larger weight they would bias real stars low. In addition to the Gaussian
likelihood, networks learn whether a star is below each of several limits, which improves the ranking near
them. Acceptance stars are never used; validation stars only set the scale of the errors.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.atlas.files import whole_file
from specclip_search.keys import VALIDATION_SPLIT, split_of
from specclip_search.surveys import XP

from .networks import FEH_OFFSET, FLUX_FLOOR, GROUPS, LOG_SIGMA, OUTPUTS, TRAIN_SPLITS, WEIGHTS, XpNetwork, pack
from .variation import Variation, variation

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

log = logging.getLogger(__name__)

COMPONENTS = 110
POOR_FEH = -1.0
# how much more often stars below it are sampled
POOR_WEIGHT = 5.0
SIMULATED_BELOW = -2.3
SIMULATED_WEIGHT = 0.05
CARBON_BELOW = -1.8
CARBON_LOSS = 0.3
LIMITS = tuple(round(-2.6 + 0.1 * step, 1) for step in range(14))
LIMITS_LOSS = 3.0
BIN, MIN_IN_BIN = 0.2, 20
BATCH = 512


@dataclass(frozen=True)
class Stars:
    """Spectra (N, 343) and their errors, labels (N,) and whether simulated; see `read_stars`."""

    flux: np.ndarray
    error: np.ndarray
    source_id: np.ndarray
    simulated: np.ndarray
    feh: np.ndarray
    c_fe: np.ndarray


def read_stars(atlas: Atlas, catalogue: str = "apogee", truth: str = "truth") -> Stars:
    """Labelled XP stars of an atlas: real ones by `catalogue`, simulated ones by `truth`."""
    pieces: list[list[np.ndarray]] = []
    for _, batch in atlas.spectra(XP).iter_batches(["source_id", "simulated", "flux", "error"], 8192):
        plain = [batch[name].to_numpy(zero_copy_only=False) for name in ("source_id", "simulated")]
        pieces.append([*plain, *(column_to_matrix(batch[name]).astype(np.float32) for name in ("flux", "error"))])
    ids, made, flux, error = (np.concatenate(column) for column in zip(*pieces, strict=True))
    feh, c_fe = np.full(len(ids), np.nan), np.full(len(ids), np.nan)
    for name, which in ((catalogue, ~made), (truth, made)):
        table = atlas.catalog(name).read()
        order = np.argsort(key := table["source_id"].to_numpy())
        place = order[np.minimum(np.searchsorted(key[order], ids), len(key) - 1)]
        here = which & (key[place] == ids)
        for column, values in (("feh", feh), ("c_fe", c_fe)):
            if column in table.column_names:
                values[here] = table[column].cast("float64").to_numpy()[place[here]]
    known = np.isfinite(feh) & np.isfinite(flux).all(axis=1)
    return Stars(*(column[known] for column in (flux, error, ids, made, feh, c_fe)))


def principal_axes(flux: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean ln flux (343,) and whitening axes (343, c), from every fourth spectrum."""
    logarithm = np.log(np.maximum(flux, FLUX_FLOOR))
    mean = logarithm.mean(axis=0)
    _, size, axes = np.linalg.svd(logarithm[::4] - mean, full_matrices=False)
    return mean, (axes[:components] / (size[:components, None] / np.sqrt(len(logarithm[::4])))).T


def draw_weights(stars: Stars, taught: np.ndarray) -> np.ndarray:
    """(N,) sampling weight of each star; 0 for stars not used for training."""
    real = taught & ~stars.simulated
    bins = np.floor(stars.feh / BIN).astype(np.int64)
    bins -= bins.min()
    common = 1.0 / np.sqrt(np.maximum(np.bincount(bins[real], minlength=bins.max() + 1), MIN_IN_BIN))[bins]
    weight = np.where(real, common * np.where(stars.feh < POOR_FEH, POOR_WEIGHT, 1.0), 0.0)
    made = taught & stars.simulated & (stars.feh < SIMULATED_BELOW)
    weight[made] = SIMULATED_WEIGHT * weight.sum() / max(int(made.sum()), 1)
    return weight


def train(stars: Stars, seed: int, steps: int, hidden: int, members: int) -> XpNetwork:
    """Networks of all groups, `members` in each."""
    split = split_of(stars.source_id)
    mean, axes = principal_axes(stars.flux[(split < TRAIN_SPLITS) & ~stars.simulated], COMPONENTS)
    x = (np.log(np.maximum(stars.flux, FLUX_FLOOR)) - mean) @ axes
    changes = variation(stars.flux, stars.error, ~stars.simulated & (stars.feh < POOR_FEH), axes)
    found, groups = [], []
    for group in range(GROUPS):
        weight = draw_weights(stars, (split < TRAIN_SPLITS) & (split // 2 != group))
        for member in range(members):
            found.append(fit(x, stars.feh, stars.c_fe, changes, weight, seed + 100 * group + member, steps, hidden))
            groups.append(group)
            log.info("group %d, member %d", group, member)
    layers = tuple((np.stack(w), np.stack(b)) for w, b in (zip(*one, strict=True) for one in zip(*found, strict=True)))
    plain = XpNetwork(mean.astype(np.float32), axes.astype(np.float32), layers, np.array(groups), 1.0)
    held = np.flatnonzero((split == VALIDATION_SPLIT) & ~stars.simulated & (stars.feh < POOR_FEH))
    judged = plain.estimate(stars.flux[held], stars.source_id[held])
    pull = np.abs(judged["feh"] - stars.feh[held]) / judged["feh_err"]
    scale = float(np.quantile(pull, 0.683)) if len(pull) else 1.0
    log.info("%d validation stars below %.1f: error scaled by %.2f", len(held), POOR_FEH, scale)
    return XpNetwork(plain.mean, plain.axes, plain.weights, plain.group, scale)


def fit(
    x: np.ndarray, feh: np.ndarray, c_fe: np.ndarray, changes: Variation, weight: np.ndarray, seed: int, steps: int,
    hidden: int,
) -> list[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """One network's layers, each (in, out) and (out,); without the outputs for the limits."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    linear = [nn.Linear(x.shape[1], hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, OUTPUTS + len(LIMITS))]
    gelu, drop = nn.GELU(approximate="tanh"), nn.Dropout(0.1)
    network = nn.Sequential(linear[0], gelu, drop, linear[1], gelu, drop, linear[2])
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    carbon = np.where(feh < CARBON_BELOW, c_fe, np.nan)
    labels = np.stack([feh - FEH_OFFSET, carbon], axis=1)
    # unknown labels are replaced, because NaN would propagate into the gradient
    has, target = torch.from_numpy(np.isfinite(labels)), torch.from_numpy(np.nan_to_num(labels).astype(np.float32))
    below = torch.from_numpy((feh[:, None] < np.array(LIMITS)).astype(np.float32))
    rows = np.flatnonzero(weight)
    chance = weight[rows] / weight[rows].sum()
    for _ in range(steps):
        batch = rng.choice(rows, BATCH, p=chance)
        output = network(torch.from_numpy(changes.applied(x[batch], batch, rng)))
        loss = _label_loss(output[:, :OUTPUTS], target[batch], has[batch])
        loss = loss + LIMITS_LOSS * nn.functional.binary_cross_entropy_with_logits(output[:, OUTPUTS:], below[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    layers = [(one.weight.detach().numpy().T, one.bias.detach().numpy()) for one in linear]
    return [*layers[:-1], (layers[-1][0][:, :OUTPUTS], layers[-1][1][:OUTPUTS])]


def _label_loss(output: Any, target: Any, known: Any) -> Any:
    """Robust Gaussian likelihood of [Fe/H] and, where it is known, [C/Fe]."""
    import torch

    log_sigma = output[:, 1::2].clamp(*LOG_SIGMA)
    pull = (output[:, ::2] - target) * torch.exp(-log_sigma)
    cost = torch.nn.functional.smooth_l1_loss(pull, torch.zeros_like(pull), reduction="none") + log_sigma
    loss = (cost * known).sum(dim=0) / known.sum(dim=0).clamp(min=1)
    return loss[0] + CARBON_LOSS * loss[1]


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Train the XP networks of the EMP search.")
    parser.add_argument("--atlas", type=Path, required=True, help="atlas with labelled and simulated XP stars")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "weights" / WEIGHTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--members", type=int, default=3, help="networks in each of the four groups")
    options = parser.parse_args(argv)
    import torch

    from specclip_search.atlas import Atlas

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    stars = read_stars(Atlas(options.atlas))
    network = train(stars, options.seed, options.steps, options.hidden, options.members)
    note = f"{int((~stars.simulated).sum())} real and {int(stars.simulated.sum())} simulated stars, seed {options.seed}"
    with whole_file(options.output) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, **pack(network, note))
    log.info("wrote %s (%d kB)", options.output, options.output.stat().st_size // 1024)


if __name__ == "__main__":
    main()
