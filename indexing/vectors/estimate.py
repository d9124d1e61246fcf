"""Estimate labels from vectors, shard by shard, one row per vector. Runs can be resumed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specclip_search.atlas import Atlas, Part
from specclip_search.atlas.arrays import column_to_matrix, table_from_columns
from specclip_search.atlas.files import text_digest
from specclip_search.atlas.integrity import check_shards
from specclip_search.atlas.schemas import estimates_schema
from specclip_search.errors import CheckpointError, QueryError
from specclip_search.progress import Progress
from specclip_search.stages.run import Made, Shard, run_stage
from specclip_search.surveys import LRS
from specclip_search.training.estimators.estimators import Estimators, load_estimators
from specclip_search.training.estimators.star_test import load_star_test, unlike_training
from specclip_search.training.networks.label_scale import FLAGS, UNLIKE_TRAINING

from .model_copy import Loaded, ModelCopy

if TYPE_CHECKING:
    from dask.distributed import Client

    from specclip_search.training.model import Model

_FORMAT = "estimate 2"
_KEYS = ["spec_id", "source_id", "release"]
_BATCH_ROWS = 1024


@dataclass
class EstimateReport:
    """Report of an estimation run.

    Attributes
    ----------
    model
        Name of the model.
    rows
        Total number of estimates, by modality.
    written, current, removed
        Shards written in this run, already up to date, and removed because their vectors no longer exist.
    estimated
        Vectors estimated in this run.
    flagged
        Number of these vectors with each flag.
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

    def __str__(self) -> str:
        flags = ", ".join(f"{name} {count:,}" for name, count in self.flagged.most_common() if count)
        text = (f"{self.estimated:,} vectors of '{self.model}' have label estimates; "
                f"{self.current} shards were up to date")
        return f"{text}; flags: {flags}" if flags else text


@dataclass(frozen=True)
class EstimateShard:
    """Makes one shard of estimates from one of vectors and the path of its spectra."""

    source: Loaded | ModelCopy
    estimators_digest: str
    modality: str

    def __call__(self, task: tuple[Part, Path]) -> Made:
        part, spectra = task
        model = self.source.load()
        estimators = load_estimators(model)
        if estimators is None or estimators.digest != self.estimators_digest:
            raise CheckpointError(f"{model.folder} no longer holds the estimators that the run started with.",
                                  "Start the run again.")
        found = str(part.extra.get("model_digest"))
        if found != estimators.model_digest:
            raise QueryError(f"{part.path} holds vectors from the weights {found[:19]}; the estimators belong to "
                             f"{estimators.model_digest[:19]}.", "Run `specclip-search embed` again.")
        read = pq.read_table(part.path, columns=[*_KEYS, "vector"])
        vectors, snr = column_to_matrix(read.column("vector")), _snr(spectra, read)
        columns = estimators.estimate_all(self.modality, vectors, snr)
        if self.modality == LRS and load_star_test(model) is not None:
            unlike = _unlike_training(model, spectra, read, vectors, snr)
            columns["flag"] = columns["flag"] | np.where(unlike, UNLIKE_TRAINING, 0)
        given = {name: read.column(name) for name in _KEYS} | {
            name: np.ma.masked_invalid(values) if values.dtype.kind == "f" else values
            for name, values in columns.items()}
        table, flags = table_from_columns(given, estimates_schema()), columns["flag"]
        flagged = {name: int(np.count_nonzero(flags & bit)) for name, bit in FLAGS.items()}
        extra = {"model_digest": estimators.model_digest, "estimators_digest": estimators.digest}
        return Made(table, table.schema, extra, (table.num_rows, flagged))


def _unlike_training(model: Model, path: Path, read: pa.Table, vectors: np.ndarray, snr: np.ndarray) -> np.ndarray:
    """(N,) bool by the model's test of training stars; False for vectors whose spectrum is not in the shard."""
    result = np.zeros(read.num_rows, dtype=bool)
    if not path.exists():
        return result
    place = {key: i for i, key in enumerate(_row_keys(read))}
    for batch in pq.ParquetFile(path).iter_batches(_BATCH_ROWS, columns=["spec_id", "release", "flux", "error"]):
        table = pa.Table.from_batches([batch])
        found = np.array([place.get(key, -1) for key in _row_keys(table)], dtype=np.int64)
        kept, rows = np.flatnonzero(found >= 0), found[found >= 0]
        flux, error = (column_to_matrix(table.column(name))[kept] for name in ("flux", "error"))
        result[rows] = unlike_training(model, LRS, flux, error, vectors[rows], snr[rows])
    return result


def _row_keys(table: pa.Table) -> zip[tuple[str | None, int]]:
    return zip(table.column("release").to_pylist(), table.column("spec_id").to_pylist(), strict=True)


def _snr(path: Path, read: pa.Table) -> np.ndarray:
    """S/N of each vector's spectrum, NaN where unknown; vectors are in the spectra's order, some left out."""
    if path.exists():
        check_shards([path])
    keys = pq.read_table(path, columns=["spec_id", "release", "snr"]) if path.exists() else None
    if keys is None:
        return np.full(read.num_rows, np.nan)
    if keys.column("spec_id").equals(read.column("spec_id")):  # none left out, as is usual
        return keys.column("snr").to_numpy().astype(np.float64)
    known = dict(zip(zip(keys.column("release").to_pylist(), keys.column("spec_id").to_pylist(), strict=True),
                     keys.column("snr").to_pylist(), strict=True))
    wanted = zip(read.column("release").to_pylist(), read.column("spec_id").to_pylist(), strict=True)
    return np.array([known.get(key) for key in wanted], dtype=np.float64)


def estimate(atlas: Atlas, model: Model, modalities: Sequence[str] | None = None, *,
             progress: Progress | None = None, client: Client | None = None) -> EstimateReport:
    """Estimate the labels of every vector that has none yet, and of those whose vectors or estimators changed.

    Parameters
    ----------
    model
        Model of the vectors in the atlas.
    modalities
        Which instruments; None for all with both vectors and an estimator.
    progress
        Called with (vectors done, total vectors, modality).
    client
        A Dask cluster that writes the shards, from `specclip_search.stages.cluster.dask_client`; the bytes
        are the same. By default shards are written in this process.

    Raises
    ------
    QueryError
        If the model has no estimators, or none for a given modality.
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
    chosen = _chosen(atlas, model, estimators, modalities)
    vectors = {name: atlas.vectors(model.name, name).parts() for name in chosen}
    total, done = sum(part.rows for parts in vectors.values() for part in parts), 0
    source: Loaded | ModelCopy = Loaded(model)
    if client is not None:
        folder = Path(model.folder or atlas.model_folder(model.name)).resolve()
        source = ModelCopy(folder, model.digest, "cpu")
    for name, parts in vectors.items():
        stage = atlas.estimates(name, model.name)
        shards = [
            Shard(part.number, text_digest(_FORMAT, part.digest, estimators.digest), part.rows,
                  (part, atlas.spectra(name).parquet_path(part.number)))
            for part in parts
        ]
        with stage.lock():
            run = run_stage(stage, shards, EstimateShard(source, estimators.digest, name), client=client,
                            progress=progress, note=name, done=done, total=total)
        for rows, flagged in run.accounts:
            report.estimated += rows
            report.flagged.update(flagged)
        report.written += run.written
        report.current += run.current
        report.removed += run.removed
        done += sum(part.rows for part in parts)
        report.rows[name] = stage.rows
    report.seconds = round(time.perf_counter() - started, 3)
    return report


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
