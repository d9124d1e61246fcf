"""Lists to judge: the strangest stars, and candidates for extremely metal-poor ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from specclip_search.queries.anomalies.listing import listed
from specclip_search.queries.anomalies.verdicts import read_log, read_verdicts

from ...errors import QueryError
from ..answers import Page, as_table, real_number, rows_json, whole_number

if TYPE_CHECKING:
    from ..session import Session

QUEUES = ("anomalies", "emp")
# filters look this far down the list
POOL = 5000
MOST = 1000
_ANOMALY_FIRST = ("rank", "key", "source_id", "score", "q_value", "kind", "reason", "verdict")


def anomalies_page(session: Session, query: Mapping[str, str]) -> Page:
    """The oddest stars by the stored scores, verdicts heeded.

    `top`, `kind`, `q` (false-discovery rate at most), `snr` (LRS S/N at least), `verdict` (`none`, or one of the
    verdicts) and `every_visit=1` choose.
    """
    space = session.space
    if not session.atlas.results("anomalies").exists:
        raise QueryError("The atlas holds no anomaly scores.", "Run `specclip-search anomalies` on it first.")
    top = whole_number(query.get("top"), "top", 1, MOST, 100)
    group = query.get("every_visit") != "1"
    table = session.kept(
        ("anomalies", group),
        lambda: as_table(listed(space, POOL, group, read_verdicts(session.atlas))),
        verdicts=True,
    )
    table = _with_key(_with_verdict(session, "anomalies", table))
    kinds = pc.unique(table["kind"]).to_pylist()
    keep = np.ones(table.num_rows, dtype=bool)
    if query.get("kind"):
        keep &= pc.equal(table["kind"], query["kind"]).to_numpy(zero_copy_only=False)
    keep &= _filters(table, query, {"q": ("q_value", False), "snr": ("lrs_snr", True), "score": ("score", True)})
    keep &= _by_verdict(table, query)
    judged = int(np.sum(~np.asarray(table["verdict"].is_null())))
    chosen = table.filter(pa.array(keep))
    shown = chosen.slice(0, top)
    content = {
        **rows_json(_first(shown, _ANOMALY_FIRST)),
        "queue": "anomalies",
        "kinds": sorted(kind for kind in kinds if kind),
        "matching": chosen.num_rows,
        "judged": judged,
        "looked_through": table.num_rows,
    }
    return Page(content, _first(shown, _ANOMALY_FIRST))


def emp_page(session: Session, query: Mapping[str, str]) -> Page:
    """The stars most likely to be metal-poor by the stored scores.

    `top`, `p` (probability at least), `snr` (XP S/N at least), `clean=1` (no flag but carbon_enhanced) and
    `verdict` choose.
    """
    top = whole_number(query.get("top"), "top", 1, MOST, 100)
    table = session.kept(("emp",), lambda: _best_emp(session))
    table = _with_key(_with_verdict(session, "emp", table))
    keep = _filters(table, query, {"p": ("probability", True), "snr": ("xp_snr", True)})
    if query.get("clean") == "1":
        flags = [set((text or "").split()) - {"carbon_enhanced"} for text in table["flags"].to_pylist()]
        keep &= np.array([not words for words in flags], dtype=bool)
    keep &= _by_verdict(table, query)
    judged = int(np.sum(~np.asarray(table["verdict"].is_null())))
    chosen = table.filter(pa.array(keep))
    shown = chosen.slice(0, top)
    first = ("rank", "key", "source_id", "probability", "feh", "feh_err", "flags", "verdict")
    below = next((part.extra.get("below") for part in session.atlas.results("emp").parts()), None)
    content = {
        **rows_json(_first(shown, first)),
        "queue": "emp",
        "below": below,
        "matching": chosen.num_rows,
        "judged": judged,
        "looked_through": table.num_rows,
    }
    return Page(content, _first(shown, first))


def _best_emp(session: Session) -> pa.Table:
    """The stored rows of highest probability, the poorest first among equals."""
    stage = session.atlas.results("emp")
    if not stage.exists:
        raise QueryError("The atlas holds no EMP scores.", "Run `specclip-search emp` on it first.")
    keys = stage.read(["probability", "feh", "source_id"])
    feh = np.nan_to_num(keys["feh"].fill_null(np.nan).to_numpy(), nan=9.0)
    probability = keys["probability"].fill_null(-1.0).to_numpy()
    order = np.lexsort((keys["source_id"].fill_null(-1).to_numpy(), feh, -probability))[:POOL]
    pieces, owners, start = [], [], 0
    for part in stage.parts():
        here = np.flatnonzero((order >= start) & (order < start + part.rows))
        if len(here):
            pieces.append(pq.ParquetFile(part.path).read().take(pa.array(order[here] - start)))
            owners.append(here)
        start += part.rows
    table = pa.concat_tables(pieces).take(pa.array(np.argsort(np.concatenate(owners), kind="stable")))
    return table.add_column(0, "rank", pa.array(np.arange(1, table.num_rows + 1)))


def _with_key(table: pa.Table) -> pa.Table:
    """A column `key` that leads to the star's page: its XP spectrum, else its LAMOST one."""
    xp = pc.binary_join_element_wise("gaia:", table["xp_spec_id"].cast(pa.string()), "")
    lrs = pc.binary_join_element_wise("lamost:", table["lrs_spec_id"].cast(pa.string()), "")
    return table.append_column("key", pc.coalesce(xp, lrs))


