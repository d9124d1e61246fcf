"""Damaged catalogues of every format end in an error that names the file; an atlas with a good copy stays as it is."""

import gzip
import io
import os
import threading

import numpy as np
import pytest
from astropy.table import Table

from specclip_search.atlas import Atlas
from specclip_search.catalogs.ingest import ingest_catalog
from specclip_search.errors import SpecclipError

FORMS = {"c.fits": "fits", "c.vot": "votable", "c.ecsv": "ascii.ecsv", "c.csv": "ascii.csv", "c.parquet": "parquet"}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The same small catalogue in every form."""
    folder = tmp_path_factory.mktemp("sound")
    table = Table({"source_id": np.arange(1, 41) + 2**61, "ra": np.linspace(0, 350, 40),
                   "dec": np.linspace(-80, 80, 40), "teff": np.linspace(4000, 7000, 40),
                   "name": [f"star {i}" for i in range(40)]})
    table["teff"].unit = "K"
    for name, form in FORMS.items():
        table.write(folder / name, format=form)
    return {name: (folder / name).read_bytes() for name in FORMS}


def outcome(atlas, path):
    """Report of an ingest, or our own error; anything else is raised."""
    try:
        return ingest_catalog(atlas, "c", path), None
    except SpecclipError as error:
        return None, error


@pytest.mark.parametrize("name", FORMS)
def test_mutated_catalogues_give_rows_or_our_own_error(name, sound, tmp_path):
    rng = np.random.default_rng(list(FORMS).index(name))
    refused = 0
    for trial in range(25):
        data = bytearray(sound[name])
        for at in rng.integers(0, len(data), rng.integers(1, 12)):
            data[at] = rng.integers(0, 256)
        if trial % 5 == 0:
            del data[rng.integers(len(data) // 4, len(data)) :]
        path = tmp_path / f"damaged-{trial}-{name}"
        path.write_bytes(gzip.compress(bytes(data)) if trial % 7 == 0 else bytes(data))
        atlas = Atlas.create(tmp_path / f"atlas-{trial}")
        report, error = outcome(atlas, path)
        if report is None:
            refused += 1
            assert path.name in str(error) or "column" in error.message.lower(), error
            assert error.hint
        else:
            assert report.read == report.kept + sum(report.rejected.values())
    assert refused >= 2  # the cut ones at least


def test_a_pipe_is_no_catalogue(tmp_path):
    read, write = os.pipe()
    feeder = threading.Thread(target=lambda: os.write(write, b"source_id,teff\n5,4000\n"))
    feeder.start()
    try:
        with pytest.raises(SpecclipError, match="is a pipe") as caught:
            ingest_catalog(Atlas.create(tmp_path / "a"), "x", f"/dev/fd/{read}")
        assert "write its content to a file" in caught.value.hint
    finally:
        feeder.join()
        os.close(read)
        os.close(write)


def test_a_bomb_in_a_catalogues_place_is_stopped(tmp_path):
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb") as stream:
        stream.write(b"source_id,teff\n")
        for _ in range(200):
            stream.write(b"1,2\n" * (1 << 18))
    (tmp_path / "b.csv.gz").write_bytes(bomb.getvalue())
    with pytest.raises(SpecclipError, match="inflates to more than 128 MiB"):
        ingest_catalog(Atlas.create(tmp_path / "a"), "x", tmp_path / "b.csv.gz")
