"""The protocol's documents in XML: results, errors, tables, capabilities, jobs."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import pyarrow as pa

from ...tables.binary import for_xml, to_table, xml_text

VOTABLE = "application/x-votable+xml"
XML = "text/xml; charset=utf-8"
_KINDS = {
    "int": "int",
    "bigint": "long",
    "double": "double",
    "float": "float",
    "boolean": "boolean",
    "smallint": "short",
}
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'


def result_votable(table: pa.Table, overflow: bool) -> bytes:
    """Rows as VOTable with the status that the protocol asks for (DALI 1.1, section 4.4)."""
    from astropy.io.votable import from_table
    from astropy.io.votable.tree import Info

    from ...tables.meanings import with_known

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        votable = from_table(to_table(for_xml(with_known(table))))
        for field in votable.get_first_table().fields:
            if field.datatype == "bit":
                field.datatype = "boolean"
        resource = votable.resources[0]
        resource.infos.append(Info(name="QUERY_STATUS", value="OVERFLOW" if overflow else "OK"))
        stream = io.BytesIO()
        votable.to_xml(stream, tabledata_format="tabledata")
    return stream.getvalue()


def error_votable(message: str) -> bytes:
    """An error as VOTable."""
    return (
        f'{_HEAD}<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE type="results">'
        f'<INFO name="QUERY_STATUS" value="ERROR">{escape(xml_text(message))}</INFO></RESOURCE></VOTABLE>'
    ).encode()


def tableset(views: Sequence[Mapping[str, Any]]) -> bytes:
    """VOSI tables: every view with its columns, units and meanings."""
    text = [
        _HEAD,
        '<vosi:tableset xmlns:vosi="http://www.ivoa.net/xml/VOSITables/v1.0" '
        'xmlns:vod="http://www.ivoa.net/xml/VODataService/v1.1" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><schema><name>default</name>',
    ]
    for view in views:
        text.append(f'<table type="view"><name>{escape(view["name"])}</name>')
        text.append(f"<description>{escape(view['description'])}</description>")
        for column in view["columns"]:
            kind = _votable_kind(column["type"])
            size = ' arraysize="*"' if kind == "char" else ""
            text.append(
                f"<column><name>{escape(column['name'])}</name><description>{escape(column['description'])}</description>"
                f"<unit>{escape(column['unit'])}</unit>"
                f'<dataType xsi:type="vod:VOTableType"{size}>{kind}</dataType></column>'
            )
        text.append("</table>")
    return xml_text("".join([*text, "</schema></vosi:tableset>"])).encode()


def _votable_kind(kind: str) -> str:
    arrow = {"int64": "long", "int32": "int", "int16": "short", "bool": "boolean", "halffloat": "float"}
    return arrow.get(kind, _KINDS.get(kind, "char"))


def availability() -> bytes:
    """VOSI availability."""
    return (
        f'{_HEAD}<vosi:availability xmlns:vosi="http://www.ivoa.net/xml/VOSIAvailability/v1.0">'
        "<vosi:available>true</vosi:available></vosi:availability>"
    ).encode()


def capabilities(base: str, rows: int, seconds: float) -> bytes:
    """VOSI capabilities: what is understood, and the limits."""
    interfaces = "".join(
        f'<capability standardID={quoteattr(standard)}><interface xsi:type="vs:ParamHTTP" role="std">'
        f'<accessURL use="full">{escape(base)}/{name}</accessURL></interface></capability>'
        for name, standard in (
            ("capabilities", "ivo://ivoa.net/std/VOSI#capabilities"),
            ("availability", "ivo://ivoa.net/std/VOSI#availability"),
            ("tables", "ivo://ivoa.net/std/VOSI#tables-1.1"),
        )
    )
    formats = "".join(
        f"<outputFormat><mime>{mime}</mime><alias>{alias}</alias></outputFormat>"
        for mime, alias in ((VOTABLE, "votable"), ("text/csv", "csv"), ("application/vnd.apache.parquet", "parquet"))
    )
    return (
        f'{_HEAD}<vosi:capabilities xmlns:vosi="http://www.ivoa.net/xml/VOSICapabilities/v1.0" '
        'xmlns:vs="http://www.ivoa.net/xml/VODataService/v1.1" '
        'xmlns:tr="http://www.ivoa.net/xml/TAPRegExt/v1.0" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f'{interfaces}<capability standardID="ivo://ivoa.net/std/TAP" xsi:type="tr:TableAccess">'
        f'<interface xsi:type="vs:ParamHTTP" role="std" version="1.1"><accessURL use="base">{escape(base)}</accessURL>'
        '</interface><language><name>ADQL</name><version ivo-id="ivo://ivoa.net/std/ADQL#v2.0">2.0</version>'
        f"<description>One SELECT</description></language>{formats}"
        f"<executionDuration><default>{seconds:.0f}</default><hard>{seconds:.0f}</hard></executionDuration>"
        f'<outputLimit><default unit="row">{rows}</default><hard unit="row">{rows}</hard></outputLimit>'
        "</capability></vosi:capabilities>"
    ).encode()


def job_xml(job: Any, address: str) -> bytes:
    """A job of UWS 1.1."""
    parameters = "".join(
        f"<uws:parameter id={quoteattr(name)}>{escape(xml_text(value))}</uws:parameter>"
        for name, value in job.parameters.items()
    )
    result = (
        f'<uws:results><uws:result id="result" xlink:href={quoteattr(address + "/results/result")}/></uws:results>'
        if job.phase == "COMPLETED"
        else "<uws:results/>"
    )
    error = (
        '<uws:errorSummary type="transient" hasDetail="true"><uws:message>'
        f"{escape(xml_text(job.error))}</uws:message></uws:errorSummary>"
        if job.phase == "ERROR"
        else ""
    )
    return (
        f'{_HEAD}<uws:job version="1.1" xmlns:uws="http://www.ivoa.net/xml/UWS/v1.0" '
        'xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f"<uws:jobId>{job.number}</uws:jobId><uws:ownerId>{escape(job.owner)}</uws:ownerId>"
        f'<uws:phase>{job.phase}</uws:phase><uws:quote xsi:nil="true"/>'
        f"<uws:creationTime>{_time(job.created)}</uws:creationTime>"
        f"{_moment('startTime', job.started)}{_moment('endTime', job.ended)}"
        f"<uws:executionDuration>{job.seconds:.0f}</uws:executionDuration>"
        f"<uws:destruction>{_time(job.created + job.lifetime)}</uws:destruction>"
        f"<uws:parameters>{parameters}</uws:parameters>{result}{error}</uws:job>"
    ).encode()


def _moment(name: str, when: float | None) -> str:
    return f'<uws:{name} xsi:nil="true"/>' if when is None else f"<uws:{name}>{_time(when)}</uws:{name}>"


def _time(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
