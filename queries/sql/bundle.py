"""A table as a folder that can be published as it is: on Zenodo, on Hugging Face, beside a paper."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from specclip_search.atlas.files import file_digest, sync_folder
from specclip_search.atlas.schemas import said_of
from specclip_search.errors import QueryError
from specclip_search.version import __version__

from .export import export_table

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

TABLE, CROISSANT, PACKAGE, CITATION, SUMS = (
    "table.parquet", "croissant.json", "datapackage.json", "CITATION.cff", "SHA256SUMS",
)  # fmt: skip
_PAPER = "https://arxiv.org/abs/2507.01939"
# the part of Croissant 1.0's context that is used here
_CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/", "dct": "http://purl.org/dc/terms/", "conformsTo": "dct:conformsTo",
    "citeAs": "cr:citeAs", "column": "cr:column", "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "extract": "cr:extract", "field": "cr:field", "fileObject": "cr:fileObject", "fileSet": "cr:fileSet",
    "isLiveDataset": "cr:isLiveDataset", "recordSet": "cr:recordSet", "repeated": "cr:repeated",
    "source": "cr:source",
}  # fmt: skip


def export_bundle(
    atlas: Atlas,
    table: str,
    folder: str | os.PathLike[str],
    *,
    title: str | None = None,
    license: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> str:
    """Write a view, a catalogue or the rows of a SELECT as a folder to publish.

    Parameters
    ----------
    folder
        A folder that does not exist yet. It gets the table as Parquet with its units and provenance, Croissant 1.0
        and Frictionless descriptions of the columns, CITATION.cff, and SHA256SUMS of all of them.
    title
        Title of the data set; by default the table's name.
    license
        Licence of the data as an SPDX identifier, for example ``CC-BY-4.0``; left open if not given.
    progress
        Called with the rows written so far.

    Returns
    -------
    str
        What was written.

    Raises
    ------
    QueryError
        If the table is invalid, or the folder exists.
    """
    target = Path(folder)
    if target.exists():
        raise QueryError(f"Expected a new folder; {target} exists already.", "Name a folder that does not exist yet.")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".bundle-", dir=target.parent))
    try:
        told = export_table(atlas, table, temporary / TABLE, progress=progress)
        named = title or (table if table.isidentifier() else "Rows of specclip-search")
        _describe(temporary, named, license)
        temporary.chmod(0o755)
        sync_folder(temporary)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(target.parent)
    return told


def _describe(folder: Path, title: str, license: str | None) -> None:
    schema, digest = pq.read_schema(folder / TABLE), file_digest(folder / TABLE).removeprefix("sha256:")
    size = (folder / TABLE).stat().st_size
    _write(folder / CROISSANT, json.dumps(_croissant(schema, title, license, digest, size), indent=1))
    _write(folder / PACKAGE, json.dumps(_package(schema, title, license, digest, size), indent=1))
    _write(folder / CITATION, _citation(title, license))
    sums = [f"{file_digest(folder / name).removeprefix('sha256:')}  {name}\n"
            for name in (TABLE, CROISSANT, PACKAGE, CITATION)]
    _write(folder / SUMS, "".join(sums))


def _write(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8") as handle:
        handle.write(text.rstrip("\n") + "\n")
        handle.flush()
        os.fsync(handle.fileno())


def _meaning(field: pa.Field) -> str:
    said = said_of(field)
    unit = f" [{said['unit']}]" if said.get("unit") else ""
    return f"{said.get('description', field.name)}{unit}"


def _croissant(schema: pa.Schema, title: str, license: str | None, digest: str, size: int) -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field", "@id": f"rows/{field.name}", "name": field.name, "description": _meaning(field),
            "dataType": _kind(field.type, "sc:Integer", "sc:Float", "sc:Boolean", "sc:Text"),
            "source": {"fileObject": {"@id": TABLE}, "extract": {"column": field.name}},
            **({"repeated": True} if pa.types.is_nested(field.type) else {}),
        }
        for field in schema
    ]  # fmt: skip
    return {
        "@context": _CONTEXT, "@type": "sc:Dataset", "name": title, "conformsTo": "http://mlcommons.org/croissant/1.0",
        "description": f"{title}; made with specclip-search {__version__}.", "isLiveDataset": False,
        "citeAs": f"specclip-search {__version__}; Zhao et al. 2025, {_PAPER}", "url": _PAPER,
        **({"license": f"https://spdx.org/licenses/{license}.html"} if license else {}),
        "distribution": [{
            "@type": "cr:FileObject", "@id": TABLE, "name": TABLE, "contentUrl": TABLE, "contentSize": f"{size} B",
            "encodingFormat": "application/x-parquet", "sha256": digest,
        }],
        "recordSet": [{"@type": "cr:RecordSet", "@id": "rows", "name": "rows", "field": fields}],
    }  # fmt: skip


def _package(schema: pa.Schema, title: str, license: str | None, digest: str, size: int) -> dict[str, Any]:
    fields = []
    for field in schema:
        kind = "array" if pa.types.is_nested(field.type) else _kind(field.type, "integer", "number", "boolean", "any")
        fields.append({"name": field.name, "title": _meaning(field), "type": kind, **said_of(field)})
    return {
        "name": "specclip-search-table", "title": title, **({"licenses": [{"name": license}]} if license else {}),
        "resources": [{"name": "table", "path": TABLE, "format": "parquet", "hash": f"sha256:{digest}", "bytes": size,
                       "mediatype": "application/vnd.apache.parquet", "schema": {"fields": fields}}],
    }  # fmt: skip


def _kind(kind: pa.DataType, integer: str, number: str, boolean: str, other: str) -> str:
    kind = kind.value_type if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) else kind
    if pa.types.is_integer(kind):
        return integer
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return number
    return boolean if pa.types.is_boolean(kind) else other


def _citation(title: str, license: str | None) -> str:
    # a text in JSON is one in YAML
    return "\n".join([
        "cff-version: 1.2.0", "type: dataset", f"title: {json.dumps(title)}",
        'message: "Please cite this data set, specclip-search and the SpecCLIP paper."',
        'authors:', '  - name: "FILL IN: authors of this data set"', *([f"license: {license}"] if license else []),
        "references:", "  - type: software", '    title: "specclip-search"', f'    version: "{__version__}"',
        '    authors:', '      - name: "The specclip-search developers"', "  - type: article",
        '    title: "SpecCLIP: Aligning and Translating Spectroscopic Measurements for Stars"', "    year: 2025",
        '    authors:', '      - family-names: Zhao', '        given-names: Xiaosheng', f'    url: "{_PAPER}"',
    ])  # fmt: skip
