"""DESI coadds: arms joined, rows by TARGETID, sky and bad fibres refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from specclip_search.errors import Reason, SpectrumError
from specclip_search.readers import read_spectrum
from specclip_search.readers.registry import ReadOptions, iter_rows
from specclip_search.readers.survey_rows import Refused, join_arms


@pytest.fixture
def coadd(shared_data: Path) -> Path:
    return shared_data / "surveys" / "desi" / "coadd-5-169-thru20210419.fits.gz"


def test_every_row_is_a_spectrum_or_a_refusal_with_its_reason(coadd: Path) -> None:
    rows = list(iter_rows(coadd))
    assert [(type(row).__name__, row.spec_id) for row in rows] == [
        ("Refused", -1695072),
        ("Refused", 39633297352951412),
        ("Refused", -1695064),
        ("Refused", -1695073),
        ("Spectrum", 39633300968442591),
    ]
    assert [row.reason for row in rows if isinstance(row, Refused)] == [
        Reason.SKY_FIBRE,
        Reason.BAD_FIBRE,
        Reason.SKY_FIBRE,
        Reason.SKY_FIBRE,
    ]
    assert "COADD_FIBERSTATUS 512" in rows[1].message
    star = rows[4]
    assert star.meta["release"] == "edr"
    assert (star.meta["ra"], star.meta["dec"]) == (pytest.approx(215.4975770), pytest.approx(53.4603243))
    assert star.meta["source"].endswith("#4")


def test_a_row_by_number_and_a_refused_one(coadd: Path) -> None:
    assert read_spectrum(f"{coadd}#4").spec_id == 39633300968442591
    with pytest.raises(SpectrumError, match="empty sky") as raised:
        read_spectrum(f"{coadd}#2")
    assert raised.value.reason is Reason.SKY_FIBRE
    assert read_spectrum(coadd).spec_id == 39633300968442591  # the first that can be used
    with pytest.raises(SpectrumError, match="no spectrum in row 9"):
        read_spectrum(f"{coadd}#9")


def test_arms_are_joined_and_their_overlaps_weighted(shared_data: Path) -> None:
    file = next((shared_data / "surveys" / "desi").glob("coadd-4*"))
    one = read_spectrum(file)
    assert (len(one.wavelength), one.wavelength[0], one.wavelength[-1]) == (7781, 3600.0, pytest.approx(9824.0))
    np.testing.assert_allclose(np.diff(one.wavelength), 0.8, atol=1e-6)
    with fits.open(file) as hdus:
        waves = {arm: hdus[f"{arm}_WAVELENGTH"].data for arm in "BRZ"}
        flux = {arm: hdus[f"{arm}_FLUX"].data[0].astype(float) for arm in "BRZ"}
        ivar = {arm: hdus[f"{arm}_IVAR"].data[0].astype(float) for arm in "BRZ"}
    at = 5780.0
    places = {arm: int(np.argmin(np.abs(waves[arm] - at))) for arm in "BR"}
    weights = {arm: ivar[arm][places[arm]] for arm in "BR"}
    expected = sum(flux[arm][places[arm]] * weights[arm] for arm in "BR") / sum(weights.values())
    joined = int(np.argmin(np.abs(one.wavelength - at)))
    assert one.flux[joined] == pytest.approx(expected)
    assert one.ivar[joined] == pytest.approx(sum(weights.values()))
    # resolving power as DESI states it: about 2000-3500 in B, 3500-4500 in R, 4000-5500 in Z
    for low, high, least, most in ((3700, 5700, 2000, 4000), (5900, 7500, 3500, 5200), (7700, 9800, 4400, 5700)):
        inside = (one.wavelength > low) & (one.wavelength < high)
        assert least < np.median(one.resolution[inside]) < most


def test_spectra_files_have_one_row_an_exposure(coadd: Path, tmp_path: Path) -> None:
    with fits.open(coadd) as hdus:
        keep = [hdu.copy() for hdu in hdus]
    for hdu in keep:
        if hdu.name == "FIBERMAP":
            columns = [c for c in hdu.columns if c.name not in ("TARGETID", "COADD_FIBERSTATUS", "OBJTYPE")]
            ids = np.full(5, 39633300968442591)
            columns += [
                fits.Column("TARGETID", "K", array=ids),
                fits.Column("FIBERSTATUS", "J", array=np.zeros(5, int)),
                fits.Column("EXPID", "J", array=np.arange(85502, 85507)),
                fits.Column("MJD", "D", array=59324.0 + np.arange(5)),
            ]
            made = fits.BinTableHDU.from_columns(columns, name="FIBERMAP")
    out = tmp_path / "spectra-5-169-20210419.fits"
    fits.HDUList([made if hdu.name == "FIBERMAP" else hdu for hdu in keep]).writeto(out)
    rows = list(iter_rows(out, ReadOptions(release="dr1")))
    assert [row.reason for row in rows[:4]] == [Reason.TOO_FEW_GOOD_PIXELS] * 4
    assert (rows[4].epoch, rows[4].meta["time"], rows[4].meta["release"]) == (85506, 59328.0, "dr1")


def test_arms_on_different_samplings_are_refused() -> None:
    first, second = np.arange(0.0, 10.0), np.arange(5.3, 15.0)
    with pytest.raises(ValueError, match="different samplings"):
        join_arms([(wave, np.ones((1, len(wave))), np.ones((1, len(wave)))) for wave in (first, second)])
