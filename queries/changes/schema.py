"""Columns of the results `changes` (a star) and `visit_changes` (a visit)."""

from __future__ import annotations

import pyarrow as pa

from specclip_search.atlas.schemas import EPOCH, described

_STAR = (
    described("modality", pa.string(), "instrument of the visits"),
    described("spec_id", pa.int64(), "key of the visit that others are compared with", ucd="meta.id;meta.main"),
    described("release", pa.string(), "data release of that visit"),
    EPOCH,
    described("source_id", pa.int64(), "Gaia source_id of the star; null where unknown", ucd="meta.id"),
)
_CHANCE = "chance that an unchanged star's visits differ as much; null without 20 repeats to learn from"
STARS = pa.schema(
    [
        *_STAR,
        described("visits", pa.int64(), "number of visits", ucd="meta.number"),
        described("first_time", pa.float64(), "time of the first visit, modified Julian date", "d", "time.epoch"),
        described("last_time", pa.float64(), "time of the last visit", "d", "time.epoch"),
        described("time_scale", pa.string(), "time scale of the times"),
        described("kind", pa.string(), "double_lined, line, velocity, or none where nothing is beyond noise"),
        described("what", pa.string(), "what changed, where, by how much and when"),
        described("p_value", pa.float64(), _CHANCE, ucd="stat.probability"),
        described("q_value", pa.float64(), "false-discovery rate of the list that ends here"),
        described("p_velocity", pa.float64(), f"velocities: {_CHANCE}", ucd="stat.probability"),
        described("p_lines", pa.float64(), f"lines and windows: {_CHANCE}", ucd="stat.probability"),
        described("p_second", pa.float64(), f"a second set of lines: {_CHANCE}", ucd="stat.probability"),
        described("rv_variable", pa.bool_(), "whether the velocity varies at p_velocity below 0.01"),
        described("rv_change", pa.float64(), "largest velocity of a visit less that of the compared one", "km/s"),
        described("rv_change_err", pa.float64(), "1 sigma error of rv_change, wavelength calibration included", "km/s"),
        described("window", pa.string(), "line or window that differs most"),
        described("window_width", pa.float64(), "its difference in equivalent width; positive: more flux", "Angstrom"),
        described("window_sigma", pa.float64(), "window_width over its error"),
        described("window_time", pa.float64(), "time of the visit with more flux there", "d", "time.epoch"),
        described("separation", pa.float64(), "of two sets of lines, where kind is double_lined", "km/s"),
        described("share", pa.float64(), "share of the fainter set of lines"),
        described("ra", pa.float64(), "right ascension, ICRS", "deg", "pos.eq.ra;meta.main"),
        described("dec", pa.float64(), "declination, ICRS", "deg", "pos.eq.dec;meta.main"),
    ]
)
VISITS = pa.schema(
    [
        *_STAR[:1],
        described("spec_id", pa.int64(), "key of the visit's spectrum", ucd="meta.id;meta.main"),
        described("release", pa.string(), "data release of the visit"),
        EPOCH,
        _STAR[4],
        described("compared_with", pa.int64(), "key of the visit that the star's others are compared with"),
        described("compared_epoch", pa.int64(), "epoch of that visit; null for a combined spectrum"),
        described("time", pa.float64(), "middle of the observation, modified Julian date", "d", "time.epoch"),
        described("time_scale", pa.string(), "time scale of `time`"),
        described("snr", pa.float32(), "signal to noise a pixel", ucd="stat.snr"),
        described("rv", pa.float64(), "radial velocity: rv_change on the survey's scale; null without", "km/s"),
        described("rv_err", pa.float64(), "1 sigma error of rv from visit to visit", "km/s"),
        described("rv_change", pa.float64(), "velocity less that of the compared visit; 0 there", "km/s"),
        described("survey_rv", pa.float64(), "radial velocity by the survey's pipeline", "km/s"),
        described("p_velocity", pa.float64(), f"velocity: {_CHANCE}", ucd="stat.probability"),
        described("p_lines", pa.float64(), f"lines and windows: {_CHANCE}", ucd="stat.probability"),
        described("p_second", pa.float64(), f"a second set of lines: {_CHANCE}", ucd="stat.probability"),
        described("window", pa.string(), "line or window that differs most"),
        described("window_width", pa.float64(), "its difference in equivalent width; positive: more flux", "Angstrom"),
        described("window_sigma", pa.float64(), "window_width over its error"),
        described("what", pa.string(), "what differs from the compared visit"),
    ]
)
