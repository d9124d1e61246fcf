"""Shards appear whole or not at all, and a stage knows what it holds."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pyarrow as pa
import pytest

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import column_to_matrix, matrix_to_column, table_from_columns
from specclip_search.atlas.schemas import spectra_schema, vectors_schema
from specclip_search.errors import AtlasError
from specclip_search.surveys import get_modality

BIG = 2**60 + 1


def vectors(n: int, dim: int = 4, start: int = 0) -> pa.Table:
    matrix = np.arange(n * dim, dtype=np.float32).reshape(n, dim)
    source_id = np.ma.array(np.arange(n) + BIG, mask=np.arange(n) % 2 == 1)
    return table_from_columns(
        {
            "spec_id": np.arange(n) + BIG + start,
            "source_id": source_id,
            "release": ["dr7"] * n,
            "vector": matrix,
            "norm": np.ones(n),
        },
        vectors_schema(dim),
    )


@pytest.fixture
def stage(tmp_path):
    return Atlas.create(tmp_path / "atlas").vectors("mini", "gaia_xp")


def write(stage, number, table, inputs="a"):
    with stage.lock():
        return stage.write(number, table, schema=table.schema, inputs=inputs)


def test_rows_come_back_with_their_ids_to_the_last_bit(stage):
    write(stage, 0, vectors(3))
    write(stage, 1, vectors(2, start=3))
    table = stage.read(["spec_id", "source_id", "vector"])
    assert table["spec_id"].to_pylist() == [BIG + i for i in range(5)]
    assert table["source_id"].to_pylist() == [BIG, None, BIG + 2, BIG, None]
    assert column_to_matrix(table["vector"]).tolist() == [
        *vectors(3)["vector"].to_pylist(),
        *vectors(2)["vector"].to_pylist(),
    ]
    assert stage.rows == 5


def test_the_same_rows_make_the_same_bytes(stage):
    first = write(stage, 0, vectors(5))
    before = first.path.read_bytes(), first.path.with_suffix(".json").read_bytes()
    write(stage, 0, vectors(5))
    assert (first.path.read_bytes(), first.path.with_suffix(".json").read_bytes()) == before


def test_currency_follows_the_inputs(stage):
    write(stage, 0, vectors(2), inputs="digest-1")
    assert stage.is_current(0, "digest-1")
    assert not stage.is_current(0, "digest-2")
    assert not stage.is_current(1, "digest-1")
    digest = stage.digest
    write(stage, 1, vectors(2))
    assert stage.digest != digest
    with stage.lock():
        stage.remove(1)
    assert stage.digest == digest


def test_a_shard_without_sidecar_is_missing(stage):
    write(stage, 0, vectors(2))
    stage.parquet_path(0).with_suffix(".json").unlink()
    with pytest.raises(AtlasError, match=r"Expected 1 shards of .*; found 0: part-000000 missing"):
        stage.read()
    with stage.lock():
        assert stage.parts() == [], "its writer makes it again"


def test_a_failing_writer_leaves_the_old_shard_and_no_litter(stage):
    write(stage, 0, vectors(2))

    def broken():
        yield vectors(1)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), stage.lock():
        stage.write(0, broken(), schema=vectors_schema(4), inputs="b")
    assert stage.read().num_rows == 2
    assert stage.is_current(0, "a")
    assert not list(stage.folder.glob(".writing-*"))


def test_damage_is_noticed(stage):
    part = write(stage, 0, vectors(2))
    assert stage.verify() == []
    content = bytearray(part.file.read_bytes())
    content[20] ^= 1
    part.file.write_bytes(content)
    assert stage.verify() == ["part-000000.parquet"]
    with pytest.raises(AtlasError, match=r"part-000000\.parquet is damaged"):
        stage.read()
    part.file.unlink()
    with pytest.raises(AtlasError, match="part-000000 missing"):
        stage.parts()


@pytest.mark.parametrize("content", ["", "{", json.dumps({"rows": 1})])
def test_an_unreadable_sidecar_says_what_to_do(stage, content):
    write(stage, 0, vectors(2))
    stage.parquet_path(0).with_suffix(".json").write_text(content)
    with pytest.raises(AtlasError, match="Remove this file and run"):
        stage.parts()


def test_sliced_and_chunked_columns_keep_their_rows():
    column = matrix_to_column(np.arange(12, dtype=np.float16).reshape(6, 2))
    assert column_to_matrix(column[2:4]).tolist() == [[4, 5], [6, 7]]
    assert column_to_matrix(pa.chunked_array([column[4:], column[:1]])).tolist() == [[8, 9], [10, 11], [0, 1]]
    with pytest.raises(ValueError, match="null rows"):
        column_to_matrix(pa.array([None, [1.0, 2.0]], pa.list_(pa.float32(), 2)))


WRITER = textwrap.dedent("""
    import sys, time
    from specclip_search.atlas import Atlas
    from tests.specclip_search.atlas.test_stage import vectors
    stage = Atlas.create(sys.argv[1]).vectors("mini", "gaia_xp")
    with stage.lock():
        print("locked", flush=True)
        for number in range(1000):
            table = vectors(2000, 64)
            if not stage.is_current(number, str(number)):
                stage.write(number, table, schema=table.schema, inputs=str(number))
""")


def test_a_killed_writer_leaves_whole_shards_and_frees_the_lock(tmp_path):
    """Whatever the instant of death, every committed shard is whole and the next writer can go on."""
    atlas = Atlas.create(tmp_path / "atlas")
    stage = atlas.vectors("mini", "gaia_xp")
    root = os.fspath(os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__)))))
    for delay in (0.0, 0.05, 0.2):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(atlas.path)], stdout=subprocess.PIPE, cwd=root)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"locked\n"
        with pytest.raises(AtlasError, match=f"written by process {writer.pid}"), stage.lock():
            pass
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert stage.verify() == []
    with stage.lock():
        assert not list(stage.folder.glob(".writing-*"))


@pytest.mark.parametrize(("modality", "size"), [("lamost_lrs", 1462), ("gaia_xp", 343)])
def test_spectra_columns_say_what_they_are(modality, size):
    schema = spectra_schema(get_modality(modality).columns, size)
    assert schema.names[:2] == ["spec_id", "source_id"]
    assert schema.field("flux").type.list_size == size
    assert all(field.metadata[b"description"] for field in schema)
    assert schema.field("ra").metadata[b"unit"] == b"deg"
