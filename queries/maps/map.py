"""The map of an atlas: a stored 2-D position of every spectrum, with data of its star."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.files import text_digest, whole_file
from specclip_search.atlas.schemas import described
from specclip_search.errors import QueryError
from specclip_search.labels import plain_name, standard_name
from specclip_search.progress import Progress
from specclip_search.surveys import LRS, PAIR

from ..space.space import Space, open_space
from .layout import Layout, lay_out

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas, Stage

# increase when the layout changes: existing maps are then recomputed
REVISION = 1
DEFAULT_SAMPLE = 50_000
SHARD_ROWS = 262_144
_PREFIX = {modality.name: modality.prefix for modality in PAIR}


def map_schema() -> pa.Schema:
    """Columns of `results/map`, one row per spectrum."""
    f32 = pa.float32()
    return pa.schema(
        [
            described("x", f32, "position in the map; no unit, near spectra lie near each other"),
            described("y", f32, "position in the map; no unit, near spectra lie near each other"),
            described("modality", pa.string(), "instrument of the spectrum"),
            described("release", pa.string(), "data release of the spectrum"),
            described("spec_id", pa.int64(), "LAMOST obsid or Gaia source_id of the spectrum", ucd="meta.id;meta.main"),
            described("source_id", pa.int64(), "Gaia source_id of its star; null where unknown", ucd="meta.id"),
            described("sampled", pa.bool_(), "laid out by UMAP itself; the others are placed by their neighbours"),
        ]
    )


def make_map(
    atlas: Atlas,
    *,
    within: str | None = None,
    sample: int = DEFAULT_SAMPLE,
    seed: int = 0,
    model: str | None = None,
    progress: Progress | None = None,
) -> Stage:
    """Compute the map, unless one with the same vectors, sample and seed is already stored.

    Parameters
    ----------
    within
        One instrument; by default all instruments in one map.
    sample
        Number of spectra laid out by UMAP; all others are placed by their neighbours among them.
    seed
        Random seed; the same seed gives the same map.

    Returns
    -------
    Stage
        `results/map`; its sidecars name model, digests, sample and seed.

    Raises
    ------
    QueryError
        If there are too few spectra.
    VectorIndexError
        If an index is missing or stale.
    MissingExtra
        If umap-learn is not installed.
    """
    space = open_space(atlas, model)
    names = list(space.modalities) if within in (None, "both") else [space.require(str(within))]
    stage = atlas.results("map")
    inputs = text_digest(
        str(REVISION), str(sample), str(seed), space.model, *(f"{name}:{space.index(name).digest}" for name in names)
    )
    with stage.lock():
        parts = stage.parts()
        if parts and all(part.inputs == inputs for part in parts) and parts[0].extra.get("shards") == len(parts):
            shutil.rmtree(stage.incoming, ignore_errors=True)
            return stage
        offsets = np.concatenate([[0], np.cumsum([len(space.keys(name)) for name in names])])
        layout = lay_out(_reader(space, names, offsets), int(offsets[-1]), sample, seed, progress)
        with stage.replaced() as new:
            _write(new, space, names, offsets, layout, inputs, {"sample": sample, "seed": seed})
    return stage


def _reader(space: Space, names: Sequence[str], offsets: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Centred vectors by row, counted over all instruments."""

    def read(rows: np.ndarray) -> np.ndarray:
        pieces = []
        for number, name in enumerate(names):
            here = rows[(rows >= offsets[number]) & (rows < offsets[number + 1])] - offsets[number]
            if len(here):
                pieces.append(space.index(name).vectors(here))
        return np.concatenate(pieces)

    return read


def _write(
    stage: Stage,
    space: Space,
    names: Sequence[str],
    offsets: np.ndarray,
    layout: Layout,
    inputs: str,
    account: dict[str, Any],
) -> None:
    schema = map_schema()
    sampled = np.zeros(int(offsets[-1]), dtype=bool)
    sampled[layout.sampled] = True
    blocks = [
        (name, start, min(start + SHARD_ROWS, int(offsets[number + 1])))
        for number, name in enumerate(names)
        for start in range(int(offsets[number]), int(offsets[number + 1]), SHARD_ROWS)
    ]
    origin = space.origin()
    extra = {
        "model": space.model,
        "model_digest": origin["model_digest"],
        "modalities": list(names),
        "explained_variance": round(layout.explained, 6),
        "shards": len(blocks),
        **account,
    }
    for number, (name, start, stop) in enumerate(blocks):
        keys = space.keys(name)
        rows = np.arange(start, stop) - int(offsets[names.index(name)])
        columns = {
            "x": layout.position[start:stop, 0],
            "y": layout.position[start:stop, 1],
            "modality": [name] * len(rows),
            "release": keys.release_names(rows),
            "spec_id": np.asarray(keys.spec_id[rows]),
            "source_id": np.ma.masked_less(np.asarray(keys.source_id[rows]), 0),
            "sampled": sampled[start:stop],
        }
        stage.write(number, table_from_columns(columns, schema), schema=schema, inputs=inputs, extra=extra)


