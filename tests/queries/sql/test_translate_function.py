"""`translate(target)` in SQL gives what the model gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.schemas import spectra_schema
from specclip_search.errors import QueryError, SpecclipError
from specclip_search.queries.sql.ask import connect
from specclip_search.queries.sql.sandbox import run_untrusted
from specclip_search.readers import read_spectrum
from specclip_search.surveys import get_modality
from specclip_search.surveys.batch import prepare_batch
from specclip_search.training.checkpoints.shipped import find_model
from specclip_search.training.model import load_model

from ..small_atlas import star


def spectra(atlas: Atlas, modality: str, spec_id: list[int], release: list[str], seed: int) -> np.ndarray:
    """A shard of real width with smooth made-up spectra; returns their flux."""
    size = get_modality(modality).size
    phase = np.random.default_rng(seed).uniform(0, 6, (len(spec_id), 1))
    flux = (1 + 0.1 * np.sin(np.linspace(0, 9, size) + phase)).astype(np.float32)
    known = {
        "spec_id": spec_id,
        "release": release,
        "source": ["made"] * len(spec_id),
        "simulated": [False] * len(spec_id),
        "snr": [30.0] * len(spec_id),
        "flux": flux,
        "error": np.full(flux.shape, 0.01),
    }
    schema = spectra_schema(get_modality(modality).columns, size)
    table = table_from_columns({f.name: known.get(f.name, pa.nulls(len(spec_id), f.type)) for f in schema}, schema)
    stage = atlas.spectra(modality)
    with stage.lock():
        stage.write(0, table, schema=schema, inputs="made")
    return flux


@pytest.fixture
def real(new_atlas: Callable[[], Atlas]) -> tuple[Atlas, np.ndarray, np.ndarray]:
    """An atlas with the shipped model; LRS 7 stands in two releases."""
    atlas = new_atlas()
    lrs = spectra(atlas, "lamost_lrs", [7, 7, 8], ["dr11", "dr7", "dr7"], 1)
    xp = spectra(atlas, "gaia_xp", [star(0), star(1)], ["dr3", "dr3"], 2)
    shutil.copytree(find_model("mini"), atlas.model_folder("mini"))
    atlas.use_model("mini")
    return atlas, lrs, xp


def test_gives_what_the_model_gives(real: tuple[Atlas, np.ndarray, np.ndarray]) -> None:
    atlas, lrs, xp = real
    model = load_model("mini")
    from_lrs, from_xp = model.translate("lamost_lrs", lrs), model.translate("gaia_xp", xp)
    newest = atlas.sql("SELECT * FROM translate('lamost:7')").arrow()
    assert newest.column_names == ["modality", "wavelength", "flux"]
    assert set(newest["modality"].to_pylist()) == {"gaia_xp"}
    assert np.array_equal(newest["wavelength"].to_numpy(), get_modality("gaia_xp").wavelength)
    np.testing.assert_allclose(newest["flux"].to_numpy(), from_lrs[0], atol=1e-5)
    older = atlas.sql("SELECT flux FROM translate('lamost:7@dr7')").arrow()
    np.testing.assert_allclose(older["flux"].to_numpy(), from_lrs[1], atol=1e-5)
    assert not np.allclose(from_lrs[0], from_lrs[1], atol=1e-4)
    # correlated, over both instruments, a null among them
    each = atlas.sql(
        "SELECT t.n, count(*) AS pixels, arg_min(p.flux, p.wavelength) AS bluest "
        f"FROM (VALUES (0, 'gaia:{star(1)}'), (1, NULL), (2, 'lamost:8'), (3, 'gaia:{star(0)}')) t(n, id), "
        "translate(t.id) p GROUP BY t.n ORDER BY t.n"
    ).fetchall()
    assert [(n, pixels) for n, pixels, _ in each] == [(0, 1462), (2, 343), (3, 1462)]
    np.testing.assert_allclose([b for *_, b in each], [from_xp[1][0], from_lrs[2][0], from_xp[0][0]], atol=1e-5)
    # the function of text of the same name is still there
    assert atlas.sql("SELECT translate('abc', 'b', 'x') AS t").fetchall() == [("axc",)]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("lamost:9", "lamost:9 is not in this atlas"),
        ("lamost:7@dr9", "not in this atlas in release 'dr9'; it is here in dr11, dr7"),
        ("lamost:x", "must be a whole number; found 'x'"),
    ],
)
def test_what_is_not_there(real: tuple[Atlas, np.ndarray, np.ndarray], target: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        real[0].sql("SELECT * FROM translate(?)", [target]).arrow()


def test_a_file_is_read_where_files_may_be(real: tuple[Atlas, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    wavelength = get_modality("gaia_xp").wavelength
    flux = 3e-17 * (1 - 0.4 * np.exp(-0.5 * ((wavelength - 656.5) / 8) ** 2))
    path = tmp_path / "some.csv"
    np.savetxt(path, np.column_stack([wavelength, flux]), delimiter=",", header="wavelength,flux", comments="")
    spectrum = read_spectrum(path)
    made = prepare_batch(get_modality("gaia_xp"), [spectrum])
    expected = load_model("mini").translate("gaia_xp", made.flux)[0]
    shown = real[0].sql("SELECT flux FROM translate(?)", [str(path)]).arrow()
    np.testing.assert_allclose(shown["flux"].to_numpy(), expected, atol=1e-5)
    with connect(real[0], read_only=True) as shut, pytest.raises(QueryError, match="not a spectrum key"):
        shut.sql(f"SELECT * FROM translate('{path}')").arrow()
    with pytest.raises(SpecclipError, match="not a spectrum key"):
        real[0].sql("SELECT * FROM translate('no/such/file.fits')").arrow()


def test_a_stranger_has_not_the_memory_for_a_model(real: tuple[Atlas, np.ndarray, np.ndarray]) -> None:
    with pytest.raises(QueryError, match="function 'translate' may not be called here"):
        run_untrusted(real[0], "SELECT * FROM translate('lamost:8')")


def test_without_a_model(atlas: Atlas) -> None:
    with pytest.raises(SpecclipError, match="no model is active"):
        atlas.sql("SELECT * FROM translate('lamost:101')").arrow()
