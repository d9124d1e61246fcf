"""Any single spectrum: found by content, its unit and medium stated or asked for."""

import contextlib
import gzip
from unittest.mock import patch

import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st

from specclip_search.errors import Reason, SpectrumError
from specclip_search.readers import Reader, read_spectrum, register, register_with_specutils
from specclip_search.readers.registry import READERS
from specclip_search.readers.wavelengths import air_to_vacuum
from specclip_search.spectrum import Spectrum
from specclip_search.surveys import GAIA_XP, LAMOST_LRS
from specclip_search.surveys.batch import prepare_batch

WAVE = np.arange(3650.0, 9200.0, 1.5)
FLUX = 100 + 10 * np.sin(WAVE / 200)
ERROR = np.full_like(WAVE, 2.0)


def text(tmp_path, header, columns, name="s.csv", separator=","):
    file = tmp_path / name
    lines = [separator.join(f"{value:.10g}" for value in row) for row in zip(*columns, strict=True)]
    file.write_text(("" if header is None else header + "\n") + "\n".join(lines) + "\n")
    return file


def refused(file, **options):
    with pytest.raises(SpectrumError) as caught:
        read_spectrum(file, **options)
    return caught.value


def test_what_a_text_file_does_not_say_is_asked_for(tmp_path):
    file = text(tmp_path, "wavelength,flux,flux_error", (WAVE, FLUX, ERROR))
    assert "unit='Angstrom'" in refused(file).hint
    assert "medium='air'" in refused(file, unit="Angstrom").hint
    spectrum = read_spectrum(file, unit="Angstrom", medium="vacuum")
    assert spectrum.modality == "lamost_lrs"
    assert np.allclose(spectrum.wavelength, WAVE)
    assert np.allclose(spectrum.flux, FLUX)
    assert np.allclose(spectrum.ivar, 0.25)
    assert prepare_batch(LAMOST_LRS, [spectrum]).keep.all()


@pytest.mark.parametrize(("unit", "scale"), [
    ("Angstrom", 1), ("nm", 0.1), ("um", 1e-4), ("micron", 1e-4), ("m", 1e-10)])
def test_units(tmp_path, unit, scale):
    file = text(tmp_path, "wave,flux", (WAVE * scale, FLUX))
    assert np.allclose(read_spectrum(file, unit=unit, medium="vacuum").wavelength, WAVE, rtol=1e-9)


def test_air_wavelengths_become_vacuum(tmp_path):
    file = text(tmp_path, "wavelength_air,flux", (WAVE, FLUX))
    spectrum = read_spectrum(file, unit="Angstrom")
    assert np.allclose(spectrum.wavelength, air_to_vacuum(WAVE), rtol=1e-9)
    assert spectrum.meta["ivar_estimated"] is True


def test_estimated_errors_are_the_scatter(tmp_path):
    rng = np.random.default_rng(4)
    file = text(tmp_path, None, (WAVE, FLUX + 3 * rng.normal(size=WAVE.size)), separator="  ", name="s.txt")
    spectrum = read_spectrum(file, unit="AA", medium="vac")
    assert np.median(spectrum.ivar**-0.5) == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize(("header", "separator"), [
    (None, ","), (None, " "), ("lambda;flux;sigma", ";"), ("# no names", "\t")])
def test_separators_and_headings(tmp_path, header, separator):
    file = text(tmp_path, header, (WAVE, FLUX, ERROR), separator=separator)
    spectrum = read_spectrum(file, unit="Angstrom", medium="vacuum")
    assert np.allclose(spectrum.flux, FLUX)
    assert np.allclose(spectrum.ivar, 0.25)


def test_decreasing_wavelengths_are_turned_round(tmp_path):
    file = text(tmp_path, "wave,flux", (WAVE[::-1], FLUX[::-1]))
    assert np.allclose(read_spectrum(file, unit="Angstrom", medium="vacuum").flux, FLUX)


def test_ecsv_states_its_unit(tmp_path):
    table = Table({"wavelength": WAVE / 10, "flux": FLUX, "flux_error": ERROR}, meta={"medium": "vacuum"})
    table["wavelength"].unit = "nm"
    table.write(tmp_path / "s.ecsv", format="ascii.ecsv")
    assert np.allclose(read_spectrum(tmp_path / "s.ecsv").wavelength, WAVE)


