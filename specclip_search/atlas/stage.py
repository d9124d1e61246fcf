"""One stage of an atlas: a folder of Parquet shards, each committed by its sidecar."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import AtlasError
from ..version import __version__
from .files import (
    exchange_folders,
    file_digest,
    not_permitted,
    sync_folder,
    text_digest,
    whole_file,
    write_json,
    writer_lock,
)
from .integrity import check_shards, note_intact
from .manifest import (
    MANIFEST,
    PATIENCE_S,
    Manifest,
    change,
    committed_numbers,
    forget_missing,
    listed,
    missing_shards,
    missing_stage,
    named_shards,
    read_manifest,
    record_stage,
    recorded_stages,
    settle,
    unsettle,
)
from .schemas import ENCODING

SIDECAR_FORMAT = 1
INCOMING = ".new-"
# folders whose writer lock this process holds
_held: set[str] = set()
ROW_GROUP_ROWS = 2048
# two changes of a folder within one tick of its clock look alike: a kernel's tick is at most 10 ms, FAT's is 2 s
_TICK_NS, _COARSE_TICK_NS = 50_000_000, 2_500_000_000
# looks at stages that are kept; one at a stage of 10,000 shards takes about 10 MB
_KEPT_LOOKS = 48


def shard_name(number: int) -> str:
    """File name of a shard, without its suffix."""
    return f"part-{number:06d}"


@dataclass(frozen=True, slots=True)
class Part:
    """A committed shard: its Parquet file and what its sidecar says.

    Attributes
    ----------
    file
        The Parquet file, as it lies there. To read it, take `path`.
    sidecar
        Digest of the sidecar's bytes.
    """

    number: int
    file: Path
    rows: int
    digest: str
    inputs: str
    extra: dict[str, Any] = field(default_factory=dict, compare=False)
    sidecar: str = field(default="", compare=False)

    @property
    def path(self) -> Path:
        """The Parquet file, whose bytes are those that the sidecar says; checked at the first use, then remembered.

        Raises
        ------
        AtlasError
            If it is damaged.
        """
        check_shards([self.file])
        return self.file


def stage_state(folder: Path) -> tuple[int, ...] | None:
    """What changes when a shard of a folder, or its manifest, is written, replaced or removed.

    Returns
    -------
    tuple of int, or None
        None where there is no such folder, or it changed so recently that its next change might not show.
    """
    try:
        here = os.stat(folder)
    except OSError:
        return None
    changed = here.st_mtime_ns
    tick = _TICK_NS if changed % 1_000_000_000 else _COARSE_TICK_NS
    if time.time_ns() - changed < tick:
        return None
    try:
        counts = os.stat(os.path.join(folder, MANIFEST))
    except OSError:
        return here.st_dev, here.st_ino, changed, here.st_ctime_ns
    return (here.st_dev, here.st_ino, changed, here.st_ctime_ns,
            counts.st_ino, counts.st_size, counts.st_mtime_ns, counts.st_ctime_ns)


@dataclass(slots=True)
class _Look:
    """What was found in a stage's folder; it holds as long as the folder and its manifest are in `state`.

    Attributes
    ----------
    state
        See `stage_state`; None where it cannot be kept.
    numbers, gone
        Numbers of the shards that are there, and of those that are missing.
    paths
        Files of the shards, absolute; None until they were asked for.
    parts
        The shards with what their sidecars say, which the manifest agrees with; None until they were asked for.
    digest
        Digest of `parts`; empty until it was asked for.
    """

    state: tuple[int, ...] | None
    numbers: list[int]
    gone: list[int]
    manifest: Manifest | None
    paths: list[str] | None = None
    parts: list[Part] | None = None
    digest: str = ""


# by folder, the last look of this process; a query asks a dozen times what lies in the same stages
_looks: dict[str, _Look] = {}


@dataclass(eq=False, slots=True)
class Stage:
    """A folder of shards `part-NNNNNN.parquet`, each with a `.json` sidecar written last.

    A shard counts as committed only if its sidecar exists. The sidecar holds the number of rows
    and the SHA-256 of the shard and of its inputs, so that up-to-date, stale and missing shards
    can be identified. The file `manifest.json` says which shards there should be: every reader names
    those that are missing before it answers, except the writer that holds `lock()`, which writes
    them again.

    Attributes
    ----------
    folder
        Where the shards lie; it need not exist.
    label
        What the shards hold, for messages.
    partial
        Where answers from an incomplete stage are allowed: by label, the numbers that were missing
        are noted here instead of being refused.
    atlas
        Folder of the atlas, whose `atlas.toml` names its stages; None for a stage that stands outside.
    """

    folder: Path
    label: str
    partial: dict[str, list[int]] | None = None
    atlas: Path | None = None

    def parquet_path(self, number: int) -> Path:
        return self.folder / f"{shard_name(number)}.parquet"

    def shard_path(self, number: int) -> Path:
        """The Parquet file of a shard, to read it: its bytes are those that its sidecar says.

        Raises
        ------
        AtlasError
            If there is no such shard, or it is damaged.
        """
        part = self.part(number)
        if part is None:
            raise missing_shards(self.label, self.folder, [number], len({*committed_numbers(self.folder), number}))
        return part.path

    def _sidecar_path(self, number: int) -> Path:
        return self.parquet_path(number).with_suffix(".json")

    @property
    def exists(self) -> bool:
        """Whether the stage has a shard, or should have one."""
        look = self._kept_look()
        if look is not None:
            return bool(look.numbers or look.gone)
        if any(self.folder.glob("part-*.json")):
            return True
        manifest = read_manifest(self.folder)
        if manifest is None and self._is_recorded:
            if self.partial is None:
                return True
            self._note_partial([], f"{self.label} is missing as a whole; the answer is without it.")
        return manifest is not None and manifest.shards > 0

    @property
    def _is_recorded(self) -> bool:
        """Whether the atlas says that there is such a stage, wherever it may have gone."""
        if self.atlas is None or not self.folder.is_relative_to(self.atlas):
            return False
        return self.folder.relative_to(self.atlas).as_posix() in recorded_stages(self.atlas)

    def paths(self) -> list[str]:
        """Absolute paths of the committed shards in order of their numbers; sidecars are not read.

        Raises
        ------
        AtlasError
            If a shard is missing.
        """
        look = self._look()
        if look.paths is None:
            root = self.folder.resolve()
            look.paths = [str(root / f"{shard_name(number)}.parquet") for number in look.numbers]
        return list(look.paths)

    def parts(self) -> list[Part]:
        """Committed shards in order of their numbers.

        Raises
        ------
        AtlasError
            If a shard is missing, or the shards are not those that the manifest counts.
        """
        return list(self._look_at_parts().parts or [])

    def _look_at_parts(self) -> _Look:
        until = time.monotonic() + PATIENCE_S
        while True:
            look = self._look()
            if look.parts is not None:
                return look
            try:
                parts = [self._load(number) for number in look.numbers]
            except FileNotFoundError:
                # a writer replaces or removes a shard at this moment
                _looks.pop(os.path.abspath(self.folder), None)
                if time.monotonic() < until:
                    continue
                raise
            manifest = look.manifest
            if manifest is None or manifest.agrees(parts):
                look.parts = parts
                return look
            if self.partial is not None:
                return replace(look, parts=parts)
            if read_manifest(self.folder) == manifest:
                raise self._mixed(parts, manifest)
            _looks.pop(os.path.abspath(self.folder), None)

    @property
    def _holds_lock(self) -> bool:
        return bool(_held) and str(self.folder.resolve()) in _held

    def _kept_look(self) -> _Look | None:
        """The last look at the stage, if nothing has changed since."""
        look = _looks.get(os.path.abspath(self.folder))
        if look is None or self._holds_lock or look.state != stage_state(self.folder):
            return None
        return look

    def _look(self) -> _Look:
        """Which shards are here; an error where one is missing, unless that is allowed or mended."""
        look = self._kept_look()
        if look is None:
            if self._holds_lock:
                return _Look(None, committed_numbers(self.folder), [], None)
            state = stage_state(self.folder)
            look = _Look(state, *listed(self.folder))
            if state is not None:
                name = os.path.abspath(self.folder)
                _looks.pop(name, None)
                _looks[name] = look
                while len(_looks) > _KEPT_LOOKS:
                    _looks.pop(next(iter(_looks)), None)
        if look.gone:
            self._tell(look)
        elif not look.numbers and look.manifest is None and self._is_recorded:
            if self.partial is None:
                raise missing_stage(self.label, self.folder)
            self._note_partial([], f"{self.label} is missing as a whole; the answer is without it.")
        return look

    def _tell(self, look: _Look) -> None:
        shards = len({*look.numbers, *look.gone})
        if self.partial is None:
            raise missing_shards(self.label, self.folder, look.gone, shards)
        text = f"{self.label}: {len(look.gone):,} of {shards:,} shards are missing ({named_shards(look.gone)})"
        self._note_partial(look.gone, f"{text}; the answer is without them.")

    def _note_partial(self, gone: list[int], text: str) -> None:
        """Note what an answer is without, and say so once."""
        if self.partial is not None and self.partial.get(self.label) != gone:
            self.partial[self.label] = gone
            warnings.warn(text, stacklevel=3)

    def _mixed(self, parts: list[Part], manifest: Manifest) -> AtlasError:
        surplus = [part.number for part in parts if part.number not in manifest]
        found = f"{named_shards(surplus)} beyond these" if surplus else "others, of the same numbers"
        return AtlasError(
            f"Expected in {self.folder} the {manifest.shards:,} shards of {manifest.rows:,} rows that its "
            f"{MANIFEST} counts; found {found}: files of two states of the atlas are mixed.",
            "Copy the folder again whole, or run the command that makes this stage; "
            "`specclip-search --allow-partial ...` answers from what is there.",
        )

    def lost(self) -> list[int]:
        """Numbers of shards that should be there and are not."""
        manifest = read_manifest(self.folder)
        return [] if manifest is None else manifest.missing(committed_numbers(self.folder))

    def forget_missing(self) -> list[int]:
        """Take the shards that are there for the whole stage; returns the numbers given up. Hold `lock()` around it."""
        return forget_missing(self.folder, self.parts)

    def part(self, number: int) -> Part | None:
        try:
            return self._load(number)
        except FileNotFoundError:
            return None

    def _load(self, number: int) -> Part:
        name = shard_name(number)
        sidecar = self.folder / f"{name}.json"
        try:
            raw = sidecar.read_bytes()
            content = json.loads(raw)
            part = Part(
                number,
                self.folder / f"{name}.parquet",
                content["rows"],
                content["digest"],
                content["inputs"],
                content.get("extra", {}),
                "sha256:" + hashlib.sha256(raw).hexdigest(),
            )
        except FileNotFoundError:
            raise
        except PermissionError as error:
            raise not_permitted(error) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise AtlasError(
                f"{sidecar} is not a readable shard sidecar ({error}).",
                "Remove this file and run the stage's command again; it rebuilds the shard.",
            ) from error
        if not part.file.exists():
            raise AtlasError(
                f"{sidecar} names a shard that is gone: {part.file.name}.",
                "Remove the sidecar and run the stage's command again; it makes the shard anew.",
            )
        return part

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts())

    @property
    def digest(self) -> str:
        """Digest of the whole stage: of its shards' numbers and digests in order."""
        look = self._look_at_parts()
        if not look.digest:
            look.digest = text_digest(*(f"{part.number}:{part.digest}" for part in look.parts or []))
        return look.digest

    def is_current(self, number: int, inputs: str) -> bool:
        """Whether shard `number` exists and was made from `inputs`."""
        part = self.part(number)
        return part is not None and part.inputs == inputs

    @contextmanager
    def lock(self) -> Iterator[None]:
        """The right to write this stage; see `writer_lock`.

        While it is held this process sees the shards that are there, also where others are missing:
        they are told of in a warning, and it is the writer's work to make them again.
        """
        with writer_lock(self.folder):
            root = str(self.folder.resolve())
            _held.add(root)
            try:
                if gone := self.lost():
                    warnings.warn(
                        f"{self.label}: {named_shards(gone)} missing; what this run can make again it makes.",
                        stacklevel=3,
                    )
                settle(self.folder, self.parts, recount=True)
                yield
            finally:
                try:
                    if self.folder.exists():  # else it has taken the place of another
                        settle(self.folder, self.parts, recount=False)
                        if self.atlas is not None and self.exists:
                            record_stage(self.atlas, self.folder)
                finally:
                    _held.discard(root)

    @contextmanager
    def replaced(self) -> Iterator[Stage]:
        """Write the whole stage again: yields an empty one beside it, which takes its place on a clean exit.

        Call while holding `lock()`. Readers see all old shards or all new ones, and a killed run leaves the old ones.
        """
        new = Stage(self.incoming, f"new {self.label}")
        shutil.rmtree(new.folder, ignore_errors=True)
        try:
            with new.lock():
                yield new
                self.give_way(new)
        finally:
            shutil.rmtree(new.folder, ignore_errors=True)

    def give_way(self, new: Stage) -> None:
        """Let a stage that was written beside this one take its place. Call while holding `lock()` of both.

        The locks lie in the folders: that of the new one keeps other writers out until the old shards are gone.
        """
        settle(new.folder, new.parts, recount=False)
        exchange_folders(new.folder, self.folder)
        shutil.rmtree(new.folder, ignore_errors=True)

    @property
    def incoming(self) -> Path:
        """Folder in which the stage is written again as a whole."""
        return self.folder.with_name(f"{INCOMING}{self.folder.name}")

    def tidy(self) -> None:
        """Remove what a run left beside the stage that was killed after the two had changed places."""
        if self.incoming.exists():
            with suppress(AtlasError), self.lock():
                shutil.rmtree(self.incoming, ignore_errors=True)

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
            before = self._before(number)
            # also where none stands yet: a run killed before the manifest names this one must be counted again
            unsettle(self.folder)
            # a replaced shard must not be vouched for by the old sidecar, not even for an instant
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
        note_intact(path, digest)
        part = self._load(number)
        change(self.folder, lambda manifest: manifest.with_shard(part, before), lambda: self._others(number))
        return part

    def _before(self, number: int) -> Part | None:
        """The shard that is about to be replaced or removed; None where its sidecar says nothing usable."""
        try:
            return self.part(number)
        except AtlasError:
            return None

    def _others(self, number: int) -> list[Part]:
        return [self._load(n) for n in committed_numbers(self.folder) if n != number]

    def free_numbers(self) -> Iterator[int]:
        """Numbers that no committed shard has, from 0 up: a missing shard gets its own number again."""
        taken = set(committed_numbers(self.folder))
        return (number for number in count() if number not in taken)

    def remove(self, number: int) -> None:
        """Remove a shard: first from the manifest, then the sidecar, so that it is never half there or missed."""
        before = self._before(number)
        if before is not None or self._sidecar_path(number).exists() or (self.folder / MANIFEST).exists():
            change(self.folder, lambda manifest: manifest.without(number, before), lambda: self._others(number))
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
        """Re-read every shard and name those whose bytes are not what their sidecar says."""
        return [part.file.name for part in self.parts() if file_digest(part.file) != part.digest]

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
    encoded = {f.name: f.metadata[ENCODING].decode() for f in schema if ENCODING in (f.metadata or {})}
    plain = [f.name for f in schema if pa.types.is_fixed_size_list(f.type) or pa.types.is_floating(f.type)]
    options: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": 1,
        "write_statistics": [f.name for f in schema if not pa.types.is_nested(f.type)],
        "use_dictionary": [f.name for f in schema if f.name not in plain and f.name not in encoded],
    }
    if encoded:
        options["column_encoding"] = {f"{name}.list.element": kind for name, kind in encoded.items()}
    return options
