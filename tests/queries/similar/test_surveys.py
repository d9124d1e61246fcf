"""Spectra of DESI, BOSS and LAMOST MRS from their files to search, SQL and export, all from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from specclip_search.atlas import Atlas
from specclip_search.cli.main import run
from specclip_search.errors import QueryError
from specclip_search.indexing.vectors.keys import KeyTable
from specclip_search.queries.similar.similar import similar
from specclip_search.queries.space.file_spectrum import read_for_encoder
from specclip_search.queries.space.spectra import read_spectra
from specclip_search.queries.sql.sandbox import run_untrusted
from specclip_search.readers import read_spectrum
from specclip_search.surveys import LAMOST_LRS, own_encoders
from specclip_search.surveys.batch import prepare_batch

BOSS, DESI_STAR = 4037614591814901760, 39633345008634465


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        run(list(arguments))
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """An atlas of all three surveys and five LAMOST spectra, embedded and indexed, in a folder."""
    made = tmp_path_factory.mktemp("surveys")
    atlas, surveys = ("--atlas", str(made / "atlas")), shared_data / "surveys"
    lamost = [str(path) for path in sorted((shared_data / "lamost" / "matrix").glob("*.fits.gz"))[:5]]
    assert call("ingest", "lamost", *lamost, *atlas) == 0
    assert call("ingest", "desi", str(surveys / "desi"), *atlas) == 0
    assert call("ingest", "sdss", str(surveys / "boss"), "--epochs", *atlas) == 0
    assert call("ingest", "lamost-mrs", str(surveys / "lamost_mrs"), *atlas) == 0
    assert call("embed", "--model", "mini", *atlas) == 0
    assert call("index", "build", *atlas) == 0
    return made


def rows(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    capsys.readouterr()
    assert call(*arguments, "-f", "json") == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def test_every_row_is_kept_or_rejected_with_a_reason(folder: Path) -> None:
    atlas = Atlas(folder / "atlas")
    assert {name: atlas.spectra(name).rows for name in ("desi", "sdss", "lamost_mrs")} == {
        "desi": 2, "sdss": 8, "lamost_mrs": 0}
    reasons = "SELECT reason, count(*) FROM rejected_{} GROUP BY 1 ORDER BY 1"
    assert atlas.sql(reasons.format("desi")).fetchall() == [("bad_fibre", 1), ("sky_fibre", 3)]
    assert atlas.sql(reasons.format("lamost_mrs")).fetchall() == [("no_coverage", 5)]
    columns = "epoch, round(rv::DOUBLE, 1), frame, time_scale, covered"
    found = atlas.sql(f"SELECT {columns} FROM spectra_sdss ORDER BY epoch NULLS FIRST").fetchall()
    assert [row[0] for row in found] == [None, *range(104927, 104934)]
    assert {row[1:] for row in found[1:]} == {(-30.4, "barycentric", "MJD_TAI", 1.0)}
    dates = atlas.sql("SELECT time FROM spectra_sdss WHERE epoch IS NOT NULL").fetchall()
    assert all(55181 < one[0] < 55182 for one in dates)


def test_a_second_run_makes_nothing_again_and_a_copy_is_a_duplicate(
    folder: Path, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    atlas, boss = tmp_path / "atlas", next((shared_data / "surveys" / "boss").glob("*"))
    command = ["ingest", "sdss", str(boss), "--epochs", "--atlas", str(atlas)]
    assert call(*command) == 0
    before = {part.path: part.path.stat().st_mtime_ns for part in Atlas(atlas).spectra("sdss").parts()}
    assert call(*command) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    copy = tmp_path / "again.fits.gz"
    copy.write_bytes(boss.read_bytes())
    capsys.readouterr()
    assert call("ingest", "sdss", str(copy), "--epochs", "--atlas", str(atlas)) == 0
    assert "16 SDSS spectra read = 8 kept + 8 rejected" in capsys.readouterr().err
    # without --epochs every shard is made again: the combined spectrum of the first file, a duplicate of the second
    assert call("ingest", "sdss", str(copy), "--atlas", str(atlas)) == 0
    assert Atlas(atlas).sql("SELECT spec_id, epoch FROM spectra_sdss").fetchall() == [(BOSS, None)]


def test_a_key_a_file_a_row_an_id_and_a_position_find_the_same(
    folder: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = ["similar", "-k", "3", "--atlas", str(folder / "atlas"), "--include-self", "--within", "desi"]
    coadd = next((shared_data / "surveys" / "desi").glob("coadd-4-*"))
    key = rows(capsys, *search, f"desi:{DESI_STAR}")
    number = int(str(Atlas(folder / "atlas").sql(
        "SELECT source FROM spectra_desi WHERE spec_id = ?", [DESI_STAR]).fetchall()[0][0]).rpartition("#")[2])
    for target in (str(DESI_STAR), f"{coadd}#{number}", "105.489775 56.669300", f"desi:{DESI_STAR}@dr1"):
        found = rows(capsys, *search, target)
        assert [row["spec_id"] for row in found] == [row["spec_id"] for row in key] == [DESI_STAR, 39633300968442591]
        assert found[0]["similarity"] == pytest.approx(1.0, abs=2e-3)


def test_what_a_file_covers_too_little_of_is_refused_with_its_share(
    folder: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    med = next((shared_data / "surveys" / "lamost_mrs").glob("med-*"))
    assert call("similar", str(med), "--atlas", str(folder / "atlas")) == 2
    error = capsys.readouterr().err
    assert "28% of what LAMOST LRS input needs" in error
    assert "At least 70% is needed" in error


def test_unit_medium_and_resolution_of_a_text_file(
    folder: Path, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The BOSS spectrum as bare columns in nm: refused without its unit, degraded once its resolution is known."""
    boss = next((shared_data / "surveys" / "boss").glob("*"))
    spectrum = read_spectrum(boss)
    bare = tmp_path / "bare.csv"
    columns = zip(spectrum.wavelength / 10, spectrum.flux, strict=True)
    bare.write_text("wavelength,flux\n" + "\n".join(f"{x:.6f},{y:.6g}" for x, y in columns), encoding="utf-8")
    search = ["similar", str(bare), "-k", "1", "--within", "sdss", "--atlas", str(folder / "atlas")]
    assert call(*search) == 2
    assert "does not give the unit" in capsys.readouterr().err
    stated = ["--unit", "nm", "--medium", "vacuum", "--as", "lamost_lrs"]
    assert rows(capsys, *search, *stated, "--resolution", "20000")[0]["spec_id"] == BOSS
    said = {"unit": "nm", "medium": "vacuum", "modality": "lamost_lrs"}
    read = [read_for_encoder(path, own_encoders(), options)[0] for path, options in
            ((boss, {}), (bare, said), (bare, {**said, "resolution": 20000.0}))]
    survey, sharp, degraded = prepare_batch(LAMOST_LRS, read).flux
    # BOSS is less sharp than LAMOST here, so that nothing is to be degraded until a higher resolution is stated
    assert np.abs(sharp - survey).max() < 1e-4
    assert np.std(np.diff(degraded)) < 0.9 * np.std(np.diff(sharp))
    assert call(*search, *stated[:4], "--as", "hubble") == 2
    assert "no modality 'hubble'" in capsys.readouterr().err


