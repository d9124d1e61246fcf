"""One stage of an atlas: a folder of Parquet shards, each committed by its sidecar."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import AtlasError
from ..version import __version__
from .files import committed_files, file_digest, sync_folder, text_digest, whole_file, write_json, writer_lock

SIDECAR_FORMAT = 1
ROW_GROUP_ROWS = 2048


@dataclass(frozen=True, slots=True)
class Part:
    """A committed shard: its Parquet file and the content of its sidecar."""

    number: int
    path: Path
    rows: int
    digest: str
    inputs: str
    extra: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(eq=False, slots=True)
class Stage:
    """A folder of shards `part-NNNNNN.parquet`, each with a `.json` sidecar written last.

    A shard counts as committed only if its sidecar exists. The sidecar holds the number of rows
    and the SHA-256 of the shard and of its inputs, so that up-to-date, stale and missing shards
    can be identified.

    Attributes
    ----------
    folder
        Where the shards lie; it need not exist.
    label
        What the shards hold, for messages.
    """

    folder: Path
    label: str

    def parquet_path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.parquet"

    def _sidecar_path(self, number: int) -> Path:
        return self.parquet_path(number).with_suffix(".json")

    @property
    def exists(self) -> bool:
        return any(self.folder.glob("part-*.json"))

    def paths(self) -> list[str]:
        """Absolute paths of the committed shards in order of their numbers; sidecars are not read."""
        return committed_files(self.folder)

    def parts(self) -> list[Part]:
        """Committed shards in order of their numbers."""
        return [self._load(path) for path in sorted(self.folder.glob("part-*.json"))]

    def part(self, number: int) -> Part | None:
        path = self._sidecar_path(number)
        return self._load(path) if path.exists() else None

    def _load(self, sidecar: Path) -> Part:
        try:
            content = json.loads(sidecar.read_text(encoding="utf-8"))
            number = int(sidecar.stem.removeprefix("part-"))
            part = Part(
                number,
                self.parquet_path(number),
                content["rows"],
                content["digest"],
                content["inputs"],
                content.get("extra", {}),
            )
        except (OSError, ValueError, KeyError) as error:
            raise AtlasError(
                f"{sidecar} is not a readable shard sidecar ({error}).",
                "Remove this file and run the stage's command again; it rebuilds the shard.",
            ) from error
        if not part.path.exists():
            raise AtlasError(
                f"{sidecar} refers to a missing shard: {part.path.name}.",
                "Remove the sidecar and run the stage's command again; it rebuilds the shard.",
            )
        return part

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts())

    @property
    def digest(self) -> str:
        """Digest of the whole stage: of its shards' numbers and digests in order."""
        return text_digest(*(f"{part.number}:{part.digest}" for part in self.parts()))

    def is_current(self, number: int, inputs: str) -> bool:
        """Whether shard `number` exists and was made from `inputs`."""
        part = self.part(number)
        return part is not None and part.inputs == inputs

    def lock(self) -> AbstractContextManager[None]:
        """The write lock of this stage; see `writer_lock`."""
        return writer_lock(self.folder)

    def write(
        self,
        number: int,
        batches: pa.Table | Iterable[pa.Table | pa.RecordBatch],
        *,
        schema: pa.Schema,
        inputs: str,
        extra: dict[str, Any] | None = None,
    ) -> Part:
        """Write shard `number` atomically, then its sidecar. Call while holding `lock()`.

        Parameters
        ----------
        batches
            One table, or an iterable of tables or record batches with the columns of `schema`.
        inputs
            Digest of everything the rows were made from.
        extra
            Plain values to keep in the sidecar, for example counts.
        """
        tables = [batches] if isinstance(batches, pa.Table) else batches
        path = self.parquet_path(number)
        rows = 0
        with whole_file(path) as temporary:
            with pq.ParquetWriter(temporary, schema, **_writer_options(schema)) as writer:
                for table in tables:
                    rows += table.num_rows
                    whole = pa.Table.from_batches([table]) if isinstance(table, pa.RecordBatch) else table
                    writer.write_table(whole, row_group_size=ROW_GROUP_ROWS)
            digest = file_digest(temporary)
            # the old sidecar must never describe the new shard, not even briefly
            self._sidecar_path(number).unlink(missing_ok=True)
            sync_folder(self.folder)
        content = {
            "format": SIDECAR_FORMAT,
            "rows": rows,
            "digest": digest,
            "inputs": inputs,
            "versions": {"specclip_search": __version__, "pyarrow": pa.__version__},
            "extra": extra or {},
        }
        write_json(self._sidecar_path(number), content)
        return Part(number, path, rows, digest, inputs, extra or {})

    def free_numbers(self) -> Iterator[int]:
        """Unused shard numbers from 0 upwards, so that a missing shard gets its own number again."""
        taken = {part.number for part in self.parts()}
        return (number for number in count() if number not in taken)

    def remove(self, number: int) -> None:
        """Remove a shard: the sidecar first, so that a partly removed shard never counts as committed."""
        self._sidecar_path(number).unlink(missing_ok=True)
        sync_folder(self.folder)
        self.parquet_path(number).unlink(missing_ok=True)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All shards' rows in order, as one table of the chosen columns."""
        parts = self.parts()
        if not parts:
            raise self.missing()
        return pa.concat_tables([pq.ParquetFile(p.path).read(columns=_as_list(columns)) for p in parts])

    def iter_batches(
        self,
        columns: Sequence[str] | None = None,
        batch_rows: int = ROW_GROUP_ROWS,
    ) -> Iterator[tuple[Part, pa.RecordBatch]]:
        """Record batches of all shards in order, never more than `batch_rows` rows in memory."""
        for part in self.parts():
            for batch in pq.ParquetFile(part.path).iter_batches(batch_rows, columns=_as_list(columns)):
                yield part, batch

    def verify(self) -> list[str]:
        """Re-read every shard; return the names of those whose bytes do not match their sidecar's digest."""
        return [part.path.name for part in self.parts() if file_digest(part.path) != part.digest]

    def missing(self) -> AtlasError:
        """The error to raise if this stage is needed but empty."""
        return AtlasError(
            f"The atlas holds no {self.label} yet ({self.folder} has no shard).",
            "Run the command that makes them first; `specclip-search --help` lists the stages in order.",
        )


def _as_list(columns: Sequence[str] | None) -> list[str] | None:
    return None if columns is None else list(columns)


def _writer_options(schema: pa.Schema) -> dict[str, Any]:
    """Parquet options. Values of spectra and vectors rarely repeat, so dictionaries would only cost time."""
    plain = [f.name for f in schema if pa.types.is_fixed_size_list(f.type) or pa.types.is_floating(f.type)]
    return {
        "compression": "zstd",
        "compression_level": 1,
        "write_statistics": [f.name for f in schema if not pa.types.is_nested(f.type)],
        "use_dictionary": [f.name for f in schema if f.name not in plain],
    }
