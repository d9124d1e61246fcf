"""Flags of candidates: effects that can mimic low metallicity, and carbon enhancement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from specclip_search.surveys import LRS, XP

from ..space.pairs import star_color
from .estimates import BLOCK_ROWS, tested_model
from .schema import INSTRUMENTS, UNLIKE
from .seeds import read_arrays, read_flux
from .stars import Stars

if TYPE_CHECKING:
    from ..space.space import Space

HOT_TEFF = 7000.0
# an estimate counts as hot if it is this many of its errors above the limit
HOT_SIGMA = 1.0
LEAST_SNR = 3.0
LOW_SNR = {"lrs": 15.0, "xp": 20.0}
CARBON_RICH = 0.7
# carbon bands are only distinctive at low metallicity; [C/Fe] must exceed the limit by this many errors
CARBON_TOLD_BELOW, CARBON_SIGMA = -1.5, 0.25
# seeds have discrete [C/Fe] with ordinary stars in between, so neighbours must be clearly carbon-rich
CARBON_NEIGHBOURS = 1.0
# two estimates this many sigma apart disagree
DISAGREE_SIGMA = 3.0
# only stars that could reach a list are checked in detail
LOOK_CLOSER = 5000
REDDENED = 0.25
# dex; a faint or reddened star with a larger error than this is on a list for its error alone
UNSURE = 0.4


def flag(
    space: Space,
    stars: Stars,
    parts: dict[str, np.ndarray],
    feh: np.ndarray,
    feh_err: np.ndarray,
    probability: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Flags of every star, and which stars must not lead the list.

    hot_star: see `hot_star`; object_unlike_training: see `unlike_training`; low_snr; reddened: the XP colour is far
    redder than expected for the neighbours' temperature; instruments_disagree; far_from_labels: less similar to
    labelled stars than 99 % of stars; carbon_enhanced: see `carbon_rich`.

    Returns
    -------
    tuple of np.ndarray
        (N,) object of words separated by spaces, and (N,) bool: hot, unlike the training stars, without a
        spectrum of S/N above 3, or unsure (see `unsure`).
    """
    low, far = np.zeros(len(stars), dtype=bool), np.zeros(len(stars), dtype=bool)
    hot = hot_star(
        np.stack([parts[f"{side}_est_teff"] for side in INSTRUMENTS], axis=1),
        np.stack([parts[f"{side}_est_teff_err"] for side in INSTRUMENTS], axis=1),
        np.stack([parts[f"{side}_{name}"] for side in INSTRUMENTS for name in ("teff", "linear_teff")], axis=1),
    )
    unlike = unlike_training(space, stars, probability)
    with np.errstate(invalid="ignore"):
        for side, modality in INSTRUMENTS.items():
            low |= stars.snr[modality] < LOW_SNR[side]
            nearest = parts[f"{side}_nearest"]
            if np.isfinite(nearest).any():
                far |= nearest < np.nanquantile(nearest, 0.01)
        apart = np.abs(parts["lrs_linear_feh"] - parts["xp_linear_feh"]) > DISAGREE_SIGMA * np.maximum(feh_err, 0.15)
        error = np.hypot(parts["lrs_est_feh_err"], parts["xp_est_feh_err"])
        apart |= np.abs(parts["lrs_est_feh"] - parts["xp_est_feh"]) > DISAGREE_SIGMA * error
    red = reddened(space, stars, parts, probability)
    words = [
        ("hot_star", hot),
        (UNLIKE, unlike),
        ("low_snr", low),
        ("reddened", red),
        ("instruments_disagree", apart),
        ("far_from_labels", far),
        ("carbon_enhanced", carbon_rich(parts, feh)),
    ]
    text = np.full(len(stars), "", dtype=object)
    for word, where in words:
        text[where] = np.array([f"{before} {word}".strip() for before in text[where]], dtype=object)
    return text, hot | unlike | no_signal(stars) | unsure(stars, red, feh_err)


def unsure(stars: Stars, red: np.ndarray, feh_err: np.ndarray) -> np.ndarray:
    """(N,) bool: an error above 0.4 dex that has a cause: all spectra are faint, or a reddened XP is the only one."""
    faint = np.ones(len(stars), dtype=bool)
    with np.errstate(invalid="ignore"):
        for side, modality in INSTRUMENTS.items():
            faint &= ~(stars.snr[modality] >= LOW_SNR[side])
    known = np.any([np.isfinite(stars.snr[modality]) for modality in INSTRUMENTS.values()], axis=0)
    return ((faint & known) | (red & ~stars.has(LRS))) & (np.nan_to_num(feh_err, nan=np.inf) > UNSURE)