def _with_verdict(session: Session, queue: str, table: pa.Table) -> pa.Table:
    """Columns `verdict`, `note` and `judged_by`: what was last said of each star in this queue."""
    said = read_log(session.atlas).standing(queue)
    pairs = list(
        zip(table["lrs_spec_id"].fill_null(-1).to_pylist(), table["xp_spec_id"].fill_null(-1).to_pylist(), strict=True)
    )
    for name in ("verdict", "note", "judged_by"):
        if name in table.column_names:
            table = table.drop_columns([name])
    columns = {
        "verdict": [said[pair].verdict if pair in said else None for pair in pairs],
        "note": [said[pair].note if pair in said else None for pair in pairs],
        "judged_by": [said[pair].users if pair in said else None for pair in pairs],
    }
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values, pa.string()))
    return table


def _filters(table: pa.Table, query: Mapping[str, str], limits: dict[str, tuple[str, bool]]) -> np.ndarray:
    keep = np.ones(table.num_rows, dtype=bool)
    for name, (column, at_least) in limits.items():
        limit = real_number(query.get(name), name)
        if limit is None:
            continue
        values = table[column].cast(pa.float64()).fill_null(np.nan).to_numpy()
        with np.errstate(invalid="ignore"):
            keep &= values >= limit if at_least else values <= limit
    return keep


def _by_verdict(table: pa.Table, query: Mapping[str, str]) -> np.ndarray:
    wanted = query.get("verdict") or ""
    words = table["verdict"].to_pylist()
    if wanted == "":
        return np.ones(len(words), dtype=bool)
    if wanted == "none":
        return np.array([word is None for word in words], dtype=bool)
    return np.array([word == wanted for word in words], dtype=bool)


def _first(table: pa.Table, names: tuple[str, ...]) -> pa.Table:
    ahead = [name for name in names if name in table.column_names]
    return table.select([*ahead, *(name for name in table.column_names if name not in ahead)])


def history_page(session: Session, query: Mapping[str, str]) -> Page:
    """Every verdict that was given, the latest first: who said what, and when."""
    table = read_log(session.atlas).table()
    table = table.take(pa.array(np.arange(table.num_rows)[::-1]))
    content: dict[str, Any] = rows_json(table.slice(0, MOST), table.num_rows > MOST)
    return Page(content, table)
