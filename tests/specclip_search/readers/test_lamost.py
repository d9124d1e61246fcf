"""LAMOST files: the narrow reader against astropy on every real file, and every way a file can be wrong."""

import contextlib
import errno
import gzip
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from specclip_search.errors import Reason, SpectrumError
from specclip_search.readers import read_spectrum
from specclip_search.readers.content import cannot_open
from specclip_search.readers.lamost import read_lamost, read_raw, read_with_astropy, release_name
from specclip_search.readers.lamost_bytes import OtherLayout, parse, read_bytes
from specclip_search.readers.wavelengths import air_to_vacuum


@pytest.fixture(scope="module")
def files(shared_data):
    return sorted((shared_data / "lamost").rglob("*.fits.gz"))


@pytest.fixture(scope="module")
def matrix(shared_data):
    return gzip.decompress((shared_data / "lamost" / "matrix" / "spec-55859-F5902_sp01-001_dr7.fits.gz").read_bytes())


@pytest.fixture(scope="module")
def table(shared_data):
    return gzip.decompress((shared_data / "lamost" / "table" / "spec-55859-F5902_sp01-001.fits.gz").read_bytes())


def test_the_narrow_reader_equals_astropy_on_every_real_file(files):
    assert len(files) == 119
    for file in [*files[:-20:4], *files[-20:]]:
        data = read_bytes(file)
        narrow, oracle = parse(data), read_with_astropy(file, data)
        for name in ("flux", "ivar", "wavelength", "andmask"):
            assert np.array_equal(getattr(narrow, name), getattr(oracle, name)), (file.name, name)
        for key, value in oracle.header.items():
            if key not in ("COMMENT", "HISTORY"):
                assert narrow.header.get(key) == value, (file.name, key)


def test_arrays_equal_a_plain_astropy_reading(shared_data):
    file = shared_data / "lamost" / "matrix" / "spec-55859-F5902_sp03-232.fits.gz"
    spectrum = read_spectrum(file)
    with fits.open(file) as hdus:
        rows = hdus[0].data.astype(np.float64)
        assert np.array_equal(spectrum.flux, rows[0])
        assert np.array_equal(spectrum.ivar, rows[1])
        assert np.array_equal(spectrum.wavelength, rows[2])
    assert (spectrum.modality, spectrum.spec_id) == ("lamost_lrs", 103232)
    expected = {"release": "dr8", "snrg": 94.11, "ra": 330.909453, "subclass": "F4", "object_class": "STAR",
                "lmjd": 55859, "planid": "F5902", "spid": 3, "fiberid": 232, "fibermask": 0, "source_id": None}
    assert {name: spectrum.meta[name] for name in expected} == expected
    assert spectrum.meta["z"] == pytest.approx(3.402e-05)


def test_one_star_in_both_layouts_is_the_same_star(shared_data):
    old = read_spectrum(shared_data / "lamost" / "matrix" / "spec-55859-F5902_sp01-001_dr7.fits.gz")
    new = read_spectrum(shared_data / "lamost" / "table" / "spec-55859-F5902_sp01-001.fits.gz")
    assert old.spec_id == new.spec_id == 101001
    assert np.array_equal(old.wavelength, new.wavelength)
    assert np.allclose(old.flux, new.flux, rtol=1e-5)
    assert old.meta["release"] == "dr7"
    assert new.meta["release"] in ("dr9", "dr10")


@pytest.mark.parametrize(("text", "name"), [
    ("LAMOST DR7", "dr7"), ("LAMOST DR13 Q1", "dr13q1"), ("LAMOST DR10 v2.0", "dr10v2.0"), ("", None), (None, None)])
def test_release_names(text, name):
    assert release_name(text) == name


def with_card(data, key, value):
    at = data.index(f"{key:<8}=".encode())
    return data[:at] + f"{key:<8}= {value:>20}".ljust(80).encode() + data[at + 80 :]


def put(tmp_path, data, name="x.fits"):
    file = tmp_path / name
    file.write_bytes(data)
    return file


def refused(file):
    with pytest.raises(SpectrumError) as caught:
        read_lamost(file)
    return caught.value


@pytest.mark.parametrize("value", ["101001.0", "1.01001E5", "'abc     '", "-5", "T", "99999999999999999999"])
def test_an_obsid_that_is_no_whole_number_is_refused(tmp_path, matrix, value):
    error = refused(put(tmp_path, with_card(matrix, "OBSID", value)))
    assert error.reason == Reason.LAYOUT_UNKNOWN
    assert "OBSID must be a whole number" in error.message


def test_an_obsid_written_as_text_is_exact(tmp_path, matrix):
    assert read_lamost(put(tmp_path, with_card(matrix, "OBSID", "'1247301001234567'"))).spec_id == 1247301001234567


def test_a_big_obsid_stays_exact(tmp_path, table):
    assert read_lamost(put(tmp_path, with_card(table, "OBSID", str(2**53 + 1)))).spec_id == 2**53 + 1


def six_rows(matrix, place):
    """A 6-row image whose wavelength stands in another row than the third, or in none."""
    with fits.open(BytesIO(matrix)) as hdus:
        rows, header = hdus[0].data, hdus[0].header
        extra = np.zeros_like(rows[:1])
        order = {3: [rows[:2], extra, rows[2:]], None: [rows[:2], extra, extra, rows[3:]]}[place]
        out = BytesIO()
        fits.PrimaryHDU(np.concatenate(order), header).writeto(out)
    return out.getvalue()


