"""The views of an atlas: their files, SQL and columns with descriptions. No data are read to create them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from specclip_search.atlas.schemas import described
from specclip_search.catalogs.names import WHOLE_ATLAS, result_view, stage_view
from specclip_search.errors import AtlasError

from .epoch_view import EPOCH_FIELDS, epochs_sql
from .label_sources import Catalogue, catalogue_names, catalogues, open_catalogue
from .parquet import fields_of, identifier, meaning, quoted, read_parquet_sql
from .star_estimates import Estimates, star_estimates
from .star_views import Scores, spectra_fields, spectra_sql, star_fields, stars_sql

if TYPE_CHECKING:
    import duckdb

    from specclip_search.atlas import Atlas, Stage

# column of a result -> its name in `stars`; the first one selects the best row
_SCORES = {
    "anomalies": {
        "score": described("anomaly_score", pa.float64(), "anomaly score; high is odd"),
        "p_value": described(
            "anomaly_p_value", pa.float64(), "chance that a normal star scores as high", ucd="stat.probability"
        ),
        "q_value": described("anomaly_q_value", pa.float64(), "false-discovery rate of the list that ends here"),
        "kind": described("anomaly_kind", pa.string(), "likely kind: astrophysical, instrumental or wrong_match"),
        "reason": described("anomaly_reason", pa.string(), "why, in words"),
    },
    "emp": {
        "probability": described(
            "emp_probability", pa.float64(), "probability of being extremely metal-poor", ucd="stat.probability"
        ),
        "feh": described("emp_feh", pa.float64(), "[Fe/H] by labelled neighbours", "dex", "phys.abund.Fe"),
        "feh_err": described("emp_feh_err", pa.float64(), "1 sigma error of emp_feh", "dex"),
    },
}
_MADE_BY = {
    "estimates": "estimate",
    "translations": "translate",
    "anomalies": "anomalies",
    "emp": "emp",
    "neighbours": "index neighbours",
}


@dataclass(frozen=True)
class View:
    """A view: its SELECT and its columns, both evaluated on demand."""

    name: str
    description: str
    select: Callable[[], str]
    fields: Callable[[], Sequence[pa.Field]]


class AtlasViews:
    """The views of one atlas at one moment, by name."""

    def __init__(self, atlas: Atlas) -> None:
        self.atlas = atlas

    @cached_property
    def catalogues(self) -> list[Catalogue]:
        return catalogues(self.atlas)

    @cached_property
    def spectra_files(self) -> dict[str, list[str]]:
        """Parquet files of spectra by modality."""
        stages = {name: self.atlas.spectra(name).paths() for name in self.atlas.modalities()}
        return {name: files for name, files in stages.items() if files}

    @cached_property
    def all(self) -> dict[str, View]:
        """All views, stars first, catalogues last."""
        views = [*self._whole_atlas(), *self._stages(), *self._catalogues()]
        found: dict[str, View] = {}
        for view in views:
            # a later one must not take the place of an earlier one, whatever the folders of an atlas are called
            found.setdefault(view.name, view)
        return found

    def _whole_atlas(self) -> list[View]:
        if not any(_is_there(self.atlas.spectra(name)) for name in self.atlas.modalities()):
            return []
        return [
            View(
                WHOLE_ATLAS[0],
                "one row a star: both spectra's keys, position, S/N, labels, estimates, scores",
                lambda: stars_sql(self.spectra_files, self.catalogues, self.scores, self.estimates),
                lambda: star_fields(self.catalogues, self.scores, self.estimates),
            ),
            View(
                WHOLE_ATLAS[1],
                "one row a spectrum of any instrument, with labels",
                lambda: spectra_sql(self.spectra_files, self.catalogues),
                lambda: spectra_fields(self.catalogues),
            ),
            View(
                WHOLE_ATLAS[2],
                "one row a visit or exposure, with its star and time",
                lambda: epochs_sql(self.spectra_files, self._observed_files(), self.catalogues),
                lambda: EPOCH_FIELDS,
            ),
        ]

    def _observed_files(self) -> dict[str, list[str]]:
        return {name: self.atlas.observed(name).paths() for name in self.atlas.observed_names()}

    def _stages(self) -> list[View]:
        atlas = self.atlas
        modalities, model = atlas.modalities(), atlas.active_model
        found = [
            (stage_view("spectra", name), atlas.spectra(name), f"{name} spectra on the model's grid")
            for name in modalities
        ]
        found += [
            (stage_view("observed", name), atlas.observed(name), f"{name} spectra as observed, full range")
            for name in atlas.observed_names()
        ]
        if model is not None:
            for name in modalities:
                stage = atlas.vectors(model, name)
                found.append((stage_view("vectors", name), stage, f"{name} vectors of '{model}'"))
                stage = atlas.estimates(name, model)
                found.append((stage_view("estimates", name), stage, f"{name} labels by '{model}'"))
            found.append(("translations", atlas.translations(model), f"translations of '{model}'"))
        found += [(result_view(name), atlas.results(name), f"result '{name}'") for name in atlas.result_names()]
        found += [
            (stage_view("rejected", name), atlas.rejected(name), f"{name} files rejected, with reasons")
            for name in atlas.rejected_names()
        ]
        views = [self._parquet_view(name, stage.paths, text) for name, stage, text in found if _is_there(stage)]
        return [*views, *(self._neighbours(model) if model is not None else [])]

    def _catalogues(self) -> list[View]:
        """Views of catalogues; that a shard of one is missing is said where its view is made."""
        found = []
        for name in catalogue_names(self.atlas):
            try:
                if open_catalogue(self.atlas, name) is None:
                    continue
            except AtlasError:
                pass
            found.append(self._parquet_view(name, self.atlas.catalog(name).paths, f"catalogue '{name}'"))
        return found

    def _neighbours(self, model: str) -> list[View]:
        """One view over the neighbour graphs of all instruments."""
        root = self.atlas.path / "results" / "neighbours" / model
        graphs = {
            name: self.atlas.stage(root / name, f"neighbours of {name} vectors of '{model}'")
            for name in self.atlas.modalities()
        }
        graphs = {name: stage for name, stage in graphs.items() if _is_there(stage)}
        if not graphs:
            return []

        def fields() -> list[pa.Field]:
            return [
                described("modality", pa.string(), "instrument of the spectra"),
                *fields_of(next(iter(graphs.values())).paths()[0]),
            ]

        def select() -> str:
            return " UNION ALL BY NAME ".join(
                f"SELECT {quoted(name)} AS modality, * FROM {read_parquet_sql(stage.paths())}"
                for name, stage in graphs.items()
            )

        return [View("neighbours", f"nearest spectra of each spectrum, by '{model}'", select, fields)]

    def _parquet_view(self, name: str, paths: Callable[[], list[str]], description: str) -> View:
        def fields() -> list[pa.Field]:
            return fields_of(paths()[0])

        def select() -> str:
            return f"SELECT *{_fixed_arrays(fields())} FROM {read_parquet_sql(paths())}"

        return View(name, description, select, fields)

    @cached_property
    def scores(self) -> list[Scores]:
        """Results that have a score for each star."""
        found = []
        for name, columns in _SCORES.items():
            files = self.atlas.results(name).paths()
            have = {field.name for field in fields_of(files[0])} if files else set()
            if "source_id" in have and next(iter(columns)) in have:
                found.append(
                    Scores(tuple(files), {column: field for column, field in columns.items() if column in have})
                )
        return found

    @cached_property
    def estimates(self) -> list[Estimates]:
        """Labels estimated from the spectra of each star."""
        return star_estimates(self.atlas, self.atlas.active_model, list(self.spectra_files))

    def create(self, connection: duckdb.DuckDBPyConnection, names: Sequence[str] | None = None) -> None:
        """Create all or the named views, with a comment on each column that has a description.

        Raises
        ------
        AtlasError
            If shards that a view stands over are missing or damaged.
        """
        for name in self.all if names is None else names:
            view = self.all[name]
            known = identifier(name)
            connection.execute(f"CREATE OR REPLACE VIEW {known} AS {view.select()}")
            connection.execute(f"COMMENT ON VIEW {known} IS {quoted(view.description)}")
            for field in view.fields():
                if text := meaning(field):
                    connection.execute(f"COMMENT ON COLUMN {known}.{identifier(field.name)} IS {quoted(text)}")

    def create_if_whole(self, connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
        """Create views; where one stands over missing or damaged shards, whoever reads it is told so."""
        for name in names:
            try:
                self.create(connection, [name])
            except AtlasError as error:
                known, why = identifier(name), quoted(f"{error.message} {error.hint}")
                connection.execute(f"CREATE OR REPLACE VIEW {known} AS SELECT error({why}) AS cannot_be_read")
                connection.execute(f"COMMENT ON VIEW {known} IS {quoted(f'cannot be read: {error.message}')}")

    def meanings(self) -> dict[str, pa.Field]:
        """Fields by column name, for names with the same meaning in all views."""
        known: dict[str, pa.Field] = {}
        unsure = set()
        for view in self.all.values():
            try:
                fields = view.fields()
            except AtlasError:
                # a view that the statement did not read; of the two over the whole atlas, what needs no damaged part
                fields = []
                if view.name == WHOLE_ATLAS[0]:
                    fields = star_fields(self._whole_catalogues(), [])
                elif view.name == WHOLE_ATLAS[1]:
                    fields = spectra_fields(self._whole_catalogues())
            for field in fields:
                before = known.setdefault(field.name, field)
                if _unit(before) != _unit(field):
                    unsure.add(field.name)
        return {name: field for name, field in known.items() if name not in unsure and field.metadata}

    def _whole_catalogues(self) -> list[Catalogue]:
        """Catalogues of which nothing is missing or damaged."""
        found = []
        for name in catalogue_names(self.atlas):
            with suppress(AtlasError):
                if (catalogue := open_catalogue(self.atlas, name)) is not None:
                    found.append(catalogue)
        return found

    def missing_hint(self) -> str:
        """Available views, and the commands that create the missing ones."""
        hint = (
            f"There are: {', '.join(self.all)}."
            if self.all
            else "The atlas is empty; `specclip-search ingest` fills it."
        )
        absent = [
            f"{name} (`specclip-search {command}`)"
            for name, command in _MADE_BY.items()
            if not any(view.startswith(name) for view in self.all)
        ]
        return hint + (f" Not made yet: {', '.join(absent)}." if absent and self.all else "")


def _is_there(stage: Stage) -> bool:
    """Whether a view stands over a stage: also where its shards are missing, unless answers are allowed without."""
    return stage.exists and (stage.partial is None or bool(stage.paths()))


def _fixed_arrays(fields: Sequence[pa.Field]) -> str:
    """Cast vectors and spectra, which DuckDB reads as lists, to fixed-length arrays, as distances require."""
    casts = [
        f"{identifier(field.name)}::FLOAT[{field.type.list_size}] AS {identifier(field.name)}"
        for field in fields
        if pa.types.is_fixed_size_list(field.type) and pa.types.is_floating(field.type.value_type)
    ]
    return f" REPLACE ({', '.join(casts)})" if casts else ""


def _unit(field: pa.Field) -> bytes:
    return (field.metadata or {}).get(b"unit", b"")
