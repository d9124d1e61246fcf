"""Train the XP networks of the EMP search: ``python -m queries.emp_training --atlas ATLAS``.

The atlas holds real labelled XP stars and simulated metal-poor ones (`specclip-search ingest
library` and `simulate metal-poor`). Real stars are drawn against their frequency in [Fe/H], those
below -1 also as copies with more dust and more noise: it is reddened and faint stars that a plain
network takes for poor ones. Simulated stars teach where no real star is, below -2.3, and
[C/Fe]; with more weight than they have here they draw real stars down. Never acceptance stars;
validation stars give the error's scale alone.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from specclip_search.atlas.columns import column_to_matrix
from specclip_search.atlas.files import whole_file
from specclip_search.keys import VALIDATION_SPLIT, split_of

from .emp_network import FEH_OFFSET, GROUPS, LOG_SIGMA, OUTPUTS, TRAIN_SPLITS, WEIGHTS, XpNetwork, pack, whitened
from .pairs import XP

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

log = logging.getLogger(__name__)

COMPONENTS = 110
POOR_FEH = -1.0
COPIES = ((-1.6, 8), (POOR_FEH, 3))
COPIES_WEIGHT = 4.0
# E(B-V) that is added; a little is taken away, as much as most stars have
ADDED_EBV = (-0.08, 0.45)
MORE_NOISE = 1.5
NOISE_PIXELS = 1.5
SIMULATED_BELOW = -2.3
SIMULATED_WEIGHT = 0.05
CARBON_BELOW = -1.8
CARBON_LOSS = 0.3
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


def copied(stars: Stars, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of real poor stars, each several times, and their spectra with other dust and more noise."""
    from specclip_search.simulation.reddening import xp_extinction

    times = np.zeros(len(stars.feh), dtype=np.int64)
    for limit, number in sorted(COPIES, reverse=True):
        times[stars.feh < limit] = number
    rows = np.repeat(np.arange(len(times)), np.where(stars.simulated, 0, times))
    dimmed = 10.0 ** (-0.4 * rng.uniform(*ADDED_EBV, (len(rows), 1)) * xp_extinction())
    flux = stars.flux[rows] * dimmed
    reference = flux[:, [107]]
    error = np.where(np.isfinite(stars.error[rows]), stars.error[rows], 0.0) * dimmed / reference
    width = np.arange(-4, 5)
    kernel = np.exp(-0.5 * (width / NOISE_PIXELS) ** 2)
    kernel /= np.sqrt(np.sum(kernel**2))
    noise = np.apply_along_axis(np.convolve, 1, rng.normal(size=flux.shape), kernel, "same")
    strength = rng.uniform(0, MORE_NOISE, (len(rows), 1)) * (rng.random((len(rows), 1)) < 0.6)
    return rows, (flux / reference + strength * error * noise).astype(np.float32)


def draw_weights(stars: Stars, copies: np.ndarray, taught: np.ndarray) -> np.ndarray:
    """How often each star, and then each copy, is drawn; 0 for stars that do not teach."""
    real = taught & ~stars.simulated
    bins = np.floor(stars.feh / BIN).astype(np.int64)
    bins -= bins.min()
    common = 1.0 / np.sqrt(np.maximum(np.bincount(bins[real], minlength=bins.max() + 1), MIN_IN_BIN))[bins]
    times = np.bincount(copies, minlength=len(bins))
    weight = np.where(real, common, 0.0)
    of_copies = np.where(real, COPIES_WEIGHT * common, 0.0)[copies] / times[copies]
    made = taught & stars.simulated & (stars.feh < SIMULATED_BELOW)
    weight[made] = SIMULATED_WEIGHT * (weight.sum() + of_copies.sum()) / max(int(made.sum()), 1)
    return np.concatenate([weight, of_copies])


def train(stars: Stars, seed: int, epochs: int, hidden: int, members: int) -> XpNetwork:
    """Networks of all groups, `members` in each."""
    rng = np.random.default_rng(seed)
    split = split_of(stars.source_id)
    rows, extra = copied(stars, rng)
    seen = (split < TRAIN_SPLITS) & ~stars.simulated
    logarithm = np.log(np.maximum(stars.flux[seen], 1e-3))
    mean = logarithm.mean(axis=0)
    _, size, axes = np.linalg.svd(logarithm[::4] - mean, full_matrices=False)
    axes = (axes[:COMPONENTS] / (size[:COMPONENTS, None] / np.sqrt(len(logarithm[::4])))).T
    x = np.concatenate([whitened(stars.flux, mean, axes), whitened(extra, mean, axes)])
    feh, c_fe = (np.concatenate([label, label[rows]]) for label in (stars.feh, stars.c_fe))
    found, groups = [], []
    for group in range(GROUPS):
        taught = (split < TRAIN_SPLITS) & (split // 2 != group)
        weight = draw_weights(stars, rows, taught)
        for member in range(members):
            found.append(fit(x, feh, c_fe, weight, seed + 100 * group + member, epochs, hidden))
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
    x: np.ndarray, feh: np.ndarray, c_fe: np.ndarray, weight: np.ndarray, seed: int, epochs: int, hidden: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """One network's layers, each (in, out) and (out,)."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    linear = [nn.Linear(x.shape[1], hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, OUTPUTS)]
    gelu, drop = nn.GELU(approximate="tanh"), nn.Dropout(0.1)
    network = nn.Sequential(linear[0], gelu, drop, linear[1], gelu, drop, linear[2])
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-2)
    rows = np.flatnonzero(weight)
    steps = epochs * len(rows) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    carbon = np.where(feh < CARBON_BELOW, c_fe, np.nan)
    labels = np.stack([feh - FEH_OFFSET, carbon], axis=1)
    # a label that is not known is no part of the loss; NaN would be, in its derivative
    has, target = torch.from_numpy(np.isfinite(labels)), torch.from_numpy(np.nan_to_num(labels).astype(np.float32))
    inputs = torch.from_numpy(x)
    chance = weight[rows] / weight[rows].sum()
    for _ in range(steps):
        batch = torch.from_numpy(rng.choice(rows, BATCH, p=chance))
        output = network(inputs[batch])
        log_sigma = output[:, 1::2].clamp(*LOG_SIGMA)
        pull = (output[:, ::2] - target[batch]) * torch.exp(-log_sigma)
        cost = nn.functional.smooth_l1_loss(pull, torch.zeros_like(pull), reduction="none") + log_sigma
        known = has[batch]
        loss = (cost * known).sum(dim=0) / known.sum(dim=0).clamp(min=1)
        loss = loss[0] + CARBON_LOSS * loss[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return [(one.weight.detach().numpy().T, one.bias.detach().numpy()) for one in linear]


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Train the XP networks of the EMP search.")
    parser.add_argument("--atlas", type=Path, required=True, help="atlas with labelled and simulated XP stars")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "weights" / WEIGHTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--members", type=int, default=2, help="networks in each of the four groups")
    options = parser.parse_args(argv)
    import torch

    from specclip_search.atlas import Atlas

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    stars = read_stars(Atlas(options.atlas))
    network = train(stars, options.seed, options.epochs, options.hidden, options.members)
    note = f"{int((~stars.simulated).sum())} real and {int(stars.simulated.sum())} simulated stars, seed {options.seed}"
    with whole_file(options.output) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, **pack(network, note))
    log.info("wrote %s (%d kB)", options.output, options.output.stat().st_size // 1024)


if __name__ == "__main__":
    main()
