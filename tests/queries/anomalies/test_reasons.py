"""Words for a pair: what raw flux against XP says of the data themselves."""

from __future__ import annotations

import numpy as np
import pytest

from specclip_search.queries.anomalies.local_quantities import NAMES
from specclip_search.queries.anomalies.reasons import Evidence, explain
from specclip_search.queries.space.windows import WindowSet
from specclip_search.surveys import GAIA_XP, LAMOST_LRS


def evidence(windows: dict[str, dict[str, float]] | None = None, **z: float) -> Evidence:
    """A pair with z of some quantities (their -log10 p half as large) and of some windows."""
    sets = {"lrs": WindowSet.of(LAMOST_LRS), "xp": WindowSet.of(GAIA_XP)}
    all_z = dict.fromkeys(NAMES, 0.0) | z
    residual = {
        side: np.array([(windows or {}).get(side, {}).get(name, 0.0) for name in own.names])
        for side, own in sets.items()
    }
    return Evidence(
        parts={name: value / 2 for name, value in all_z.items()},
        z=all_z,
        windows=residual,
        names={side: own.names for side, own in sets.items()},
        centres={side: own.centres for side, own in sets.items()},
        units={side: own.unit for side, own in sets.items()},
        quality={},
        labels={},
        mutual_similarity=0.3,
    )


def test_a_bad_join_is_the_instrument_s() -> None:
    kind, reason = explain(evidence(join=14.0, calibration=8.0, color=6.0))
    assert kind == "instrumental"
    assert "blue and red arm are joined with a step at 5900 A (14 sigma against XP)" in reason


def test_a_calibration_unlike_others_is_the_instrument_s() -> None:
    kind, reason = explain(evidence(join=6.0, calibration=20.0))
    assert kind == "instrumental"
    assert "LRS's raw flux is not calibrated as other spectra's (20 sigma against XP)" in reason


def test_an_emission_star_badly_calibrated_remains_a_star() -> None:
    hydrogen = {"lrs": {"Hbeta": 30.0, "Hgamma": 12.0}}
    kind, reason = explain(evidence(hydrogen, emission=40.0, calibration=7.0))
    assert kind == "astrophysical"
    assert "H-beta" in reason


def test_another_star_s_spectrum_is_no_calibration_error() -> None:
    broad = {
        side: dict.fromkeys(WindowSet.of(modality).names, 8.0)
        for side, modality in (("lrs", LAMOST_LRS), ("xp", GAIA_XP))
    }
    kind, reason = explain(evidence(broad, color=9.0, calibration=14.0, match=12.0, identity=20.0))
    assert kind == "wrong_match"
    assert "of different stars" in reason


@pytest.mark.parametrize("name", NAMES)
def test_every_quantity_has_words(name: str) -> None:
    kind, reason = explain(evidence(**{name: 4.9}))
    assert kind
    assert "+4.9 sigma" in reason or "5 sigma" in reason, reason
