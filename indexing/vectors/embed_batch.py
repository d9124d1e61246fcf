"""Vectors of one batch of spectra: what has none is set aside with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from specclip_search.atlas.arrays import column_to_matrix, table_from_columns
from specclip_search.errors import QueryError, Reason, SpectrumError

_KEYS = ("spec_id", "source_id", "release")


class Embedder(Protocol):
    """What of a model an embedding run uses; `specclip_search.training.model.Model` is one."""

    name: str
    dim: int
    digest: str
    modalities: Sequence[str]

    def embed_raw(self, modality: str, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


def embed_batch(model: Embedder, modality: str, batch: pa.RecordBatch,
                schema: pa.Schema) -> tuple[pa.Table, list[tuple[str, int, str]]]:
    """Vectors of one batch of spectra, and (release, spec_id, reason) of those that have none."""
    inputs = column_to_matrix(batch.column(batch.schema.get_field_index("flux")))
    vectors, norms, reasons = embed_good(model, modality, inputs)
    keep = np.asarray(sorted(set(range(len(inputs))) - reasons.keys()), np.int64)
    kept = batch.take(pa.array(keep))
    columns = {name: kept.column(kept.schema.get_field_index(name)) for name in _KEYS}
    table = table_from_columns({**columns, "vector": vectors, "norm": norms}, schema)
    rows = sorted(reasons)
    keys = batch.select(["release", "spec_id"]).take(pa.array(rows, pa.int64())).to_pylist()
    return table, [(key["release"], key["spec_id"], str(reasons[row])) for key, row in zip(keys, rows, strict=True)]


def embed_good(model: Embedder, modality: str, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[int, Reason]]:
    """Vectors and norms of the inputs that have one, in order, and the reason of each that has none."""
    refuse = getattr(model, "unusable", None)
    reasons: dict[int, Reason] = dict(refuse(modality, inputs)) if refuse is not None and len(inputs) else {}
    if refuse is None:
        reasons |= {int(row): Reason.NOT_FINITE for row in np.flatnonzero(~np.isfinite(inputs).all(axis=1))}
    rows = np.asarray(sorted(set(range(len(inputs))) - reasons.keys()), np.int64)
    vectors = np.empty((len(rows), model.dim), np.float32)
    norms = np.empty(len(rows), np.float32)
    _embed_into(model, modality, inputs, rows, np.arange(len(rows)), (vectors, norms), reasons)
    good = np.asarray([row not in reasons for row in rows.tolist()], bool)
    return vectors[good], norms[good], reasons


def _embed_into(model: Embedder, modality: str, inputs: np.ndarray, rows: np.ndarray, places: np.ndarray,
                out: tuple[np.ndarray, np.ndarray], reasons: dict[int, Reason]) -> None:
    """Embed `rows`; where the model refuses a batch, halve it until the refused spectra stand alone."""
    if not len(rows):
        return
    try:
        vectors, norms = model.embed_raw(modality, inputs[rows])
    except SpectrumError as error:
        if len(rows) == 1:
            reasons[int(rows[0])] = error.reason
            return
        for half in np.array_split(np.arange(len(rows)), 2):
            _embed_into(model, modality, inputs, rows[half], places[half], out, reasons)
        return
    out[0][places], out[1][places] = vectors, norms
    lengths = np.linalg.norm(vectors, axis=1)
    usable = np.isfinite(norms) & (norms > 0) & (np.abs(lengths - 1) < 1e-2)
    reasons.update({int(row): Reason.NOT_FINITE for row in rows[~usable]})


def spectra_batches(path: Path, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Keys and model inputs of one shard; batches never span shards, so a redone shard is the same."""
    file = pq.ParquetFile(path)
    for batch in file.iter_batches(batch_rows, columns=[*_KEYS, "flux"]):
        if pc.any(pc.is_null(batch.column(batch.schema.get_field_index("spec_id")))).as_py():
            raise QueryError(f"{path} has spectra without spec_id; every spectrum must have one.",
                             "Ingest these spectra again.")
        yield batch
