"""The Multimodal Universe's Parquet files, made from real spectra, against an ingest of the surveys' own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.cli.main import run
from specclip_search.errors import QueryError
from specclip_search.ingest import ingest_gaia_xp, ingest_lamost, ingest_mmu, ingest_survey
from specclip_search.readers import iter_spectra, read_spectrum
from specclip_search.readers.survey_rows import Refused
from specclip_search.spectrum import Spectrum

from ... import dr4_files


def nested(spectra: list[Spectrum]) -> pa.Array:
    """The nested column, rows padded to one length as in the published files."""
    longest = max(len(one.flux) for one in spectra)
    rows = []
    for one in spectra:
        pad = longest - len(one.flux)
        row: dict[str, Any] = {
            "flux": [*one.flux.tolist(), *[0.0] * pad],
            "ivar": [*one.ivar.tolist(), *[0.0] * pad],
            "lambda": [*one.wavelength.tolist(), *[-1.0] * pad],
            "mask": [*(one.ivar <= 0).tolist(), *[True] * pad],
        }
        if one.resolution is not None:
            resolution = np.broadcast_to(one.resolution, len(one.flux))
            sigma = one.wavelength / (resolution * np.sqrt(8 * np.log(2)))
            if one.modality == "sdss":
                sigma = sigma / (one.wavelength * 1e-4 * np.log(10))
            row["lsf_sigma"] = [*sigma.tolist(), *[1.0] * pad]
        rows.append(row)
    return pa.array(rows)


def write(file: Path, spectra: list[Spectrum], **more: list[Any]) -> None:
    file.parent.mkdir(parents=True)
    pq.write_table(pa.table({"spectrum": nested(spectra), "object_id": [str(one.spec_id) for one in spectra],
                             "ra": [one.meta.get("ra") for one in spectra],
                             "dec": [one.meta.get("dec") for one in spectra], **more}), file)


@pytest.fixture(scope="module")
def universe(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as it is downloaded: one sub-folder a survey, HEALPix below."""
    folder = tmp_path_factory.mktemp("universe")
    lamost = [read_spectrum(file) for file in sorted((shared_data / "lamost" / "matrix").glob("*.fits.gz"))[:8]]
    write(folder / "lamost" / "healpix=1" / "a.parquet", lamost, obsid=[str(one.spec_id) for one in lamost],
          snrg=[one.meta["snrg"] for one in lamost])
    boss = read_spectrum(next((shared_data / "surveys" / "boss").iterdir()))
    write(folder / "sdss" / "healpix=2" / "b.parquet", [boss], vdisp=[0.0])
    coadds = sorted((shared_data / "surveys" / "desi").iterdir())
    desi = [one for coadd in coadds for one in iter_spectra_of(coadd)]
    write(folder / "desi" / "healpix=3" / "c.parquet", desi, ebv=[0.0] * len(desi))
    coefficients, errors = dr4_files.solutions(shared_data, 6)
    (folder / "gaia" / "healpix=4").mkdir(parents=True)
    pq.write_table(pa.table({"source_id": [5_000_000_000_000_000_000 + n for n in range(6)], "ra": [1.0] * 6,
                             "dec": [2.0] * 6, "spectral_coefficients": [
                                 {"coeff": one.tolist(), "coeff_error": error.tolist()}
                                 for one, error in zip(coefficients, errors, strict=True)]}),
                   folder / "gaia" / "healpix=4" / "d.parquet")
    return folder


def iter_spectra_of(file: Path) -> list[Spectrum]:
    from specclip_search.readers.registry import iter_rows

    return [one for one in iter_rows(file) if not isinstance(one, Refused)]


