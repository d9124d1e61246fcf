"""Catalogues with labels of stars or spectra, and the SQL that joins them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from specclip_search.atlas.links import LINKS
from specclip_search.catalogs.ingest import read_manifest
from specclip_search.catalogs.names import is_reserved
from specclip_search.labels import KNOWN, LABEL_NAMES

from .parquet import fields_of, identifier, quoted, read_parquet_sql

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

MAIN_LABELS = ("teff", "logg", "feh")


@dataclass(frozen=True)
class Catalogue:
    """A finished catalogue: its files, columns and keys.

    Attributes
    ----------
    unique
        Keys without repeated values, so that a join needs no grouping.
    """

    name: str
    files: tuple[str, ...]
    fields: tuple[pa.Field, ...]
    unique: frozenset[str]

    @cached_property
    def columns(self) -> frozenset[str]:
        return frozenset(field.name for field in self.fields)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Names of its numeric label columns."""
        return tuple(
            field.name
            for field in self.fields
            if field.name in LABEL_NAMES and (pa.types.is_floating(field.type) or pa.types.is_integer(field.type))
        )

    @property
    def checked(self) -> bool:
        """Whether it tells of which spectra the position disagrees with the star that a catalogue gives."""
        return self.name == LINKS and any(f.name == "conflict" and pa.types.is_boolean(f.type) for f in self.fields)

    @property
    def positions(self) -> tuple[str, ...]:
        """`ra`, `dec` if both are numeric."""
        have = [f.name for f in self.fields if f.name in ("ra", "dec") and pa.types.is_floating(f.type)]
        return ("ra", "dec") if len(have) == 2 else ()

    def by_key(self, key: str, wanted: Collection[str]) -> str:
        """A subquery with one row per value of `key`, the first in the file if repeated."""
        columns = [name for name in (*self.labels, *self.positions) if name in wanted]
        source = read_parquet_sql(self.files)
        if key in self.unique:
            chosen = ", ".join(identifier(name) for name in (key, *columns))
            return f"(SELECT {chosen} FROM {source} WHERE {key} IS NOT NULL)"
        first = "".join(
            f", arg_min_null({identifier(name)}, (file_index, file_row_number)) AS {identifier(name)}"
            for name in columns
        )
        return f"(SELECT {key}{first} FROM {source} WHERE {key} IS NOT NULL GROUP BY {key})"

    def links(self) -> str:
        """A subquery obsid -> source_id; an obsid with two different stars is not linked."""
        return (
            f"(SELECT obsid, min(source_id) AS source_id FROM {read_parquet_sql(self.files)} "
            "WHERE obsid IS NOT NULL AND source_id IS NOT NULL GROUP BY obsid "
            "HAVING min(source_id) = max(source_id))"
        )


def catalogues(atlas: Atlas) -> list[Catalogue]:
    """Finished catalogues in alphabetical order; incomplete ones are left out."""
    return [found for name in catalogue_names(atlas) if (found := open_catalogue(atlas, name)) is not None]


def catalogue_names(atlas: Atlas) -> list[str]:
    """Names of catalogues that can be views; only an atlas from elsewhere can have others, which `doctor` names."""
    return [name for name in atlas.catalogs() if not is_reserved(name)]


def open_catalogue(atlas: Atlas, name: str) -> Catalogue | None:
    """A finished catalogue; None where its ingest was not finished.

    Raises
    ------
    AtlasError
        If a shard of it is missing or damaged.
    """
    stage = atlas.catalog(name)
    manifest = read_manifest(stage)
    files = stage.paths()
    if manifest is None or not files or (len(files) != len(manifest["parts"]) and stage.partial is None):
        return None
    fields = tuple(fields_of(files[0]))
    repeated = manifest["report"]["repeated_ids"]
    unique = frozenset(key for key in manifest["report"]["keys"] if not repeated.get(key))
    return Catalogue(name, tuple(files), fields, unique)


def label_fields(sources: Sequence[Catalogue]) -> list[pa.Field]:
    """Fields of all labels in any of the catalogues, in standard order."""
    have = {name for source in sources if source.columns & {"source_id", "obsid"} for name in source.labels}
    fields = []
    for name in LABEL_NAMES:
        if name in have:
            label = KNOWN[name]
            text = {"description": label.description, "unit": label.unit, "ucd": label.ucd}
            fields.append(pa.field(name, pa.float64(), metadata={k: v for k, v in text.items() if v}))
    return fields


