"""Measure the dependence of LAMOST noise on wavelength and flux from real spectra.

The variance of each spectrum is split into a part that grows with the star's flux and one that
does not (sky and read-out): V = a p(w) F + b s(w), with p and s common to all spectra and a and b per
spectrum, by multiplicative updates with outliers weighted down. Run it as

    python -m specclip_search.training.emulator.noise FOLDER --output lamost_noise.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from specclip_search.readers import read_spectrum
from specclip_search.simulation.spectra.labels import FloatArray

LOG_START, LOG_STEP, PIXELS = 3.5682, 1e-4, 3909
WAVELENGTH = 10.0 ** (LOG_START + LOG_STEP * np.arange(PIXELS))
UNIT_WINDOW = (4500.0, 5000.0)
LEAST_SNR = 5.0
PASSES = 400
SMOOTH_PIXELS = 25
FLOOR = 0.02
OUTLIER = 0.1


def collect(folder: Path) -> tuple[FloatArray, FloatArray]:
    """Variance and flux (N, 3909) of the folder's stellar spectra, over the median flux in 4200-5200 A."""
    variances, fluxes = [], []
    for path in sorted(folder.rglob("*.fits.gz")):
        spectrum = read_spectrum(path)
        snr = spectrum.meta.get("snrg")
        if snr is None or snr < LEAST_SNR or spectrum.meta.get("object_class") != "STAR":
            continue
        place = np.round((np.log10(spectrum.wavelength) - LOG_START) / LOG_STEP).astype(int)
        inside = (place >= 0) & (place < PIXELS)
        variance, flux = np.full(PIXELS, np.nan), np.full(PIXELS, np.nan)
        with np.errstate(divide="ignore"):
            variance[place[inside]] = np.where(spectrum.ivar[inside] > 0, 1.0 / spectrum.ivar[inside], np.nan)
        flux[place[inside]] = spectrum.flux[inside]
        level = np.nanmedian(flux[(WAVELENGTH > 4200) & (WAVELENGTH < 5200)])
        variances.append(variance / level**2)
        fluxes.append(flux / level)
    return np.array(variances), np.array(fluxes)


def split_variance(variance: FloatArray, flux: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """p, s (3909,) and a, b (N,) of V = a p F + b s; p and s have median 1 in 4500-5000 A."""
    from scipy.ndimage import median_filter

    smooth = np.stack([median_filter(np.where(np.isfinite(f), f, np.nanmedian(f)), SMOOTH_PIXELS) for f in flux])
    smooth = np.maximum(smooth, FLOOR)
    known = np.isfinite(variance)
    value = np.where(known, variance, 0.0)
    safe = np.where(known, variance, 1.0)
    p, s = np.ones(PIXELS), np.ones(PIXELS)
    a, b = 0.6 * np.nanmedian(variance / smooth, axis=1), 0.4 * np.nanmedian(variance, axis=1)
    unit = (UNIT_WINDOW[0] < WAVELENGTH) & (UNIT_WINDOW[1] > WAVELENGTH)
    for _ in range(PASSES):
        model = a[:, None] * p * smooth + b[:, None] * s
        weight = np.where(known, safe**-2.0, 0.0) / (1.0 + ((value - model) / safe / OUTLIER) ** 2)
        a *= (weight * value * p * smooth).sum(1) / (weight * model * p * smooth).sum(1)
        b *= (weight * value * s).sum(1) / (weight * model * s).sum(1)
        model = a[:, None] * p * smooth + b[:, None] * s
        p *= (weight * value * a[:, None] * smooth).sum(0) / (weight * model * a[:, None] * smooth).sum(0)
        s *= (weight * value * b[:, None]).sum(0) / (weight * model * b[:, None]).sum(0)
        for curve, scale in ((p, a), (s, b)):
            middle = np.median(curve[unit])
            curve /= middle
            scale *= middle
    return p, s, a, b


def main() -> None:
    """Measure the curves and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of real LAMOST spectra")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    p, s, a, b = split_variance(*collect(arguments.folder))
    level = np.log(a / b)
    np.savez_compressed(
        arguments.output,
        star=p.astype(np.float32),
        sky=s.astype(np.float32),
        log_star_over_sky=np.array([np.median(level), 1.4826 * np.median(np.abs(level - np.median(level)))]),
        spectra=np.int64(len(a)),
    )


if __name__ == "__main__":
    main()
