"""A third instrument, registered by a plugin outside the package: ingest, embed, index, `similar`, `sql`, `export`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from specclip_search import keys, similar
from specclip_search.atlas import Atlas
from specclip_search.errors import QueryError, Reason
from specclip_search.indexing import build_index, embed
from specclip_search.ingest.files import find_files
from specclip_search.ingest.plan import Plan
from specclip_search.ingest.spectra import by_count, run_ingest
from specclip_search.queries.sql.export import export_table
from specclip_search.readers import iter_spectra, registry
from specclip_search.stages.accounts import IngestReport
from specclip_search.surveys import MODALITIES, get_modality

NAME = "red_survey"
STARS = 60
FIRST_STAR = 5_853_418_002_145_112_704

PLUGIN = '''
"""A survey of red spectra; its files are CSV with a first line that names it."""

import csv
import io

import numpy as np
import pyarrow as pa

from specclip_search import Spectrum
from specclip_search.atlas.schemas import described
from specclip_search.errors import Reason
from specclip_search.readers import Reader, register as register_reader
from specclip_search.surveys.modality import Modality, register, windows

GRID = np.linspace(8400.0, 8800.0, 201)


def prepare_flux(wavelength, flux):
    rows = np.stack([np.interp(GRID, wavelength, row) for row in flux])
    return rows / np.median(rows, axis=1, keepdims=True)


def prepare_rows(wavelength, flux, ivar, result):
    for row, (values, weights) in enumerate(zip(flux, ivar)):
        good = np.isfinite(values) & (weights > 0)
        if good.mean() < 0.5:
            result.reject(row, Reason.TOO_FEW_GOOD_PIXELS, f"{good.mean():.0%} of the pixels are good.")
            continue
        filled = np.interp(wavelength, wavelength[good], values[good])
        scale = np.median(np.interp(GRID, wavelength, filled))
        result.flux[row] = np.interp(GRID, wavelength, filled) / scale
        result.error[row] = np.interp(GRID, wavelength[good], weights[good] ** -0.5) / scale
        result.snr[row] = np.median(values[good] * np.sqrt(weights[good]))
        result.good_fraction[row] = good.mean()
        result.n_repaired[row] = (~good).sum()


RED = register(Modality(
    "red_survey", "red", GRID, "Angstrom", windows("Angstrom", [("Ca II", 8480.0, 8680.0, "calcium triplet")]),
    "Red Survey", prepare_flux, prepare_rows, id_name="red_id",
    columns=(described("exposures", pa.int32(), "number of exposures"),),
))


def recognises(content):
    return content.head.startswith(b"# RED SURVEY")


def read(content, options):
    with content.open() as stream:
        lines = stream.read().decode().splitlines()
    spec_id, source_id, exposures = (int(word) for word in lines[0].split()[3:6])
    rows = np.array([[float(cell) for cell in row] for row in csv.reader(io.StringIO("\\n".join(lines[1:])))])
    yield Spectrum(rows[:, 0], rows[:, 1], rows[:, 2], RED.name, spec_id,
                   {"source_id": source_id, "release": "r1", "exposures": exposures})


register_reader(Reader("red_survey", "spectra of the Red Survey (CSV)", recognises, read), first=True)
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The survey as an installed package: a module and the entry point that names it."""
    site = tmp_path / "site"
    about = site / "red_survey-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "red_survey_plugin.py").write_text(PLUGIN)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: red-survey\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[specclip_search.plugins]\nred = red_survey_plugin\n")
    monkeypatch.syspath_prepend(str(site))
    for where, name in ((MODALITIES, "_known"), (keys, "_PREFIX_TO_MODALITY"), (keys, "_MODALITY_TO_PREFIX")):
        monkeypatch.setattr(where, name, dict(getattr(where, name)))
    monkeypatch.setattr(registry, "READERS", list(registry.READERS))
    # as in a process that has not yet asked for plugins
    monkeypatch.setattr(MODALITIES, "_complete", False)
    yield
    sys.modules.pop("red_survey_plugin", None)


