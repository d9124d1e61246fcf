"""Stored rows of a star: labels, estimates, anomaly scores, EMP evidence, translation residuals, by lookup."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from specclip_search.queries.space.lookup import open_lookup
from specclip_search.queries.views.annotate import annotate

from ...surveys import LRS, XP

if TYPE_CHECKING:

    from ...atlas import Stage
    from ..session import Session

Keys = dict[str, tuple[int, str]]


def stored_rows(session: Session, stage: Stage, name: str, key: str, value: int) -> pa.Table | None:
    """All rows of a stage whose column `key` has a value; None where the stage is empty or holds no such row."""
    files = stage.paths()
    if not files or value < 0:
        return None
    columns = pq.read_schema(files[0]).names
    if key not in columns:
        return None
    lookup = open_lookup(session.atlas, name, files, key)
    _, rows = lookup.find(np.array([value], np.int64))
    return lookup.take(rows, columns) if len(rows) else None


def star_labels(session: Session, keys: Keys) -> pa.Table:
    """Position, S/N and labels of each of the star's spectra, with what was estimated from it."""
    hits = pa.table(
        {
            "modality": pa.array(list(keys), pa.string()),
            "spec_id": pa.array([spec_id for spec_id, _ in keys.values()], pa.int64()),
            "release": pa.array([release for _, release in keys.values()], pa.string()),
        }
    )
    from specclip_search.queries.similar.table import with_estimates

    with session.connection() as connection:
        table = annotate(connection, hits)
    return with_estimates(session.atlas, session.space.model, table)


def estimates(session: Session, keys: Keys) -> dict[str, pa.Table]:
    """By modality the row of label estimates of the star's spectrum, of its release."""
    found = {}
    for modality, (spec_id, release) in keys.items():
        stage = session.atlas.estimates(modality, session.space.model)
        rows = stored_rows(session, stage, f"estimates-{session.space.model}-{modality}", "spec_id", spec_id)
        if rows is not None:
            rows = rows.filter(pc.equal(rows["release"], release))
            if rows.num_rows:
                found[modality] = rows.slice(0, 1)
    return found


def anomaly_row(session: Session, keys: Keys, source_id: int) -> pa.Table | None:
    """The star's oddest pair among the stored scores; of a LAMOST spectrum its own pair."""
    stage = session.atlas.results("anomalies")
    rows = None
    if LRS in keys:
        rows = stored_rows(session, stage, "anomalies", "lrs_spec_id", keys[LRS][0])
    if rows is None:
        rows = stored_rows(session, stage, "anomalies", "source_id", source_id)
    return None if rows is None else rows.take(pc.sort_indices(rows, [("score", "descending")])[:1])


def emp_row(session: Session, keys: Keys, source_id: int) -> pa.Table | None:
    """The star's row among the stored EMP scores."""
    stage = session.atlas.results("emp")
    rows = stored_rows(session, stage, "emp", "source_id", source_id)
    if rows is None and LRS in keys:
        rows = stored_rows(session, stage, "emp", "lrs_spec_id", keys[LRS][0])
    return None if rows is None else rows.slice(0, 1)


def translation_row(session: Session, keys: Keys) -> pa.Table | None:
    """What `translate` measured of the star's pair of spectra."""
    if LRS not in keys:
        return None
    space = session.space
    stage = session.atlas.translations(space.model)
    rows = stored_rows(session, stage, f"translations-{space.model}", "lrs_spec_id", keys[LRS][0])
    if rows is None:
        return None
    rows = rows.filter(pc.equal(rows["lrs_release"], keys[LRS][1]))
    return rows.slice(0, 1) if rows.num_rows else None


def window_sigmas(session: Session, keys: Keys) -> dict[str, dict[str, float]]:
    """By modality and window the residual in sigma."""
    row = translation_row(session, keys)
    if row is None:
        return {}
    result = {}
    for side, modality in (("lrs", LRS), ("xp", XP)):
        column = row.schema.field(f"{side}_window_sigma")
        names = (column.metadata or {}).get(b"windows", b"").decode().split(", ")
        values = row[column.name][0].as_py()
        if values is not None and len(names) == len(values):
            result[modality] = dict(zip(names, values, strict=True))
    return result


def map_place(session: Session, keys: Keys) -> tuple[float, float] | None:
    """Where the star lies on the stored map."""
    stage = session.atlas.results("map")
    for modality, (spec_id, release) in keys.items():
        rows = stored_rows(session, stage, "map", "spec_id", spec_id)
        if rows is None:
            continue
        same = pc.and_(pc.equal(rows["modality"], modality), pc.equal(rows["release"], release))
        rows = rows.filter(same)
        if rows.num_rows:
            return float(rows["x"][0].as_py()), float(rows["y"][0].as_py())
    return None
