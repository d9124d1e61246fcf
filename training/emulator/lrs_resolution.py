"""The resolving power of LAMOST's low-resolution spectra, from the sky lines in their variance.

    python -m specclip_search.training.emulator.lrs_resolution lamost_real/spectra.npz

A sky line's photons add variance with the line's own profile, which is the spectrograph's line spread: its width is
measured in each spectrum and the median taken. `specclip_search.preparation.line_spread` ships the result.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence

import numpy as np

from specclip_search.readers.wavelengths import air_to_vacuum

# air wavelengths [Angstrom] of lone or strongest members: Hg I and O I, Osterbrock et al. 1996, PASP 108, 277 for OH
SKY_LINES = (4358.34, 5460.74, 5577.34, 6863.96, 7276.40, 7340.89, 7750.64, 7993.33, 8399.17, 8885.85)
HALF_WINDOW = 16.0
LARGEST_SHIFT = 1.5
WIDTHS = (0.5, 4.0)
FWHM_PER_SIGMA = float(np.sqrt(8.0 * np.log(2.0)))


def line_widths(wavelength: np.ndarray, ivar: np.ndarray, air: float) -> np.ndarray:
    """FWHM [Angstrom] of one sky line in each spectrum where it stands out of the variance.

    Parameters
    ----------
    wavelength
        (P,) vacuum Angstrom.
    ivar
        (N, P) inverse variances; a spectrum with a masked pixel near the line is left out.
    """
    from scipy.optimize import OptimizeWarning, curve_fit

    centre = float(air_to_vacuum(np.array([air]))[0])
    near = np.abs(wavelength - centre) < HALF_WINDOW
    x = wavelength[near] - centre
    found = []
    for row in ivar[:, near]:
        if not (row > 0).all():
            continue
        variance = np.median(row) / row
        try:
            with warnings.catch_warnings(action="ignore", category=OptimizeWarning):
                best, _ = curve_fit(_line, x, variance, [variance.max() - 1.0, 0.0, 1.2, 1.0, 0.0], maxfev=400)
        except RuntimeError:  # no line that a Gaussian fits
            continue
        height, shift, sigma = best[0], best[1], abs(best[2])
        if height > 1.0 and abs(shift) < LARGEST_SHIFT and WIDTHS[0] < sigma < WIDTHS[1]:
            found.append(sigma * FWHM_PER_SIGMA)
    return np.array(found)


def _line(x: np.ndarray, height: float, shift: float, sigma: float, level: float, slope: float) -> np.ndarray:
    return np.asarray(level + slope * x + height * np.exp(-0.5 * ((x - shift) / sigma) ** 2))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Measure LAMOST LRS's resolving power from its sky lines.")
    parser.add_argument("spectra", help="npz file with ivar (N, P), loglam0 and dloglam")
    parser.add_argument("--every", type=int, default=3, help="take every n-th spectrum")
    options = parser.parse_args(argv)
    with np.load(options.spectra) as stored:
        ivar = stored["ivar"][:: options.every]
        wavelength = 10.0 ** (float(stored["loglam0"]) + float(stored["dloglam"]) * np.arange(ivar.shape[1]))
    for air in SKY_LINES:
        centre = float(air_to_vacuum(np.array([air]))[0])
        widths = line_widths(wavelength, ivar, air)
        power = centre / np.percentile(widths, (84, 50, 16))
        print(f"{centre:.1f}: {power[1]:.0f} ({power[0]:.0f} to {power[2]:.0f}, {len(widths)} spectra)")  # noqa: T201


if __name__ == "__main__":
    main()
