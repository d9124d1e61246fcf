"""Raw LRS flux against XP in broad bands: what is told apart, and that normal pairs follow nothing."""

from __future__ import annotations

import numpy as np
import pytest

from specclip_search.preparation.bands import BAND_CENTRES, BANDS, JOIN
from specclip_search.queries.anomalies.broad_band import NAMES, broad_band
from specclip_search.queries.anomalies.global_quantities import standardised
from specclip_search.queries.anomalies.match_network import mismatch

PAIRS = 4000
SHAPED = 2400  # all with shapes in both instruments
X = np.linspace(-1, 1, BANDS)


@pytest.fixture(scope="module")
def pairs() -> dict[str, np.ndarray]:
    """Stars of different colour; LRS calibrated to some per cent, XP noisy in the blue where faint."""
    rng = np.random.default_rng(8)
    color = rng.normal(size=PAIRS)
    true = 0.5 * color[:, None] * X + 0.2 * rng.normal(size=(PAIRS, 1)) * X**2
    log_snr = np.column_stack([rng.uniform(1, 2.2, PAIRS), rng.uniform(0.8, 2.2, PAIRS)])
    error = rng.normal(0, 0.05, (PAIRS, 5))
    calibration = np.polynomial.chebyshev.chebvander(X, 4)[:, :] @ error.T
    lrs = true + calibration.T + rng.normal(size=true.shape) * 0.1 * 10 ** -log_snr[:, :1]
    xp = true + rng.normal(size=true.shape) * np.linspace(0.3, 0.05, BANDS) * 10 ** -log_snr[:, 1:]
    lrs[:1500, 0] = np.nan
    xp[1000:1200, :4] = np.nan
    return {"lrs": lrs, "xp": xp, "covariates": np.column_stack([log_snr, color]), "learn": np.arange(PAIRS) >= 100}


def judge(pairs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return broad_band(
        pairs["lrs"].astype(np.float32), pairs["xp"].astype(np.float32), pairs["covariates"], pairs["learn"]
    )


def test_normal_pairs_follow_neither_noise_nor_what_is_unknown(pairs: dict[str, np.ndarray]) -> None:
    found = judge(pairs)
    assert set(found) == set(NAMES)
    for name, raw in found.items():
        values = standardised(raw, pairs["covariates"], pairs["learn"])
        assert np.isfinite(values).all()
        for column in pairs["covariates"].T:
            assert abs(np.corrcoef(values, column)[0, 1]) < 0.1, name
        groups = [values[:1000], values[1000:1200], values[1500:]]
        medians = [np.median(group) for group in groups]
        assert np.ptp(medians) < 0.5 * values.std(), name


def test_each_fault_raises_its_own_quantity(pairs: dict[str, np.ndarray]) -> None:
    odd = {name: values.copy() for name, values in pairs.items()}
    odd["lrs"][:30] += np.where(BAND_CENTRES > JOIN, 0.3, -0.3)
    odd["lrs"][30:60] += 0.25 * np.cos(np.arange(BANDS) * 2.0)
    odd["lrs"][60:90] = np.roll(odd["lrs"][60:90], 1, axis=0)
    found = judge(odd)
    limit = {name: np.quantile(values[100:], 0.99) for name, values in found.items()}
    assert (found["join"][:30] > limit["join"]).mean() > 0.9
    assert (found["calibration"][30:60] > limit["calibration"]).all()
    assert (found["color"][60:90] > limit["color"]).mean() > 0.6
    assert (found["join"][60:90] > limit["join"]).mean() < 0.2


def test_nothing_is_said_without_shapes(pairs: dict[str, np.ndarray]) -> None:
    unknown = {**pairs, "lrs": np.full_like(pairs["lrs"], np.nan)}
    assert all((values == 0).all() for values in judge(unknown).values())
    some = {**pairs, "lrs": np.where(np.arange(PAIRS)[:, None] < 200, np.nan, pairs["lrs"])}
    found = judge(some)
    for name, values in found.items():
        assert np.ptp(values[:200]) == 0, name
        assert values[0] < np.quantile(values[200:], 0.6), name


def test_shapes_tell_pairs_that_vectors_do_not(pairs: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(9)
    pairs = {name: values[-SHAPED:] for name, values in pairs.items()}
    blind = rng.normal(size=(2, SHAPED, 24)).astype(np.float32)
    source_id = np.arange(SHAPED, dtype=np.int64) * 128 + (1 << 55)
    xp = pairs["xp"].copy()
    xp[:60] = np.roll(xp[:60], 1, axis=0)
    log_snr = pairs["covariates"][:, :2]
    without = mismatch(blind[0].__getitem__, blind[1].__getitem__, log_snr, source_id)
    shapes = pairs["lrs"].astype("f4"), xp.astype("f4")
    found = mismatch(blind[0].__getitem__, blind[1].__getitem__, log_snr, source_id, shapes)
    assert without is not None
    assert found is not None
    assert (without[:60] > np.quantile(without[60:], 0.9)).mean() < 0.3
    assert (found[:60] > np.quantile(found[60:], 0.9)).mean() > 0.6