class RedModel:
    """Depths of two lines, turned: plain algebra in place of a trained model."""

    name, kind, dim, digest, folder = "red-model", "mini", 16, "sha256:red", None
    modalities = (NAME,)

    def embed_raw(self, modality: str, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shapes = np.stack([np.exp(-0.5 * ((get_modality(modality).wavelength - at) / 6) ** 2) for at in (8542, 8662)])
        depths = (1.0 - inputs.astype(float)) @ shapes.T / (shapes**2).sum(axis=1)
        raw = ((depths - 0.5) @ np.random.default_rng(2).normal(size=(2, self.dim))).astype(np.float32)
        norm = np.linalg.norm(raw, axis=1)
        return raw / norm[:, None], norm


def write_files(folder: Path) -> None:
    """A file a star; stars of neighbouring numbers have lines of similar depth. One has too few good pixels."""
    folder.mkdir()
    wavelength = np.linspace(8390, 8810, 500)
    first, second = (np.exp(-0.5 * ((wavelength - at) / 6) ** 2) for at in (8542, 8662))
    rng = np.random.default_rng(1)
    for star in range(STARS):
        phase = 2 * np.pi * star / STARS
        lines = (0.5 + 0.3 * np.cos(phase)) * first + (0.5 + 0.3 * np.sin(phase)) * second
        flux = 40 * (1 - lines) + rng.normal(0, 0.02, 500)
        ivar = np.where(np.arange(500) < (400 if star == 7 else 3), 0.0, 25.0)
        rows = np.stack([wavelength, flux, ivar], axis=1)
        head = f"# RED SURVEY {2**53 + 1 + star} {FIRST_STAR + 128 * star} {star % 4}"
        body = "\n".join(",".join(f"{value:.9g}" for value in row) for row in rows)
        (folder / f"star-{star:03d}.csv").write_text(f"{head}\n{body}\n")


def ingested(atlas: Atlas, folder: Path) -> IngestReport:
    def plan(stage: Path) -> Plan:
        made = Plan(stage)
        made.update(find_files([folder], (".csv",)), by_count(25), None)
        return made

    return run_ingest(atlas, NAME, plan, lambda file, _: iter_spectra(file), workers=1, progress=None)


@pytest.mark.usefixtures("plugin")
def test_a_survey_of_another_package_goes_all_the_way(tmp_path: Path) -> None:
    write_files(tmp_path / "files")
    atlas = Atlas.create(tmp_path / "atlas")
    # the plugin is loaded when its name is first asked for
    red = get_modality(NAME)
    report = ingested(atlas, tmp_path / "files")
    assert (report.read, report.kept, report.rejected) == (STARS, STARS - 1, {Reason.TOO_FEW_GOOD_PIXELS: 1})
    spectra = atlas.spectra(NAME).read()
    assert spectra.schema.equals(red.schema, check_metadata=False)
    assert sorted(spectra["spec_id"].to_pylist()) == [2**53 + 1 + star for star in range(STARS) if star != 7]
    assert set(spectra["exposures"].to_pylist()) == {0, 1, 2, 3}
    model = RedModel()
    assert embed(atlas, model).kept == STARS - 1
    build_index(atlas, model.name, NAME)

    found = similar(atlas, f"red:{2**53 + 1 + 30}", k=4)
    assert set(found.modality) == {NAME}
    assert np.abs(found.spec_id.to_numpy() - (2**53 + 1 + 30)).max() <= 4
    assert found.source_id.tolist() == [FIRST_STAR + 128 * (i - 2**53 - 1) for i in found.spec_id.tolist()]
    with pytest.raises(QueryError, match=r"lamost:<id>.*red:<id>"):
        similar(atlas, "blue:1")

    asked = (f"SELECT h.spec_id, s.exposures, s.snr FROM similar('red:{2**53 + 1}', 3) h "
             f"JOIN spectra_{NAME} s USING (spec_id) ORDER BY h.rank")
    rows = atlas.sql(asked).fetchall()
    assert len(rows) == 3
    assert all(spec_id > 2**53 + 1 and 0 < snr < 400 for spec_id, _, snr in rows)
    assert atlas.sql("SELECT count(*) FROM stars").fetchall() == [(STARS - 1,)]
    assert atlas.sql("SELECT modality, count(*) FROM spectra GROUP BY ALL").fetchall() == [(NAME, STARS - 1)]
    assert atlas.sql(f"SELECT reason FROM rejected_{NAME}").fetchall() == [("too_few_good_pixels",)]

    export_table(atlas, "spectra", tmp_path / "red.parquet")
    kept = pq.read_table(tmp_path / "red.parquet")
    assert sorted(kept["spec_id"].to_pylist()) == sorted(spectra["spec_id"].to_pylist())

    # what is embedded later is found by the same atlas object
    (tmp_path / "files" / "star-007.csv").write_text((tmp_path / "files" / "star-008.csv").read_text().replace(
        str(2**53 + 9), str(2**53 + 900)))
    assert ingested(atlas, tmp_path / "files").kept == STARS
    embed(atlas, model)
    build_index(atlas, model.name, NAME)
    assert 2**53 + 900 in similar(atlas, f"red:{2**53 + 9}", k=2).spec_id.tolist()
