"""SQL and columns of the views `spectra` (one row per spectrum) and `stars` (one row per star).

Columns carry units and descriptions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from specclip_search.atlas.schemas import described
from specclip_search.surveys import LRS, XP

from .label_sources import Catalogue, label_fields, label_joins
from .parquet import quoted, read_parquet_sql
from .star_estimates import Estimates

_POSITION = [
    described(
        "ra",
        pa.float64(),
        "right ascension, ICRS; the spectrum's own, else a catalogue's",
        "deg",
        "pos.eq.ra;meta.main",
    ),
    described(
        "dec", pa.float64(), "declination, ICRS; the spectrum's own, else a catalogue's", "deg", "pos.eq.dec;meta.main"
    ),
]
_LABEL_SOURCE = described("label_source", pa.string(), "catalogue that the first of teff, logg and feh comes from")
_SPECTRUM_FIELDS = [
    described("modality", pa.string(), "instrument of the spectrum"),
    described("release", pa.string(), "data release the spectrum comes from"),
    described("spec_id", pa.int64(), "key of the spectrum: LAMOST obsid or Gaia source_id", ucd="meta.id;meta.main"),
    described("source_id", pa.int64(), "Gaia source_id of the star; null where unknown", ucd="meta.id"),
    *_POSITION,
    described("snr", pa.float32(), "signal to noise a pixel: LRS g band, XP median", ucd="stat.snr"),
    described("simulated", pa.bool_(), "true where the spectrum is simulated, not observed"),
]
STAR_FIELDS = [
    described("source_id", pa.int64(), "Gaia source_id of the star; null where unknown", ucd="meta.id;meta.main"),
    described("gaia_spec_id", pa.int64(), "its Gaia XP spectrum; null where there is none", ucd="meta.id"),
    described(
        "lamost_spec_id", pa.int64(), "its best LAMOST spectrum: observed before simulated, then by S/N", ucd="meta.id"
    ),
    described("lamost_release", pa.string(), "data release of the best LAMOST spectrum"),
    described("n_lamost", pa.int64(), "number of its LAMOST spectra", ucd="meta.number"),
    *_POSITION,
    described("snr_lrs", pa.float32(), "signal to noise of the best LAMOST spectrum, g band", ucd="stat.snr"),
    described("snr_xp", pa.float32(), "signal to noise of the XP spectrum, median", ucd="stat.snr"),
    described("simulated_lrs", pa.bool_(), "true where the best LAMOST spectrum is simulated"),
    described("simulated_xp", pa.bool_(), "true where the XP spectrum is simulated"),
]


@dataclass(frozen=True)
class Scores:
    """A result with a score for each star, and its column names in `stars`."""

    files: tuple[str, ...]
    columns: Mapping[str, pa.Field]


def spectra_fields(sources: Sequence[Catalogue]) -> list[pa.Field]:
    """Columns of `spectra`."""
    labels = label_fields(sources)
    return [*_SPECTRUM_FIELDS, *labels, *([_LABEL_SOURCE] if labels else [])]


def star_fields(
    sources: Sequence[Catalogue], scores: Sequence[Scores], estimates: Sequence[Estimates] = ()
) -> list[pa.Field]:
    """Columns of `stars`."""
    labels = label_fields(sources)
    return [
        *STAR_FIELDS,
        *labels,
        *([_LABEL_SOURCE] if labels else []),
        *(field for estimate in estimates for field in estimate.columns.values()),
        *(field for score in scores for field in score.columns.values()),
    ]


def spectra_sql(
    files: Mapping[str, Sequence[str]],
    sources: Sequence[Catalogue],
    wanted: Collection[str] | None = None,
    numbered: bool = False,
    epochs: bool = False,
) -> str:
    """A SELECT with one row per spectrum.

    Parameters
    ----------
    files
        Parquet files of spectra by modality.
    wanted
        Columns that will be read; by default all. Others are neither joined nor read, and are
        present as null.
    numbered
        Add `_file`, the index of the file among those of its instrument, and `_file_row`.
    epochs
        Add `epoch`; for instruments that have it.
    """
    fields = spectra_fields(sources)
    needed = {field.name for field in fields} if wanted is None else set(wanted)
    return " UNION ALL ".join(
        _branch(modality, parts, sources, fields, needed, numbered, epochs) for modality, parts in sorted(files.items())
    )


def _branch(
    modality: str,
    parts: Sequence[str],
    sources: Sequence[Catalogue],
    fields: Sequence[pa.Field],
    needed: set[str],
    numbered: bool,
    epochs: bool,
) -> str:
    star, links = linked_source_id(sources) if modality == LRS else ("s.source_id", "")
    wanted_labels = needed - {"ra", "dec"} if not needed & {"ra", "dec"} else needed
    if not needs_star(needed):
        star, links = "s.source_id", ""
    obsid = "CASE WHEN NOT s.simulated THEN s.spec_id END" if modality == LRS else None
    joins = label_joins(sources, star, obsid, wanted_labels)
    expressions = {
        "modality": quoted(modality),
        "source_id": star,
        "label_source": joins.source,
        **joins.label,
        **{name: f"coalesce(s.{name}, {others})" for name, others in joins.position.items()},
        **{name: f"s.{name}" for name in ("release", "spec_id", "simulated")},
        "snr": finite("s.snr"),
    }
    chosen = ", ".join(f"{_expression(field, expressions, needed)} AS {field.name}" for field in fields)
    chosen += ", s.file_index AS _file, s.file_row_number AS _file_row" if numbered else ""
    chosen += ", s.epoch" if epochs else ""
    return f"SELECT {chosen} FROM {read_parquet_sql(parts)} s {links} {joins.sql}"


def finite(column: str) -> str:
    """The column with NaN and infinities as null.

    NaN is the largest number in SQL, so `snr > 50` would include it. Because Parquet's
    statistics ignore NaN, DuckDB may evaluate `isnan(column)` as false from them. The sum
    prevents this.
    """
    return f"CASE WHEN isfinite({column} + 0.0) THEN {column} END"


def needs_star(needed: Collection[str]) -> bool:
    """Whether any of these columns of `spectra` comes from catalogues."""
    return bool(set(needed) - {"modality", "release", "spec_id", "snr", "simulated"})


def _expression(field: pa.Field, expressions: Mapping[str, str], needed: Collection[str]) -> str:
    if field.name in ("ra", "dec") and field.name in needed:
        return expressions.get(field.name, f"s.{field.name}")
    if field.name in expressions and (field.name in needed or field.name in ("modality", "release", "spec_id")):
        return expressions[field.name]
    kind = {pa.float64(): "DOUBLE", pa.float32(): "FLOAT", pa.int64(): "BIGINT", pa.bool_(): "BOOLEAN"}.get(
        field.type, "VARCHAR"
    )
    return f"NULL::{kind}"


def linked_source_id(sources: Sequence[Catalogue], row: str = "s", prefix: str = "l") -> tuple[str, str]:
    """Expression of a LAMOST spectrum's star, and the joins it needs.

    The spectrum's own source_id takes precedence over catalogues with both obsid and source_id.
    """
    linking = [source for source in sources if {"obsid", "source_id"} <= source.columns]
    if not linking:
        return f"{row}.source_id", ""
    joins = " ".join(
        f"LEFT JOIN {source.links()} {prefix}{i} ON {prefix}{i}.obsid = {row}.spec_id AND NOT {row}.simulated"
        for i, source in enumerate(linking)
    )
    linked = ", ".join(f"{prefix}{i}.source_id" for i in range(len(linking)))
    checked = next((source for source in linking if source.checked), None)
    if checked is None:
        return f"coalesce({row}.source_id, {linked})", joins
    refused = f"(SELECT DISTINCT obsid FROM {read_parquet_sql(checked.files)} WHERE conflict)"
    joins += f" LEFT JOIN {refused} {prefix}x ON {prefix}x.obsid = {row}.spec_id"
    return f"coalesce({row}.source_id, CASE WHEN {prefix}x.obsid IS NULL THEN coalesce({linked}) END)", joins


def stars_sql(
    files: Mapping[str, Sequence[str]],
    sources: Sequence[Catalogue],
    scores: Sequence[Scores],
    estimates: Sequence[Estimates] = (),
) -> str:
    """A SELECT with one row per star with a spectrum.

    A LAMOST spectrum with an unknown star counts as a separate star, together with others with
    the same `uid`.
    """
    fields = star_fields(sources, scores, estimates)
    wanted = {field.name for field in fields}
    joins = label_joins(sources, "k.source_id", "CASE WHEN NOT k.simulated_lrs THEN k.lamost_spec_id END", wanted)
    expressions = {
        **joins.label,
        "label_source": joins.source,
        **{name: f"coalesce(k.{name}, {others})" for name, others in joins.position.items()},
    }
    score_joins = []
    for i, score in enumerate(scores):
        columns = ", ".join(
            f"arg_max_null({column}, ({_first_value(score)}, {_tie(score)})) AS {field.name}"
            for column, field in score.columns.items()
        )
        score_joins.append(
            f"LEFT JOIN (SELECT source_id, {columns} FROM {read_parquet_sql(score.files)} "
            f"WHERE source_id IS NOT NULL GROUP BY source_id) r{i} ON r{i}.source_id = k.source_id"
        )
        expressions |= {field.name: f"r{i}.{field.name}" for field in score.columns.values()}
    for i, estimate in enumerate(estimates):
        score_joins.append(estimate.join(f"e{i}"))
        expressions |= {field.name: f"e{i}.{column}" for column, field in estimate.columns.items()}
    own = {field.name for field in STAR_FIELDS}
    chosen = ", ".join(
        f"{expressions.get(field.name, f'k.{field.name}' if field.name in own else 'NULL::DOUBLE')} AS {field.name}"
        for field in fields
    )
    return f"SELECT {chosen} FROM ({_star_keys(files, sources)}) k {joins.sql} {' '.join(score_joins)}"


def _first_value(score: Scores) -> str:
    return next(iter(score.columns))


def _tie(score: Scores) -> str:
    # file numbers are unsigned in DuckDB: negating them would overflow
    return "-(file_index::BIGINT), -file_row_number"


def _star_keys(files: Mapping[str, Sequence[str]], sources: Sequence[Catalogue]) -> str:
    """Stars of all instruments, with the spectra of the pair of each; every column of `STAR_FIELDS`."""
    xp = _xp_stars(files[XP]) if files.get(XP) else _none_of(_XP_COLUMNS)
    lrs = _lrs_stars(files[LRS], sources) if files.get(LRS) else _none_of(_LRS_COLUMNS)
    keys = (
        f"SELECT coalesce(x.source_id, l.source_id) AS source_id, x.gaia_spec_id, l.lamost_spec_id, l.lamost_release, "
        "coalesce(l.n_lamost, 0) AS n_lamost, coalesce(x.ra, l.ra) AS ra, coalesce(x.dec, l.dec) AS dec, "
        "l.snr_lrs, x.snr_xp, l.simulated_lrs, x.simulated_xp, x.gaia_release "
        f"FROM ({xp}) x FULL JOIN ({lrs}) l ON x.source_id = l.source_id"
    )
    further = [parts for name, parts in sorted(files.items()) if name not in (LRS, XP) and parts]
    if not further:
        return keys
    return (
        f"SELECT k.* REPLACE (coalesce(k.source_id, o.source_id) AS source_id, coalesce(k.n_lamost, 0) AS n_lamost, "
        f"coalesce(k.ra, o.ra) AS ra, coalesce(k.dec, o.dec) AS dec) "
        f"FROM ({keys}) k FULL JOIN ({_further_stars(further)}) o ON k.source_id = o.source_id"
    )


def _further_stars(files: Sequence[Sequence[str]]) -> str:
    """Stars of instruments beyond the pair, whose spectra name them; shards by instrument."""
    rows = " UNION ALL ".join(f"SELECT source_id, ra, dec FROM {read_parquet_sql(parts)}" for parts in files)
    return (
        f"SELECT source_id, any_value(ra) AS ra, any_value(dec) AS dec FROM ({rows}) "
        "WHERE source_id IS NOT NULL GROUP BY source_id"
    )


_XP_COLUMNS = {
    "source_id": "BIGINT",
    "gaia_spec_id": "BIGINT",
    "gaia_release": "VARCHAR",
    "ra": "DOUBLE",
    "dec": "DOUBLE",
    "snr_xp": "FLOAT",
    "simulated_xp": "BOOLEAN",
}
_LRS_COLUMNS = {
    "source_id": "BIGINT",
    "lamost_spec_id": "BIGINT",
    "lamost_release": "VARCHAR",
    "n_lamost": "BIGINT",
    "ra": "DOUBLE",
    "dec": "DOUBLE",
    "snr_lrs": "FLOAT",
    "simulated_lrs": "BOOLEAN",
}


def _none_of(columns: Mapping[str, str]) -> str:
    return "SELECT " + ", ".join(f"NULL::{kind} AS {name}" for name, kind in columns.items()) + " LIMIT 0"


def _xp_stars(files: Sequence[str]) -> str:
    best = "(NOT simulated, release, spec_id)"
    return (
        f"SELECT coalesce(source_id, spec_id) AS source_id, arg_max(spec_id, {best}) AS gaia_spec_id, "
        f"arg_max(release, {best}) AS gaia_release, "
        f"arg_max_null(ra, {best}) AS ra, arg_max_null(dec, {best}) AS dec, "
        f"arg_max_null({finite('snr')}, {best}) AS snr_xp, "
        f"arg_max(simulated, {best}) AS simulated_xp FROM {read_parquet_sql(files)} "
        "GROUP BY coalesce(source_id, spec_id)"
    )


def _lrs_stars(files: Sequence[str], sources: Sequence[Catalogue]) -> str:
    star, links = linked_source_id(sources)
    rows = (
        f"SELECT s.spec_id, s.release, s.ra, s.dec, {finite('s.snr')} AS snr, s.simulated, {star} AS source_id, "
        f"CASE WHEN {star} IS NULL THEN coalesce(s.uid, s.release || ':' || s.spec_id) END AS alone, "
        f"(NOT s.simulated, coalesce({finite('s.snr')}, -1), s.release, s.spec_id) AS rank "
        f"FROM {read_parquet_sql(files)} s {links}"
    )
    return (
        "SELECT source_id, arg_max(spec_id, rank) AS lamost_spec_id, arg_max_null(release, rank) AS lamost_release, "
        "count(*) AS n_lamost, arg_max_null(ra, rank) AS ra, arg_max_null(dec, rank) AS dec, "
        f"arg_max_null(snr, rank) AS snr_lrs, arg_max(simulated, rank) AS simulated_lrs "
        f"FROM ({rows}) GROUP BY source_id, alone"
    )