@dataclass(frozen=True, slots=True)
class LabelJoins:
    """Joins of labels to rows, and the expressions over them.

    Attributes
    ----------
    sql
        `LEFT JOIN ... LEFT JOIN ...`, or nothing.
    label
        Expression by label name.
    position
        Expressions for `ra` and `dec` if the row has none, by name.
    source
        Expression for the name of the catalogue the first of teff, logg, feh came from.
    """

    sql: str
    label: dict[str, str]
    position: dict[str, str]
    source: str


def sides_of(sources: Sequence[Catalogue], spectra: bool, wanted: Collection[str]) -> list[tuple[Catalogue, str]]:
    """Catalogues that tell something of `wanted`, in order, each with the key by which it does.

    A catalogue's label of a spectrum itself (`obsid`, where `spectra`) comes before that of its star.
    """
    needed = _with_base_labels(wanted)
    keys = ("obsid", "source_id") if spectra else ("source_id",)
    return [
        (source, key)
        for source in sources
        if needed & {*source.labels, *source.positions}
        for key in keys
        if key in source.columns
    ]


def label_joins(
    sources: Sequence[Catalogue],
    star: str,
    spectrum: str | None,
    wanted: Collection[str],
) -> LabelJoins:
    """Join every catalogue that has one of the requested columns.

    Parameters
    ----------
    star
        SQL expression of the row's source_id.
    spectrum
        SQL expression of the row's obsid, None if it has none. A catalogue's label of the
        spectrum itself takes precedence over that of the star.
    wanted
        Columns that will be read; catalogues without any of them are not joined.
    """
    needed = _with_base_labels(wanted)
    joins: list[str] = []
    sides: list[tuple[str, Catalogue]] = []
    for source, key in sides_of(sources, spectrum is not None, wanted):
        alias = f"c{len(sides)}"
        joins.append(f"LEFT JOIN {source.by_key(key, needed)} {alias} ON {alias}.{key} = "
                     f"{spectrum if key == 'obsid' else star}")
        sides.append((alias, source))
    label = {}
    for name in LABEL_NAMES:
        expression = _coalesced(name, sides) if name in wanted else None
        if expression:
            label[name] = expression
    position = {}
    for name in ("ra", "dec"):
        parts = [f"{alias}.{name}" for alias, source in sides if source.positions]
        if parts and name in wanted:
            position[name] = ", ".join(parts)
    return LabelJoins(" ".join(joins), label, position, _origin(sides))


def _with_base_labels(wanted: Collection[str]) -> set[str]:
    """An error is taken from the same catalogue as its value, so both are read."""
    needed = {*wanted, *(name.removesuffix("_err") for name in wanted if name.endswith("_err"))}
    return needed | set(MAIN_LABELS) if "label_source" in wanted else needed


def _coalesced(name: str, sides: Sequence[tuple[str, Catalogue]]) -> str | None:
    base = name.removesuffix("_err")
    having = [(alias, source) for alias, source in sides if name in source.labels]
    if not having:
        return None
    if base == name:
        return "coalesce(" + ", ".join(f"{alias}.{name}" for alias, _ in having) + ")::DOUBLE"
    cases = " ".join(
        f"WHEN {alias}.{base} IS NOT NULL THEN {f'{alias}.{name}' if name in source.labels else 'NULL'}"
        for alias, source in sides
        if base in source.labels
    )
    return f"(CASE {cases} END)::DOUBLE" if cases else f"({having[0][0]}.{name})::DOUBLE"


def _origin(sides: Sequence[tuple[str, Catalogue]]) -> str:
    cases = []
    for alias, source in sides:
        main = [f"{alias}.{name}" for name in MAIN_LABELS if name in source.labels]
        if main:
            cases.append(f"WHEN coalesce({', '.join(main)}) IS NOT NULL THEN {quoted(source.name)}")
    return f"CASE {' '.join(cases)} END" if cases else "NULL::VARCHAR"
