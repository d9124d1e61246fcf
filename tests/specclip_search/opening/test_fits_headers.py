"""Headers of FITS files are bounded before astropy sees them; no sound file is refused."""

import gzip
import io
import time

import numpy as np
import pytest
from astropy.io import fits

from specclip_search.errors import Reason, SpectrumError
from specclip_search.opening.fits_headers import check_fits
from specclip_search.readers import read_spectrum
from specclip_search.readers.lamost import read_lamost


def test_one_card_that_hung_the_reader_is_an_error_now(cases):
    began = time.process_time()
    for read in (read_spectrum, read_lamost):
        with pytest.raises(SpectrumError, match="NAXIS between 0 and 999, and says 4294967296") as caught:
            read(cases / "fits_naxis_hang.fits")
        assert caught.value.reason == Reason.UNREADABLE
        assert "fits_naxis_hang.fits" in caught.value.message
    assert time.process_time() - began < 20  # it took days


def test_every_real_file_passes(shared_data, cases):
    files = [file for folder in (shared_data, cases) for pattern in ("*.fits", "*.fits.gz")
             for file in folder.rglob(pattern) if file.name != "fits_naxis_hang.fits"]
    assert len(files) > 30
    for file in files:
        data = file.read_bytes()
        stream = io.BytesIO(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
        assert check_fits(stream, file.name) >= 1
        assert stream.tell() == 0


def table_bytes() -> bytes:
    table = fits.BinTableHDU.from_columns([fits.Column("a", "J", array=np.arange(5)),
                                           fits.Column("b", "3E", array=np.ones((5, 3))),
                                           fits.Column("c", "PD()", array=np.array([np.ones(2)] * 5, object))])
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(np.zeros((3, 4))), table]).writeto(stream)
    return stream.getvalue()


@pytest.mark.parametrize(("card", "said"), [
    ("BITPIX  = 7", "BITPIX"), ("NAXIS1  = 99999999999", "bytes a row"), ("NAXIS2  = -3", "NAXIS2 between"),
    ("PCOUNT  = 9999999999", "announces"), ("GCOUNT  = 9999999999", "announces"),
    ("TFIELDS = 100000", "TFIELDS between 0 and 999"), ("TFIELDS = 2", "take 16 bytes a row"),
    ("TFORM2  = '900000000E'", "bytes a row"), ("TFORM1  = 'nothing'", "no column's form"),
    ("NAXIS   = 1", "two axes"), ("END", "TFIELDS")])
def test_a_header_that_lies_is_refused(card, said):
    data = table_bytes()
    begin = data.index(b"XTENSION")
    assert check_fits(io.BytesIO(data), "good.fits") == 2
    name = card[:8].ljust(8).encode() if card != "END" else b"TFIELDS "
    at = data.index(name, begin)
    lying = data[:at] + card.ljust(80).encode() + data[at + 80 :]
    with pytest.raises(SpectrumError, match=said) as caught:
        check_fits(io.BytesIO(lying), "lying.fits")
    assert "lying.fits" in caught.value.message
    assert "HDU 1" in caught.value.message


def test_a_cut_file_says_how_much_is_missing_and_missing_padding_is_no_fault():
    data = table_bytes()
    with pytest.raises(SpectrumError, match="bytes of data"):
        check_fits(io.BytesIO(data[: len(data) - 2880 + 100]), "cut.fits")
    assert check_fits(io.BytesIO(data[: len(data) - 2600]), "unpadded.fits") == 2
    assert check_fits(io.BytesIO(data + b"notes"), "trailing.fits") == 2
    with pytest.raises(SpectrumError, match="no END"):
        check_fits(io.BytesIO(data[:160]), "head.fits")
