"""The narrow FITS reader against astropy on real and made files, and on damaged ones."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from specclip_search.errors import SpectrumError
from specclip_search.readers.containers.fits_bytes import open_fits
from specclip_search.readers.content import look


def test_every_hdu_of_every_real_survey_file_equals_astropys(shared_data: Path) -> None:
    files = [
        file
        for folder in ("boss", "desi", "lamost_mrs", "gaia_datalink")
        for file in sorted((shared_data / "surveys" / folder).glob("*.fits*"))
    ]
    assert len(files) == 11
    for file in files:
        with warnings.catch_warnings(action="ignore"), fits.open(file) as theirs:
            ours = open_fits(look(file))
            assert [hdu.name for hdu in ours] == [
                hdu.name.upper() if number or hdu.name != "PRIMARY" else "" for number, hdu in enumerate(theirs)
            ]
            for mine, hdu in zip(ours, theirs, strict=True):
                if getattr(hdu, "columns", None) is not None:
                    for name, values in mine.columns().items():
                        known = hdu.data[name]
                        if values.dtype.kind in "fiu":
                            np.testing.assert_array_equal(
                                values, known.reshape(values.shape), err_msg=f"{file.name} {name}"
                            )
                elif hdu.data is not None:
                    np.testing.assert_array_equal(mine.image(), hdu.data)


def test_unsigned_scaled_text_and_long_integers(tmp_path: Path) -> None:
    big = np.array([2**63 + 5, 7], np.uint64)
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column("BIG", "K", array=big, bzero=2**63),
            fits.Column("ID", "K", array=np.array([2**62 + 1, -3])),
            fits.Column("NAME", "5A", array=["ab", "cde"]),
            fits.Column("V", "3E", array=np.arange(6.0).reshape(2, 3)),
            fits.Column("NONE", "0E", array=np.empty((2, 0))),
            fits.Column("BITS", "11X", array=np.ones((2, 11), bool)),
            fits.Column("LAST", "I", array=np.array([4, 5])),
        ],
        name="T",
    )
    file = tmp_path / "t.fits"
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(file)
    columns = open_fits(look(file))[1].columns()
    assert columns["BIG"].tolist() == big.tolist()
    assert columns["ID"].tolist() == [2**62 + 1, -3]
    assert [name.strip() for name in columns["NAME"].tolist()] == [b"ab", b"cde"]
    assert columns["V"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert columns["LAST"].tolist() == [4, 5]


def test_a_tile_compressed_image_goes_through_astropy(tmp_path: Path) -> None:
    image = np.arange(600, dtype=np.int32).reshape(20, 30)
    file = tmp_path / "c.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(image, name="FLUX")]).writeto(file)
    found = open_fits(look(file))[1]
    assert found.name == "FLUX"
    np.testing.assert_array_equal(found.image(), image)


def test_a_table_of_an_unknown_form_says_which(tmp_path: Path) -> None:
    table = fits.BinTableHDU.from_columns([fits.Column("A", "E", array=[1.0])], name="T")
    file = tmp_path / "t.fits"
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(file)
    file.write_bytes(file.read_bytes().replace(b"TFORM1  = 'E       '", b"TFORM1  = 'Z       '"))
    with pytest.raises(SpectrumError, match="TFORM1 = 'Z'") as raised:
        open_fits(look(file))[1].columns()
    assert raised.value.hint


@pytest.mark.parametrize("keep", [3000, 9000, 60_000])
def test_a_file_cut_short_is_unreadable(shared_data: Path, tmp_path: Path, keep: int) -> None:
    import gzip

    whole = gzip.decompress(next((shared_data / "surveys" / "boss").glob("*.gz")).read_bytes())
    cut = tmp_path / "spec-cut.fits"
    cut.write_bytes(whole[:keep])
    from specclip_search.readers import read_spectrum

    with pytest.raises(SpectrumError) as raised:
        read_spectrum(cut)
    assert raised.value.hint


def test_a_header_that_promises_the_impossible_is_refused(tmp_path: Path) -> None:
    cards = [
        "SIMPLE  =                    T",
        "BITPIX  =                  -64",
        "NAXIS   =                    2",
        f"NAXIS1  = {2**40:20d}",
        f"NAXIS2  = {2**40:20d}",
        "TELESCOP= 'SDSS 2.5-M'",
        "PLATEID =  7",
        "END",
    ]
    file = tmp_path / "huge.fits"
    file.write_bytes("".join(card.ljust(80) for card in cards).ljust(2880).encode() * 1)
    from specclip_search.readers import read_spectrum

    with pytest.raises(SpectrumError, match="truncated: the header of its HDU 0 announces"):
        read_spectrum(file)
