"""LAMOST medium resolution (MRS), seen as LAMOST LRS."""

from __future__ import annotations

import pyarrow as pa

from ..atlas.schemas import described
from .lamost_lrs import GRID, LAMOST_LRS, REACH, UNIT, WINDOWS, prepare_lrs, prepare_lrs_rows
from .modality import Modality, register
from .visits import VISITS

COLUMNS = (
    *VISITS,
    described("snr_b", pa.float32(), "signal to noise of the blue arm, from the survey's header", ucd="stat.snr"),
    described("snr_r", pa.float32(), "signal to noise of the red arm, from the survey's header", ucd="stat.snr"),
    described("lmjd", pa.int32(), "local modified Julian day of the observation", "d", "time.epoch"),
    described("planid", pa.string(), "plate plan"),
    described("spid", pa.int16(), "spectrograph number"),
    described("fiberid", pa.int16(), "fibre number"),
)

LAMOST_MRS = register(
    Modality(
        "lamost_mrs", "mrs", GRID, UNIT, WINDOWS, "LAMOST medium resolution", prepare_lrs, prepare_lrs_rows, COLUMNS,
        id_name="obsid", flux_label=LAMOST_LRS.flux_label, reach=REACH, line_width=LAMOST_LRS.line_width,
        small_files=True, seen_as=LAMOST_LRS.name,
    )
)
