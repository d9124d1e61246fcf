"""SDSS, BOSS and SDSS-V spectra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from specclip_search.errors import Reason
from specclip_search.readers import read_spectrum
from specclip_search.readers.registry import ReadOptions, iter_rows
from specclip_search.readers.survey_rows import Refused
from specclip_search.readers.surveys.sdss import spec_obj_id
from specclip_search.spectrum import Spectrum

ID = 4037614591814901760


@pytest.fixture
def boss(shared_data: Path) -> Path:
    return shared_data / "surveys" / "boss" / "spec-3586-55181-0500.fits.gz"


def test_a_boss_file_says_all_that_it_knows(boss: Path) -> None:
    one = read_spectrum(boss)
    with fits.open(boss) as hdus:
        table, about = hdus[1].data, hdus[2].data
        np.testing.assert_array_equal(one.flux, table["flux"])
        np.testing.assert_allclose(one.wavelength, 10 ** table["loglam"].astype(float))
        assert one.spec_id == int(about["SPECOBJID"][0]) == ID
        assert (one.ivar == 0).sum() == (table["ivar"] <= 0).sum()
        sigma = one.wavelength / (one.resolution * np.sqrt(8 * np.log(2)))
        known = table["wdisp"] > 0
        np.testing.assert_allclose(
            (sigma / (one.wavelength * 1e-4 * np.log(10)))[known], table["wdisp"][known], rtol=1e-5
        )
        assert np.isnan(one.resolution[~known]).all()
    assert (one.modality, one.frame, one.epoch) == ("sdss", "barycentric", None)
    assert one.meta["object_class"] == "STAR"
    assert one.meta["snr"] == pytest.approx(54.9755, abs=1e-3)
    assert (one.meta["medium"], one.meta["release"]) == ("vacuum", "v5_10_0")


def test_exposures_are_epochs_that_agree_with_the_coadd(boss: Path) -> None:
    rows = list(iter_rows(boss, ReadOptions(epochs=True)))
    whole, exposures = rows[0], rows[1:]
    assert [one.epoch for one in exposures] == list(range(104927, 104934))
    times = [one.meta["time"] for one in exposures]
    assert times == sorted(times)
    assert times[-1] - times[0] == pytest.approx(0.073, abs=2e-3)
    for one in exposures:
        assert np.all(np.diff(one.wavelength) > 0)
        near = (one.wavelength > 4500) & (one.wavelength < 9000) & (one.ivar > 0)
        pull = (one.flux - np.interp(one.wavelength, whole.wavelength, whole.flux)) * np.sqrt(one.ivar)
        assert abs(np.median(pull[near])) < 1.0
        assert 0.5 < 1.4826 * np.median(np.abs(pull[near] - np.median(pull[near]))) < 2.0


def test_the_id_is_the_surveys_own_arithmetic() -> None:
    assert spec_obj_id(3586, 500, 55181, "v5_10_0") == ID
    assert spec_obj_id(266, 1, 51630, "26") == 299489677444933632  # as SkyServer lists it
    assert spec_obj_id(9000, 1, 58000, "v5_13_2") < 0  # bit 63 is part of the plate
    assert spec_obj_id(3586, 500, 55181, "master") is None


def test_spspec_images_and_lite_files_without_an_id_give_the_same_key(tmp_path: Path, boss: Path) -> None:
    pixels = 3850
    image = np.stack([np.full(pixels, 9.0), np.zeros(pixels), np.full(pixels, 0.5), np.zeros(pixels), np.zeros(pixels)])
    image[2, 7], image[3, 8] = 0.0, 1 << 22
    primary = fits.PrimaryHDU(image.astype(np.float32))
    primary.header.update(
        TELESCOP="SDSS 2.5-M",
        PLATEID=3586,
        MJD=55181,
        FIBERID=500,
        COEFF0=3.5798,
        COEFF1=1e-4,
        RAOBJ=6.7137,
        DECOBJ=0.0125,
        Z=-1e-4,
    )
    old = tmp_path / "spSpec-55181-3586-500.fit"
    primary.writeto(old)
    one = read_spectrum(old)
    assert (one.wavelength[0], one.meta["ra"], one.meta["release"]) == (pytest.approx(10**3.5798), 6.7137, "dr7")
    assert np.flatnonzero(one.ivar == 0).tolist() == [7, 8]
    assert one.ivar[0] == 4.0
    assert one.spec_id == spec_obj_id(3586, 500, 55181, "26")
    with fits.open(boss) as hdus:
        row = fits.BinTableHDU.from_columns([hdus[2].columns[name] for name in ("PLATE", "MJD", "FIBERID", "RUN2D")])
        lite = tmp_path / "spec-lite.fits"
        fits.HDUList([hdus[0].copy(), hdus[1].copy(), row]).writeto(lite)
    assert read_spectrum(lite).spec_id == ID


def test_sdss5_is_keyed_by_catalogid_and_night_and_sky_is_refused(tmp_path: Path, boss: Path) -> None:
    with fits.open(boss) as hdus:
        for name, kind in (("spec-sky.fits", "SKY"), ("spec-star.fits", "science")):
            row = fits.BinTableHDU.from_columns(
                [
                    fits.Column("CATALOGID", "K", array=[27021603187129892]),
                    fits.Column("SDSS_ID", "K", array=[114986844]),
                    fits.Column("MJD", "J", array=[59804]),
                    fits.Column("OBJTYPE", "10A", array=[kind]),
                    fits.Column("RACAT", "D", array=[10.5]),
                    fits.Column("DECCAT", "D", array=[-2.5]),
                ],
                name="SPALL",
            )
            fits.HDUList([hdus[0].copy(), hdus[1].copy(), row]).writeto(tmp_path / name)
    one = read_spectrum(tmp_path / "spec-star.fits")
    assert (one.spec_id, one.epoch, one.meta["ra"], one.meta["dec"]) == (27021603187129892, 59804, 10.5, -2.5)
    sky = next(iter_rows(tmp_path / "spec-sky.fits"))
    assert isinstance(sky, Refused)
    assert (sky.reason, sky.spec_id) == (Reason.SKY_FIBRE, 27021603187129892)
    assert not isinstance(sky, Spectrum)
