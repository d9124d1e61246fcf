"""Covariance model of the residuals of normal stars: a few shared shapes plus independent pixel noise.

A residual r of n pixels is modelled as Gaussian with covariance C = D + U U^T + E E^T: D is the
diagonal of noise^2 and of the unexplained variance; U are the leading principal components of normal
stars' residuals, scaled by their spread (factor analysis, Rubin & Thayer 1982); E are shapes of
individual stars, each scaled by the prior width of its amplitude (see
`specclip_search.queries.translation.nuisance_shapes`).
Marginalising over an amplitude with a Gaussian prior is equivalent to such a
term in C, so reddening, a velocity shift or a tilted continuum contribute little to chi2, while a
line not described by the shapes contributes its full significance. C^-1 r follows from Woodbury's
identity with a system of about twenty unknowns per star.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..statistics.robust_trend import MAD_TO_SIGMA

ROUNDS = 2
KEPT = 0.95
CLIP_SIGMA = 6.0
STARS_PER_SHAPE = 20
# minimum fraction of the remaining variance attributed to the model even if noise explains all of it
LEAST_OWN = 0.15
BLOCK_ROWS = 256


@dataclass(frozen=True, slots=True)
class ResidualModel:
    """Location and covariance of normal stars' residuals.

    Attributes
    ----------
    mean
        (n,) float32 median residual.
    shapes
        (n, q) float32 shared shapes, each multiplied by its spread.
    sigma
        (n,) float32 1 sigma per pixel in excess of noise and shapes.
    """

    mean: np.ndarray
    shapes: np.ndarray
    sigma: np.ndarray


@dataclass(frozen=True, slots=True)
class Whitened:
    """A residual whitened by the model.

    Attributes
    ----------
    chi2
        (N,) r^T C^-1 r over the number of informative pixels.
    weighted
        (N, n) float32 C^-1 r, whose product with a template is its matched filter.
    inverse
        (N, n) float32 diagonal of D^-1, 0 for pixels without information.
    """

    chi2: np.ndarray
    weighted: np.ndarray
    inverse: np.ndarray


def learn_residual_model(residual: np.ndarray, noise: np.ndarray, rank: int) -> ResidualModel:
    """Learn the model from residuals of mostly normal stars.

    Residuals are clipped at 6 robust sigma per pixel. The 5 % of stars with the largest chi2 are
    left out when the model is learned again.

    Parameters
    ----------
    residual, noise
        (N, n) observed minus predicted and its 1 sigma; inf for pixels without information.
    rank
        Number of shapes; fewer if there are not 20 stars for each.
    """
    keep = np.ones(len(residual), dtype=bool)
    rank = int(min(rank, len(residual) // STARS_PER_SHAPE, residual.shape[1]))
    model = _fit(residual, noise, rank)
    for _ in range(ROUNDS - 1):
        chi2 = whiten(model, residual, noise).chi2
        keep = chi2 <= np.quantile(chi2, KEPT)
        model = _fit(residual[keep], noise[keep], rank)
    return model


def _fit(residual: np.ndarray, noise: np.ndarray, rank: int) -> ResidualModel:
    good = np.isfinite(noise)
    mean = np.median(residual, axis=0)
    centred = np.where(good, residual - mean, 0.0)
    limit = CLIP_SIGMA * MAD_TO_SIGMA * np.median(np.abs(centred), axis=0)
    scale = np.maximum(limit / CLIP_SIGMA, 1e-6)
    scaled = np.clip(centred, -limit, limit) / scale
    shapes, spread = _largest_components(scaled, rank)
    left = MAD_TO_SIGMA * np.median(np.abs(scaled - (scaled @ shapes) @ shapes.T), axis=0)
    noise_part = np.median(np.where(good, noise / scale, 1.0), axis=0) ** 2
    own = np.sqrt(np.maximum(left**2 - noise_part, LEAST_OWN**2 * np.maximum(left**2, 1e-4)))
    return ResidualModel(
        mean.astype(np.float32),
        (shapes * spread * scale[:, None]).astype(np.float32),
        (own * scale).astype(np.float32),
    )


def _largest_components(rows: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, rank) directions of largest variance about 0 and (rank,) their standard deviations, largest first.

    Only as many eigenvectors are computed as are wanted, of the smaller of R^T R and R R^T.
    """
    from scipy.linalg import eigh

    if rank == 0:
        return np.zeros((rows.shape[1], 0)), np.zeros(0)
    wide = len(rows) < rows.shape[1]
    gram = (rows @ rows.T if wide else rows.T @ rows) / len(rows)
    values, vectors = eigh(gram, subset_by_index=(len(gram) - rank, len(gram) - 1), check_finite=False)
    spread, vectors = np.sqrt(np.maximum(values[::-1], 0.0)), vectors[:, ::-1]
    if wide:
        vectors = rows.T @ vectors
        vectors /= np.maximum(np.linalg.norm(vectors, axis=0), 1e-300)
    return vectors, spread