def test_the_archives_own_grid_needs_no_word(tmp_path):
    file = text(tmp_path, "wavelength,flux", (GAIA_XP.wavelength, 1e-16 * GAIA_XP.wavelength))
    spectrum = read_spectrum(file)
    assert spectrum.modality == "gaia_xp"
    assert np.array_equal(spectrum.wavelength, GAIA_XP.wavelength)


def test_coverage_of_no_modality_is_said_with_numbers(tmp_path):
    error = refused(text(tmp_path, "wave,flux", (WAVE, FLUX)), unit="nm", medium="vacuum")
    assert error.reason == Reason.NO_COVERAGE
    assert "36500-91" in error.message
    error = refused(text(tmp_path, "wave,flux", (np.arange(3300, 10300, 5.0), np.ones(1400))), unit="AA", medium="vac")
    assert "more than one modality" in error.message
    assert read_spectrum(tmp_path / "s.csv", unit="AA", medium="vac", modality="gaia_xp").wavelength[0] == 330
    assert "no modality 'apogee'" in refused(tmp_path / "s.csv", unit="AA", medium="vac", modality="apogee").message


def test_sdss_layout(tmp_path):
    loglam = np.arange(3.56, 3.96, 1e-4)
    columns = [fits.Column("flux", "E", array=np.full(len(loglam), 7.0)), fits.Column("loglam", "E", array=loglam),
               fits.Column("ivar", "E", array=np.full(len(loglam), 0.5)),
               fits.Column("and_mask", "J", array=(np.arange(len(loglam)) == 9).astype(int))]
    header = fits.Header([("PLUG_RA", 146.7), ("PLUG_DEC", -1.0)])
    table = fits.BinTableHDU.from_columns(columns)
    fits.HDUList([fits.PrimaryHDU(header=header), table]).writeto(tmp_path / "spec.fits")
    spectrum = read_spectrum(tmp_path / "spec.fits")
    assert np.allclose(spectrum.wavelength, 10**loglam, rtol=1e-6)
    assert spectrum.ivar[:11].tolist() == [0.5] * 9 + [0.0, 0.5]
    assert (spectrum.meta["ra"], spectrum.meta["instrument"], spectrum.spec_id) == (146.7, "SDSS", None)


def test_desi_layout_takes_the_arm_that_covers_the_range(tmp_path):
    wave = np.arange(3600, 5801, 0.8)
    flux = np.vstack([np.full(len(wave), 2.0), np.linspace(1, 2, len(wave))]).astype(np.float32)
    targets = fits.BinTableHDU.from_columns([
        fits.Column("TARGETID", "K", array=[39627652591521181, 39627652591521182]),
        fits.Column("TARGET_RA", "D", array=[10.5, 11.5]), fits.Column("TARGET_DEC", "D", array=[1.5, 2.5])],
        name="FIBERMAP")
    images = [fits.ImageHDU(wave, name="B_WAVELENGTH"), fits.ImageHDU(flux, name="B_FLUX"),
              fits.ImageHDU(np.ones_like(flux), name="B_IVAR")]
    fits.HDUList([fits.PrimaryHDU(), targets, *images]).writeto(tmp_path / "coadd.fits")
    second = read_spectrum(f"{tmp_path / 'coadd.fits'}#1")
    assert second.spec_id == 39627652591521182
    assert second.meta["ra"] == 11.5
    assert np.allclose(second.flux, flux[1])


def test_a_table_with_units_and_a_row_of_vectors(tmp_path):
    column = fits.Column("WAVE", f"{len(WAVE)}D", unit="Angstrom", array=WAVE[None])
    table = fits.BinTableHDU.from_columns([column, fits.Column("FLUX", f"{len(WAVE)}D", array=FLUX[None])])
    table.header["VACUUM"] = True
    table.writeto(tmp_path / "vectors.fits")
    assert np.allclose(read_spectrum(tmp_path / "vectors.fits").flux, FLUX)


@pytest.mark.parametrize(("kind", "convert"), [("WAVE", lambda w: w), ("AWAV", air_to_vacuum)])
def test_an_image_with_a_wavelength_axis(tmp_path, kind, convert):
    hdu = fits.PrimaryHDU(FLUX)
    hdu.header.update(CRVAL1=WAVE[0], CDELT1=1.5, CRPIX1=1, CTYPE1=kind, CUNIT1="Angstrom")
    hdu.writeto(tmp_path / "image.fits.gz")
    assert np.allclose(read_spectrum(tmp_path / "image.fits.gz").wavelength, convert(WAVE))