def hot_star(estimated: np.ndarray, error: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) bool: Teff above 7000 K, so that lines are weak although the star is not metal-poor.

    Estimators decide alone if there are any: neighbours and linear estimates are unreliable for noise, for
    objects that are not stars, and in an atlas without labels, where all neighbours are built-in seeds. Without
    estimators more than half of the other values must be above the limit.

    Parameters
    ----------
    estimated, error
        (N, instruments) Teff and its error by the estimators, K; NaN if missing.
    others
        (N, m) Teff by neighbours and linear estimates, K; NaN if missing.
    """
    with np.errstate(invalid="ignore"):
        sure = estimated - HOT_SIGMA * np.nan_to_num(error) > HOT_TEFF
        votes, known = (others > HOT_TEFF).sum(axis=1), np.isfinite(others).sum(axis=1)
    return np.where(np.isfinite(estimated).any(axis=1), sure.any(axis=1), 2 * votes > known)


def no_signal(stars: Stars) -> np.ndarray:
    """(N,) bool: all spectra of known S/N have one below 3, so that the probability only reflects the prior."""
    snr = np.stack([stars.snr[modality] for modality in INSTRUMENTS.values()])
    best = np.fmax.reduce(snr, axis=0)
    return np.nan_to_num(best, nan=np.inf) < LEAST_SNR


def unlike_training(space: Space, stars: Stars, probability: np.ndarray) -> np.ndarray:
    """(N,) bool: likely candidates whose LRS spectrum is unlike those of all training stars.

    See `specclip_search.training.estimators.star_test`. All False if the model has no such test.
    """
    result = np.zeros(len(stars), dtype=bool)
    model = tested_model(space) if LRS in space.modalities else None
    if model is None:
        return result
    from specclip_search.training.estimators.star_test import unlike_training as test

    with_lrs = np.flatnonzero(stars.has(LRS))
    likely = with_lrs[np.argsort(-probability[with_lrs], kind="stable")[:LOOK_CLOSER]]
    index = space.index(LRS)
    for start in range(0, len(likely), BLOCK_ROWS):
        chosen = likely[start : start + BLOCK_ROWS]
        rows = stars.row[LRS][chosen]
        flux, error = read_arrays(space, LRS, rows, ("flux", "error"))
        result[chosen] = test(model, LRS, flux, error, index.raw_vectors(rows), stars.snr[LRS][chosen])
    return result


def carbon_rich(parts: dict[str, np.ndarray], feh: np.ndarray) -> np.ndarray:
    """(N,) bool: [C/Fe] above 0.7 by more than a quarter of its error in a star below [Fe/H] = -1.5.

    The LRS estimator is used; if it has no value, the XP estimator and networks together; if none has,
    the neighbours, whose [C/Fe] must be above 1.
    """
    told, error = parts["lrs_est_c_fe"], parts["lrs_est_c_fe_err"]
    values = np.stack([parts["xp_est_c_fe"], parts["xp_net_c_fe"]])
    errors = np.stack([parts["xp_est_c_fe_err"], parts["xp_net_c_fe_err"]])
    weight = np.where(np.isfinite(values) & np.isfinite(errors), np.maximum(np.nan_to_num(errors), 0.01) ** -2.0, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        by_xp = (weight * np.nan_to_num(values)).sum(axis=0) / weight.sum(axis=0)
        by_xp_error = np.sqrt((weight > 0).sum(axis=0) / weight.sum(axis=0))
        silent = ~np.isfinite(told)
        told, error = np.where(silent, by_xp, told), np.where(silent, by_xp_error, error)
        rich = (told - CARBON_RICH > CARBON_SIGMA * error) & (feh < CARBON_TOLD_BELOW)
        near = np.fmax(parts["lrs_c_fe"], parts["xp_c_fe"]) > CARBON_NEIGHBOURS
    return np.where(np.isfinite(told), rich, near)


def reddened(space: Space, stars: Stars, parts: dict[str, np.ndarray], probability: np.ndarray) -> np.ndarray:
    """Likely candidates whose XP colour is much redder than that of other stars with their temperature."""
    result = np.zeros(len(stars), dtype=bool)
    if XP not in space.modalities:
        return result
    from specclip_search.surveys import GAIA_XP

    with_xp = np.flatnonzero(stars.has(XP) & np.isfinite(parts["xp_teff"]))
    likely = with_xp[np.argsort(-probability[with_xp], kind="stable")[:LOOK_CLOSER]]
    common = np.random.default_rng(0).permutation(with_xp)[:LOOK_CLOSER]
    if len(common) < 100:
        return result
    teff = {name: parts["xp_teff"][rows] for name, rows in (("likely", likely), ("common", common))}
    color = {
        name: star_color(read_flux(space, XP, stars.row[XP][rows]), np.asarray(GAIA_XP.wavelength))
        for name, rows in (("likely", likely), ("common", common))
    }
    good = np.isfinite(color["common"])
    # log colour is nearly linear in 1/T for a black body, and for stars of 4000-7000 K
    slope, constant = np.polyfit(1e4 / teff["common"][good], color["common"][good], 1)
    excess = color["likely"] - (constant + slope * 1e4 / teff["likely"])
    result[likely] = np.nan_to_num(excess) > REDDENED
    return result
