"""Offsets, scatters and causes of disagreement are found where they were put."""

from __future__ import annotations

import numpy as np
import pytest

from specclip_search.queries.compare.diagnoses import AIR_KM_S, diagnose, metals_excess
from specclip_search.queries.compare.offsets import compare_pairs, odd_ones_out, solve_offsets

OFFSETS = np.array([0.0, 0.1, -0.05, 0.2])
SCATTERS = np.array([0.02, 0.05, 0.1, 0.04])


@pytest.fixture(scope="module")
def measured() -> tuple[np.ndarray, np.ndarray]:
    """40,000 stars, four sources; the last shares stars with the third alone."""
    rng = np.random.default_rng(1)
    truth = rng.normal(-0.4, 0.4, 40_000)
    values = truth[:, None] + OFFSETS + SCATTERS * rng.standard_normal((len(truth), 4))
    values[:20_000, 3] = np.nan
    values[20_000:, :2] = np.nan
    wild = rng.choice(20_000, 400, replace=False)
    values[wild, 1] += 3.0
    return values, np.broadcast_to(SCATTERS, values.shape).copy()


def test_injected_offsets_are_found_to_one_percent(measured: tuple[np.ndarray, np.ndarray]) -> None:
    values, errors = measured
    pairs = compare_pairs(values, errors)
    assert [(pair.a, pair.b, pair.n) for pair in pairs] == [(0, 1, 20_000), (0, 2, 20_000), (1, 2, 20_000),
                                                             (2, 3, 20_000)]
    found = solve_offsets(pairs, 4, 0)
    assert np.abs(found.offset - OFFSETS).max() < 0.01 * 0.2
    assert (np.abs(found.offset - OFFSETS)[1:] < 4 * found.error[1:]).all()
    assert all(pair.pull == pytest.approx(1.0, abs=0.05) for pair in pairs)
    np.testing.assert_allclose(found.scatter, SCATTERS, rtol=0.1, atol=0.006)
    # a wild value in one source moves nothing, and is named
    odd = odd_ones_out(values, found)
    wild = (odd.source == 1) & (odd.sigmas > 8)
    assert 390 < np.count_nonzero(wild) < 410
    assert np.median(odd.deviation[wild]) == pytest.approx(3.0, abs=0.05)
    assert (odd.source[20_000:] == -1).all()


def test_sources_without_common_stars_have_no_offset(measured: tuple[np.ndarray, np.ndarray]) -> None:
    values, errors = measured
    apart = values[:, [0, 3]]
    found = solve_offsets(compare_pairs(apart, errors[:, [0, 3]]), 2, 0)
    assert found.offset[0] == 0
    assert np.isnan(found.offset[1])


def test_metals_given_as_iron_are_recognised() -> None:
    rng = np.random.default_rng(2)
    feh = rng.uniform(-2, 0.3, 3000)
    alpha = np.clip(-0.4 * feh, 0, 0.4) + 0.05 * rng.standard_normal(3000)
    iron = feh + 0.05 * rng.standard_normal(3000)
    metals = feh + metals_excess(alpha) + 0.05 * rng.standard_normal(3000)
    nothing = np.full((3000, 3), np.nan)
    values = np.stack([iron, metals, feh + 0.2 + 0.05 * rng.standard_normal(3000)], axis=1)
    notes = {
        (pair.a, pair.b): diagnose("feh", pair, ("one", "other"), values[:, pair.a] - values[:, pair.b], alpha)
        for pair in compare_pairs(values, nothing)
    }
    assert notes[0, 1].startswith("other minus one grows")
    assert "other may give [M/H] as [Fe/H]" in notes[0, 1]
    assert notes[0, 2] == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v + AIR_KM_S, "air wavelengths read as vacuum"),
        (lambda v: v / 299_792.458, "redshift z against km/s"),
        (lambda v: v * 1000.0, "m/s against km/s"), (lambda v: -v, "run against each other"), (lambda v: v + 1.0, ""),
    ],
)  # fmt: skip
def test_other_units_and_wavelength_scales_are_recognised(change: object, said: str) -> None:
    rng = np.random.default_rng(3)
    rv = rng.normal(0, 60, 2000)
    values = np.stack([rv, change(rv + rng.normal(0, 2, 2000))], axis=1)  # type: ignore[operator]
    (pair,) = compare_pairs(values, np.full_like(values, np.nan))
    note = diagnose("rv", pair, ("a", "b"), values[:, 0] - values[:, 1], None)
    assert said in note
    assert bool(note) == bool(said)
