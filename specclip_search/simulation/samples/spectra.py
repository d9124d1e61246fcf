"""Spectra of a simulated survey: XP spectra scaled from real stars, LAMOST visits from the emulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...constants import C_KM_S
from ...spectrum import Spectrum
from ...surveys import GAIA_XP, LRS
from ..spectra.gaia_xp import XP_WAVELENGTH_NM, moved_xp, smoothing_matrix, xp_fwhm
from ..spectra.labels import FloatArray
from ..spectra.line_depths import real_lrs
from ..spectra.observe import BLOCK, RELEASE
from ..spectra.spectrograph import observe_lrs
from .oddities import ASTROPHYSICAL, IDENTITY, INSTRUMENTAL, ODDITIES, changed_light, spoil
from .population import Bases, Population, draw_population
from .rates import Rates

if TYPE_CHECKING:
    from ..spectra.emulator import Emulator

PARTNER_NUMBERS = 10**12
PARTNER_TRIES = 3
BIN_A = 10.0


@dataclass(frozen=True, slots=True)
class XpNoise:
    """Growth of XP's relative error with G: d ln(error/flux) / dG per pixel, (343,), from real error arrays."""

    slope: FloatArray

    @classmethod
    def measure(cls, bases: Bases) -> XpNoise:
        """Least squares over the stars, pixel by pixel; pixels without flux or error are ignored."""
        with np.errstate(divide="ignore", invalid="ignore"):
            log_error = np.log(bases.error.astype(np.float32) / bases.flux)
        good = np.isfinite(log_error) & np.isfinite(bases.g_mag)[:, None]
        g = np.where(good, np.nan_to_num(bases.g_mag)[:, None], 0.0).astype(np.float32)
        log_error = np.where(good, log_error, 0.0)
        count = np.maximum(good.sum(axis=0), 1)
        mean_g, mean_e, cross, spread = (
            values.sum(axis=0, dtype=np.float64) / count for values in (g, log_error, g * log_error, g * g)
        )
        cross, spread = cross - mean_g * mean_e, spread - mean_g**2
        return cls(np.clip(np.where(spread > 1e-6, cross / np.maximum(spread, 1e-6), 0.0), 0.0, 1.0))


def xp_spectra(emulator: Emulator, bases: Bases, noise: XpNoise, stars: Population, seed: int) -> list[Spectrum]:
    """One XP spectrum per star: that of its base times the ratio of two models, with noise added for its magnitude."""
    flux = bases.flux[stars.base].astype(np.float64)
    moved = moved_xp(emulator, flux, bases.labels[stars.base], stars.labels)
    moved *= _light_ratio(emulator, stars)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = bases.error[stars.base].astype(np.float64) / np.abs(flux)
    known = np.isfinite(relative)
    growth = np.exp(noise.slope * np.maximum(stars.g_mag - bases.g_mag[stars.base], 0.0)[:, None])
    sigma = np.where(known, relative * growth * np.abs(moved), np.inf)
    # the flux already contains the base's noise: only the missing part is added
    extra = np.where(known, np.sqrt(1.0 - growth**-2.0) * np.where(known, sigma, 0.0), 0.0)
    correlation = _noise_correlation()
    spectra = []
    for i, key in enumerate(stars.source_id.tolist()):
        rng = np.random.default_rng([seed, key, 3])
        own = moved[i] + extra[i] * (correlation @ rng.standard_normal(len(correlation)))
        with np.errstate(divide="ignore"):
            ivar = np.where(known[i] & (sigma[i] > 0), sigma[i] ** -2.0, 0.0)
        meta = _meta(stars, i)
        spectra.append(Spectrum(GAIA_XP.wavelength, own, ivar, GAIA_XP.name, key, meta))
    return spectra


def _light_ratio(emulator: Emulator, stars: Population) -> FloatArray:
    """(N, 343) factor by which an anomaly changes the light seen by XP; 1 without an anomaly."""
    ratio = np.ones((len(stars), len(XP_WAVELENGTH_NM)))
    odd = np.flatnonzero([ODDITIES.get(name) == ASTROPHYSICAL for name in stars.oddity])
    if len(odd):
        wavelength = emulator.sed_wavelength
        smooth = smoothing_matrix(wavelength / 10.0).T
        sed = emulator.sed(stars.labels[odd])
        changed = np.stack(
            [
                changed_light(stars.oddity[i], wavelength, sed[n], stars.strength[i], BIN_A)
                for n, i in enumerate(odd)
            ]
        )
        ratio[odd] = (changed @ smooth) / (sed @ smooth)
    return ratio


