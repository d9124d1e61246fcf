"""Catalogues from TAP services: rows of given stars, of a circle, or of a query, as Parquet."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..atlas.files import whole_file
from ..catalogs.formats import open_catalog
from ..catalogs.ids import ids_to_int64
from ..errors import FetchError, QueryError, SpecclipError
from ..progress import Progress
from .archive import GAIA, MOST_IDS, Archive
from .ledger import FetchReport, chunks, different, ids_digest, open_ledger, read_ids
from .patience import Patience, Transient

CHUNK = 2000
_TABLE = re.compile(r'[\w$]+(\.[\w$]+)*|"[^"]+"|(\w+\.)?"[^"]+"', re.ASCII)
_COLUMN = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def fetch_catalog(
    folder: str | os.PathLike[str],
    *,
    table: str | None = None,
    columns: Sequence[str] | None = None,
    ids: Sequence[int] | str | os.PathLike[str] | None = None,
    key: str = "source_id",
    cone: tuple[float, float, float] | None = None,
    sql: str | None = None,
    archive: str = GAIA,
    credentials: Path | None = None,
    chunk: int = CHUNK,
    patience: Patience | None = None,
    progress: Progress | None = None,
) -> FetchReport:
    """Download rows of a table into a folder of Parquet files that `ingest_catalog` takes; units are kept.

    Rows of given ids are asked for in chunks; an id that the table does not have is named in ``missing.txt``.

    Parameters
    ----------
    folder
        A new folder, or that of the same download before.
    table, columns
        ``gaiadr3.gaia_source``; all its columns by default.
    ids, key
        Ids, or a file of them, and the table's column of them.
    cone
        Right ascension, declination and radius, degrees; the table's columns are `ra` and `dec`.
    sql
        ADQL instead of `table`.
    archive
        The Gaia archive, or the address of another TAP service: ``https://host/context/tap``.
    credentials, chunk, patience, progress
        As of `specclip_search.fetch.datalink.fetch_gaia_xp`.

    Raises
    ------
    QueryError
        If the request is not valid, or the folder holds another one.
    FetchError
        If the archive refuses, does not answer, or cuts the result; what came is kept.
    """
    given, repeated = different(read_ids(ids, key) if isinstance(ids, str | os.PathLike) else ids or [])
    head, where = _select(table, columns, None if ids is None else key, cone, sql)
    patient = patience or Patience()
    names = list(chunks(given, chunk, MOST_IDS)) if ids is not None else [("000001", [])]
    request: dict[str, Any] = {"what": "catalog", "archive": archive, "query": f"{head} {where}", "chunk": chunk,
                               "of": ids_digest(given)}
    with open_ledger(folder, request) as ledger:
        ledger.set_asked(given)
        server = Archive(archive, seconds=patient.timeout, credentials=credentials)
        missing: dict[int, str] = {}
        requests = 0
        for number, part in names:
            if number not in ledger.done:
                adql = f"{head} WHERE {key} IN ({', '.join(map(str, part))})" if part else f"{head} {where}"
                rows = patient.call(f"Chunk {number}", partial(_rows, server, adql, ledger.folder))
                requests += 1
                target = ledger.folder / f"part-{number}.parquet"
                with whole_file(target) as temporary:
                    pq.write_table(rows, temporary, compression="zstd")
                here = _keys(rows, key) if part else set()
                ledger.add(number, files={target.name: target.stat().st_size}, rows=rows.num_rows,
                           missing=[one for one in part if one not in here])
            missing |= dict.fromkeys(ledger.done[number]["missing"], f"{table} has no row of it")
            if progress is not None:
                progress(min(int(number) * chunk, len(given)), len(given), "")
        return ledger.report(given, len(given) - len(missing), missing, repeated, requests)


def _select(
    table: str | None, columns: Sequence[str] | None, key: str | None, cone: tuple[float, float, float] | None,
    sql: str | None,
) -> tuple[str, str]:
    """ADQL before and after the condition on ids."""
    if [key is None, cone is None, sql is None].count(False) != 1:
        raise QueryError("Expected one of ids, a cone and a query.", "Give --ids FILE, --cone RA,DEC,RADIUS or --sql.")
    if sql is not None:
        return sql, ""
    if table is None or _TABLE.fullmatch(table) is None:
        raise QueryError(f"Expected the name of a table; found '{table}'.", "For example gaiadr3.gaia_source")
    odd = [name for name in columns or () if _COLUMN.fullmatch(name) is None]
    if odd:
        raise QueryError(f"'{odd[0]}' is no name of a column.", "Give --columns source_id,ra,dec")
    if key is not None and columns and key not in columns:
        columns = [key, *columns]
    head = f"SELECT {', '.join(columns) if columns else '*'} FROM {table}"
    if cone is None:
        return head, ""
    ra, dec, radius = cone
    return head, f"WHERE 1 = CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', {ra!r}, {dec!r}, {radius!r}))"


def _rows(server: Archive, adql: str, folder: Path) -> pa.Table:
    """The result of a query."""
    with tempfile.TemporaryDirectory(prefix=".query-", dir=folder) as place:
        target = Path(place) / "result.vot"
        server.query(adql, target)
        try:
            opened = open_catalog(target)
            tables = list(opened.chunks(opened.schema.names))
        except SpecclipError as error:
            raise Transient(f"the result came cut or damaged ({error.message[-150:]})") from None
        cut = [note for note in opened.notes if "cut" in note]
        if cut:
            raise FetchError(f"The archive cut the result: {cut[0]}", "Ask for fewer rows, or log in (--credentials).")
        return pa.concat_tables(tables) if tables else opened.schema.empty_table()


def _keys(rows: pa.Table, key: str) -> set[int]:
    name = next((name for name in rows.column_names if name.lower() == key.lower()), None)
    if name is None:
        raise FetchError(f"The result has no column {key} (found {', '.join(rows.column_names[:6])}).",
                         "Name the column of ids with --key.")
    return set(ids_to_int64(rows[name], name)[0].drop_null().to_pylist())
