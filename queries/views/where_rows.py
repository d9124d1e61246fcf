"""From a condition on spectra to rows of vectors, without looking up ten million keys.

Where the columns of a large atlas are kept, a condition gives rows of spectra. Which vector row
each of them is, is found once by key and kept beside the columns, as disposable as they are.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from specclip_search.atlas.files import text_digest

from ..space.lookup import fingerprint
from .kept_columns import column_path, load_column, store_columns
from .parquet import committed_files
from .where import AdmittedRows, admitted_spectra

if TYPE_CHECKING:
    from specclip_search.indexing.vectors.keys import KeyTable

    from ..space.space import Space
    from .connection import AtlasConnection

_FORMAT = "1"
_making = threading.Lock()


def where_to_rows(connection: AtlasConnection, space: Space, where: str, modality: str) -> np.ndarray:
    """Vector rows of the spectra of one instrument for which a condition is true.

    Parameters
    ----------
    connection
        From `specclip_search.queries.views.connection.connect`.
    space
        Whose vectors.
    where
        SQL expression on the columns of the view `spectra`; see `specclip_search.queries.views.annotate.where_to_keys`.
    modality
        Instrument.

    Returns
    -------
    (n,) int64, ascending; spectra that have no vector give none.

    Raises
    ------
    QueryError
        If the condition is not one expression, or names a column that is not there.
    """
    admitted = admitted_spectra(connection, where, modality)
    if isinstance(admitted, AdmittedRows):
        places = _vector_rows(connection, space, admitted.kept, modality)
        if places is not None:
            return _ascending(places[admitted.rows.to_numpy()])
        admitted = admitted.keys()
    return rows_of_keys(space.keys(modality), admitted)


def rows_of_keys(table: KeyTable, keys: pa.Table) -> np.ndarray:
    """(n,) int64 rows, ascending, of a table with release and spec_id; spectra that have no vector give none."""
    rows, queries = table.all_rows_of(keys["spec_id"].to_numpy())
    wanted = _release_numbers(table, keys["release"])
    return np.unique(rows[table.release[rows] == wanted[queries]])


def _ascending(rows: np.ndarray) -> np.ndarray:
    """Rows that are not -1, in order; they mostly are already."""
    if len(rows) and rows.min() < 0:
        rows = rows[rows >= 0]
    if not (rows[1:] > rows[:-1]).all():
        rows = np.sort(rows)
    return rows.astype(np.int64)


def _vector_rows(connection: AtlasConnection, space: Space, kept: pa.Table, modality: str) -> np.ndarray | None:
    """(spectra,) int32 vector row of each row of kept columns, -1 where it has none.

    None where two spectra share a key: then only the look-up by key finds all of them.
    """
    atlas = connection.views.atlas
    folder = atlas.path / "indexes" / ".lookup"
    name = f"rows.{space.model}"
    vectors = committed_files(atlas.vectors(space.model, modality).folder)
    digest = text_digest(_FORMAT, fingerprint(connection.views.spectra_files[modality]), fingerprint(vectors))
    with _making:
        column = load_column(column_path(folder, modality, name), digest)
        if column is not None and len(column) == kept.num_rows:
            return column.to_numpy()
        found = _by_key(space.keys(modality), kept)
        if found is not None:
            store_columns(folder, modality, {name: pa.array(found)}, {name: digest})
    return found


def _by_key(table: KeyTable, kept: pa.Table) -> np.ndarray | None:
    spec_id = kept["spec_id"].combine_chunks().to_numpy()
    release = _release_numbers(table, kept["release"])
    if np.array_equal(spec_id, table.spec_id) and np.array_equal(release, table.release):
        rows = np.arange(len(spec_id), dtype=np.int32)
    else:
        found, queries = table.all_rows_of(spec_id)
        same = table.release[found] == release[queries]
        rows = np.full(len(spec_id), -1, np.int32)
        rows[queries[same]] = found[same]
        if int(same.sum()) != int((rows >= 0).sum()):
            return None
    known = rows[rows >= 0]
    return rows if len(np.unique(known)) == len(known) else None


def _release_numbers(table: KeyTable, names: pa.ChunkedArray) -> np.ndarray:
    """(N,) int16 number of each release in the key table, -1 for one that it has not."""
    number = {name: code for code, name in enumerate(table.releases)}
    encoded = names.combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = pa.concat_arrays(encoded.chunks)
    if not pa.types.is_dictionary(encoded.type):
        encoded = pc.dictionary_encode(encoded)
    codes = np.array([*(number.get(name, -1) for name in encoded.dictionary.to_pylist()), -1], np.int16)
    return codes[pc.fill_null(encoded.indices, len(codes) - 1).to_numpy(zero_copy_only=False)]
