"""The view `epochs`: one row a visit or exposure, with its star and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from specclip_search.atlas.schemas import EPOCH, described
from specclip_search.surveys import LRS, get_modality

from .label_sources import Catalogue
from .parquet import fields_of, quoted, read_parquet_sql
from .star_views import finite, linked_source_id

EPOCH_FIELDS = (
    described("source_id", pa.int64(), "Gaia source_id of the star; null where unknown", ucd="meta.id"),
    described("uid", pa.string(), "LAMOST's identifier that groups visits of one star", ucd="meta.id"),
    described("modality", pa.string(), "instrument of the spectrum"),
    described("release", pa.string(), "data release the spectrum comes from"),
    described("spec_id", pa.int64(), "key of the spectrum: LAMOST obsid, specObjID, ...", ucd="meta.id;meta.main"),
    EPOCH,
    described("time", pa.float64(), "middle of the observation, modified Julian date", "d", "time.epoch"),
    described("time_scale", pa.string(), "time scale of `time`; LMJD: the night only, at local midnight in UTC"),
    described("frame", pa.string(), "barycentric, rest or observed: what the wavelengths are relative to"),
    described("snr", pa.float32(), "signal to noise a pixel", ucd="stat.snr"),
    described("ra", pa.float64(), "right ascension, ICRS", "deg", "pos.eq.ra;meta.main"),
    described("dec", pa.float64(), "declination, ICRS", "deg", "pos.eq.dec;meta.main"),
)
# local midnight of LAMOST's night in UTC
_MIDNIGHT = "s.lmjd - 8.0 / 24.0"


def epochs_sql(
    spectra: Mapping[str, Sequence[str]], observed: Mapping[str, Sequence[str]], sources: Sequence[Catalogue]
) -> str:
    """A SELECT with one row per spectrum of a visit or exposure, and per combined spectrum.

    Parameters
    ----------
    spectra, observed
        Parquet files of `spectra/<modality>` and `observed/<modality>`; mean spectra, whose key is the star's, are
        left out.
    """
    branches = [
        _branch(modality, files, observed.get(modality, ()), sources)
        for modality, files in sorted(spectra.items())
        if not get_modality(modality).names_stars
    ]
    if not branches:
        columns = ", ".join(f"NULL::{_sql_type(field)} AS {field.name}" for field in EPOCH_FIELDS)
        return f"SELECT {columns} WHERE false"
    return " UNION ALL ".join(branches)


def _branch(modality: str, files: Sequence[str], observed: Sequence[str], sources: Sequence[Catalogue]) -> str:
    there = {field.name for field in fields_of(files[0])}
    star, links = linked_source_id(sources) if modality == LRS else ("s.source_id", "")
    times, scales, joins = [], [], links
    if "time" in there:
        times.append("s.time")
        scales.append("CASE WHEN s.time IS NOT NULL THEN s.time_scale END")
    if observed:
        same = "o.epoch IS NOT DISTINCT FROM s.epoch" if "epoch" in there else "true"
        joins += (
            f" LEFT JOIN {read_parquet_sql(observed)} o ON o.spec_id = s.spec_id"
            f" AND o.release IS NOT DISTINCT FROM s.release AND {same}"
        )
        times.append("o.time")
        scales.append("CASE WHEN o.time IS NOT NULL THEN o.time_scale END")
    if "lmjd" in there:
        times.append(_MIDNIGHT)
        scales.append("CASE WHEN s.lmjd IS NOT NULL THEN 'LMJD' END")
    expressions = {
        "modality": quoted(modality),
        "source_id": star,
        "time": f"coalesce({', '.join(times)})" if times else "NULL",
        "time_scale": f"coalesce({', '.join(scales)})" if scales else "NULL",
        "snr": finite("s.snr"),
        "frame": "s.frame" if "frame" in there else "'barycentric'" if modality == LRS else "NULL",
    }
    chosen = ", ".join(
        f"({expressions.get(f.name, f's.{f.name}' if f.name in there else 'NULL')})::{_sql_type(f)} AS {f.name}"
        for f in EPOCH_FIELDS
    )
    return f"SELECT {chosen} FROM {read_parquet_sql(files)} s {joins}"


def _sql_type(field: pa.Field) -> str:
    return {pa.float64(): "DOUBLE", pa.float32(): "FLOAT", pa.int64(): "BIGINT"}.get(field.type, "VARCHAR")
