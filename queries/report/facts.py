"""Facts of a report about the atlas: data searched, model, recall of the index, and meaning of the scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from specclip_search.version import __version__

if TYPE_CHECKING:
    from ..space.space import Space

Rows = list[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Facts:
    """Tables of the page's first part, as text.

    Attributes
    ----------
    counts
        Contents of the atlas with counts.
    rejected
        Instrument, reason, number of rejected spectra.
    origin
        Model, versions and digests.
    recall
        Instrument, recipe, group of queries, recall@10, recall@100, number of queries.
    """

    counts: Rows
    rejected: Rows
    origin: Rows
    recall: Rows


def gather_facts(space: Space) -> Facts:
    """Collect the facts; only counts and stored values, nothing is computed."""
    return Facts(_counts(space), _rejected(space), _origin(space), _recall(space))


def _counts(space: Space) -> Rows:
    atlas = space.atlas
    rows: Rows = [(f"{name} spectra", f"{atlas.spectra(name).rows:,}") for name in atlas.modalities()]
    for name in space.modalities:
        keys = space.keys(name)
        stars = np.unique(keys.source_id[keys.source_id >= 0]).size
        rows.append((f"{name} spectra searched", f"{len(keys):,}, of {stars:,} stars of known source_id"))
    translations = atlas.translations(space.model)
    if translations.exists:
        rows.append(("pairs translated", f"{translations.rows:,}"))
    return rows + [(f"catalogue '{name}'", f"{atlas.catalog(name).rows:,} rows") for name in atlas.catalogs()]


def _rejected(space: Space) -> Rows:
    rows: Rows = []
    for name in space.atlas.modalities():
        stage = space.atlas.rejected(name)
        if stage.exists:
            counted = pc.value_counts(stage.read(["reason"])["reason"]).to_pylist()
            rows += [(name, str(entry["values"]), f"{entry['counts']:,}") for entry in counted]
    return sorted(rows)


def _origin(space: Space) -> Rows:
    rows: Rows = [
        ("specclip-search", __version__),
        ("model", space.model),
        ("weights", space.model_digest()),
    ]
    for name in space.modalities:
        manifest = space.index(name).manifest
        rows.append((f"vectors of {name}", str(manifest["vectors_digest"])))
        search = manifest.get("search", {})
        how = f", {search['nprobe']} lists searched, re-rank {search['rerank']:g}" if search.get("nprobe") else ""
        rows.append((f"index of {name}", f"{manifest['recipe']['factory']}{how}, seed {manifest['seed']}"))
    return rows


def _recall(space: Space) -> Rows:
    rows: Rows = []
    for name in space.modalities:
        manifest = space.index(name).manifest
        recipe = str(manifest["recipe"]["factory"])
        measured: list[dict[str, Any]] = manifest.get("recall", [])
        if not measured:
            rows.append((name, recipe, "not measured", "", "", ""))
        rows += [
            (name, recipe, str(r["group"]), f"{r['at_10']:.4f}", f"{r['at_100']:.4f}", f"{r['queries']:,}")
            for r in measured
        ]
    return rows


def definitions(space: Space) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """For each table of results its columns with unit and meaning, from the column metadata."""
    from ..anomalies.listing import anomalies_schema
    from ..emp.schema import emp_schema
    from ..maps.map import map_schema

    tables = [
        ("anomalies", anomalies_schema()),
        ("emp", emp_schema()),
        ("translations", _translations_schema()),
        ("map", map_schema()),
    ]
    return [(name, _meanings(schema)) for name, schema in tables]


def _translations_schema() -> pa.Schema:
    from specclip_search.surveys import GAIA_XP, LAMOST_LRS

    from ..space.windows import WindowSet
    from ..translation.schema import translations_schema

    return translations_schema(WindowSet.of(LAMOST_LRS), WindowSet.of(GAIA_XP))


def _meanings(schema: pa.Schema) -> list[tuple[str, str, str]]:
    return [
        (field.name, meta.get(b"unit", b"").decode("utf-8", "replace"), meta[b"description"].decode())
        for field in schema
        if (meta := field.metadata or {}).get(b"description")
    ]