def test_resolve_in_sql_and_in_the_sandbox(folder: Path, shared_data: Path) -> None:
    atlas = Atlas(folder / "atlas")
    assert atlas.sql("SELECT kind, modality, release FROM resolve(?)", [str(DESI_STAR)]).fetchall() == [
        ("id", "desi", "dr1")]
    assert atlas.sql("SELECT count(*) FROM resolve(NULL)").fetchall() == [(0,)]
    boss = next((shared_data / "surveys" / "boss").glob("*"))
    assert atlas.sql("SELECT kind, file FROM resolve(?)", [str(boss)]).fetchall() == [("file", str(boss))]
    asked = run_untrusted(atlas, f"SELECT spec_id FROM resolve('sdss:{BOSS}')")
    assert asked.table.to_pylist() == [{"spec_id": BOSS}]
    with pytest.raises(QueryError, match="no key, file, position or name") as refused:
        run_untrusted(atlas, f"SELECT * FROM resolve('{boss}')")
    assert boss.parent.name not in refused.value.hint


def test_export_keeps_the_columns_of_the_survey(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "sdss.parquet"
    assert call("export", "spectra_sdss", "--output", str(output), "--atlas", str(folder / "atlas")) == 0
    table = pq.read_table(output)
    assert table.num_rows == 8
    assert table.schema.field("rv").metadata[b"unit"] == b"km/s"
    assert set(table["spec_id"].to_pylist()) == {BOSS}


def test_exposures_of_one_spectrum_are_never_taken_for_each_other(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seven exposures and their combined spectrum share survey, id and release; only the epoch tells them apart."""
    atlas = Atlas(folder / "atlas")
    key = f"sdss:{BOSS}"
    own = {row[0]: row[1:] for row in atlas.sql("SELECT epoch, snr, flux FROM spectra_sdss").fetchall()}
    assert len(own) == 8
    # the key alone is the combined spectrum, wherever it is read
    combined = read_spectra(atlas, "sdss", np.array([BOSS]))
    assert np.allclose(combined.flux[0], own[None][1])
    asked = [104933, None, 104927]
    three = read_spectra(atlas, "sdss", np.array([BOSS] * 3), None, asked)
    for number, epoch in enumerate(asked):
        assert np.allclose(three.flux[number], own[epoch][1])
    found = rows(capsys, "similar", key, "-k", "12", "--within", "sdss", "--atlas", str(folder / "atlas"))
    assert {row["epoch"] for row in found} == set(own) - {None}
    for row in found:
        assert row["snr"] == pytest.approx(own[row["epoch"]][0], rel=1e-5)
    # one vector a row, each that of its own spectrum
    vectors = dict(atlas.sql("SELECT epoch, vector FROM vectors_sdss").fetchall())
    assert set(vectors) == set(own)
    assert len({tuple(one) for one in vectors.values()}) == 8
    # a condition on the signal to noise picks its own exposures, not their neighbours
    limit = sorted(one[0] for epoch, one in own.items() if epoch is not None)[3]
    bright = similar(atlas, key, k=12, within="sdss", where=f"snr > {limit} AND epoch IS NOT NULL")
    assert set(bright["epoch"]) == {epoch for epoch, one in own.items() if epoch and one[0] > limit}
    # the index keeps them, too
    assert KeyTable.open(atlas, "mini", "sdss").rows_of([BOSS])[0] == 0


def test_epochs_are_rows_with_star_and_time(folder: Path) -> None:
    atlas = Atlas(folder / "atlas")
    sdss = atlas.sql(
        f"SELECT epoch, time, time_scale, frame FROM epochs WHERE spec_id = {BOSS} ORDER BY epoch NULLS FIRST"
    ).fetchall()
    assert [row[0] for row in sdss] == [None, *range(104927, 104934)]
    assert all(55181 < row[1] < 55182 for row in sdss[1:])
    assert {row[2:] for row in sdss[1:]} == {("MJD_TAI", "barycentric")}
    lamost = atlas.sql("SELECT time, time_scale, epoch FROM epochs WHERE modality = 'lamost_lrs'").fetchall()
    assert len(lamost) == 5
    assert {row[1:] for row in lamost} == {("MJD_UTC", None)}
    # DATE-BEG 2011-10-24T19:33:56, DATE-END 21:27:25, both eight hours ahead of UTC
    first = atlas.sql("SELECT time FROM epochs WHERE spec_id = 101001").fetchall()[0][0]
    assert first == pytest.approx(55858 + (11 + 33 / 60 + 56 / 3600 + 13 + 27 / 60 + 25 / 3600) / 48, abs=1e-5)
    assert "epochs" in {row[0] for row in atlas.sql("SELECT view_name FROM duckdb_views()").fetchall()}