def test_what_nothing_knows_is_refused_with_what_is_known(tmp_path):
    fits.PrimaryHDU(np.zeros((30, 30))).writeto(tmp_path / "picture.fits")
    error = refused(tmp_path / "picture.fits")
    assert error.reason == Reason.LAYOUT_UNKNOWN
    words = tmp_path / "words.txt"
    words.write_text("the quick brown fox\njumps over\nthe lazy dog\n")
    error = refused(words)
    assert error.reason == Reason.LAYOUT_UNKNOWN
    assert "LAMOST" in error.hint
    assert "SDSS" in error.hint


def test_a_line_that_is_no_number_is_named(tmp_path):
    file = text(tmp_path, "wave,flux", (WAVE, FLUX))
    file.write_text(file.read_text().replace("3680,", "oops,", 1))
    assert "line 22" in refused(file, unit="AA", medium="vacuum").message


def test_a_reader_can_be_added_and_its_name_is_its_own():
    reader = Reader("mine", "mine", lambda content: False, lambda content, options: iter(()))
    register(reader)
    try:
        with pytest.raises(ValueError, match="'mine' is registered already"):
            register(reader)
    finally:
        READERS.remove(reader)


def test_specutils_learns_lamost(shared_data):
    specutils = pytest.importorskip("specutils")
    register_with_specutils()
    file = shared_data / "lamost" / "matrix" / "spec-55859-F5902_sp08-171.fits.gz"
    theirs, ours = specutils.Spectrum.read(file), read_spectrum(file)
    assert np.array_equal(theirs.flux.value, ours.flux)
    assert np.allclose(theirs.spectral_axis.to_value("AA"), ours.wavelength, rtol=1e-15)
    assert theirs.meta["obsid"] == ours.spec_id == 108171
    assert theirs.mask.sum() == (ours.ivar <= 0).sum() > 0


@pytest.mark.parametrize(("modality", "said", "axis", "unit"), [
    ("gaia_xp", None, "nm", "W m-2 nm-1"), ("lamost_lrs", None, "Angstrom", ""),
    ("lamost_mrs", "relative", "Angstrom", ""),
    ("sdss", "1e-17 erg s-1 cm-2 Angstrom-1", "Angstrom", "1e-17 erg s-1 cm-2 Angstrom-1")])
def test_specutils_gets_units_and_reads_what_is_written(tmp_path, modality, said, axis, unit):
    specutils = pytest.importorskip("specutils", reason="specutils is not installed")
    from specclip_search.atlas import Atlas
    from specclip_search.queries.sql.spectrum_table import observed_table
    from specclip_search.tables import write_rows

    ivar = np.where(np.arange(WAVE.size) == 7, 0.0, 0.25)
    ours = Spectrum(WAVE, FLUX, ivar, modality, 12, {"flux_unit": said} if said else {})
    theirs = ours.to_specutils()
    assert (theirs.spectral_axis.unit, theirs.flux.unit) == (units.Unit(axis), units.Unit(unit))
    assert theirs.uncertainty.unit == units.Unit(unit) ** -2
    assert np.flatnonzero(theirs.mask).tolist() == [7]
    register_with_specutils()
    with patch("specclip_search.queries.sql.spectrum_table.observed_spectrum", return_value=ours):
        table = observed_table(Atlas.create(tmp_path / "atlas"), "any")
    write_rows(table, None, tmp_path / "s.fits")
    back = specutils.Spectrum.read(tmp_path / "s.fits")
    assert np.array_equal(back.flux.value, FLUX)
    assert (back.spectral_axis.unit, back.flux.unit) == (units.Unit(axis), units.Unit(unit))
    assert back.uncertainty.array[0] == 2.0
    assert np.flatnonzero(back.mask).tolist() == [7]
    if unit:
        # as a program finds it that knows nothing of this package
        plain = specutils.Spectrum.read(tmp_path / "s.fits", format="tabular-fits")
        assert plain.flux.unit == units.Unit(unit)
        assert np.array_equal(plain.flux.value, FLUX)


@given(content=st.one_of(st.binary(max_size=400), st.text(max_size=400).map(str.encode),
                         st.text("0123456789.,;- eE\nnaif", max_size=400).map(str.encode)), packed=st.booleans())
def test_no_bytes_raise_anything_but_our_own_error(tmp_path, content, packed):
    file = tmp_path / "any"
    file.write_bytes(gzip.compress(content) if packed else content)
    with contextlib.suppress(SpectrumError):
        prepare_batch(LAMOST_LRS, [read_spectrum(file, unit="Angstrom", medium="vacuum", modality="lamost_lrs")])
