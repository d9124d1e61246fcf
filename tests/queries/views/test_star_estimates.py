"""Estimated labels beside the catalogues' in `stars`: of the very spectrum, with units; absent where not made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.schemas import estimates_schema
from specclip_search.errors import QueryError
from specclip_search.queries.views.connection import connect

from ..small_atlas import star, write_spectra, write_vectors


def write_estimates(atlas: Atlas, modality: str, spec_id: list[int], release: list[str], **columns: Any) -> None:
    schema, rows = estimates_schema(), len(spec_id)
    known = {"spec_id": spec_id, "release": release, "flag": np.zeros(rows, np.int32), **columns}
    table = table_from_columns({f.name: known.get(f.name, pa.nulls(rows, f.type)) for f in schema}, schema)
    stage = atlas.estimates(modality, "tiny")
    with stage.lock():
        stage.write(0, table, schema=schema, inputs="vectors")


@pytest.fixture
def estimated(atlas: Atlas) -> Atlas:
    """XP stars 0 to 4, star 0 in two releases; LRS 102 of star 0, which is not its best, and 105 of star 3."""
    write_spectra(atlas, "gaia_xp", [star(0)], part=1, release=["dr4"], source_id=[star(0)], snr=[60.0])
    write_vectors(atlas, "gaia_xp", [star(i) for i in range(5)], [star(i) for i in range(5)], 0)
    xp = [star(0), star(0), *(star(i) for i in range(1, 5))]
    teff = np.array([4000, 4001, 5001, 5002, 5003, np.nan], np.float32)
    write_estimates(
        atlas,
        "gaia_xp",
        xp,
        ["dr3", "dr4", *["dr3"] * 4],
        teff=np.ma.masked_invalid(teff),
        teff_err=np.full(6, 90, np.float32),
        feh_p_below_m2=np.full(6, 0.5, np.float32),
    )
    write_estimates(atlas, "lamost_lrs", [102, 105], ["dr7"] * 2, feh=[-1.0, -2.5], rv=[10.0, 20.0])
    return atlas


def test_estimates_are_of_the_best_spectrum(estimated: Atlas) -> None:
    with connect(estimated) as connection:
        rows = connection.sql("SELECT * FROM stars WHERE source_id IS NOT NULL ORDER BY source_id").arrow()
        described = dict(connection.sql("DESCRIBE stars").project("column_name, meaning").fetchall())
        count = connection.sql("SELECT count(*) AS n FROM stars").arrow()["n"].to_pylist()
        (lone,) = connection.sql("SELECT rv FROM estimates_lamost_lrs WHERE spec_id = 102").fetchall()
    by_star = {row["source_id"]: row for row in rows.to_pylist()}
    assert [by_star[star(i)]["teff_xp"] for i in range(6)] == [4001, 5001, 5002, 5003, None, None]
    assert by_star[star(0)]["feh_lrs"] is None
    assert by_star[star(3)]["feh_lrs"] == -2.5
    assert by_star[star(3)]["rv_lrs"] == 20
    assert by_star[star(0)]["teff"] == 5000
    assert by_star[star(1)]["feh_xp_p_below_m2"] == 0.5
    assert "rv_xp" not in rows.column_names
    assert rows.schema.field("teff_xp_err").metadata[b"unit"] == b"K"
    assert described["rv_lrs"].endswith("LRS spectrum [km/s]")
    assert rows.num_rows == 10
    assert count == [11]
    assert lone == (10.0,)


def test_without_estimates_the_hint_names_the_command(atlas: Atlas) -> None:
    with connect(atlas) as connection:
        assert "teff_xp" not in connection.sql("SELECT * FROM stars LIMIT 0").arrow().column_names
        with pytest.raises(QueryError) as caught:
            connection.sql("SELECT * FROM estimates_gaia_xp")
    assert "estimates (`specclip-search estimate`)" in caught.value.hint