def map_columns(atlas: Atlas) -> list[str]:
    """Columns a map can be coloured by, of the map and of the view `stars`."""
    from ..views.connection import connect

    with connect(atlas) as connection:
        stars = [field.name for field in connection.views.all["stars"].fields()]
    own = ["modality", "release"]
    return [*own, *(name for name in stars if name not in ("source_id", "gaia_spec_id", "lamost_spec_id", *own))]


def check_color(atlas: Atlas, color: str | None) -> None:
    """Raise for a missing column, listing the available ones.

    Raises
    ------
    QueryError
        If `color` is not a column of `stars`.
    """
    known = map_columns(atlas)
    if color is not None and color not in known:
        raise QueryError(
            f"A map is coloured by a column of the view `stars`; there is no '{color}'.",
            f"{did_you_mean(color, known)}There are: {', '.join(known)}.",
        )


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """'Did you mean teff? ' where a known name is like it, else nothing."""
    by_plain = {plain_name(one): one for one in known}
    wanted = plain_name(standard_name(name))
    close = [wanted] if wanted in by_plain else get_close_matches(wanted, by_plain, 2, 0.6)
    return f"Did you mean {' or '.join(by_plain[one] for one in close)}? " if close else ""


def map_table(atlas: Atlas, columns: Sequence[str]) -> pa.Table:
    """x, y, key, modality, release, spec_id, source_id of every mapped spectrum, and columns of its star.

    Fields carry unit and description.
    """
    from ..views.connection import connect
    from ..views.parquet import identifier

    schema = map_schema()
    points = atlas.results("map").read([name for name in schema.names if name != "sampled"])
    wanted = [name for name in dict.fromkeys(columns) if name not in schema.names]
    prefix = points["modality"]
    for name, short in _PREFIX.items():
        prefix = pc.if_else(pc.equal(points["modality"], name), pa.scalar(short), prefix)
    key = pc.binary_join_element_wise(prefix, points["spec_id"].cast(pa.string()), ":")
    meaning = described("key", pa.string(), "key of the spectrum, as commands take it")
    table = points.add_column(2, meaning, key)
    if not wanted:
        return table
    with connect(atlas) as connection:
        fields = {field.name: field for field in connection.views.all["stars"].fields()}
        picked = ", ".join(identifier(name) for name in wanted)
        statement = f"SELECT source_id, lamost_spec_id, lamost_release, {picked} FROM stars"
        connection.prepare(statement)
        stars = connection.rows(statement)
    row = pa.array(_star_rows(points, stars))
    row = pc.if_else(pc.less(row, 0), pa.scalar(None, pa.int64()), row)
    for name in wanted:
        table = table.append_column(fields[name].with_type(stars[name].type), stars[name].take(row))
    return table


def _star_rows(points: pa.Table, stars: pa.Table) -> np.ndarray:
    """(N,) row of each mapped spectrum's star, -1 if there is none: by source_id, else by obsid and release."""
    wanted = points["source_id"].fill_null(-1).to_numpy()
    known = stars["source_id"].fill_null(-1).to_numpy()
    order = np.argsort(known, kind="stable")
    if len(known) == 0:
        return np.full(len(wanted), -1, dtype=np.int64)
    place = np.minimum(np.searchsorted(known[order], wanted), len(known) - 1)
    row = np.where((wanted >= 0) & (known[order][place] == wanted), order[place], -1)
    nameless = np.flatnonzero((wanted < 0) & pc.equal(points["modality"], LRS).to_numpy())
    if len(nameless):
        alone = np.flatnonzero(known < 0)
        ids = zip(
            stars["lamost_spec_id"].take(alone).to_pylist(),
            stars["lamost_release"].take(alone).to_pylist(),
            strict=True,
        )
        by_key = dict(zip(ids, alone.tolist(), strict=True))
        keys = zip(
            points["spec_id"].take(nameless).to_pylist(), points["release"].take(nameless).to_pylist(), strict=True
        )
        row[nameless] = [by_key.get(one, -1) for one in keys]
    return row


def label_columns(atlas: Atlas) -> list[str]:
    """Columns of `stars` in a map's Parquet file: position, S/N, labels, scores."""
    left_out = {"release", "modality", "lamost_release", "n_lamost"}
    return [name for name in map_columns(atlas) if name not in left_out]


def write_map(table: pa.Table, path: Path) -> None:
    """Write a map for embedding-atlas and TOPCAT, atomically."""
    with whole_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