def _noise_correlation() -> FloatArray:
    """(343, 343) matrix that smooths white noise with the line-spread function, with unit variance per pixel."""
    offset = np.subtract.outer(XP_WAVELENGTH_NM, XP_WAVELENGTH_NM)
    weight = np.exp(-0.5 * (offset / (xp_fwhm(XP_WAVELENGTH_NM) / np.sqrt(8 * np.log(2)))[:, None]) ** 2)
    return np.asarray(weight / np.sqrt((weight**2).sum(axis=1, keepdims=True)))


def lrs_spectra(emulator: Emulator, bases: Bases, stars: Population, seed: int) -> list[Spectrum]:
    """Every LAMOST visit of every star, in order; `spec_id` is the star's id plus the visit's number."""
    labels, ebv = _observed_labels(emulator, bases, stars, seed)
    star = np.repeat(np.arange(len(stars)), stars.visits)
    visit = np.arange(len(star)) - np.repeat(np.cumsum(stars.visits) - stars.visits, stars.visits)
    wrong = (stars.oddity[star] == "wrong_match") & (visit == 0)
    seen = np.where(wrong[:, None], labels[star], stars.labels[star])
    reddening = np.where(wrong, ebv[star], bases.ebv[stars.base[star]])
    spec_id = stars.source_id[star] + visit
    spectra: list[Spectrum] = []
    for start in range(0, len(star), BLOCK):
        rows = slice(start, start + BLOCK)
        flux = real_lrs(emulator, seen[rows])
        for n, i in enumerate(star[rows]):
            if ODDITIES.get(stars.oddity[i]) == ASTROPHYSICAL:
                flux[n] = changed_light(stars.oddity[i], emulator.wavelength, flux[n], stars.strength[i], 0.0)
        snr = stars.snr[star[rows], visit[rows]]
        raw = observe_lrs(flux, snr, stars.rv[star[rows]], spec_id[rows], ebv=reddening[rows], seed=seed)
        for n, i in enumerate(star[rows]):
            key = int(spec_id[start + n])
            if visit[start + n] == 0 and ODDITIES.get(stars.oddity[i]) == INSTRUMENTAL:
                spoil(stars.oddity[i], raw, n, np.random.default_rng([seed, key, 4]))
            meta = _meta(stars, int(i)) | {"z": stars.rv[i] / C_KM_S, "object_class": "STAR"}
            meta |= {f"snr{band}": float(values[n]) for band, values in raw.snr.items()}
            spectra.append(Spectrum(raw.wavelength, raw.flux[n], raw.ivar[n], LRS, key, meta))
    return spectra


def _observed_labels(
    emulator: Emulator, bases: Bases, stars: Population, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Labels (N, 5) and E(B-V) of the star that LAMOST saw: another star if the cross-match is wrong."""
    labels, ebv = stars.labels.copy(), bases.ebv[stars.base].copy()
    wrong = np.flatnonzero([ODDITIES.get(name) == IDENTITY for name in stars.oddity])
    if not len(wrong):
        return labels, ebv
    best = np.full(len(wrong), -1.0)
    for turn in range(1, PARTNER_TRIES + 1):
        other = draw_population(emulator, bases, stars.number[wrong] + turn * PARTNER_NUMBERS, seed, Rates(odd={}))
        apart = np.abs(np.log(other.labels[:, 0] / stars.labels[wrong, 0]))
        better = apart > best
        labels[wrong[better]], ebv[wrong[better]] = other.labels[better], bases.ebv[other.base[better]]
        best = np.maximum(best, apart)
    return labels, ebv


def _meta(stars: Population, row: int) -> dict[str, object]:
    return {
        "source_id": int(stars.source_id[row]),
        "release": RELEASE,
        "source": "simulated",
        "ra": float(stars.ra[row]),
        "dec": float(stars.dec[row]),
    }
