"""Stars asked for by their labels: what the texts mean, what they refuse, and that spectra move as their labels do."""

from __future__ import annotations

import numpy as np
import pytest

from specclip_search.errors import QueryError
from specclip_search.queries.space.made_stars import (
    asks_for_made_star,
    changed_input,
    galactic_alpha,
    model_spectrum,
    parse_change,
    parse_stars,
)
from specclip_search.surveys import LRS, PAIR, XP, get_modality
from specclip_search.surveys.batch import prepare_batch

GIANT = "teff=4900,logg=1.8,feh=-2.2"


def inputs(text: str, modality: str = LRS) -> np.ndarray:
    prepared = prepare_batch(get_modality(modality), [model_spectrum(parse_stars(text), modality)])
    assert prepared.keep.all()
    return np.asarray(prepared.flux[0], np.float64)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        (GIANT, True), (" TEFF = 4900 , logg=1.8,feh=0", True), ("gaia:12 but feh=-1", True), ("lgg=2", True),
        ("gaia:12", False), ("HD 122563", False), ("spec-55859-F5902_sp01-001.fits", False), ("but", False),
    ],
)  # fmt: skip
def test_texts_are_told_from_keys_and_names(text: str, made: bool) -> None:
    assert asks_for_made_star(text) is made


def test_labels_left_out_are_those_of_common_stars() -> None:
    (star,) = parse_stars(GIANT)
    assert star.labels.tolist() == [4900.0, 1.8, -2.2, 0.4, 0.0]
    assert [galactic_alpha(feh) for feh in (-3.0, -0.5, 0.3)] == pytest.approx([0.4, 0.2, 0.0])
    first, second = parse_stars("teff=5800,logg=4.4,feh=-0.5;teff=4600,logg=4.6")
    assert second.labels[2] == first.labels[2]
    assert first.area > 2 * second.area


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("teff=4900,lgg=1.8,feh=-2", "names teff, logg, feh"), ("teff=4900,logg=1.8", "feh not given"),
        ("teff=nan,logg=1.8,feh=0", "finite number"), ("teff=4900,teff=4900,logg=1,feh=0", "given twice"),
        ("teff=4900,logg=1.8,feh=0,ebv=-1", "ebv must lie between 0 and 2"), ("teff=,logg=1,feh=0", "found 'teff='"),
    ],
)  # fmt: skip
def test_bad_labels_are_named(text: str, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        parse_stars(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("teff=3300,logg=4.9,feh=0", "the models cover teff 4000 to 1199"),
        ("teff=9000,logg=1.4,feh=0", "no star of the model grid is like it"),
    ],
)
def test_stars_outside_the_models_are_refused_with_the_range(text: str, said: str) -> None:
    with pytest.raises(QueryError, match=said) as caught:
        model_spectrum(parse_stars(text))
    assert caught.value.hint


@pytest.mark.parametrize("modality", [one.name for one in PAIR])
def test_a_changed_star_is_the_star_that_has_these_labels(modality: str) -> None:
    before, after = inputs("teff=5000,logg=2.5,feh=-0.5", modality), inputs("teff=5100,logg=2.5,feh=-1.5", modality)
    name, change = parse_change("gaia:12 BUT feh=-1, teff=100") or ("", {})
    assert (name, change) == ("gaia:12", {"feh": -1.0, "teff": 100.0})
    moved = changed_input(before, modality, {"teff": 5000.0, "logg": 2.5, "feh": -0.5}, change)
    assert np.abs(moved - after).max() < 1e-4 < np.abs(moved - before).max()
    # noise and what no model knows stay
    odd = before * (1.0 + 0.05 * np.sin(np.arange(len(before))))
    if modality == LRS:
        kept = changed_input(odd, modality, {"teff": 5000.0, "logg": 2.5, "feh": -0.5}, change) / moved
        np.testing.assert_allclose(kept, odd / before, rtol=1e-6)


def test_a_mixture_is_the_sum_of_its_stars_light() -> None:
    bright, faint = "teff=5800,logg=4.4,feh=0", "teff=4600,logg=4.6,feh=0"
    mixed = model_spectrum(parse_stars(f"{bright};{faint}"))
    parts = [parse_stars(text)[0] for text in (bright, faint)]
    fluxes = [model_spectrum([part]).flux for part in parts]
    basis = np.stack(fluxes, axis=1)
    _, residual, *_ = np.linalg.lstsq(basis, mixed.flux, rcond=None)
    assert residual[0] / len(mixed.flux) < 1e-12
    # the same star twice is that star
    np.testing.assert_allclose(model_spectrum([parts[0], parts[0]]).flux, fluxes[0])
    with pytest.raises(QueryError, match="can be computed as"):
        model_spectrum(parts, "sdss")


def test_velocity_and_dust_change_the_spectrum_as_they_should() -> None:
    still, moving = model_spectrum(parse_stars(GIANT)), model_spectrum(parse_stars(f"{GIANT},rv=300"))
    back = np.interp(still.wavelength, moving.wavelength / (1 + 300 / 299792.458), moving.flux)
    inner = slice(100, -100)
    assert np.abs(back[inner] / np.median(back) - still.flux[inner] / np.median(still.flux)).max() < 0.05
    for modality in (LRS, XP):
        clear, dusty = (model_spectrum(parse_stars(f"{GIANT},ebv={ebv}"), modality).flux for ebv in (0, 0.5))
        ratio = dusty / clear
        assert ratio[-20] > 1.5 * ratio[20]
