"""Flags of candidates: effects that can mimic low metallicity, and carbon enhancement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from specclip_search.surveys import XP

from ..space.pairs import star_color
from .schema import INSTRUMENTS
from .seeds import read_flux
from .stars import Stars

if TYPE_CHECKING:
    from ..space.space import Space

HOT_TEFF = 7000.0
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


def flag(
    space: Space,
    stars: Stars,
    parts: dict[str, np.ndarray],
    feh: np.ndarray,
    feh_err: np.ndarray,
    probability: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Flags of every star, and which stars are hot.

    hot_star: Teff above 7000 K by the neighbours, the linear estimate or the estimator of any
    instrument, so that lines are weak for another reason; low_snr; reddened: the XP colour is far
    redder than expected for the neighbours' temperature; instruments_disagree; far_from_labels: less similar to
    labelled stars than 99 % of stars; carbon_enhanced: see `carbon_rich`.

    Returns
    -------
    tuple of np.ndarray
        (N,) object of words separated by spaces, and (N,) bool.
    """
    hot = np.zeros(len(stars), dtype=bool)
    low, far = np.zeros(len(stars), dtype=bool), np.zeros(len(stars), dtype=bool)
    with np.errstate(invalid="ignore"):
        for side, modality in INSTRUMENTS.items():
            teff = np.fmax(
                parts[f"{side}_teff"],
                np.where(parts[f"{side}_linear_teff"] > HOT_TEFF + 500, parts[f"{side}_linear_teff"], np.nan),
            )
            hot |= teff > HOT_TEFF
            low |= stars.snr[modality] < LOW_SNR[side]
            hot |= parts[f"{side}_est_teff"] > HOT_TEFF
            nearest = parts[f"{side}_nearest"]
            if np.isfinite(nearest).any():
                far |= nearest < np.nanquantile(nearest, 0.01)
        apart = np.abs(parts["lrs_linear_feh"] - parts["xp_linear_feh"]) > DISAGREE_SIGMA * np.maximum(feh_err, 0.15)
        error = np.hypot(parts["lrs_est_feh_err"], parts["xp_est_feh_err"])
        apart |= np.abs(parts["lrs_est_feh"] - parts["xp_est_feh"]) > DISAGREE_SIGMA * error
    words = [
        ("hot_star", hot),
        ("low_snr", low),
        ("reddened", reddened(space, stars, parts, probability)),
        ("instruments_disagree", apart),
        ("far_from_labels", far),
        ("carbon_enhanced", carbon_rich(parts, feh)),
    ]
    text = np.full(len(stars), "", dtype=object)
    for word, where in words:
        text[where] = np.array([f"{before} {word}".strip() for before in text[where]], dtype=object)
    return text, hot


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
