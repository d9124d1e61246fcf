"""What is said of a candidate beside its probability."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from specclip_search.queries.emp.flags import flag
from specclip_search.queries.emp.schema import ESTIMATES, INSTRUMENT_COLUMNS, INSTRUMENTS
from specclip_search.queries.emp.stars import Stars


def flags_of(count: int, feh: float = -2.5, error: float = 0.1, **columns: list[float]) -> tuple[list[str], list[bool]]:
    """Flags of stars of which only these columns are known."""
    names = [f"{side}_{name}" for side in INSTRUMENTS for name in INSTRUMENT_COLUMNS] + list(ESTIMATES)
    parts = {name: np.array(columns.get(name, [np.nan] * count)) for name in names}
    row = {modality: np.arange(count) for modality in INSTRUMENTS.values()}
    snr = {modality: np.array(columns.get(f"{side}_snr", [100.0] * count)) for side, modality in INSTRUMENTS.items()}
    stars = Stars(np.arange(count), row, snr)
    space = cast(Any, SimpleNamespace(modalities=()))
    words, hot = flag(space, stars, parts, np.full(count, feh), np.full(count, error), np.zeros(count))
    return words.tolist(), hot.tolist()


def test_carbon_is_told_by_estimators_that_are_sure_and_of_poor_stars_alone() -> None:
    c_fe = {"xp_net_c_fe": [1.4, 1.4, 0.8, 0.2], "xp_net_c_fe_err": [0.3, 3.0, 0.1, 0.1]}
    assert flags_of(4, **c_fe)[0] == ["carbon_enhanced", "", "carbon_enhanced", ""]
    assert flags_of(4, feh=-0.5, **c_fe)[0] == [""] * 4
    assert flags_of(1, lrs_est_c_fe=[1.2], lrs_est_c_fe_err=[0.2])[0] == ["carbon_enhanced"]


def test_carbon_is_asked_of_who_knows_best() -> None:
    # LRS before XP, both XP voices together, neighbours last and only of what is surely rich
    told = {"lrs_est_c_fe": [0.0, 1.2, np.nan, np.nan], "lrs_est_c_fe_err": [0.2, 0.2, np.nan, np.nan],
            "xp_est_c_fe": [1.5, 0.0, 1.5, 0.9], "xp_est_c_fe_err": [0.2, 0.2, 0.2, 0.2],
            "xp_net_c_fe": [1.5, 0.0, 1.3, 0.1], "xp_net_c_fe_err": [0.2, 0.2, 0.2, 0.2]}  # fmt: skip
    assert flags_of(4, **told, lrs_c_fe=[1.5] * 4)[0] == ["", "carbon_enhanced", "carbon_enhanced", ""]
    assert flags_of(3, lrs_c_fe=[0.8, 1.4, np.nan], xp_c_fe=[0.8, np.nan, 1.4])[0] == ["", *["carbon_enhanced"] * 2]


def test_mimics_are_flagged() -> None:
    words, doubtful = flags_of(3, xp_est_teff=[9000.0, 5000.0, np.nan], lrs_teff=[6000.0, 5000.0, 8000.0])
    assert doubtful == [True, False, True]
    assert words == ["hot_star", "", "hot_star"]
    assert flags_of(2, lrs_snr=[10.0, 30.0])[0] == ["low_snr", ""]


def test_the_estimator_decides_whether_a_star_is_hot_and_needs_to_be_sure() -> None:
    told = {"lrs_est_teff": [5115.0, 7100.0, 7600.0], "lrs_est_teff_err": [80.0, 300.0, 300.0]}
    # as built-in seeds say of a K dwarf in an atlas without labels
    assert flags_of(3, **told, lrs_teff=[7240.0, 7600.0, 6000.0])[0] == ["", "", "hot_star"]
    # without an estimator one of three values is not enough
    assert flags_of(1, lrs_teff=[7240.0], lrs_linear_teff=[5200.0], xp_teff=[5300.0])[0] == [""]


def test_stars_without_signal_in_any_spectrum_cannot_lead() -> None:
    assert flags_of(3, lrs_snr=[2.0, 2.0, 80.0], xp_snr=[1.0, 60.0, 1.0])[1] == [True, False, False]
    assert flags_of(1, lrs_snr=[np.nan], xp_snr=[np.nan])[1] == [False]


def test_instruments_that_disagree_by_their_own_errors() -> None:
    told = {"lrs_est_feh": [-3.0, -3.0], "xp_est_feh": [-2.0, -2.0]}
    words, _ = flags_of(2, **told, lrs_est_feh_err=[0.1, 0.4], xp_est_feh_err=[0.1, 0.4])
    assert words == ["instruments_disagree", ""]


def test_faint_stars_on_a_list_for_their_error_alone_cannot_lead() -> None:
    faint = {"lrs_snr": [10.0, 30.0, 10.0], "xp_snr": [10.0, 10.0, 90.0]}
    assert flags_of(3, error=0.2, **faint) == (["low_snr"] * 3, [False] * 3)
    # one good spectrum is enough
    assert flags_of(3, error=0.7, **faint)[1] == [True, False, False]
    assert flags_of(1, error=float("nan"), lrs_snr=[10.0], xp_snr=[10.0])[1] == [True]
    assert flags_of(1, error=0.7, lrs_snr=[np.nan], xp_snr=[np.nan])[1] == [False]