def test_each_file_goes_to_its_instrument(universe: Path, shared_data: Path, tmp_path: Path) -> None:
    atlas = Atlas.create(tmp_path / "mmu")
    reports = ingest_mmu(atlas, [universe], workers=1)
    rows = {file.parts[-3]: pq.read_metadata(file).num_rows for file in universe.rglob("*.parquet")}
    assert {name: report.read for name, report in reports.items()} == {
        "desi": rows["desi"], "gaia_xp": 6, "lamost_lrs": 8, "sdss": 1}
    assert rows["desi"] > 1
    for report in reports.values():
        assert report.read == report.kept + sum(report.rejected.values())
        assert report.kept > 0
    other = Atlas.create(tmp_path / "own")
    ingest_lamost(other, sorted((shared_data / "lamost" / "matrix").glob("*.fits.gz"))[:8], workers=1)
    ingest_survey(other, "sdss", [shared_data / "surveys" / "boss"], workers=1)
    ingest_survey(other, "desi", [shared_data / "surveys" / "desi"], workers=1)
    coefficients, errors = dr4_files.solutions(shared_data, 6)
    ids = [5_000_000_000_000_000_000 + n for n in range(6)]
    csv = dr4_files.write_csv(tmp_path / "xp.csv", ids, coefficients, errors, 55, (56, 57))
    ingest_gaia_xp(other, [csv], workers=1)
    for name in reports:
        ours, theirs = ({row["spec_id"]: row for row in one.spectra(name).read().to_pylist()} for one in (atlas, other))
        assert set(ours) <= set(theirs), name
        for key, row in ours.items():
            np.testing.assert_allclose(row["flux"], theirs[key]["flux"], rtol=2e-4, atol=2e-4, err_msg=f"{name} {key}")


def test_beside_the_surveys_own_files(universe: Path, shared_data: Path, tmp_path: Path) -> None:
    atlas = Atlas.create(tmp_path / "atlas")
    files = sorted((shared_data / "lamost" / "matrix").glob("*.fits.gz"))[8:12]
    ingest_lamost(atlas, files, workers=1)
    before = [part.digest for part in atlas.spectra("lamost_lrs").parts()]
    report = ingest_mmu(atlas, [universe / "lamost"], workers=1)["lamost_lrs"]
    assert (report.read, report.shards_current, report.shards_written) == (12, 1, 1)
    assert [part.digest for part in atlas.spectra("lamost_lrs").parts()][:1] == before
    # a later run of the other command makes a changed part again, whichever kind its files are
    file = next((universe / "lamost").rglob("*.parquet"))
    table = pq.read_table(file)
    file.write_bytes(b"PAR1")
    assert ingest_mmu_fails(atlas, universe / "lamost")
    pq.write_table(table.slice(0, 7), file)
    assert ingest_lamost(atlas, [file], workers=1).read == 11
    pq.write_table(table, file)


def ingest_mmu_fails(atlas: Atlas, folder: Path) -> bool:
    with pytest.raises(QueryError, match="None of 1 files can be ingested"):
        ingest_mmu(atlas, [folder], workers=1)
    return True


def test_flat_arrays_and_what_is_of_no_instrument(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = read_spectrum(sorted((shared_data / "lamost" / "matrix").glob("*.fits.gz"))[0])
    flat = tmp_path / "in" / "flat.parquet"
    flat.parent.mkdir()
    pq.write_table(pa.table({"spectrum_flux": [one.flux.tolist()], "spectrum_wavelength": [one.wavelength.tolist()],
                             "obsid": [str(one.spec_id)]}), flat)
    apogee = pa.table({"spectrum": nested([one]), "apogee_id": ["2M0"], "m_h": [0.0]})
    pq.write_table(apogee, tmp_path / "in" / "z.parquet")
    with pytest.raises(SystemExit) as stop:
        run(["ingest", "mmu", str(tmp_path / "in"), "-a", str(tmp_path / "atlas"), "-j", "1"])
    assert stop.value.code == 0
    said = capsys.readouterr().err
    assert "1 lamost_lrs spectra read = 1 kept + 0 rejected" in said
    assert "1 files were left out" in said
    assert "apogee, which no encoder takes" in said
    rows = column_to_matrix(Atlas(tmp_path / "atlas").spectra("lamost_lrs").read(["flux"])["flux"])
    assert np.isfinite(rows).all()
    assert len(list(iter_spectra(flat))) == 1