def whiten(
    model: ResidualModel, residual: np.ndarray, noise: np.ndarray, star_shapes: np.ndarray | None = None
) -> Whitened:
    """Apply the inverse covariance.

    Parameters
    ----------
    residual, noise
        (N, n).
    star_shapes
        (N, e, n) shapes of each individual star, times the prior width of their amplitudes.
    """
    result = Whitened(
        np.empty(len(residual)), np.empty(residual.shape, np.float32), np.empty(residual.shape, np.float32)
    )
    shapes = model.shapes.astype(np.float64)
    upper = np.triu_indices(shapes.shape[1])
    products = shapes[:, upper[0]] * shapes[:, upper[1]]
    for start in range(0, len(residual), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        own = None if star_shapes is None else star_shapes[block].astype(np.float64)
        good = np.isfinite(noise[block])
        variance = np.where(good, noise[block], 1.0).astype(np.float64) ** 2 + model.sigma.astype(np.float64) ** 2
        inverse = np.where(good, 1.0 / np.maximum(variance, 1e-20), 0.0)
        centred = np.where(good, residual[block] - model.mean, 0.0)
        weighted = inverse * (centred - _explained(shapes, products, upper, own, inverse, centred))
        result.chi2[block] = (weighted * centred).sum(axis=1) / np.maximum(good.sum(axis=1), 1)
        result.weighted[block], result.inverse[block] = weighted, inverse
    return result


def _explained(
    shapes: np.ndarray,
    products: np.ndarray,
    upper: tuple[np.ndarray, ...],
    own: np.ndarray | None,
    inverse: np.ndarray,
    centred: np.ndarray,
) -> np.ndarray:
    """(N, n) part of the residual explained by the shapes at their most likely amplitudes."""
    shared, single = shapes.shape[1], 0 if own is None else own.shape[1]
    if shared + single == 0:
        return np.zeros_like(centred)
    matrix = np.zeros((len(centred), shared + single, shared + single))
    aim = np.zeros((len(centred), shared + single))
    gram = inverse @ products
    matrix[:, upper[0], upper[1]] = gram
    matrix[:, upper[1], upper[0]] = gram
    aim[:, :shared] = (inverse * centred) @ shapes
    if own is not None:
        heavy = own * inverse[:, None, :]
        cross = heavy @ shapes
        matrix[:, shared:, :shared], matrix[:, :shared, shared:] = cross, np.swapaxes(cross, 1, 2)
        matrix[:, shared:, shared:] = heavy @ np.swapaxes(own, 1, 2)
        aim[:, shared:] = np.einsum("nep,np->ne", heavy, centred)
    place = np.arange(shared + single)
    matrix[:, place, place] += 1.0
    amplitude = np.linalg.solve(matrix, aim[:, :, None])[:, :, 0]
    part = amplitude[:, :shared] @ shapes.T
    return part if own is None else part + np.einsum("ne,nep->np", amplitude[:, shared:], own)
