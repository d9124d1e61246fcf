"""A condition gives the same vector rows from kept columns as from a look-up of every key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.schemas import vectors_schema
from specclip_search.queries.space.space import Space
from specclip_search.queries.views import kept_columns
from specclip_search.queries.views import where as where_rows
from specclip_search.queries.views.connection import connect
from specclip_search.queries.views.where import rows_of_keys, where_to_keys, where_to_rows

from ..small_atlas import star, write_spectra

MODEL = "other"
CONDITIONS = ["teff > 4500", "snr >= 7", "true", "false", "release = 'dr9' OR snr > 40", "spec_id % 2 = 0"]


def write_vectors(atlas: Atlas, part: int, keys: list[tuple[str, int]]) -> None:
    schema = vectors_schema(4)
    unit = np.tile(np.eye(4, dtype=np.float32)[:1], (len(keys), 1))
    columns = {"spec_id": [key[1] for key in keys], "source_id": [None] * len(keys),
               "release": [key[0] for key in keys], "vector": unit, "norm": np.ones(len(keys), np.float32)}
    stage = atlas.vectors(MODEL, "gaia_xp")
    with stage.lock():
        stage.write(part, table_from_columns(columns, schema), schema=schema, inputs="x",
                    extra={"model_digest": "sha256:other"})


@pytest.fixture
def large(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> Atlas:
    """Spectra whose columns are worth keeping: two releases with ids in common, vectors of most of them."""
    monkeypatch.setattr(kept_columns, "WORTH_KEEPING", 0)
    ids = [star(i) for i in range(20, 45)]
    write_spectra(atlas, "gaia_xp", ids, part=1, source_id=ids, snr=np.arange(25.0))
    write_spectra(atlas, "gaia_xp", ids[::3], part=2, release=["dr9"] * 9, source_id=ids[::3], snr=np.arange(9.0))
    return atlas


def spectra_keys(atlas: Atlas) -> list[tuple[str, int]]:
    rows = atlas.spectra("gaia_xp").read(["release", "spec_id"])
    return list(zip(rows["release"].to_pylist(), rows["spec_id"].to_pylist(), strict=True))


def both_ways(atlas: Atlas, where: str) -> tuple[np.ndarray, np.ndarray]:
    space = Space(atlas, MODEL)
    with connect(atlas) as connection:
        fast = where_to_rows(connection, space, where, "gaia_xp")
        slow = rows_of_keys(space.keys("gaia_xp"), where_to_keys(connection, where, "gaia_xp"))
    return fast, slow


@pytest.mark.parametrize("order", ["as the spectra", "backwards, some left out"])
@pytest.mark.parametrize("where", CONDITIONS)
def test_rows_are_those_of_the_keys(large: Atlas, where: str, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = spectra_keys(large)
    chosen = keys if order == "as the spectra" else [key for i, key in enumerate(keys[::-1]) if i % 4]
    write_vectors(large, 0, chosen[:10])
    write_vectors(large, 1, chosen[10:])
    fast, slow = both_ways(large, where)
    assert fast.dtype == np.int64
    np.testing.assert_array_equal(fast, slow)
    assert (len(fast) == 0) == (where == "false")

    def refuse(*_: object) -> None:
        raise AssertionError("the rows are kept and need not be found again")

    monkeypatch.setattr(where_rows, "_by_key", refuse)
    np.testing.assert_array_equal(both_ways(large, where)[0], slow)


def test_vectors_or_spectra_that_change_are_seen(large: Atlas) -> None:
    keys = spectra_keys(large)
    write_vectors(large, 0, keys[:20])
    before, _ = both_ways(large, "snr >= 5")
    write_vectors(large, 1, keys[20:])
    after, slow = both_ways(large, "snr >= 5")
    np.testing.assert_array_equal(after, slow)
    assert len(after) > len(before)
    write_spectra(large, "gaia_xp", [star(90)], part=3, source_id=[star(90)], snr=[80.0])
    write_vectors(large, 2, [("dr3", star(90)), *keys[:1]])
    grown, slow = both_ways(large, "snr >= 5")
    np.testing.assert_array_equal(grown, slow)


def test_two_vectors_of_one_key_are_both_found(large: Atlas) -> None:
    keys = spectra_keys(large)
    write_vectors(large, 0, keys + keys[4:6])
    fast, slow = both_ways(large, "true")
    np.testing.assert_array_equal(fast, slow)
    assert len(fast) == len(keys) + 2


def test_a_small_atlas_and_one_that_cannot_be_written_are_searched(
    large: Atlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_vectors(large, 0, spectra_keys(large)[::-1])

    def refuse(target: Path) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr(kept_columns, "whole_file", refuse)
    np.testing.assert_array_equal(*both_ways(large, "snr > 8"))
    monkeypatch.setattr(kept_columns, "WORTH_KEEPING", 10**6)
    np.testing.assert_array_equal(*both_ways(large, "snr > 8"))
