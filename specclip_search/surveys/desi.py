"""DESI spectra, seen as LAMOST LRS."""

from __future__ import annotations

import pyarrow as pa

from ..atlas.schemas import described
from .lamost_lrs import GRID, LAMOST_LRS, REACH, UNIT, WINDOWS, prepare_lrs, prepare_lrs_rows
from .modality import Modality, register
from .visits import VISITS

COLUMNS = (
    *VISITS,
    described("tileid", pa.int64(), "tile, where the file is of one"),
    described("night", pa.int64(), "night of the observation, yyyymmdd", ucd="time.epoch"),
    described("fiberid", pa.int64(), "fibre number"),
)

DESI = register(
    Modality(
        "desi", "desi", GRID, UNIT, WINDOWS, "DESI", prepare_lrs, prepare_lrs_rows, COLUMNS,
        id_name="targetid", flux_label=LAMOST_LRS.flux_label, reach=REACH, line_width=LAMOST_LRS.line_width,
        seen_as=LAMOST_LRS.name,
    )
)
