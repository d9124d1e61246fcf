"""SDSS, BOSS and SDSS-V optical spectra, seen as LAMOST LRS."""

from __future__ import annotations

import pyarrow as pa

from ..atlas.schemas import described
from .lamost_lrs import GRID, LAMOST_LRS, REACH, UNIT, WINDOWS, prepare_lrs, prepare_lrs_rows
from .modality import Modality, register
from .visits import CLASSES, RV, VISITS

COLUMNS = (
    *VISITS,
    RV,
    described("z", pa.float32(), "redshift by the survey's pipeline", ucd="src.redshift"),
    described("zwarning", pa.int64(), "warnings of the redshift's fit; 0 is good", ucd="meta.code.qual"),
    *CLASSES,
    described("instrument", pa.string(), "spectrograph: SDSS or BOSS", ucd="meta.id;instr"),
    described("plate", pa.int64(), "plate, in SDSS-V field"),
    described("mjd", pa.int64(), "modified Julian date of the plate", "d", "time.epoch"),
    described("fiberid", pa.int64(), "fibre number"),
)

SDSS = register(
    Modality(
        "sdss", "sdss", GRID, UNIT, WINDOWS, "SDSS and BOSS", prepare_lrs, prepare_lrs_rows, COLUMNS,
        id_name="specobjid", flux_label=LAMOST_LRS.flux_label, reach=REACH, line_width=LAMOST_LRS.line_width,
        small_files=True, seen_as=LAMOST_LRS.name, unsigned_ids=True,
    )
)
