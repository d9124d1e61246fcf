"""LAMOST medium-resolution spectra of the real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from specclip_search.readers import read_spectrum
from specclip_search.readers.content import look
from specclip_search.readers.registry import ReadOptions, iter_rows, reader_for


@pytest.fixture
def night(shared_data: Path) -> Path:
    return next((shared_data / "surveys" / "lamost_mrs").glob("med-58649*"))


def test_both_arms_of_the_coadd_with_their_masks(night: Path) -> None:
    one = read_spectrum(night)
    assert (one.modality, one.spec_id, one.epoch, one.frame) == ("lamost_mrs", 747810159, None, "barycentric")
    assert (one.meta["release"], one.meta["snr_b"], one.meta["snr_r"]) == ("dr7", 88.36, 143.84)
    assert (one.meta["lmjd"], one.meta["spid"], one.meta["fiberid"]) == (58649, 10, 159)
    with fits.open(night) as hdus:
        blue, red = hdus["COADD_B"].data, hdus["COADD_R"].data
        np.testing.assert_array_equal(one.flux, np.concatenate([blue["FLUX"], red["FLUX"]]))
        masked = np.concatenate([blue["ANDMASK"], red["ANDMASK"]]) != 0
    assert masked.any()
    assert not one.ivar[masked].any()
    assert np.diff(one.wavelength).max() > 800  # nothing between the arms


def test_exposures_are_epochs_in_increasing_wavelength(night: Path) -> None:
    rows = list(iter_rows(night, ReadOptions(epochs=True)))
    assert [row.epoch for row in rows] == [None, 84454650, 84454696, 84454719, 84454742]
    for row in rows[1:]:
        assert np.all(np.diff(row.wavelength) > 0)
        assert 40 < row.meta["snr"] < 60
    # DATE-OBS: 2019-06-14T17:40 UTC is the middle of the first exposure
    assert rows[1].meta["time"] == pytest.approx(58648 + 17.6667 / 24, abs=0.001)
    assert rows[1].meta["time_scale"] == "MJD_UTC"


def test_vectors_in_one_row_and_wavelength_instead_of_its_logarithm(night: Path, tmp_path: Path) -> None:
    made = []
    with fits.open(night) as hdus:
        made.append(hdus[0].copy())
        for name in ("COADD_B", "COADD_R"):
            data = hdus[name].data
            size = len(data)
            wave = 10.0 ** data["LOGLAM"].astype(float)
            made.append(
                fits.BinTableHDU.from_columns(
                    [
                        fits.Column("FLUX", f"{size}E", array=data["FLUX"][None]),
                        fits.Column("IVAR", f"{size}E", array=data["IVAR"][None]),
                        fits.Column("WAVELENGTH", f"{size}D", array=wave[None]),
                        fits.Column("ANDMASK", f"{size}I", array=data["ANDMASK"][None]),
                    ],
                    name=name,
                )
            )
    file = tmp_path / night.name.removesuffix(".gz")
    fits.HDUList(made).writeto(file)
    old, new = read_spectrum(night), read_spectrum(file)
    for name in ("wavelength", "flux", "ivar"):
        np.testing.assert_array_equal(getattr(new, name), getattr(old, name))


def test_low_resolution_files_are_not_taken_for_it(shared_data: Path) -> None:
    for file in sorted((shared_data / "lamost").glob("*/*.fits*")):
        assert reader_for(look(file)).name == "lamost", file
