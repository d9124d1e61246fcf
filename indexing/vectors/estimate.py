"""Vectors to label estimates, shard by shard: resumable, current or redone, one row a vector."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specclip_search.atlas import Atlas, Part, Stage
from specclip_search.atlas.arrays import column_to_matrix, table_from_columns
from specclip_search.atlas.files import text_digest
from specclip_search.atlas.schemas import estimates_schema
from specclip_search.errors import CheckpointError, QueryError
from specclip_search.training.estimators.estimators import Estimators, load_estimators
from specclip_search.training.networks.label_scale import FLAGS

from .model_copy import ModelCopy, map_shards

if TYPE_CHECKING:
    from dask.distributed import Client

    from specclip_search.training.model import Model

_FORMAT = "estimate 1"
_KEYS = ["spec_id", "source_id", "release"]


@dataclass
class EstimateReport:
    """Account of a run.

    Attributes
    ----------
    model
        Name of the model.
    rows
        Estimates that now stand, by modality.
    written, current, removed
        Shards made in this run, found current, and removed because their vectors are gone.
    estimated
        Vectors estimated in this run.
    flagged
        How many of these have each flag.
    seconds
        Wall time.
    """

    model: str
    rows: dict[str, int] = field(default_factory=dict)
    written: int = 0
    current: int = 0
    removed: int = 0
    estimated: int = 0
    flagged: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, other: EstimateReport) -> None:
        """Add the account of shards that were made elsewhere."""
        self.written += other.written
        self.current += other.current
        self.estimated += other.estimated
        self.flagged.update(other.flagged)

    def __str__(self) -> str:
        flags = ", ".join(f"{name} {count:,}" for name, count in self.flagged.most_common() if count)
        text = f"{self.estimated:,} vectors of '{self.model}' have label estimates; {self.current} shards were current"
        return f"{text}; flags: {flags}" if flags else text


def estimate(atlas: Atlas, model: Model, modalities: Sequence[str] | None = None, *,
             progress: Callable[..., None] | None = None, client: Client | None = None) -> EstimateReport:
    """Estimate the labels of every vector that has none yet, and of those whose vectors or estimators changed.

    Parameters
    ----------
    model
        Whose vectors the atlas holds.
    modalities
        Which instruments; None for all that have both vectors and an estimator.
    progress
        Called with (vectors done, vectors in all, modality).
    client
        A Dask cluster to make the shards on, from `specclip_search.stages.cluster.dask_client`; the bytes
        are the same. By default they are made here.

    Raises
    ------
    QueryError
        If the model has no estimators, or none of a named modality.
    CheckpointError
        If its estimators belong to other weights.
    AtlasError
        If there are no vectors, or another process writes these estimates.
    """
    started = time.perf_counter()
    estimators = load_estimators(model)
    if estimators is None:
        raise QueryError(f"Model '{model.name}' has no label estimators.",
                         "Train them: specclip-search train estimators --atlas ATLAS --model NAME|DIR.")
    report = EstimateReport(model.name)
    work = [_Shards(atlas, model, estimators, name) for name in _chosen(atlas, model, estimators, modalities)]
    total, done = sum(shards.vectors.rows for shards in work), 0
    for shards in work:
        with shards.estimates.lock():
            shards.remove_surplus(report)
            parts = shards.vectors.parts()
            made = shards.make_all(parts, report) if client is None else _made_on(client, atlas, shards, parts, report)
            for part in made:
                done += part.rows
                if progress is not None:
                    progress(done, total, shards.modality)
        report.rows[shards.modality] = shards.estimates.rows
    report.seconds = round(time.perf_counter() - started, 3)
    return report


def _made_on(client: Client, atlas: Atlas, shards: _Shards, parts: list[Part],
             report: EstimateReport) -> Iterator[Part]:
    """Have a cluster make the shards that are not current; yields each as it stands."""
    todo = {part.number: part for part in parts if not shards.is_current(part)}
    report.current += len(parts) - len(todo)
    yield from (part for part in parts if part.number not in todo)
    if not todo:
        return
    copy = ModelCopy(Path(shards.model.folder or atlas.model_folder(shards.model.name)).resolve(),
                     shards.model.digest, "cpu")
    found = map_shards(client, _estimate_shard, atlas, copy, list(todo), shards.modality, shards.estimators.digest)
    for number, theirs in found:
        report.add(theirs)
        yield todo[number]


def _estimate_shard(number: int, folder: str, copy: ModelCopy, modality: str, digest: str) -> EstimateReport:
    """One shard, on a worker."""
    model = copy.load()
    estimators = load_estimators(model)
    if estimators is None or estimators.digest != digest:
        raise CheckpointError(f"{copy.folder} no longer holds the estimators that the run began with.",
                              "Start the run again.")
    report = EstimateReport(model.name)
    shards = _Shards(Atlas(folder), model, estimators, modality)
    part = shards.vectors.part(number)
    if part is None:
        raise shards.vectors.missing()
    shards.make(part, report)
    return report


class _Shards:
    """One modality's shards of vectors and of estimates."""

    def __init__(self, atlas: Atlas, model: Model, estimators: Estimators, modality: str) -> None:
        self.model, self.estimators, self.modality = model, estimators, modality
        self.spectra: Stage = atlas.spectra(modality)
        self.vectors: Stage = atlas.vectors(model.name, modality)
        self.estimates: Stage = atlas.estimates(modality, model.name)

    def remove_surplus(self, report: EstimateReport) -> None:
        """Remove estimates whose vectors are gone."""
        numbers = {part.number for part in self.vectors.parts()}
        for old in self.estimates.parts():
            if old.number not in numbers:
                self.estimates.remove(old.number)
                report.removed += 1

    def make_all(self, parts: list[Part], report: EstimateReport) -> Iterator[Part]:
        """Make the shards one after another; yields each as it stands."""
        for part in parts:
            self.make(part, report)
            yield part

    def inputs_of(self, part: Part) -> str:
        return text_digest(_FORMAT, part.digest, self.estimators.digest)

    def is_current(self, part: Part) -> bool:
        return self.estimates.is_current(part.number, self.inputs_of(part))

    def make(self, part: Part, report: EstimateReport) -> None:
        """Estimate one shard unless it is current."""
        inputs = self.inputs_of(part)
        if self.is_current(part):
            report.current += 1
            return
        found = str(part.extra.get("model_digest"))
        if found != self.estimators.model_digest:
            raise QueryError(f"{part.path} holds vectors of the weights {found[:19]}; the estimators belong to "
                             f"{self.estimators.model_digest[:19]}.", "Run `specclip-search embed` again.")
        table, flags = self._table(part)
        extra = {"model_digest": self.estimators.model_digest, "estimators_digest": self.estimators.digest}
        self.estimates.write(part.number, table, schema=table.schema, inputs=inputs, extra=extra)
        report.written += 1
        report.estimated += table.num_rows
        report.flagged.update({name: int(np.count_nonzero(flags & bit)) for name, bit in FLAGS.items()})

    def _table(self, part: Part) -> tuple[pa.Table, np.ndarray]:
        read = pq.read_table(part.path, columns=[*_KEYS, "vector"])
        snr = self._snr(part, read)
        columns = self.estimators.estimate_all(self.modality, column_to_matrix(read.column("vector")), snr)
        schema = estimates_schema()
        given = {name: read.column(name) for name in _KEYS} | {
            name: np.ma.masked_invalid(values) if values.dtype.kind == "f" else values
            for name, values in columns.items()}
        return table_from_columns(given, schema), columns["flag"]

    def _snr(self, part: Part, read: pa.Table) -> np.ndarray:
        """S/N of each vector's spectrum, NaN where unknown; vectors are in the spectra's order, some left out."""
        spectra = self.spectra.part(part.number)
        keys = None if spectra is None else pq.read_table(spectra.path, columns=["spec_id", "release", "snr"])
        if keys is None:
            return np.full(read.num_rows, np.nan)
        if keys.column("spec_id").equals(read.column("spec_id")):  # none left out, as is usual
            return keys.column("snr").to_numpy().astype(np.float64)
        known = dict(zip(zip(keys.column("release").to_pylist(), keys.column("spec_id").to_pylist(), strict=True),
                         keys.column("snr").to_pylist(), strict=True))
        wanted = zip(read.column("release").to_pylist(), read.column("spec_id").to_pylist(), strict=True)
        return np.array([known.get(key) for key in wanted], dtype=np.float64)


def _chosen(atlas: Atlas, model: Model, estimators: Estimators, modalities: Sequence[str] | None) -> list[str]:
    if modalities is None:
        chosen = [name for name in estimators.modalities if atlas.vectors(model.name, name).exists]
        if not chosen:
            raise atlas.vectors(model.name, estimators.modalities[0]).missing()
        return chosen
    for name in modalities:
        if name not in estimators.modalities:
            raise QueryError(f"The estimators of '{model.name}' take {' and '.join(estimators.modalities)}; "
                             f"found '{name}'.", "Name one of these.")
        if not atlas.vectors(model.name, name).exists:
            raise atlas.vectors(model.name, name).missing()
    return list(modalities)
