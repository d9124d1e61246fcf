"""Columns of surveys that observe a star several times and whose spectra are seen as another instrument's."""

from __future__ import annotations

import pyarrow as pa

from ..atlas.schemas import EPOCH, described

VISITS = (
    EPOCH,
    described("frame", pa.string(), "barycentric, rest or observed: what the wavelengths are relative to"),
    described("time", pa.float64(), "middle of the observation, modified Julian date", "d", "time.epoch"),
    described("time_scale", pa.string(), "time scale of `time`, for example MJD_UTC"),
    described("covered", pa.float32(), "fraction of the encoder's grid that the survey's pixels cover"),
)

RV = described(
    "rv", pa.float32(), "radial velocity by the survey's own pipeline; null where it gives none", "km/s",
    "spect.dopplerVeloc.opt",
)
CLASSES = (
    described("object_class", pa.string(), "class by the survey's pipeline", ucd="src.class"),
    described("subclass", pa.string(), "subclass by the survey's pipeline", ucd="src.spType"),
)
