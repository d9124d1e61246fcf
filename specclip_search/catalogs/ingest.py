"""Ingest of star catalogues into the atlas: streamed, with exact ids, units and descriptions.

A file that was ingested before in the same way is recognised by its size, time and settings.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..atlas import Stage
from ..atlas.files import file_digest, not_permitted, text_digest, write_json
from ..errors import AtlasError, SpecclipError
from ..opening.guard import reading
from .columns import NO_KEY, ColumnPlan, convert_chunk, plan_columns
from .formats import open_catalog
from .ids import ids_to_int64
from .names import OWN, is_reserved
from .stream import CHUNK_ROWS, CatalogFile, rechunk

if TYPE_CHECKING:
    from astropy.table import Table

    from ..atlas import Atlas

def file_state(file: Path) -> dict[str, Any]:
    """Marks by which an unchanged file is recognised quickly."""
    paths = sorted(file.rglob("*.parquet")) if file.is_dir() else [file]
    try:
        stats = [path.stat() for path in paths]
    except OSError as error:
        raise SpecclipError(
            f"Expected a catalogue at {file}; found {error.strerror or error}.", "Check the path and its permissions."
        ) from error
    return {
        "path": str(file.resolve()),
        "size": sum(s.st_size for s in stats),
        "mtime_ns": max((s.st_mtime_ns for s in stats), default=0),
    }


def content_digest(file: Path) -> str:
    if file.is_dir():
        return text_digest(*(f"{p.relative_to(file)}:{file_digest(p)}" for p in sorted(file.rglob("*.parquet"))))
    return file_digest(file)


def table_digest(table: pa.Table) -> str:
    import hashlib

    sink = hashlib.sha256()

    class _Sink:
        closed = False

        def write(self, data: Any) -> int:
            sink.update(data)
            return len(data)

        def flush(self) -> None: ...

        def close(self) -> None: ...

    with pa.ipc.new_stream(pa.PythonFile(_Sink(), mode="w"), table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=CHUNK_ROWS)
    return "sha256:" + sink.hexdigest()


MANIFEST = "catalog.json"
CHECK = "check"
FORMAT = 1


class Progress(Protocol):
    def __call__(self, done: int, total: int | None, note: str = "") -> None: ...


@dataclass(slots=True)
class CatalogReport:
    """Report of a catalogue ingest; read = kept + sum of rejected.

    Attributes
    ----------
    invalid_ids
        By key column: number of values that are not valid ids and became null.
    repeated_ids
        By key column: rows whose id an earlier row has too. They are kept.
    missing_values, implausible, limits, not_numbers
        By label: how many survey codes for 'no value' (-9999, -99.99), numbers outside the label's range, limits
        (``<-4.0``) and texts that are no number became null.
    examples
        By label: one of the values that became null.
    renamed, skipped
        File's name to ours; columns left out and why.
    notes
        How the file was read where that is not plain: tables and lines left out, a result that the server cut.
    unchanged
        True if the file had been ingested before in the same way, so that nothing was done.
    """

    name: str
    read: int = 0
    kept: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    invalid_ids: dict[str, int] = field(default_factory=dict)
    repeated_ids: dict[str, int] = field(default_factory=dict)
    missing_values: dict[str, int] = field(default_factory=dict)
    implausible: dict[str, int] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    not_numbers: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    parts_written: int = 0
    parts_current: int = 0
    unchanged: bool = False


def ingest_catalog(
    atlas: Atlas,
    name: str,
    path: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    arrays: bool = False,
    hdu: str | None = None,
    progress: Progress | None = None,
) -> CatalogReport:
    """Read a catalogue file into `catalogs/<name>`.

    FITS, VOTable, ECSV, CSV (comma, '|', tab, ';', blank; gzipped or not) and Parquet, identified
    by content. Column names become plain lower-case SQL names; usual spellings of labels become our
    names (fe_h becomes feh; alpha_m is kept, it is not alpha_fe); the original name stays in the column's
    metadata. `source_id` and `obsid` are exact int64. Rows without any valid key or position
    are rejected and counted; repeated ids are kept and counted. A second run does nothing if the
    file is unchanged, and an interrupted run is resumed.

    Parameters
    ----------
    columns
        Keep only these columns, named as in the file or after renaming.
    rename
        Mapping from the file's column names to ours, for spellings that are not recognised.
    arrays
        Keep columns of arrays.
    hdu
        Which table of a FITS file or VOTable with several, by name or number; by default the one with keys.
    progress
        Called as progress(rows done, rows in all or None, note).

    Raises
    ------
    SpecclipError
        If the file is missing or damaged, a named column does not exist, or ids are floats that
        cannot be exact.
    AtlasError
        If `name` cannot be a catalogue's name, or another process is writing it.
    """
    file = Path(path)
    if name in OWN:
        raise AtlasError(
            f"'{name}' cannot be the name of a catalogue: `specclip-search` makes one of that name itself.",
            "Choose another, for example the survey's.",
        )
    stage = _named_stage(atlas, name)
    wanted = None if columns is None else list(columns)
    options: dict[str, Any] = {"columns": wanted, "rename": dict(rename or {}), "arrays": arrays}
    if hdu is not None:
        options["hdu"] = hdu
    state = file_state(file)
    known = read_manifest(stage)
    if known is not None and known["options"] == options and known["source"] == state and _whole(stage, known):
        stage.tidy()
        return _as_unchanged(known)
    opened = open_catalog(file, hdu)
    digest = content_digest(file)
    origin = {"options": options, "source": state, "digest": digest}
    if known is not None and known["options"] == options and known["digest"] == digest and _whole(stage, known):
        with stage.lock():
            _write_manifest(stage.folder, {**known, **origin})
        stage.tidy()
        return _as_unchanged(known)
    plan = plan_columns(opened.schema, columns, rename, arrays, lambda column: holds_ids(opened, column))
    return _write(stage, name, opened, plan, origin, progress)


def ingest_catalog_table(
    atlas: Atlas,
    name: str,
    table: pa.Table | Table,
    *,
    source: str = "table in memory",
    columns: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    arrays: bool = False,
) -> CatalogReport:
    """Ingest an Arrow or astropy table into `catalogs/<name>`, as `ingest_catalog` does for a file.

    Parameters
    ----------
    source
        Origin of the table, recorded in the catalogue's manifest.
    """
    from .arrow import astropy_to_arrow, table_in_memory

    stage = _named_stage(atlas, name)
    arrow = table if isinstance(table, pa.Table) else astropy_to_arrow(table)
    options = {"columns": None if columns is None else list(columns), "rename": dict(rename or {}), "arrays": arrays}
    origin = {"options": options, "source": {"path": source}, "digest": table_digest(arrow)}
    known = read_manifest(stage)
    if known is not None and all(known[key] == value for key, value in origin.items()) and _whole(stage, known):
        stage.tidy()
        return _as_unchanged(known)
    return _write(
        stage, name, table_in_memory(arrow), plan_columns(arrow.schema, columns, rename, arrays), origin, None
    )


def holds_ids(opened: CatalogFile, column: str) -> bool:
    """Whether the first values of a column are Gaia's ids; nine in ten must be, to be told from other words."""
    for chunk in opened.chunks([column]):
        values = chunk[column].slice(0, 1000)
        if not (pa.types.is_integer(values.type) or pa.types.is_string(values.type)):
            return False
        ids, _ = ids_to_int64(values, column)
        large = pc.sum(pc.greater(ids, 1 << 33)).as_py() or 0
        return large > 0 and large >= 0.9 * (len(values) - values.null_count)
    return False