@pytest.mark.parametrize("place", [3, None])
def test_six_rows_where_the_third_is_not_the_wavelength(tmp_path, matrix, place):
    original = read_lamost(put(tmp_path, matrix))
    other = read_lamost(put(tmp_path, six_rows(matrix, place), "six.fits"))
    assert np.allclose(other.wavelength, original.wavelength, rtol=1e-6)
    assert np.array_equal(other.flux, original.flux)


def test_masks_without_a_measurement_become_zero_weight(tmp_path, matrix):
    with fits.open(BytesIO(matrix)) as hdus:
        rows = hdus[0].data.copy()
        rows[1] = 1.0
        rows[3, :5] = [1, 4, 8, 32, 16]  # bad CCD, no sky, bright sky, no data, shifted centre
        fits.PrimaryHDU(rows, hdus[0].header).writeto(tmp_path / "m.fits")
    assert read_lamost(tmp_path / "m.fits").ivar[:6].tolist() == [0, 0, 1, 0, 1, 1]


def test_air_wavelengths_are_made_vacuum(tmp_path, matrix):
    spectrum = read_lamost(put(tmp_path, with_card(matrix, "VACUUM", "F")))
    assert np.allclose(spectrum.wavelength, air_to_vacuum(read_lamost(put(tmp_path, matrix)).wavelength))


def test_air_to_vacuum_of_known_lines():
    """NIST: H alpha 6562.79 A in air is 6564.60 A in vacuum, Ca K 3933.66 is 3934.78."""
    assert air_to_vacuum(np.array([6562.79, 3933.66])) == pytest.approx([6564.60, 3934.78], abs=0.01)


def test_sentinels_become_missing(tmp_path, matrix):
    data = with_card(with_card(matrix, "Z", "-9999.0"), "SNRU", "-9999")
    meta = read_lamost(put(tmp_path, data)).meta
    assert meta["z"] is None
    assert meta["snru"] is None


def test_every_wreck_has_its_words(tmp_path, matrix):
    packed = gzip.compress(matrix)
    cases = {
        "empty.fits": (b"", Reason.UNREADABLE, "empty"),
        "cut.fits.gz": (packed[:-5000], Reason.UNREADABLE, "truncated"),
        "tail.fits.gz": (packed[:-4], Reason.UNREADABLE, "truncated"),
        "bad.fits.gz": (packed[:500] + bytes(200) + packed[700:], Reason.UNREADABLE, "damaged"),
        "cut.fits": (matrix[:40000], Reason.UNREADABLE, "truncated"),
        "header.fits": (matrix[:2000], Reason.UNREADABLE, "truncated"),
        "page.fits": (b"<html><head><title>404 Not Found</title>", Reason.UNREADABLE, "404 Not Found"),
        "page.fits.gz": (gzip.compress(b"<!DOCTYPE html><html>login"), Reason.UNREADABLE, "web page"),
        "text.fits": (b"hello world\n", Reason.LAYOUT_UNKNOWN, "TEXT"),
        "bytes.fits": (bytes(range(256)) * 50, Reason.LAYOUT_UNKNOWN, "begins with"),
    }
    for name, (data, reason, words) in cases.items():
        error = refused(put(tmp_path, data, name))
        assert error.reason == reason, name
        assert words in error.message, (name, error.message)
        assert error.hint
    folder = tmp_path / "folder.fits"
    folder.mkdir()
    assert "is a folder" in refused(folder).message
    assert "does not exist" in refused(tmp_path / "none.fits").message


def test_permission_denied_says_so():
    error = cannot_open(Path("x.fits"), PermissionError(errno.EACCES, "Permission denied"))
    assert error.reason == Reason.UNREADABLE
    assert "permission denied" in error.message
    assert "chmod" in error.hint


def test_a_fits_file_of_another_kind_is_told_apart(tmp_path):
    fits.PrimaryHDU(np.zeros((2, 5), np.float32)).writeto(tmp_path / "image.fits")
    error = refused(tmp_path / "image.fits")
    assert error.reason == Reason.LAYOUT_UNKNOWN
    assert "LAMOST" in error.message


def test_integers_and_doubles_go_through_astropy(tmp_path, matrix):
    with fits.open(BytesIO(matrix)) as hdus:
        fits.PrimaryHDU(hdus[0].data.astype(np.float64), hdus[0].header).writeto(tmp_path / "f8.fits")
    with pytest.raises(OtherLayout):
        parse((tmp_path / "f8.fits").read_bytes())
    assert np.array_equal(read_raw(tmp_path / "f8.fits").flux, parse(matrix).flux)


@settings(max_examples=100, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate],
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_raises_anything_but_our_own_error(tmp_path, matrix, table, data):
    content = bytearray(data.draw(st.sampled_from([matrix, table])))
    for _ in range(data.draw(st.integers(0, 12))):
        place = data.draw(st.integers(0, min(len(content), 20000) - 1))
        content[place] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(0, len(content)))])
    if data.draw(st.booleans()):
        content = gzip.compress(content, 1)
        content = content[: data.draw(st.integers(1, len(content)))]
    with contextlib.suppress(SpectrumError):
        spectrum = read_lamost(put(tmp_path, content))
        assert spectrum.wavelength.shape == spectrum.flux.shape == spectrum.ivar.shape
        assert spectrum.spec_id is None or isinstance(spectrum.spec_id, int)
