"""Conditions over columns kept beside the indexes admit what the view admits, also after the atlas has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from specclip_search.atlas import Atlas
from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.queries.views import kept_columns
from specclip_search.queries.views.connection import connect
from specclip_search.queries.views.where import where_to_keys

from ..small_atlas import star, write_spectra

CONDITIONS = [
    "teff > 4500",
    "snr >= 7 AND NOT simulated",
    "snr > 0",
    "ra > 3",  # one is NaN, the largest number for SQL
    "ra = 'nan'::DOUBLE OR dec < 0 OR ra IS NULL",
    "modality = 'lamost_lrs' AND release <> 'dr9'",
    "source_id IS NULL -- of no known star",
    f"source_id IN (SELECT source_id FROM stellar WHERE teff > 5500) OR source_id = {star(8)}",
    "label_source = 'visits' OR feh_err BETWEEN 0.05 AND 0.15",
    "Teff < 4200 AND spectra.snr > 0",
    "spec_id % 2 = 0 AND coalesce(feh, 0) < 1",
    "spec_id = (SELECT max(spec_id) FROM spectra s WHERE s.modality = spectra.modality)",
    "false",
    "true",
    "COLUMNS('^snr$') > 6",
]


@pytest.fixture
def mixed(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> Atlas:
    """The small atlas with more shards; its columns are worth keeping."""
    ids = [star(i) for i in range(20, 45)]
    ra = np.arange(25.0)
    ra[7] = np.nan
    write_spectra(atlas, "gaia_xp", ids, part=1, source_id=ids, ra=ra, dec=ra - 12, snr=np.arange(25.0))
    write_spectra(
        atlas, "lamost_lrs", [101, 7], part=1, release=["dr9"] * 2, snr=[99.0, 1.0], source_id=[star(0), None]
    )
    monkeypatch.setattr(kept_columns, "WORTH_KEEPING", 0)
    return atlas


def admitted(atlas: Atlas, where: str, modality: str) -> list[tuple[str, int]]:
    with connect(atlas) as connection:
        keys = where_to_keys(connection, where, modality)
    assert keys.schema.types == [pa.string(), pa.int64()]
    return sorted(zip(keys["release"].to_pylist(), keys["spec_id"].to_pylist(), strict=True))


def of_view(atlas: Atlas, where: str, modality: str) -> list[tuple[str, int]]:
    rows = atlas.sql(f"SELECT release, spec_id FROM spectra WHERE modality = '{modality}' AND ({where}\n) ORDER BY ALL")
    return [tuple(row) for row in rows.fetchall()]


@pytest.mark.parametrize("modality", ["gaia_xp", "lamost_lrs"])
@pytest.mark.parametrize("where", CONDITIONS)
def test_admits_what_the_view_admits(mixed: Atlas, where: str, modality: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = of_view(mixed, where, modality)
    assert admitted(mixed, where, modality) == expected

    def refuse(*_: object) -> None:
        raise AssertionError("the columns are there and need not be made again")

    monkeypatch.setattr(kept_columns, "_make", refuse)
    assert admitted(mixed, where, modality) == expected


def test_only_what_is_named_is_kept(mixed: Atlas) -> None:
    admitted(mixed, "snr > 3", "gaia_xp")
    folder = mixed.path / "indexes" / ".lookup"
    assert sorted(p.name for p in folder.glob("*.arrow")) == [
        f"spectra_gaia_xp.{name}.arrow" for name in ("release", "snr", "spec_id")
    ]


def test_a_small_atlas_keeps_nothing(atlas: Atlas) -> None:
    assert len(admitted(atlas, "teff > 4500", "lamost_lrs")) == 2
    assert not list((atlas.path / "indexes").glob(".lookup/*.arrow"))


def more_spectra(atlas: Atlas) -> None:
    write_spectra(atlas, "lamost_lrs", [900], part=2, snr=[50.0], source_id=[star(5)])


def shard_replaced(atlas: Atlas) -> None:
    stage = atlas.spectra("lamost_lrs")
    with stage.lock():
        stage.remove(1)
    write_spectra(
        atlas, "lamost_lrs", [102, 7], part=1, release=["dr9"] * 2, snr=[0.5, 98.0], source_id=[star(5), None]
    )


def catalogue_changed(atlas: Atlas) -> None:
    ingest_catalog_table(atlas, "stellar", pa.table({"source_id": [star(0), star(3)], "teff": [3000.0, 7000.0]}))


def catalogue_added(atlas: Atlas) -> None:
    ingest_catalog_table(atlas, "alpha", pa.table({"source_id": [star(0), star(3)], "teff": [3000.0, 7000.0]}))


@pytest.mark.parametrize("change", [more_spectra, shard_replaced, catalogue_changed, catalogue_added])
def test_what_changes_is_made_again(mixed: Atlas, change: Callable[[Atlas], None]) -> None:
    asked = ["teff > 4500 OR snr > 40", "snr BETWEEN 0.1 AND 60", "true"]
    before = [admitted(mixed, where, "lamost_lrs") for where in asked]
    change(mixed)
    fresh = Atlas(mixed.path)
    after = [admitted(fresh, where, "lamost_lrs") for where in asked]
    assert after == [of_view(fresh, where, "lamost_lrs") for where in asked]
    assert after != before


@pytest.mark.parametrize("damage", [b"", b"broken", None])
def test_damaged_files_are_made_again(mixed: Atlas, damage: bytes | None) -> None:
    expected = admitted(mixed, "teff > 4500", "lamost_lrs")
    for path in (mixed.path / "indexes" / ".lookup").glob("*.arrow"):
        path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
    assert admitted(mixed, "teff > 4500", "lamost_lrs") == expected


def test_an_atlas_that_cannot_be_written_is_searched(mixed: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(target: Path) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr(kept_columns, "whole_file", refuse)
    assert admitted(mixed, "teff > 4500", "lamost_lrs") == of_view(mixed, "teff > 4500", "lamost_lrs")
