"""Files that gave real trouble (../shared/cases): each has its right answer."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from specclip_search.atlas import Atlas
from specclip_search.catalogs.ingest import CatalogReport, ingest_catalog
from specclip_search.cli.reports import catalogue_notes
from specclip_search.errors import SpecclipError, SpectrumError
from specclip_search.ingest import ingest_gaia_xp
from specclip_search.queries.emp.known_stars import read_known
from specclip_search.readers import iter_spectra, read_spectrum
from specclip_search.readers.registry import ReadOptions

STARS = [1223178102895233152, 5853237750984992512, 6522117918715433856, 514069102427176704, 791885458491547264,
         1222958819045496576, 5853405357796244096, 1220288758136089344]


@pytest.fixture
def atlas(tmp_path: Path) -> Atlas:
    return Atlas.create(tmp_path / "atlas")


@pytest.fixture
def taken(atlas: Atlas, cases: Path) -> Any:
    """Ingest a case as a catalogue: its report, its columns, and what the user is told."""

    def take(name: str, **options: Any) -> tuple[CatalogReport, dict[str, list[Any]], str]:
        report = ingest_catalog(atlas, "c", cases / name, **options)
        return report, atlas.catalog("c").read().to_pydict(), "\n".join(catalogue_notes(report))

    return take


def test_units_and_dashes_of_vizier_are_no_rows(taken: Any, atlas: Atlas) -> None:
    report, columns, said = taken("vizier-tsv/gaia.tsv")
    assert (report.read, report.kept) == (8, 8)
    assert columns["source_id"] == STARS
    assert columns["feh"] == [-2.51, -2.62, -3.1, -2.7, -2.55, -2.9, -3.31, -2.6]
    assert columns["ra"][0] == pytest.approx(236.3325)
    assert columns["teff"][:2] == [5000.0, 5100.0]
    assert "1 line of units left out" in said
    assert "1 line of dashes left out" in said
    ra = atlas.catalog("c").read().schema.field("ra").metadata
    assert (ra[b"unit"], ra[b"description"], ra[b"ucd"]) == (b"deg", b"Right ascension", b"pos.eq.ra;meta.main")


def test_sexagesimal_positions_are_understood(taken: Any) -> None:
    _, columns, _ = taken("sexagesimal/list.csv")
    assert columns["ra"][:2] == pytest.approx([236.3325, 218.8884167], abs=1e-6)
    assert columns["dec"][:2] == pytest.approx([26.3696389, -63.3467222], abs=1e-6)


def test_limits_dashes_and_errors_in_a_column_of_numbers(taken: Any) -> None:
    report, columns, said = taken("text-in-label/limits.csv")
    assert columns["feh"] == [-2.51, None, -3.1, -2.7, None, -2.9, None, None]
    assert report.limits == {"feh": 1}
    assert "1  limits in feh are no values" in said


def test_units_in_names_and_decimal_commas(taken: Any) -> None:
    _, columns, _ = taken("text-in-label/units_in_header.csv")
    assert columns["teff"][0] == 5000
    assert columns["feh"][2] == -3.1
    assert columns["ra"][0] == pytest.approx(236.3325)
    report, columns, said = taken("text-in-label/decimal_comma.csv")
    assert columns["feh"] == [-2.51, -2.62, -3.1, -2.7, -2.55, -2.9, -3.31, -2.6]
    assert columns["source_id"] == STARS
    assert "decimal commas" in said
    assert report.not_numbers == {}


def test_missing_value_codes_are_no_metallicities(taken: Any) -> None:
    report, columns, said = taken("known-sentinel/list.csv")
    assert report.missing_values == {"feh": 4, "c_fe": 5}
    assert min(value for value in columns["feh"] if value is not None) == -2.9
    assert "4  codes for a missing value in feh became null" in said


def small_atlas(atlas: Atlas) -> Atlas:
    """The eight stars of the lists, as XP spectra without anything else of interest."""
    import pyarrow as pa

    from specclip_search.atlas.arrays import table_from_columns
    from specclip_search.surveys import GAIA_XP

    schema, rows = GAIA_XP.schema, len(STARS)
    columns: dict[str, Any] = {field.name: pa.nulls(rows, field.type) for field in schema}
    columns |= {"spec_id": STARS, "source_id": STARS, "simulated": [False] * rows, "release": ["dr3"] * rows,
                "source": ["made"] * rows, "flux": np.ones((rows, 343), np.float32),
                "error": np.ones((rows, 343), np.float32),
                "ra": [236.3325, 218.8884166666, 357.481875, 36.7259583333, 173.4382083333, 236.5451666667,
                       216.38025, 237.86325],
                "dec": [26.3696388889, -63.3467222222, -51.1123055556, 62.7833333333, 51.3861388889, 25.9303888889,
                        -62.9852777778, 25.9830833333]}
    stage = atlas.spectra("gaia_xp")
    with stage.lock():
        stage.write(0, table_from_columns(columns, schema), schema=schema, inputs="made")
    return atlas


@pytest.mark.parametrize(("name", "with_feh", "by"), [
    ("known-sentinel/list.csv", 4, "source_id"), ("text-in-label/limits.csv", 4, "source_id"),
    ("text-in-label/units_in_header.csv", 8, "source_id"), ("text-in-label/decimal_comma.csv", 8, "source_id"),
    ("vizier-tsv/gaia.tsv", 8, "source_id"), ("sexagesimal/list.csv", 8, "source_id"),
    ("second-hdu/second.fits", 8, "source_id"), ("second-hdu/two.vot", 8, "source_id")])
def test_known_stars_are_read_as_catalogues_are(cases: Path, atlas: Atlas, name: str, with_feh: int, by: str) -> None:
    known = read_known(small_atlas(atlas), cases / name)
    assert (len(known.source_id), known.listed, known.by) == (8, 8, by)
    assert np.isfinite(known.feh).sum() == with_feh
    assert np.nanmin(known.feh) > -4
    if name.startswith("known"):
        assert any("4 codes for a missing value in feh" in note for note in known.notes)


def test_known_stars_are_found_by_sexagesimal_positions(cases: Path, atlas: Atlas, tmp_path: Path) -> None:
    lines = (cases / "sexagesimal" / "list.csv").read_text().splitlines()
    (tmp_path / "list.csv").write_text("\n".join(line.partition(",")[2] for line in lines))
    known = read_known(small_atlas(atlas), tmp_path / "list.csv")
    assert (sorted(known.source_id.tolist()), known.by) == (sorted(STARS), "position")


def test_the_table_with_keys_is_taken_and_the_others_are_named(taken: Any) -> None:
    _, columns, said = taken("second-hdu/mws.fits")
    assert columns["source_id"] == STARS
    assert "table 1 (RVTAB) of 8 rows: VRAD, FEH, TARGETID left out; --hdu 1 takes it" in said
    report, columns, _ = taken("second-hdu/mws.fits", hdu="rvtab")
    assert "feh" in columns
    assert report.read == 8
    assert taken("second-hdu/second.fits")[1]["source_id"] == STARS
    _, columns, said = taken("second-hdu/two.vot")
    assert columns["source_id"] == STARS
    assert "table 0 (meta)" in said
    with pytest.raises(SpecclipError, match="no table '7'") as caught:
        taken("second-hdu/second.fits", hdu="7")
    assert "--hdu" in caught.value.hint
    assert "STARS" in caught.value.hint


def test_a_row_of_many_is_searched_by_its_number(cases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from specclip_search.queries.space import targets

    assert read_spectrum(f"{cases / 'row-of-many' / 'two_rows.csv'}#1").spec_id == 4
    seen = []
    monkeypatch.setattr(targets, "_from_file", lambda space, path, stated: seen.append(path))
    space = SimpleNamespace(atlas=None)  # a file is found before any atlas is asked
    targets.resolve_targets(space, [f"{cases / 'row-of-many' / 'two_rows.csv'}#1"])  # type: ignore[arg-type]
    assert seen[0].name == "two_rows.csv#1"


def test_rows_of_vectors_are_spectra_each(cases: Path) -> None:
    file = cases / "mastar-rows" / "mastar.fits.gz"
    options = ReadOptions(unit="Angstrom", medium="vacuum", modality="lamost_lrs")
    spectra = list(iter_spectra(file, options))
    assert len(spectra) == 3
    third = read_spectrum(f"{file}#2", unit="Angstrom", medium="vacuum", modality="lamost_lrs")
    assert np.array_equal(third.flux, spectra[2].flux)
    assert not np.array_equal(third.flux, spectra[0].flux)
    assert third.meta["ra"] == pytest.approx(357.481875)


@pytest.mark.parametrize(("name", "ids"), [
    ("xp-ecsv-blank/two.ecsv", [6, 4]), ("row-of-many/two_rows.csv", [6, 4]),
    ("xp-capital-source-id/one.fits", [5853498713190525696]),
    ("datalink-zip/datalink_output.zip", [5853498713190525696])])
def test_xp_files_of_every_habit_go_in(cases: Path, atlas: Atlas, name: str, ids: list[int]) -> None:
    report = ingest_gaia_xp(atlas, [cases / name])
    assert (report.read, report.kept) == (len(ids), len(ids))
    rows = atlas.spectra("gaia_xp").read(["spec_id", "source"])
    assert rows["spec_id"].to_pylist() == ids
    if name.endswith(".zip"):
        assert "datalink_output.zip!XP_SAMPLED-Gaia DR3 5853498713190525696.csv" in rows["source"][0].as_py()


def test_names_in_capitals_and_other_spellings(cases: Path, atlas: Atlas, tmp_path: Path) -> None:
    text = (cases / "row-of-many" / "two_rows.csv").read_text()
    head, _, rest = text.partition("\n")
    folder = tmp_path / "xp"
    folder.mkdir()
    (folder / "capitals.csv").write_text(head.upper() + "\n" + rest)
    other = head.replace("source_id,", "DR3Name,").replace(",ra,dec,", ",RA_ICRS,DE_ICRS,")
    (folder / "vizier.csv").write_text("\ufeff" + other + "\n" + rest.replace("6,4545", "Gaia DR3 77,4545", 1))
    ingest_gaia_xp(atlas, [folder])
    rows = atlas.spectra("gaia_xp").read(["spec_id", "ra"])
    assert rows["spec_id"].to_pylist() == [6, 4, 77]
    assert rows["ra"][2].as_py() == pytest.approx(217.39232147)


def test_another_sampling_is_rejected_wherever_it_is_stated_or_seen(shared_data: Path, tmp_path: Path) -> None:
    import csv

    calibrated = shared_data / "gaia_xp" / "calibrated"
    # a real one: 343 values, from 335 nm instead of 336
    with pytest.raises(SpectrumError, match=r"_sampling\.csv says 343 values, 335 to 1019 nm"):
        list(iter_spectra(calibrated / "calibrator_solution_v211w_default.csv"))
    name = "calibrator_solution_default.csv"
    shutil.copy(calibrated / name, tmp_path / name)
    assert len(list(iter_spectra(tmp_path / name))) == 2  # nothing stated, and the flux is on the archive's grid
    with open(tmp_path / name, newline="") as stream:
        rows = list(csv.reader(stream))
    grid = np.linspace(336, 1020, 343)
    for shift in (0.5, 4.0):
        for row in rows[1:]:
            flux = np.array(row[1].strip("()").split(","), float)
            row[1] = str(tuple(np.interp(grid + shift, grid, flux).tolist()))
        with open(tmp_path / "shifted.csv", "w", newline="") as stream:
            csv.writer(stream).writerows(rows)
        with pytest.raises(SpectrumError, match="does not say at which 343 wavelengths"):
            list(iter_spectra(tmp_path / "shifted.csv"))
    (tmp_path / "calibrator_solution_default_sampling.csv").write_text(f'pos\n"{tuple((grid + 1).tolist())}"\n')
    with pytest.raises(SpectrumError, match="says 343 values, 337 to 1021 nm"):
        list(iter_spectra(tmp_path / name))


def test_a_spectrum_that_does_not_say_its_unit_asks_for_what_can_be_typed(cases: Path) -> None:
    file = cases / "text-unit-medium" / "star.txt"
    for stated, option in (({}, "--unit"), ({"unit": "Angstrom"}, "--medium")):
        with pytest.raises(SpectrumError) as caught:
            read_spectrum(file, **stated)
        assert option in caught.value.hint
    spectrum = read_spectrum(file, unit="Angstrom", medium="vacuum")
    assert (spectrum.modality, spectrum.wavelength[0]) == ("lamost_lrs", 3700.0)


def test_archives_with_links_or_beyond_bounds_are_refused(cases: Path, atlas: Atlas, tmp_path: Path) -> None:
    folder = tmp_path / "zips"
    folder.mkdir()
    link = zipfile.ZipInfo("XP_SAMPLED.csv")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(folder / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("XP.csv", bytes(200 << 20))
    with zipfile.ZipFile(folder / "climb.zip", "w") as archive:
        archive.write(cases / "row-of-many" / "two_rows.csv", "../../two_rows.csv")
    report = ingest_gaia_xp(atlas, [folder])
    assert (report.kept, dict(report.rejected)) == (2, {"unreadable": 2})
    messages = " ".join(atlas.rejected("gaia_xp").read(["message"])["message"].to_pylist())
    assert "is a link" in messages
    assert "inflates to more" in messages
    assert not os.path.exists(tmp_path / "two_rows.csv")


VOTABLE = """<?xml version="1.0"?>{doctype}<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE>
{info}<TABLE><FIELD name="source_id" datatype="long"/><FIELD name="feh" datatype="double"/><DATA>{data}</DATA></TABLE>
</RESOURCE></VOTABLE>"""
ROWS = "<TABLEDATA><TR><TD>5</TD><TD>-1</TD></TR></TABLEDATA>"


@pytest.mark.parametrize(("parts", "message"), [
    ({"data": '<BINARY><STREAM href="file:///etc/passwd"/></BINARY>'}, "keeps its data elsewhere, at file:///etc/passwd"),
    ({"data": '<FITS><STREAM HREF="http://x/y"/></FITS>'}, "keeps its data elsewhere"),
    ({"doctype": '<!DOCTYPE VOTABLE [<!ENTITY x SYSTEM "file:///etc/passwd">]>', "info": "&x;"}, "document type"),
    ({"info": '<INFO name="QUERY_STATUS" value="ERROR">Column "fehh" does not exist</INFO>'},
     'server\'s error message: Column "fehh" does not exist'),
    ({"info": "<RESOURCE>" * 100}, "nests XML elements"),
])
def test_votables_point_nowhere_and_pass_errors_on(atlas: Atlas, tmp_path: Path, parts: dict[str, str], message: str,
                                                   ) -> None:
    path = tmp_path / "t.vot"
    path.write_text(VOTABLE.format(**{"doctype": "", "info": "", "data": ROWS, **parts}))
    with pytest.raises(SpecclipError, match=message) as caught:
        ingest_catalog(atlas, "c", path)
    assert "t.vot" in caught.value.message
    with pytest.raises(SpectrumError):
        read_spectrum(path)


def test_a_cut_result_is_said(atlas: Atlas, tmp_path: Path) -> None:
    path = tmp_path / "t.vot"
    path.write_text(VOTABLE.format(doctype="", info='<INFO name="QUERY_STATUS" value="OVERFLOW"/>', data=ROWS))
    assert any("OVERFLOW" in note for note in ingest_catalog(atlas, "c", path).notes)


def test_members_of_a_fits_group_are_not_followed(atlas: Atlas, tmp_path: Path) -> None:
    from astropy.io import fits

    group = fits.BinTableHDU.from_columns([fits.Column("MEMBER_LOCATION", "20A", array=["file:///etc/passwd"])],
                                          name="GROUPING")
    stars = fits.BinTableHDU.from_columns([fits.Column("teff", "D", array=[5000.0])], name="STARS")
    fits.HDUList([fits.PrimaryHDU(), group, stars]).writeto(tmp_path / "g.fits")
    ingest_catalog(atlas, "c", tmp_path / "g.fits")
    assert atlas.catalog("c").read().column_names == ["teff"]
