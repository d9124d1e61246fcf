"""Apply published label heads to the vectors of an atlas, shard by shard. Runs can be resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specclip_search.atlas import Atlas, Part
from specclip_search.atlas.arrays import column_to_matrix, table_from_columns
from specclip_search.atlas.files import text_digest
from specclip_search.atlas.schemas import RELEASE, SOURCE_ID, SPEC_ID, described
from specclip_search.errors import CheckpointError, QueryError
from specclip_search.progress import Progress
from specclip_search.stages.run import Made, Shard, run_stage
from specclip_search.training.checkpoints.folder import load_card
from specclip_search.training.checkpoints.heads import PublishedHead, read_heads
from specclip_search.training.networks.published import KINDS

_FORMAT = "heads 1"
_KEYS = ["spec_id", "source_id", "release"]
MADE_FOR = "pr"
SPLIT = "split"
"""Heads of this kind take shared and private vectors; an atlas keeps the shared ones."""


@dataclass
class HeadsReport:
    """Report of `apply_heads`: labels and rows by instrument, shards written, kept and removed."""

    model: str
    labels: dict[str, list[str]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    written: int = 0
    current: int = 0
    removed: int = 0

    def __str__(self) -> str:
        lines = [
            f"{rows:,} {modality} vectors of '{self.model}' have labels by {len(self.labels[modality])} heads "
            f"({', '.join(self.labels[modality])}); in SQL: {stage_name(modality)}"
            for modality, rows in self.rows.items()
        ]
        return "\n".join([*lines, f"{self.written} shards written, {self.current} were up to date"])


def stage_name(modality: str) -> str:
    """Name of the stored result, and of its view in SQL."""
    return f"heads_{modality}"


@dataclass(frozen=True)
class HeadsShard:
    """Makes one shard of labels from one of vectors."""

    heads: tuple[PublishedHead, ...]
    model: str
    model_digest: str

    def __call__(self, part: Part) -> Made:
        found = str(part.extra.get("model_digest"))
        if found != self.model_digest:
            raise QueryError(
                f"Vectors of the weights {self.model_digest[:19]} were expected; {part.path} holds those of "
                f"{found[:19]}.",
                "Run `specclip-search embed` again.",
            )
        read = pq.read_table(part.path, columns=[*_KEYS, "vector", "norm"])
        # heads take the encoder's output as it is, not of unit length
        vectors = column_to_matrix(read["vector"]).astype(np.float32) * read["norm"].to_numpy()[:, None]
        columns = {name: read.column(name) for name in _KEYS}
        columns |= {one.name: np.ma.masked_invalid(one.head.predict(vectors)) for one in self.heads}
        table = table_from_columns(columns, heads_schema(self.heads))
        origin = {one.name: {"digest": one.digest, "file": one.path.name} for one in self.heads}
        extra = {"model": self.model, "model_digest": self.model_digest, "heads": origin}
        return Made(table, table.schema, extra, table.num_rows)


def heads_schema(heads: Sequence[PublishedHead]) -> pa.Schema:
    """Columns of `results/heads_<modality>`."""
    labels = [
        described(one.name, pa.float32(), f"by the published label head {one.path.name}, no error given; units of its "
                  "training labels (dex, mag)")
        for one in heads
    ]  # fmt: skip
    return pa.schema([SPEC_ID, SOURCE_ID, RELEASE, *labels])


def apply_heads(
    atlas: Atlas, folder: Path, model: str | None = None, *, progress: Progress | None = None
) -> HeadsReport:
    """Labels by all heads of a folder, of every vector that has none yet or whose vector or heads changed.

    Parameters
    ----------
    folder
        See `specclip_search.training.checkpoints.heads`.
    model
        Model of the vectors; the active model by default.
    progress
        Called with (vectors done, total, modality).

    Raises
    ------
    CheckpointError
        If a head is not what it should be, or the model is not one that published heads are made for.
    AtlasError
        If there are no vectors.
    """
    name = atlas.require_model(model)
    card = load_card(atlas.model_folder(name))
    if card.kind not in KINDS or card.kind == SPLIT:
        why = ("private vectors beside the shared ones, which an atlas does not keep" if card.kind == SPLIT
               else "the vectors of a published model")
        raise CheckpointError(
            f"Published label heads take {why}; '{name}' is of kind '{card.kind}'.",
            "Embed with the model they belong to: "
            f"specclip-search embed --model models/{MADE_FOR} --atlas {atlas.path}",
        )
    report = HeadsReport(name)
    by_modality: dict[str, list[PublishedHead]] = {}
    for one in read_heads(folder):
        by_modality.setdefault(one.modality, []).append(one)
    usable = {modality: heads for modality, heads in by_modality.items() if atlas.vectors(name, modality).exists}
    if not usable:
        raise atlas.vectors(name, next(iter(by_modality))).missing()
    total, done = sum(atlas.vectors(name, modality).rows for modality in usable), 0
    for modality, heads in usable.items():
        if len(heads[0].head.mean) != card.dim:
            raise CheckpointError(
                f"These heads take vectors of length {len(heads[0].head.mean)}; those of '{name}' have {card.dim}.",
                "Give the heads of this model.",
            )
        stage, parts = atlas.results(stage_name(modality)), atlas.vectors(name, modality).parts()
        digest = text_digest(*(f"{one.name} {one.digest}" for one in heads))
        shards = [Shard(part.number, text_digest(_FORMAT, part.digest, digest), part.rows, part) for part in parts]
        with stage.lock():
            run = run_stage(stage, shards, HeadsShard(tuple(heads), name, card.digest), progress=progress,
                            note=modality, done=done, total=total)  # fmt: skip
        done += sum(part.rows for part in parts)
        report.labels[modality], report.rows[modality] = [one.name for one in heads], stage.rows
        report.written += run.written
        report.current += run.current
        report.removed += run.removed
    return report