def read_manifest(stage: Stage) -> dict[str, Any] | None:
    """The manifest of a completed catalogue; None if there is none."""
    path = stage.folder / MANIFEST
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        # catalogues of older versions have no digest here
        check = content.pop(CHECK, None)
        if check is not None and check != _digest_of(content):
            raise ValueError("it does not say what was written")
        return content if content["format"] == FORMAT else None
    except PermissionError as error:
        raise not_permitted(error) from error
    except (ValueError, KeyError, OSError, AttributeError, TypeError) as error:
        raise AtlasError(f"{path} is not readable ({error}).", "Remove it and ingest the catalogue again.") from error


def _write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    write_json(folder / MANIFEST, {**content, CHECK: _digest_of(content)})


def _digest_of(content: Mapping[str, Any]) -> str:
    # as it will be read back: tuples become lists, keys text
    return text_digest(json.dumps(json.loads(json.dumps(content)), sort_keys=True))


def _named_stage(atlas: Atlas, name: str) -> Stage:
    from .columns import sql_name

    if sql_name(name) != name.lower() or name != name.lower():
        raise AtlasError(
            f"'{name}' cannot be the name of a catalogue: it must be a plain SQL name.",
            f"Lower-case letters, digits and '_' only, for example '{sql_name(name)}'.",
        )
    if is_reserved(name):
        raise AtlasError(
            f"'{name}' cannot be the name of a catalogue: SQL has a view of that name, or will have.",
            "Choose another, for example the survey's.",
        )
    return atlas.catalog(name)


