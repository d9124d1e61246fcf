"""The page of one star."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from specclip_search.queries.anomalies.verdicts import read_verdicts
from specclip_search.queries.report.words import emp_words
from specclip_search.queries.similar.search import search_targets
from specclip_search.queries.similar.table import hits_table, with_estimates
from specclip_search.queries.space.targets import resolve_targets
from specclip_search.queries.views.annotate import annotate

from ...errors import QueryError
from ...keys import SpectrumKey
from ..answers import Page, records, rows_json, whole_number
from . import scores
from .curves import LRS, XP, checked_key, packed_panels, star_keys, star_panels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..session import Session

LABELS = ("teff", "logg", "feh", "alpha_fe", "c_fe", "rv")
TABLES = ("labels", "anomaly", "emp", "translation", "neighbours")
MOST_NEIGHBOURS = 200
_PREFIX = {LRS: "lamost", XP: "gaia"}


def star_page(session: Session, text: str, query: Mapping[str, str]) -> Page:
    """Everything of a star but its spectra and neighbours, which have addresses of their own.

    Raises
    ------
    QueryError
        If the text is no key, or not in the atlas.
    """
    text = checked_key(text)
    key, keys, source_id = star_keys(session, text)
    tables = {
        "labels": scores.star_labels(session, keys),
        "anomaly": scores.anomaly_row(session, keys, source_id),
        "emp": scores.emp_row(session, keys, source_id),
        "translation": scores.translation_row(session, keys),
    }
    labels = records(tables["labels"])
    row = labels[0]
    place = next(((r["ra"], r["dec"]) for r in labels if r["ra"] is not None and r["dec"] is not None), None)
    content = {
        "key": text,
        "title": f"Gaia DR3 {source_id}" if source_id >= 0 else f"LAMOST {key.spec_id}",
        "source_id": str(source_id) if source_id >= 0 else None,
        "keys": {name: str(SpectrumKey(name, spec_id)) for name, (spec_id, _) in keys.items()},
        "ra": None if place is None else place[0],
        "dec": None if place is None else place[1],
        "spectra": labels,
        "labels": _labels(session, keys, labels),
        "visits": _visits(session, source_id, keys),
        "anomaly": _anomaly(session, tables["anomaly"]),
        "emp": _emp(session, tables["emp"]),
        "map": scores.map_place(session, keys),
        "links": _links(place, row, keys),
        "copy": _copies(session, text),
        "tables": [name for name, table in tables.items() if table is not None] + ["neighbours"],
    }
    return Page(content, _chosen_table(session, text, query, tables))


def _chosen_table(session: Session, key: str, query: Mapping[str, str], tables: dict[str, pa.Table | None]) -> pa.Table:
    """The rows that the page gives as CSV, VOTable or Parquet, by `?table=`."""
    name = query.get("table", "labels")
    if name not in TABLES:
        raise QueryError(f"A star has no table '{name[:40]}'.", f"Choose one of {', '.join(TABLES)}.")
    if name == "neighbours":
        # only asked for where it is: a search belongs to no other format of the page
        return neighbours_table(session, key, query)
    table = tables[name]
    if table is None:
        raise QueryError(f"This star has no row of '{name}' in the atlas.", "Choose another table.")
    return table


def neighbours_table(session: Session, key: str, query: Mapping[str, str]) -> pa.Table:
    """The nearest spectra in each instrument, or in one (`within`)."""
    k = whole_number(query.get("k"), "k", 1, MOST_NEIGHBOURS, 10)
    within = query.get("within") or None
    where = query.get("where")
    if where is not None:
        raise QueryError("A page takes no condition.", "Use similar() on the SQL page: its conditions are SQL.")
    modalities = [session.space.require(within)] if within else list(session.space.modalities)
    space = session.space
    lists = search_targets(space, resolve_targets(space, [key]), k, modalities, exclude_repeats=True)[0]
    table = pa.concat_tables([hits_table(space, [hits], k, {}) for hits in lists])
    # the same steps as `similar`, on a connection that is open already
    with session.connection() as connection:
        table = annotate(connection, table)
    return with_estimates(session.atlas, space.model, table)


def neighbours_page(session: Session, text: str, query: Mapping[str, str]) -> Page:
    """Neighbours of a star as rows, each with its key."""
    key = checked_key(text)
    asked = tuple((name, query[name]) for name in ("k", "within", "where") if name in query)
    table = session.kept(("near", key, asked), lambda: neighbours_table(session, key, query))
    content = rows_json(table)
    modality = [column["name"] for column in content["columns"]].index("modality")
    spec_id = [column["name"] for column in content["columns"]].index("spec_id")
    content["keys"] = [f"{_PREFIX[row[modality]]}:{row[spec_id]}" for row in content["rows"]]
    return Page(content, table)


def spectra_bytes(session: Session, text: str, query: Mapping[str, str]) -> bytes:
    """The star's spectra for the viewer; `?own=1` leaves prediction, residuals and neighbours out."""
    whole = query.get("own") != "1"
    text = checked_key(text)

    def make() -> bytes:
        _, keys, _ = star_keys(session, text)
        return packed_panels(star_panels(session, keys, whole=whole))

    return session.kept(("spectra", text, whole), make)


