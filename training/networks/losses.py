"""Loss functions of tensors, without parameters."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

PUBLISHED_TEMPERATURE = 15.5
NORM_FLOOR = 1e-3
LOG_SCALE_RANGE = (-6.0, 3.0)


def clip_logits(a: Tensor, b: Tensor, scale: float | Tensor = PUBLISHED_TEMPERATURE) -> Tensor:
    """Scaled cosines: rows are `a`, columns `b`.

    Vectors are divided by their length, or by 1e-3 where shorter. `scale` *multiplies*; the
    published hyper-parameter `temperature` = 15.5 is this factor, the usual tau is its inverse.
    """
    return scale * F.normalize(a, dim=-1, eps=NORM_FLOOR) @ F.normalize(b, dim=-1, eps=NORM_FLOOR).T


def clip_loss(a: Tensor, b: Tensor, scale: float | Tensor = PUBLISHED_TEMPERATURE) -> Tensor:
    """Symmetric cross-entropy of the pairs' cosines (CLIP, Radford et al. 2021).

    Parameters
    ----------
    a, b
        (B, D) vectors; row i of `a` belongs to row i of `b`.
    """
    logits = clip_logits(a, b, scale)
    truth = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2


def sigmoid_loss(a: Tensor, b: Tensor, scale: float | Tensor, bias: float | Tensor) -> Tensor:
    """Pairwise sigmoid loss (SigLIP, Zhai et al. 2023): each pair is classified independently.

    Needs no large batch: the sum over the batch's B x B pairs, over B.
    """
    logits = clip_logits(a, b, scale) + bias
    sign = 2 * torch.eye(len(logits), device=logits.device, dtype=logits.dtype) - 1
    return -F.logsigmoid(sign * logits).sum() / len(logits)


def l1_loss(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean absolute error; with weights, their weighted mean.

    Parameters
    ----------
    weight
        (B, n) non-negative, for example from `error_weights`; 0 for pixels without information.
    """
    if weight is None:
        return F.l1_loss(prediction, target)
    # a pixel without information may hold anything, NaN included
    residual = torch.where(weight > 0, (prediction - target).abs(), 0.0)
    return (residual * weight).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)


def error_weights(error: Tensor, floor: float = 0.01, power: float = 1.0) -> Tensor:
    """Weights (floor / max(error, floor)) ** power, in 0 to 1; infinite errors have zero weight.

    Parameters
    ----------
    error
        (B, n) 1 sigma in the units of the flux.
    floor
        Error floor of the weights, because models are not perfect either.
    power
        1 suits absolute errors, 2 squared ones.
    """
    weight = (floor / error.clamp_min(floor)) ** power
    return torch.nan_to_num(weight, nan=0.0)


def label_loss(mean: Tensor, log_scale: Tensor, target: Tensor) -> Tensor:
    """Mean negative log likelihood under a Laplace distribution, smoothed near zero; robust against wrong labels.

    Parameters
    ----------
    mean, log_scale
        (B, k) expected values, and ln of the scale of the distribution.
    target
        (B, k), NaN for unknown labels, which are ignored.
    """
    known = torch.isfinite(target)
    residual = F.smooth_l1_loss(mean, torch.nan_to_num(target), reduction="none", beta=0.1)
    log_scale = log_scale.clamp(*LOG_SCALE_RANGE)
    loss = residual * torch.exp(-log_scale) + log_scale
    return torch.where(known, loss, 0.0).sum() / known.sum().clamp_min(1)
