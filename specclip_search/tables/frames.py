"""Arrow tables as pandas frames: ids whole, units and meanings kept in the frame's attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd

# where a frame keeps its columns' units, descriptions and UCDs, for the formats that have a place for them
COLUMNS = "columns"


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Arrow to pandas with ids kept whole: int64, or pandas' nullable Int64 where some are unknown."""
    import pandas as pd

    frame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    for name in frame.columns:
        if frame[name].dtype == "Int64" and not frame[name].isna().any():
            frame[name] = frame[name].astype("int64")
    frame.attrs[COLUMNS] = {
        field.name: {key.decode(): value.decode() for key, value in field.metadata.items()}
        for field in table.schema
        if field.metadata
    }
    return frame
