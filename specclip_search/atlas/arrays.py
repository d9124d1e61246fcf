"""Conversion between NumPy arrays and Arrow columns without copying row by row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa


def matrix_to_column(matrix: np.ndarray) -> pa.FixedSizeListArray:
    """(N, n) float16/float32/float64 array to a fixed-size list column of N rows."""
    contiguous = np.ascontiguousarray(matrix)
    return pa.FixedSizeListArray.from_arrays(pa.array(contiguous.reshape(-1)), contiguous.shape[1])


def column_to_matrix(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Fixed-size list column of N rows to an (N, n) array of the list's own type.

    Raises
    ------
    ValueError
        If a row is null; vector and spectrum columns must not contain nulls.
    """
    if isinstance(column, pa.ChunkedArray):
        if column.num_chunks != 1:
            chunks = [column_to_matrix(chunk) for chunk in column.chunks]
            width = column.type.list_size
            empty = np.empty((0, width), column.type.value_type.to_pandas_dtype())
            return np.concatenate(chunks) if chunks else empty
        column = column.chunk(0)
    if column.null_count:
        raise ValueError(f"{column.null_count} null rows in a column that must have none")
    # flatten() respects the offset of a sliced column; .values would not
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)


def table_from_columns(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """Build a table with exactly the columns of `schema`, in its order; 2-D arrays become lists.

    Masked integer arrays keep their mask as nulls; integers are never passed through floats.
    """
    arrays = []
    for field in schema:
        value = columns[field.name]
        if isinstance(value, pa.Array | pa.ChunkedArray):
            arrays.append(value.cast(field.type))
        elif isinstance(value, np.ma.MaskedArray):
            arrays.append(pa.array(value.data, mask=np.ma.getmaskarray(value), type=field.type))
        elif isinstance(value, np.ndarray) and value.ndim == 2:
            dtype = field.type.value_type.to_pandas_dtype()
            arrays.append(matrix_to_column(value.astype(dtype, copy=False)))
        else:
            arrays.append(pa.array(value, type=field.type))
    return pa.Table.from_arrays(arrays, schema=schema)
