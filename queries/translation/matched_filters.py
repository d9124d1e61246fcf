"""Matched filters: significance of lines, bands and narrow features in a residual, in sigma.

The filter of a template t in a residual r of covariance C is t^T C^-1 r / sqrt(t^T D^-1 t), with D
the diagonal part of C. The root ignores the part of t along the shared shapes, so every
filter is centred and scaled by its median and robust sigma among normal stars.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..statistics.robust_trend import median_and_sigma
from .residual_covariance import Whitened

# vacuum Angstrom: lines NIST Atomic Spectra Database, band heads Pearse & Gaydon
BALMER = ((4102.89, 0.1), (4341.68, 0.2), (4862.68, 1.0))
S_PROCESS = (4078.86, 4216.74, 4555.30, 4935.45)
ALPHA = (4227.92, 5168.76, 5174.13, 5185.05)
HELIUM = (4027.3, 4472.7, 4687.0, 4923.3, 5017.1)
C2_HEADS, CH_BAND = (4383.0, 4738.0, 5166.6), (4284.0, 4319.0)
# head and length of decline, nm: the Swan bands of C2 decline towards the blue, the red system of CN towards the red
XP_CARBON = ((473.8, 12.0), (516.6, 12.0), (692.7, -15.0), (787.6, -20.0), (914.0, -20.0))
LRS_WIDTHS, XP_WIDTHS = ((3.3, 2.2), (11.0, 5.5)), ((4.0, 4.0), (12.0, 8.0))
"""Sigma and spacing of the narrow filters, Angstrom and nm."""
BLOCK_FILTERS = 32
NEGLIGIBLE = 1e-9
"""Of a filter's largest value; far below the rounding of float32."""
LRS_PATTERNS = ("emission", "s_process", "alpha", "carbon", "helium")
XP_PATTERNS = ("emission", "carbon")


@dataclass(frozen=True)
class Templates:
    """Named patterns and narrow filters at every wavelength, on one instrument's grid.

    Attributes
    ----------
    names
        Names of the patterns, which are the first rows of `matrix`.
    matrix
        (m, n) float32; positive if a pattern is above the prediction.
    centres
        (m,) wavelength of each narrow filter, NaN for a pattern.
    """

    names: tuple[str, ...]
    matrix: np.ndarray
    centres: np.ndarray

    @cached_property
    def squared(self) -> np.ndarray:
        """(m, n) float32 squares of `matrix`."""
        return self.matrix**2

    @cached_property
    def blocks(self) -> list[tuple[slice, slice]]:
        """Neighbouring filters and the pixels outside which all of them are zero.

        Narrow filters are zero nearly everywhere: products of these blocks are a small part of the whole product.
        """
        found = [(slice(0, len(self.names)), slice(0, self.matrix.shape[1]))]
        for start in range(len(self.names), len(self.matrix), BLOCK_FILTERS):
            filters = slice(start, min(start + BLOCK_FILTERS, len(self.matrix)))
            pixels = np.flatnonzero(self.matrix[filters].any(axis=0))
            found.append((filters, slice(int(pixels[0]), int(pixels[-1]) + 1)))
        return found


@dataclass(frozen=True)
class FilterScale:
    """(m,) median and robust sigma of every filter among normal stars."""

    middle: np.ndarray
    sigma: np.ndarray


@dataclass(frozen=True)
class Filtered:
    """Patterns (N, names) in sigma; the strongest narrow filter (N,), signed, and its wavelength."""

    patterns: np.ndarray
    peak: np.ndarray
    peak_at: np.ndarray


def templates(side: str, wavelength: np.ndarray) -> Templates:
    """The filters of `lrs` or `xp`; wavelength in Angstrom or nm."""
    named = _lrs_patterns(wavelength) if side == "lrs" else _xp_patterns(wavelength)
    rows, centres = list(named.values()), [np.nan] * len(named)
    for sigma, step in LRS_WIDTHS if side == "lrs" else XP_WIDTHS:
        places = np.arange(wavelength[0] + sigma, wavelength[-1] - sigma, step)
        rows += [_gauss(wavelength, place, sigma) for place in places]
        centres += places.tolist()
    matrix = np.array(rows, dtype=np.float32)
    # their squares would be denormal numbers, which processors multiply a hundred times slower
    matrix[np.abs(matrix) < NEGLIGIBLE] = 0.0
    return Templates(tuple(named), matrix, np.array(centres))


def _gauss(wavelength: np.ndarray, centre: float, sigma: float) -> np.ndarray:
    return np.asarray(np.exp(-0.5 * ((wavelength - centre) / sigma) ** 2))


def _band(wavelength: np.ndarray, head: float, length: float) -> np.ndarray:
    """A band with a sharp head that declines towards the blue, or towards the red if `length` is negative."""
    beyond = (head - wavelength) / length
    return np.where(beyond >= 0, np.exp(-np.maximum(beyond, 0.0)), 0.0)


def _lrs_patterns(wavelength: np.ndarray) -> dict[str, np.ndarray]:
    def lines(places: tuple[float, ...], sigma: float) -> np.ndarray:
        return -np.sum([_gauss(wavelength, place, sigma) for place in places], axis=0)

    carbon = np.sum([_band(wavelength, head, 40.0) for head in C2_HEADS], axis=0)
    return {
        "emission": np.sum([part * _gauss(wavelength, place, 3.0) for place, part in BALMER], axis=0),
        "s_process": lines(S_PROCESS, 1.9),
        "alpha": lines(ALPHA, 2.4),
        "carbon": -(carbon + ((wavelength >= CH_BAND[0]) & (wavelength <= CH_BAND[1]))),
        "helium": lines(HELIUM, 4.0),
    }


def _xp_patterns(wavelength: np.ndarray) -> dict[str, np.ndarray]:
    carbon = np.sum([_band(wavelength, head, length) for head, length in XP_CARBON], axis=0)
    return {"emission": _gauss(wavelength, 656.5, 5.0) + 0.2 * _gauss(wavelength, 486.3, 4.0), "carbon": -carbon}


def raw_filters(whitened: Whitened, chosen: Templates) -> np.ndarray:
    """(N, m) float32 filters before scaling."""
    result = np.empty((len(whitened.weighted), len(chosen.matrix)), np.float32)
    for filters, pixels in chosen.blocks:
        strength = whitened.weighted[:, pixels] @ chosen.matrix[filters, pixels].T
        size = whitened.inverse[:, pixels] @ chosen.squared[filters, pixels].T
        result[:, filters] = strength / np.sqrt(np.maximum(size, 1e-12))
    return result


def learn_scale(filters: np.ndarray) -> FilterScale:
    """Median and robust sigma of (N, m) filters of mostly normal stars."""
    middle, sigma = median_and_sigma(filters)
    return FilterScale(middle.astype(np.float32), np.maximum(sigma, 1e-3).astype(np.float32))


def apply_filters(whitened: Whitened, chosen: Templates, scale: FilterScale) -> Filtered:
    """All filters of spectra, in sigma."""
    z = (raw_filters(whitened, chosen) - scale.middle) / scale.sigma
    narrow = z[:, len(chosen.names) :]
    best = np.abs(narrow).argmax(axis=1)
    return Filtered(
        z[:, : len(chosen.names)],
        narrow[np.arange(len(z)), best],
        chosen.centres[len(chosen.names) :][best].astype(np.float32),
    )
