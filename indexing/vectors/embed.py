"""Embed spectra, shard by shard. Runs can be resumed and up-to-date shards are kept.

A spectrum that cannot be embedded is rejected with a reason: read = kept + rejected.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import column_to_matrix, table_from_columns
from specclip_search.atlas.files import text_digest
from specclip_search.atlas.schemas import vectors_schema
from specclip_search.errors import QueryError, Reason, SpectrumError
from specclip_search.progress import Progress
from specclip_search.stages.prefetch import read_ahead
from specclip_search.stages.run import Made, Shard, run_stage
from specclip_search.surveys import encoder_of, get_modality

from .model_copy import Loaded, ModelCopy, copy_of, keep_model

if TYPE_CHECKING:
    from dask.distributed import Client

_KEYS = ("spec_id", "source_id", "release")


class Embedder(Protocol):
    """The parts of a model used by an embedding run; implemented by `specclip_search.training.model.Model`."""

    name: str
    dim: int
    digest: str
    modalities: Sequence[str]

    def embed_raw(self, modality: str, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


def embed_batch(model: Embedder, modality: str, batch: pa.RecordBatch,
                schema: pa.Schema) -> tuple[pa.Table, list[tuple[str, int, str]]]:
    """Vectors of one batch of spectra, and (release, spec_id, reason) of the rejected ones."""
    inputs = column_to_matrix(batch.column(batch.schema.get_field_index("flux")))
    vectors, norms, reasons = embed_good(model, modality, inputs)
    keep = np.asarray(sorted(set(range(len(inputs))) - reasons.keys()), np.int64)
    kept = batch.take(pa.array(keep))
    columns = {name: kept.column(kept.schema.get_field_index(name)) for name in kept.schema.names if name != "flux"}
    table = table_from_columns({**columns, "vector": vectors, "norm": norms}, schema)
    rows = sorted(reasons)
    keys = batch.select(["release", "spec_id"]).take(pa.array(rows, pa.int64())).to_pylist()
    return table, [(key["release"], key["spec_id"], str(reasons[row])) for key, row in zip(keys, rows, strict=True)]


def embed_good(model: Embedder, modality: str, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[int, Reason]]:
    """Vectors and norms of the embedded inputs, in order, and the reason for each rejected one."""
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
    """Embed `rows`; if the model rejects a batch, halve it until the rejected spectra are isolated."""
    if not len(rows):
        return
    try:
        # `embed_good` has asked the model already which inputs it cannot use
        embed_rows = getattr(model, "embed_usable", model.embed_raw)
        vectors, norms = embed_rows(modality, inputs[rows] if len(rows) < len(inputs) else inputs)
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
    """Keys and model inputs of one shard; batches never span shards, so a rewritten shard is identical."""
    file = pq.ParquetFile(path)
    names = [*_KEYS, *(["epoch"] if "epoch" in file.schema_arrow.names else [])]
    for batch in file.iter_batches(batch_rows, columns=[*names, "flux"]):
        if pc.any(pc.is_null(batch.column(batch.schema.get_field_index("spec_id")))).as_py():
            raise QueryError(f"{path} has spectra without spec_id; every spectrum must have one.",
                             "Ingest these spectra again.")
        yield batch


BATCH_ROWS = 1024
_FORMAT = "embed 1"


@dataclass(frozen=True, slots=True)
class EmbedReport:
    """Report of an embedding run: read = kept + the sum of rejected.

    Attributes
    ----------
    model, model_digest
        Name and digest of the model.
    read, kept
        Spectra read in this run, and vectors written.
    rejected
        Spectra without a vector, by reason.
    set_aside
        (modality, release, spec_id, reason) of the rejected spectra; also stored in the shard's sidecar.
    parts_written, parts_current, parts_removed
        Shards written in this run, already up to date, and removed because their spectra no longer exist.
    replaced_digests
        Digests of other weights with the same model name whose vectors were replaced.
    rows
        Total number of vectors, by modality.
    seconds
        Wall time.
    """

    model: str
    model_digest: str
    read: int
    kept: int
    rejected: Mapping[str, int]
    set_aside: list[tuple[str, str, int, str]]
    parts_written: int
    parts_current: int
    parts_removed: int
    replaced_digests: tuple[str, ...]
    rows: dict[str, int]
    seconds: float

    def __str__(self) -> str:
        rate = f", {self.read / self.seconds:,.0f} a second" if self.read and self.seconds > 0 else ""
        lines = [f"{self.read:,} spectra embedded with '{self.model}'{rate}; "
                 f"{self.parts_current} shards were up to date"]
        if self.replaced_digests:
            lines.append(f"vectors of other weights ({', '.join(d[:19] for d in self.replaced_digests)}) were replaced")
        if self.parts_removed:
            lines.append(f"{self.parts_removed} shards removed because their spectra no longer exist")
        return "; ".join(lines)


@dataclass
class _Account:
    """Spectra of one shard: read = kept + the sum of the reasons."""

    read: int = 0
    kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    set_aside: list[tuple[str, str, int, str]] = field(default_factory=list)

    def add(self, other: _Account) -> None:
        self.read += other.read
        self.kept += other.kept
        self.reasons.update(other.reasons)
        self.set_aside += other.set_aside


@dataclass(frozen=True)
class EmbedShard:
    """Makes one shard of vectors from the path of one of spectra; see `specclip_search.stages.run`."""

    source: Loaded | ModelCopy
    modality: str
    batch_rows: int

    def __call__(self, path: Path) -> Made:
        model: Embedder = self.source.load()
        account, encoder = _Account(), encoder_of(self.modality)
        schema = vectors_schema(model.dim, "epoch" in pq.read_schema(path).names)
        extra: dict[str, Any] = {"model": model.name, "model_digest": model.digest, "set_aside": []}

        def tables() -> Iterator[pa.Table]:
            for batch in read_ahead(spectra_batches(path, self.batch_rows)):
                table, aside = embed_batch(model, encoder, batch, schema)
                extra["set_aside"] += [list(entry) for entry in aside]
                account.read += batch.num_rows
                account.kept += table.num_rows
                account.reasons.update(reason for _, _, reason in aside)
                account.set_aside += [(self.modality, *entry) for entry in aside]
                yield table

        # vectors are packed and written while the next ones are made; the sidecar is written after the
        # last batch, so `extra` is complete by then
        return Made(read_ahead(tables()), schema, extra, account)


def embed(atlas: Atlas, model: Embedder, modalities: Sequence[str] | None = None, *, batch_rows: int = BATCH_ROWS,
          progress: Progress | None = None, client: Client | None = None,
          device: str = "auto") -> EmbedReport:
    """Embed every spectrum that has no vector yet, or whose spectrum or model has changed.

    Each shard of spectra gives a shard of vectors with the same number and order. An interrupted
    run is resumed and gives the same bytes. The model is copied into the atlas and
    becomes its active model.

    Parameters
    ----------
    model
        For example from `specclip_search.training.model.load_model`.
    modalities
        Which instruments; None for all instruments of both the atlas and the model.
    batch_rows
        Spectra in memory at a time.
    progress
        Called with (spectra done, total spectra, modality).
    client
        A Dask cluster that writes the shards, from `specclip_search.stages.cluster.dask_client`; the bytes
        are the same. By default shards are written in this process.
    device
        Device of the cluster's workers.

    Raises
    ------
    QueryError
        If the model does not support a given modality.
    AtlasError
        If there are no spectra, or another process writes these vectors.
    """
    started = time.perf_counter()
    spectra = {name: atlas.spectra(name).parts() for name in _chosen_modalities(atlas, model, modalities)}
    total = sum(part.rows for parts in spectra.values() for part in parts)
    keep_model(atlas, model)
    source = Loaded(model) if client is None else copy_of(atlas, model, device)
    settings = text_digest(_FORMAT, model.digest, str(model.dim), str(getattr(model, "precision", "float32")))
    account, rows, replaced, done = _Account(), {}, set(), 0
    written = current = removed = 0
    for name, parts in spectra.items():
        stage = atlas.vectors(model.name, name)
        # vectors of surveys with epochs say which one they are of, which earlier ones did not
        made_as = text_digest(settings, "epoch") if get_modality(name).has_epochs else settings
        shards = [Shard(part.number, text_digest(part.digest, made_as), part.rows, part.path) for part in parts]
        with stage.lock():
            replaced |= {str(old.extra.get("model_digest", "unknown")) for old in stage.parts()} - {model.digest}
            run = run_stage(stage, shards, EmbedShard(source, name, batch_rows), client=client, progress=progress,
                            note=name, done=done, total=total)
        for one in run.accounts:
            account.add(one)
        done += sum(part.rows for part in parts)
        written, current, removed = written + run.written, current + run.current, removed + run.removed
        rows[name] = stage.rows
    atlas.use_model(model.name)
    return EmbedReport(model.name, model.digest, account.read, account.kept, dict(account.reasons), account.set_aside,
                       written, current, removed, tuple(sorted(replaced)), rows,
                       round(time.perf_counter() - started, 3))


def _chosen_modalities(atlas: Atlas, model: Embedder, modalities: Sequence[str] | None) -> list[str]:
    present = atlas.modalities()
    taken = [name for name in present if encoder_of(name) in model.modalities]
    # an instrument whose spectra were all rejected has nothing to embed, and must not stop the others
    filled = [name for name in taken if atlas.spectra(name).rows or atlas.vectors(model.name, name).exists]
    chosen = (filled or taken) if modalities is None else list(modalities)
    for name in chosen:
        if encoder_of(name) not in model.modalities:
            raise QueryError(f"Model '{model.name}' cannot embed '{name}'; it takes {', '.join(model.modalities)}.",
                             "Name one of its instruments, or use another model.")
        if name not in present:
            raise atlas.spectra(name).missing()
    if not chosen:
        raise atlas.spectra(" or ".join(model.modalities)).missing()
    return chosen
