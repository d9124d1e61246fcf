"""Where labels of stars come from: catalogues, pipelines within them, and this atlas's own estimates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specclip_search.labels import LABELS
from specclip_search.surveys import get_modality

from ..views.label_sources import Catalogue, catalogues
from ..views.parquet import identifier, read_parquet_sql
from ..views.star_estimates import star_estimates

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

COMPARED = ("teff", "logg", "feh", "alpha_fe", "c_fe", "rv")

# Columns that hold a pipeline's name, as their tables spell them: Gaia DR3 astrophysical_parameters (GSP-Phot,
# GSP-Spec), LAMOST LASP, SEGUE SSPP, and StarHorse, whose metallicity is [M/H] and whose errors are percentiles.
_FORMS: tuple[tuple[str, str], ...] = (
    ("gspphot", r"(?P<q>teff|logg|mh)_gspphot"),
    ("gspspec", r"(?P<q>teff|logg|mh|alphafe)_gspspec"),
    ("lasp", r"(?P<q>teff|logg|feh|rv)_lasp"),
    ("sspp", r"(?P<q>teff|logg|feh|alphafe)_adop|(?P<r>rv)_adop"),
    ("starhorse", r"(?P<q>teff|logg|met)50"),
    ("astronn", r"astronn_(?P<q>teff|logg|fe_h|feh)|(?P<r>teff|logg|fe_h)_astronn"),
    ("galah", r"(?P<q>teff|logg|fe_h|feh|alpha_fe)_galah"),
    ("sp", r"(?P<q>teff|logg|feh|alphafe)_sp"),
    ("rvs", r"(?P<q>teff|logg|feh|alphafe)_rvs"),
)
_QUANTITY = {"mh": "feh", "met": "feh", "fe_h": "feh", "alphafe": "alpha_fe"}


@dataclass(frozen=True, slots=True)
class Source:
    """Labels of one pipeline.

    Attributes
    ----------
    name
        The catalogue's name, with ``.pipeline`` where its columns name one; `xp`, `lrs` for this atlas's estimates.
    relation
        SQL of a relation with columns source_id, or obsid (see `by_obsid`), and the columns below.
    columns
        Label -> SQL expression of its value.
    errors
        Label -> SQL expression of its 1 sigma error, for those that have one.
    by_obsid
        Whether rows are those of LAMOST spectra instead of stars.
    metals
        Whether its `feh` is [M/H] by its own documentation.
    """

    name: str
    relation: str
    columns: dict[str, str]
    errors: dict[str, str]
    by_obsid: bool = False
    metals: bool = False

    def rows(self, label: str, links: str | None) -> str:
        """SELECT of source_id, value and error, one row a star, the mean of what it has."""
        value, error = self.columns[label], self.errors.get(label, "NULL")
        kept = f"{value} IS NOT NULL AND isfinite(({value})::DOUBLE)"
        source = self.relation
        if self.by_obsid:
            if links is None:
                return "SELECT NULL::BIGINT AS source_id, NULL::DOUBLE AS value, NULL::DOUBLE AS error WHERE false"
            star = f"{_with_star(source)} r JOIN {links} l USING (obsid)"
            source = f"(SELECT l.source_id, r.* EXCLUDE (source_id) FROM {star})"
        return (
            f"SELECT source_id, avg(({value})::DOUBLE) AS value, avg(({error})::DOUBLE) AS error FROM {source} "
            f"WHERE source_id IS NOT NULL AND {kept} GROUP BY source_id"
        )


def _with_star(relation: str) -> str:
    """The relation with a column `source_id`, so that it can be left out in any case."""
    return f"(SELECT *, NULL AS source_id FROM {relation})"


def label_sources(atlas: Atlas) -> list[Source]:
    """Every source of labels in an atlas: catalogues in alphabetical order, then its own estimates."""
    found: list[Source] = []
    for catalogue in catalogues(atlas):
        found += _of_catalogue(catalogue)
    modalities = atlas.modalities()
    for one in star_estimates(atlas, atlas.active_model, modalities):
        names = {field.name for field in one.columns.values()}
        short = get_modality(one.modality).short
        values = {label: f"{label}_{short}" for label in COMPARED if f"{label}_{short}" in names}
        errors = {label: f"{label}_{short}_err" for label in values if f"{label}_{short}_err" in names}
        found.append(Source(short, "stars", values, errors))
    return [source for source in found if source.columns]


def _of_catalogue(catalogue: Catalogue) -> list[Source]:
    keys = catalogue.columns & {"source_id", "obsid"}
    if not keys:
        return []
    by_obsid = "source_id" not in keys
    relation = f"(SELECT * FROM {read_parquet_sql(catalogue.files)})"
    result = []
    standard = {label: identifier(label) for label in COMPARED if label in catalogue.labels}
    if standard:
        errors = {name: identifier(f"{name}_err") for name in standard if f"{name}_err" in catalogue.labels}
        result.append(Source(catalogue.name, relation, standard, errors, by_obsid))
    pipelines: dict[str, tuple[dict[str, str], dict[str, str], bool]] = {}
    for column in sorted(catalogue.columns):
        pipeline, quantity = pipeline_of(column)
        if pipeline is None:
            continue
        label = _QUANTITY.get(quantity, quantity)
        values, errors, metals = pipelines.get(pipeline, ({}, {}, False))
        values[label] = identifier(column)
        spread = _error_of(column, catalogue.columns)
        if spread is not None:
            errors[label] = spread
        pipelines[pipeline] = values, errors, metals or quantity in ("mh", "met")
    for pipeline, (values, errors, metals) in pipelines.items():
        name = f"{catalogue.name}.{pipeline}" if standard or len(pipelines) > 1 else catalogue.name
        result.append(Source(name, relation, values, errors, by_obsid, metals))
    return result


def pipeline_of(column: str) -> tuple[str | None, str]:
    """Pipeline and quantity that a column's name stands for; (None, "") for other columns.

    >>> pipeline_of("mh_gspphot"), pipeline_of("teff50"), pipeline_of("teff")
    (('gspphot', 'mh'), ('starhorse', 'teff'), (None, ''))
    """
    for pipeline, form in _FORMS:
        found = re.fullmatch(form, column)
        if found is not None:
            groups = found.groupdict()
            return pipeline, groups["q"] or groups.get("r") or ""
    return None, ""


def _error_of(column: str, columns: frozenset[str]) -> str | None:
    """SQL of the error that belongs to a pipeline's column: its own, or half of its percentiles' distance."""
    for form in ("{0}_err", "{0}_error", "e_{0}", "{0}_unc"):
        if form.format(column) in columns:
            return identifier(form.format(column))
    for low, high in ((f"{column}_lower", f"{column}_upper"), (column.replace("50", "16"), column.replace("50", "84"))):
        if low != column and {low, high} <= columns:
            return f"(({identifier(high)} - {identifier(low)}) / 2)"
    return None


def unit_of(label: str) -> str:
    """Unit of a label; empty for dex."""
    unit = next(known.unit for known in LABELS if known.name == label)
    return "" if unit == "dex" else unit


def aligned_sql(sources: Sequence[Source], label: str, links: str | None, by: str | None) -> str:
    """SELECT of source_id, v0, e0, v1, e1, ... and `by`, for the stars of two sources or more."""
    parts = [f"(SELECT source_id, value AS v{i}, error AS e{i} FROM ({source.rows(label, links)}))"
             for i, source in enumerate(sources)]
    joined = " FULL JOIN ".join(f"{part} p{i}" + (" USING (source_id)" if i else "") for i, part in enumerate(parts))
    count = " + ".join(f"(v{i} IS NOT NULL)::INTEGER" for i in range(len(sources)))
    columns = ", ".join(f"v{i}, e{i}" for i in range(len(sources)))
    several = f"(SELECT source_id, {columns} FROM {joined} WHERE {count} >= 2)"
    if by is None:
        return f"SELECT * FROM {several} ORDER BY source_id"
    star = f"(SELECT source_id, any_value(({by})::DOUBLE) AS by_value FROM stars GROUP BY source_id)"
    return f"SELECT m.*, s.by_value FROM {several} m LEFT JOIN {star} s USING (source_id) ORDER BY source_id"
