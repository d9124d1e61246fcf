"""Cached columns of the view `spectra`, one file per column, so that conditions need neither shards nor joins.

The files are disposable: created when a condition first uses a column, rebuilt when a shard or a
catalogue changes, and mapped into memory, where all processes share them.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from specclip_search.atlas.files import file_digest, text_digest, whole_file, write_text
from specclip_search.atlas.integrity import check_files
from specclip_search.errors import AtlasError

from ..space.lookup import fingerprint
from .parquet import read_parquet_sql
from .star_views import needs_star, spectra_sql

if TYPE_CHECKING:
    from .connection import AtlasConnection

ROW = "_kept_row"
_KEYS = ("release", "spec_id")
_FORMAT = "1"
# for fewer spectra, reading and joining is faster than writing the files
WORTH_KEEPING = 200_000
_making = threading.Lock()


def kept_columns(connection: AtlasConnection, modality: str, names: Collection[str]) -> pa.Table | None:
    """Columns of the spectra of one instrument.

    Parameters
    ----------
    connection
        From `specclip_search.queries.views.connection.connect`.
    names
        Columns of the view `spectra`.

    Returns
    -------
    pa.Table
        `_kept_row` int32 (0, 1, ...), release, spec_id and the named columns, each of one chunk, a
        row for each spectrum, strings as dictionaries. None, and the view is read instead, for small
        or read-only atlases.
    """
    wanted = sorted({*names, *_KEYS})
    digests = _digests(connection, modality, wanted)
    folder = connection.views.atlas.path / "indexes" / ".lookup"
    columns = {name: load_column(column_path(folder, modality, name), digests[name]) for name in wanted}
    missing = [name for name in wanted if columns[name] is None]
    if missing:
        with _making:
            made = _make(connection, modality, missing)
            if made is None or not store_columns(folder, modality, made, digests):
                return None
        columns |= {name: load_column(column_path(folder, modality, name), digests[name]) for name in missing}
    arrays = {name: column for name, column in columns.items() if column is not None}
    if len(arrays) < len(wanted) or len({len(column) for column in arrays.values()}) != 1:
        # another process is changing the atlas
        return None
    rows = len(arrays["spec_id"])
    return pa.table({ROW: _numbers(rows), **arrays})


@lru_cache(maxsize=2)
def _numbers(rows: int) -> pa.Array:
    """0, 1, ...; cached, because creating them takes as long as a typical condition."""
    return pa.array(np.arange(rows, dtype=np.int32))


def _digests(connection: AtlasConnection, modality: str, names: Sequence[str]) -> dict[str, str]:
    """Inputs of each column: the shards, and for columns of the star every catalogue."""
    views = connection.views
    own = text_digest(_FORMAT, modality, fingerprint(views.spectra_files[modality]))
    star = ""
    if needs_star(names):
        parts = [f"{c.name}:{sorted(c.unique)}:{fingerprint(c.files)}" for c in views.catalogues]
        star = text_digest(own, *parts)
    return {name: star if needs_star([name]) else own for name in names}


def _make(connection: AtlasConnection, modality: str, names: Sequence[str]) -> Mapping[str, pa.Array] | None:
    """The columns from the view, in the order of the shards; None if caching is not worthwhile."""
    views = connection.views
    files = views.spectra_files[modality]
    count = connection.rows(f"SELECT count(*) AS n FROM {read_parquet_sql(files)}")["n"][0].as_py()
    if not WORTH_KEEPING <= count < 2**31:
        return None
    source = spectra_sql({modality: files}, views.catalogues, names, numbered=True)
    chosen = ", ".join(names)
    table = connection.rows(f"SELECT (_file::BIGINT << 32) + _file_row AS place, {chosen} FROM ({source})")
    place = table["place"].to_numpy()
    order = None if bool(np.all(np.diff(place) > 0)) else np.argsort(place)
    if table.num_rows != count or (order is not None and not bool(np.all(np.diff(place[order]) > 0))):
        return None
    return {name: _ordered(table[name], order) for name in names}


def _ordered(column: pa.ChunkedArray, order: np.ndarray | None) -> pa.Array:
    if pa.types.is_string(column.type):
        column = pc.dictionary_encode(column)
    whole = pa.concat_arrays(column.unify_dictionaries().chunks) if column.num_chunks != 1 else column.chunk(0)
    return whole if order is None else whole.take(pa.array(order))


def column_path(folder: Path, modality: str, name: str) -> Path:
    """File of a cached column of one instrument's spectra."""
    return folder / f"spectra_{modality}.{name}.arrow"


def store_columns(folder: Path, modality: str, made: Mapping[str, pa.Array], digests: Mapping[str, str]) -> bool:
    """Write each column atomically; False if the atlas is read-only."""
    try:
        for name, column in made.items():
            schema = pa.schema([pa.field(name, column.type)], metadata={b"inputs": digests[name].encode()})
            with (
                whole_file(column_path(folder, modality, name)) as temporary,
                pa.OSFile(str(temporary), "wb") as sink,
                pa.ipc.new_file(sink, schema) as writer,
            ):
                writer.write_batch(pa.record_batch([column], schema=schema))
            path = column_path(folder, modality, name)
            write_text(_digest_path(path), file_digest(path))
    except OSError:
        return False
    return True


def load_column(path: Path, digest: str) -> pa.Array | None:
    """A cached column, memory-mapped; None if it is outdated or damaged."""
    try:
        check_files(path.parent, {path.name: _digest_path(path).read_text(encoding="ascii")})
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        if (reader.schema.metadata or {}).get(b"inputs") != digest.encode() or reader.num_record_batches != 1:
            return None
        return reader.get_batch(0).column(0)
    except (AtlasError, OSError, ValueError, pa.ArrowException):
        return None


def _digest_path(path: Path) -> Path:
    """Where the digest of a kept column lies: Arrow's files carry none."""
    return path.with_name(f"{path.name}.sha256")
