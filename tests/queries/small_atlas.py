"""A small atlas with both instruments, repeats, unknown stars and catalogues that disagree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.schemas import spectra_schema, vectors_schema
from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.surveys import get_modality

FIRST = 2**61 + 128
DIM = 16
SIZE = 8


def star(number: int) -> int:
    """source_id of star `number`; all are beyond what a float holds exactly."""
    return FIRST + 129 * number


def write_spectra(atlas: Atlas, modality: str, spec_id: list[int], part: int = 0, **columns: Any) -> None:
    """A shard of spectra; columns not given are null, or 1 where null is not allowed."""
    rows = len(spec_id)
    usual = {
        "release": ["dr3" if modality == "gaia_xp" else "dr7"] * rows,
        "source": ["made.fits"] * rows,
        "simulated": [False] * rows,
        "snr": [20.0] * rows,
        "flux": np.ones((rows, SIZE), np.float32),
        "error": np.ones((rows, SIZE), np.float32),
    }
    schema = spectra_schema(get_modality(modality).columns, SIZE)
    values = {"spec_id": spec_id, **usual, **columns}
    table = table_from_columns(
        {field.name: values.get(field.name, pa.nulls(rows, field.type)) for field in schema}, schema
    )
    stage = atlas.spectra(modality)
    with stage.lock():
        stage.write(part, table, schema=schema, inputs=f"part {part}")


def write_vectors(
    atlas: Atlas, modality: str, spec_id: list[int], source_id: list[int | None], seed: int
) -> np.ndarray:
    """A shard of random unit vectors; returns them."""
    vectors = np.random.default_rng(seed).normal(size=(len(spec_id), DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    schema = vectors_schema(DIM)
    columns = {
        "spec_id": spec_id,
        "source_id": source_id,
        "release": ["dr3"] * len(spec_id),
        "vector": vectors.astype(np.float16),
        "norm": np.ones(len(spec_id), np.float32),
    }
    stage = atlas.vectors("tiny", modality)
    with stage.lock():
        stage.write(0, table_from_columns(columns, schema), schema=schema, inputs="spectra")
    atlas.use_model("tiny")
    return vectors.astype(np.float16)


def fill(made: Atlas) -> None:
    """Stars 0-9 in XP; LRS 101, 102 of star 0, 103, 104 of one unknown star, 105 of star 3, 106 linked by `visits`."""
    xp = [star(i) for i in range(10)]
    write_spectra(made, "gaia_xp", xp, source_id=xp, ra=np.arange(10.0), dec=np.arange(10.0) - 5, snr=np.full(10, 50.0))
    write_spectra(
        made,
        "lamost_lrs",
        [101, 102, 103, 104, 105, 106],
        source_id=[star(0), star(0), None, None, star(3), None],
        snr=[3.0, float("nan"), 5.0, 6.0, 7.0, 8.0],
        uid=[None, None, "u1", "u1", None, None],
        simulated=[False, False, False, False, True, False],
    )
    by_star = {
        "source_id": [star(0), star(0), star(5)],
        "teff": [5000.0, 5001.0, 6000.0],
        "feh": [-1.0, -2.0, None],
        "feh_err": [0.1, 0.2, None],
        "phot_g_mean_mag": [12.0, 12.0, 15.0],
    }
    visits = {
        "obsid": [101, 103, 105, 106],
        "source_id": [None, None, None, star(8)],
        "teff": [4000.0, 4100.0, 4200.0, 4300.0],
        "feh_err": [9.0, 9.0, 9.0, 9.0],
    }
    ingest_catalog_table(made, "stellar", pa.table(by_star))
    ingest_catalog_table(made, "visits", pa.table(visits))