def _labels(session: Session, keys: scores.Keys, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each label from every source that has it: catalogues, and the estimators of each instrument."""
    told: list[dict[str, Any]] = []
    seen = set()
    for row in rows:
        for name in LABELS:
            value = row.get(name)
            if value is not None and (name, value) not in seen:
                seen.add((name, value))
                told.append({"label": name, "source": row.get("label_source") or "catalogue", "value": value,
                             "error": row.get(f"{name}_err")})  # fmt: skip
    for modality, table in scores.estimates(session, keys).items():
        row = records(table)[0]
        for name in LABELS:
            if row.get(name) is not None:
                told.append({"label": name, "source": f"estimated from {modality}", "value": row[name],
                             "error": row.get(f"{name}_err"), "flag": row.get("flag")})  # fmt: skip
    return told


def _visits(session: Session, source_id: int, keys: scores.Keys) -> list[dict[str, Any]]:
    """All LAMOST spectra of the star."""
    if source_id < 0 or LRS not in session.space.modalities:
        return []
    table = session.space.keys(LRS)
    rows, _ = table.rows_of_sources(np.array([source_id], np.int64))
    if len(rows) < 2:
        return []
    ids, releases = np.asarray(table.spec_id[rows]).tolist(), table.release_names(rows)
    return [
        {"key": f"lamost:{spec_id}@{release}", "release": release, "shown": keys.get(LRS) == (spec_id, release)}
        for spec_id, release in zip(ids, releases, strict=True)
    ]


def _anomaly(session: Session, table: pa.Table | None) -> dict[str, Any] | None:
    if table is None:
        return None
    row = records(table)[0]
    said = {f.name: (f.metadata or {}).get(b"description", b"").decode() for f in table.schema}
    z = [
        {"name": name.removeprefix("z_").replace("_", " "), "z": value, "description": said[name]}
        for name, value in row.items()
        if name.startswith("z_") and value is not None
    ]
    z.sort(key=lambda one: -one["z"])
    pair = (int(row["lrs_spec_id"]), int(row["xp_spec_id"]))
    return {"row": {k: v for k, v in row.items() if not k.startswith("z_")}, "z": z,
            "verdict": verdict_of(session, pair)}  # fmt: skip


def verdict_of(session: Session, pair: tuple[int, int]) -> str | None:
    """The verdict that stands on a pair."""
    verdicts = read_verdicts(session.atlas)
    here = (verdicts.lrs_spec_id == pair[0]) & (verdicts.xp_spec_id == pair[1])
    return str(verdicts.verdict[here][0]) if here.any() else None


def _emp(session: Session, table: pa.Table | None) -> dict[str, Any] | None:
    if table is None:
        return None
    row = records(table)[0]
    frame = table.to_pandas(types_mapper=None).iloc[0]
    evidence = [
        {"name": field.name.replace("_", " "), "value": row[field.name],
         "unit": (field.metadata or {}).get(b"unit", b"").decode(),
         "description": (field.metadata or {}).get(b"description", b"").decode()}
        for field in table.schema
        if row[field.name] is not None and not field.name.endswith(("_id", "_release")) and field.name != "flags"
    ]  # fmt: skip
    return {"row": row, "evidence": evidence, "words": emp_words(frame)}


def _links(place: tuple[float, float] | None, row: dict[str, Any], keys: scores.Keys) -> list[dict[str, str]]:
    """Other services' pages of the star."""
    found = []
    if place is not None:
        at = quote(f"{place[0]:.6f} {place[1]:+.6f}")
        found += [
            ("Simbad", f"https://simbad.cds.unistra.fr/simbad/sim-coo?Coord={at}&Radius=5&Radius.unit=arcsec"),
            ("Aladin", f"https://aladin.cds.unistra.fr/AladinLite/?target={at}&fov=0.05"),
            ("ESASky", f"https://sky.esa.int/esasky/?target={at}&fov=0.05&cooframe=J2000"),
            ("VizieR", f"https://vizier.cds.unistra.fr/viz-bin/VizieR?-c={at}&-c.rs=5"),
        ]
    if row.get("source_id"):
        found.append(
            ("Gaia in Simbad", f"https://simbad.cds.unistra.fr/simbad/sim-id?Ident=Gaia+DR3+{row['source_id']}")
        )
    release = keys.get(LRS, (0, ""))[1]
    if release.startswith("dr") and release[2:3].isdigit():
        address = f"https://www.lamost.org/{quote(release)}/v2.0/spectrum/view?obsid={keys[LRS][0]}"
        found.append(("LAMOST", address))
    return [{"name": name, "url": url} for name, url in found]


def _copies(session: Session, key: str) -> dict[str, str]:
    """How to ask the same in a terminal, in Python and in SQL."""
    name = session.atlas.path.resolve().name
    return {
        "CLI": f"specclip-search similar {key} -k 10 --atlas {name}",
        "Python": f'from specclip_search import Atlas, similar\nsimilar(Atlas("{name}"), "{key}", k=10)',
        "SQL": f"SELECT * FROM similar('{key}', 10)",
    }
