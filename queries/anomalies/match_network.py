"""Probability that two spectra belong to one star, from small networks trained on the atlas's own pairs.

Vectors of the two instruments are close to each other, but the distance varies from star to star, and
properties seen by one instrument only (velocity, dust) shift only one of them. Two small networks
f and g map both, with the broad-band shapes that vectors do not contain, to 64 numbers in which
-|f(a) - g(b)|^2 separates true pairs from all others of a batch (InfoNCE in both directions: van den Oord, Li &
Vinyals 2018; Radford et al. 2021). The score is the
log of how much less likely the partner is than an average spectrum of the atlas,
min over both sides of log sum_j exp(l(a, b_j)) - l(a, b). Pairs are scored by networks that never
saw their star: three folds, each scored by the networks trained on the other two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from specclip_search.keys import ACCEPTANCE_SPLIT, split_of

from ..statistics.learning_stars import first_visits, scattered
from ..statistics.robust_trend import median_and_sigma

if TYPE_CHECKING:
    from torch import Tensor, nn

Vectors = Callable[[np.ndarray], np.ndarray]

FOLDS = 3
LEAST_PAIRS = 1500
MOST_PAIRS = 20_000
COMPONENTS = 64
WIDTH, OUT = 128, 64
EPOCHS, BATCH, RATE, DECAY = 30, 512, 3e-3, 0.05
BACKGROUND = 2000
JUDGE_ROWS = 4096
CLIP = 6.0
LEAST_SPREAD = 0.01


class _Side:
    """Network inputs of one instrument: principal components of its vectors, S/N and broad-band shape."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.mean = vectors.mean(axis=0)
        centred = (vectors - self.mean).astype(np.float64)
        values, axes = np.linalg.eigh(centred.T @ centred / len(centred))
        count = min(COMPONENTS, vectors.shape[1])
        self.axes = (axes[:, ::-1][:, :count] / np.sqrt(np.maximum(values[::-1][:count], 1e-9))).astype(np.float32)

    def __call__(self, vectors: np.ndarray, log_snr: np.ndarray, shape: np.ndarray) -> np.ndarray:
        plain = np.concatenate([(vectors - self.mean) @ self.axes, log_snr[:, None] - 1.6, shape], axis=1)
        return np.clip(np.nan_to_num(plain), -CLIP, CLIP).astype(np.float32)


def mismatch(
    lrs_vectors: Vectors,
    xp_vectors: Vectors,
    log_snr: np.ndarray,
    source_id: np.ndarray,
    shapes: tuple[np.ndarray, np.ndarray] | None = None,
    seed: int = 0,
) -> np.ndarray | None:
    """Score of two spectra being of different stars.

    Parameters
    ----------
    lrs_vectors, xp_vectors
        Functions from pair indices (n,) to vectors (n, dim), so that not all are held at once.
    log_snr
        (N, 2) log10 S/N of both spectra.
    source_id
        (N,) int64. Acceptance stars are not used for training.
    shapes
        (N, 15) broad-band levels of LRS and XP (see `specclip_search.preparation.bands`), NaN where unknown.

    Returns
    -------
    np.ndarray or None
        (N,) float64, high for different stars; None if the atlas has too few pairs to train on.
    """
    able = first_visits(source_id) & (split_of(source_id) != ACCEPTANCE_SPLIT)
    if able.sum() < LEAST_PAIRS:
        return None
    levels = _scaled(shapes, able, len(source_id))
    order = scattered(source_id)
    fold = (order % np.uint64(FOLDS)).astype(np.int64)
    result = np.empty(len(source_id))
    for number in range(FOLDS):
        chosen = np.flatnonzero(able & (fold != number))
        chosen = chosen[np.argsort(order[chosen], kind="stable")[:MOST_PAIRS]]
        taught = lrs_vectors(chosen), xp_vectors(chosen)
        sides = _Side(taught[0]), _Side(taught[1])
        inputs = [
            side(vectors, log_snr[chosen, column], levels[column][chosen])
            for column, (side, vectors) in enumerate(zip(sides, taught, strict=True))
        ]
        del taught
        networks = _train(inputs[0], inputs[1], seed + number)
        background = [_apply(network, part[:BACKGROUND]) for network, part in zip(networks, inputs, strict=True)]
        own = np.flatnonzero(fold == number)
        for start in range(0, len(own), JUDGE_ROWS):
            rows = own[start : start + JUDGE_ROWS]
            a, b = (
                _apply(network, side(vectors(rows), log_snr[rows, column], levels[column][rows]))
                for column, (network, side, vectors) in enumerate(
                    zip(networks, sides, (lrs_vectors, xp_vectors), strict=True)
                )
            )
            result[rows] = _match_scores(a, b, background)
    return result