def _whole(stage: Stage, manifest: Mapping[str, Any]) -> bool:
    try:
        return [part.digest for part in stage.parts()] == manifest["parts"]
    except AtlasError:
        # shards are missing or damaged: the catalogue is to be read again
        return False


def _as_unchanged(manifest: Mapping[str, Any]) -> CatalogReport:
    report = CatalogReport(**manifest["report"])
    report.parts_current, report.unchanged = len(manifest["parts"]), True
    return report


def _write(
    stage: Stage, name: str, opened: CatalogFile, plan: ColumnPlan, origin: dict[str, Any], progress: Progress | None
) -> CatalogReport:
    report = CatalogReport(name, renamed=plan.renamed, skipped=plan.skipped, keys=plan.keys, notes=opened.notes)
    ids: dict[str, list[np.ndarray]] = {key: [] for key in plan.keys}
    # written beside the catalogue that stands; a killed run is taken up there again
    new = Stage(stage.incoming, f"new catalogue '{name}'")
    with warnings.catch_warnings(), stage.lock():
        # what is missing in the catalogue that is replaced is of no interest any more
        warnings.simplefilter("ignore", UserWarning)
        try:
            with new.lock():
                digests = list(_write_parts(new, opened, plan, origin, report, ids, progress))
                for part in new.parts()[len(digests) :]:
                    new.remove(part.number)
                report.repeated_ids = {key: repeats for key, arrays in ids.items() if (repeats := _repeats(arrays))}
                done = {**asdict(report), "parts_written": 0, "parts_current": 0}
                _write_manifest(new.folder, {"format": FORMAT, **origin, "parts": digests, "report": done})
                stage.give_way(new)
        except SpecclipError:
            shutil.rmtree(new.folder, ignore_errors=True)
            raise
    return report


def _write_parts(
    stage: Stage,
    opened: CatalogFile,
    plan: ColumnPlan,
    origin: dict[str, Any],
    report: CatalogReport,
    ids: dict[str, list[np.ndarray]],
    progress: Progress | None,
) -> Iterator[str]:
    wanted = [column.source for column in plan.columns]
    recipe = text_digest(origin["digest"], json.dumps(origin["options"], sort_keys=True), str(CHUNK_ROWS), str(FORMAT))
    for number, chunk in enumerate(rechunk(_at_least_one(opened, wanted), CHUNK_ROWS)):
        with reading(origin["source"]["path"], "a catalogue"):
            done = convert_chunk(chunk, plan)
        report.read += chunk.num_rows
        report.kept += done.table.num_rows
        _add(report.rejected, {NO_KEY: done.rejected} if done.rejected else {})
        _add(report.invalid_ids, done.invalid_ids)
        for kind, total in (("missing", report.missing_values), ("implausible", report.implausible),
                            ("limits", report.limits), ("not_numbers", report.not_numbers)):
            _add(total, {name: counts[kind] for name, counts in done.cleaned.items() if counts[kind]})
        report.examples = {**done.examples, **report.examples}
        for key in plan.keys:
            ids[key].append(done.table[key].drop_null().to_numpy())
        inputs = text_digest(recipe, str(number))
        part = stage.part(number) if stage.is_current(number, inputs) else None
        if part is None:
            part = stage.write(number, done.table, schema=plan.schema, inputs=inputs)
            report.parts_written += 1
        else:
            report.parts_current += 1
        yield part.digest
        if progress is not None:
            progress(report.read, opened.rows)


def _at_least_one(opened: CatalogFile, wanted: list[str]) -> Iterator[pa.Table]:
    rows = 0
    for table in opened.chunks(wanted):
        rows += table.num_rows
        yield table
    if rows == 0:
        raise SpecclipError("The catalogue has columns but no rows.", "Check that the file is complete.")


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for key, value in more.items():
        total[key] = total.get(key, 0) + value


def _repeats(arrays: list[np.ndarray]) -> int:
    values = np.concatenate(arrays) if arrays else np.empty(0, np.int64)
    return len(values) - len(np.unique(values))
