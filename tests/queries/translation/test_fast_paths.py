"""Shortcuts of `translate` against the plain forms that they stand for, on real spectra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from specclip_search.queries.translation.double_lined import SMOOTH_STEPS, smoothed
from specclip_search.queries.translation.matched_filters import raw_filters
from specclip_search.queries.translation.residual_covariance import Whitened
from specclip_search.queries.translation.residual_measures import filters
from specclip_search.queries.translation.shard import predict
from specclip_search.surveys import LAMOST_LRS, LRS, XP
from specclip_search.training.model import load_model


@pytest.mark.parametrize("steps", [150, 401, 7013])
def test_smoothing_by_fft_is_that_of_scipy(steps: int) -> None:
    rng = np.random.default_rng(1)
    rows = (1.0 + 0.1 * np.cumsum(rng.normal(0, 0.05, (5, steps)), axis=1)).astype(np.float32)
    plain = gaussian_filter1d(rows, SMOOTH_STEPS, axis=1, truncate=2.0)
    np.testing.assert_allclose(smoothed(rows), plain, rtol=2e-7)


@pytest.mark.parametrize("side", ["lrs", "xp"])
def test_filters_in_blocks_are_the_whole_product(side: str) -> None:
    chosen = filters(side)
    rng = np.random.default_rng(2)
    n = chosen.matrix.shape[1]
    weighted = rng.normal(0, 20, (40, n)).astype(np.float32)
    inverse = rng.uniform(0, 900, (40, n)).astype(np.float32)
    whole = chosen.matrix.astype(np.float64)
    plain = weighted @ whole.T / np.sqrt(np.maximum(inverse @ (whole**2).T, 1e-12))
    found = raw_filters(Whitened(np.zeros(40), weighted, inverse), chosen)
    np.testing.assert_allclose(found, plain, atol=1e-5 * np.abs(plain).max())
    covered = np.zeros(chosen.matrix.shape, dtype=bool)
    for rows, pixels in chosen.blocks:
        covered[rows, pixels] = True
    assert not chosen.matrix[~covered].any()
    # denormal numbers would make the products a hundred times slower
    squares = chosen.squared[chosen.squared > 0]
    assert squares.min() > np.finfo(np.float32).tiny


def test_spectra_are_encoded_once_with_the_same_result(shared_data: Path) -> None:
    from specclip_search.readers.registry import iter_spectra

    files = sorted((shared_data / "lamost").rglob("spec-*.fits*"))[:6]
    if not files:
        pytest.skip("no LAMOST spectra in ../shared/data/lamost")
    read = [spectrum for file in files for spectrum in iter_spectra(file)]
    lrs = np.concatenate([np.atleast_2d(LAMOST_LRS.prepare(one.wavelength, one.flux)) for one in read])
    lrs = lrs.astype(np.float32)
    model = load_model("mini")
    lrs = np.delete(lrs, list(model.unusable(LRS, lrs)), axis=0)
    xp = model.translate(LRS, lrs)
    to_xp, to_lrs, self_lrs, self_xp = predict(model, lrs, xp)
    np.testing.assert_array_equal(to_xp, model.translate(LRS, lrs))
    np.testing.assert_array_equal(to_lrs, model.translate(XP, xp))
    np.testing.assert_array_equal(self_lrs, model.reconstruct(LRS, lrs))
    np.testing.assert_array_equal(self_xp, model.reconstruct(XP, xp))