def _scaled(
    shapes: tuple[np.ndarray, np.ndarray] | None, able: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both instruments' levels in robust sigma of XP's, preserving their differences; 0 where unknown."""
    if shapes is None or not np.isfinite(shapes[1][able]).any():
        return np.zeros((count, 0), np.float32), np.zeros((count, 0), np.float32)
    middle, sigma = median_and_sigma(shapes[1][able].astype(np.float64))
    lrs, xp = (np.nan_to_num((levels - middle) / np.maximum(sigma, LEAST_SPREAD)) for levels in shapes)
    return lrs.astype(np.float32), xp.astype(np.float32)


def _match_scores(a: np.ndarray, b: np.ndarray, background: list[np.ndarray]) -> np.ndarray:
    from scipy.special import logsumexp

    own = -np.square(a - b).sum(axis=1)
    others = [logsumexp(-_distances(x, y), axis=1) for x, y in ((a, background[1]), (b, background[0]))]
    return np.minimum(*others) - own


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray((x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2.0 * x @ y.T)


def _network(inputs: int) -> nn.Module:
    from torch import nn

    return nn.Sequential(nn.Linear(inputs, WIDTH), nn.GELU(), nn.Dropout(0.1), nn.Linear(WIDTH, OUT))


def _train(lrs: np.ndarray, xp: np.ndarray, seed: int) -> list[nn.Module]:
    """Both networks, trained together; the same inputs give the same networks."""
    import torch
    from torch.nn.functional import cross_entropy

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = [_network(lrs.shape[1]), _network(xp.shape[1])]
        parameters = [parameter for network in networks for parameter in network.parameters()]
        with torch.no_grad():
            for network in networks:
                network[-1].weight.mul_(0.5)  # type: ignore[index,operator,union-attr]
        batch = min(BATCH, len(lrs))
        steps = EPOCHS * (len(lrs) // batch)
        optimiser = _AdamW(parameters)
        rng, target = np.random.default_rng(seed), torch.arange(batch)
        for _ in range(EPOCHS):
            order = rng.permutation(len(lrs))[: len(lrs) // batch * batch]
            for rows in order.reshape(-1, batch):
                a, b = networks[0](torch.from_numpy(lrs[rows])), networks[1](torch.from_numpy(xp[rows]))
                logits = -_squared(a, b)
                loss = cross_entropy(logits, target) + cross_entropy(logits.T, target)
                for parameter in parameters:
                    parameter.grad = None
                loss.backward()
                optimiser.step(*one_cycle(optimiser.steps, steps))
    return [network.eval() for network in networks]


def one_cycle(step: int, steps: int) -> tuple[float, float]:
    """Learning rate and momentum of a step, by the one-cycle policy (Smith & Topin 2019) with cosines.

    The numbers of `torch.optim.lr_scheduler.OneCycleLR`: from RATE / 25 up to RATE in the first 30 % of the steps and
    down to RATE / 250,000; the momentum from 0.95 to 0.85 and back.
    """
    turn, end = 0.3 * steps - 1.0, steps - 1.0
    if step <= turn:
        share, rates, momenta = step / turn, (RATE / 25.0, RATE), (0.95, 0.85)
    else:
        share, rates, momenta = (step - turn) / (end - turn), (RATE, RATE / 25.0 / 1e4), (0.85, 0.95)
    height = math.cos(math.pi * share) + 1.0
    rate, momentum = (last + (first - last) / 2.0 * height for first, last in (rates, momenta))
    return rate, momentum


class _AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), as `torch.optim.AdamW`.

    Making one of torch's imports torch._dynamo, which takes longer than the training.
    """

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        import torch

        self.steps = 0
        self._moments = [(parameter, torch.zeros_like(parameter), torch.zeros_like(parameter))
                         for parameter in parameters]

    def step(self, rate: float, momentum: float, second: float = 0.999, least: float = 1e-8) -> None:
        """Move every parameter by its gradient."""
        import torch

        self.steps += 1
        root = math.sqrt(1.0 - second**self.steps)
        size = rate / (1.0 - momentum**self.steps)
        with torch.no_grad():
            for parameter, mean, square in self._moments:
                grad = parameter.grad
                assert grad is not None
                parameter.mul_(1.0 - rate * DECAY)
                mean.lerp_(grad, 1.0 - momentum)
                square.mul_(second).addcmul_(grad, grad, value=1.0 - second)
                parameter.addcdiv_(mean, (square.sqrt() / root).add_(least), value=-size)


def _squared(a: Tensor, b: Tensor) -> Tensor:
    return (a**2).sum(1)[:, None] + (b**2).sum(1) - 2.0 * a @ b.T


def _apply(network: nn.Module, inputs: np.ndarray) -> np.ndarray:
    import torch

    with torch.inference_mode():
        return np.asarray(network(torch.from_numpy(inputs)).double().numpy())
