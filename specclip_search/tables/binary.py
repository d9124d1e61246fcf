"""VOTable and FITS output, and conversion of Arrow tables to astropy tables.

Units, descriptions, UCDs and nulls are preserved.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..atlas.schemas import said_of
from ..errors import QueryError
from .plain import json_value, plain_column
from .provenance import about_of, lines_of

if TYPE_CHECKING:
    import pandas as pd
    from astropy.table import Column, QTable, Table

_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NOT_XML_RE2 = r"[^\t\n\r -\x{D7FF}\x{E000}-\x{FFFD}\x{10000}-\x{10FFFF}]"
_WIDER = {pa.int8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64()}


def to_table(table: pa.Table) -> Table:
    """An astropy Table with the same rows.

    Integers stay integers: a column with nulls is masked, never converted to floats. Nulls of
    floats become NaN. FITS has no null for booleans, so such a column becomes masked int16.
    Fixed-size lists become two-dimensional arrays, other nested values JSON text.
    """
    from astropy.table import Table

    result = Table()
    for field, column in zip(table.schema, table.columns, strict=True):
        said = said_of(field)
        converted = _column(field, column)
        converted.description = said.get("description")
        if said.get("ucd"):
            converted.meta["ucd"] = said["ucd"]
        if said.get("unit") and converted.dtype.kind in "iuf":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from astropy.units import Unit

                converted.unit = Unit(said["unit"], parse_strict="silent")
        result[field.name] = converted
    return result


def to_qtable(table: pa.Table | pd.DataFrame | str | os.PathLike[str]) -> QTable:
    """An astropy QTable with the same rows: columns with a unit are quantities, ids are integers.

    Parameters
    ----------
    table
        What a search returns, an Arrow table, or a Parquet file that this package wrote.

    Returns
    -------
    astropy.table.QTable
        Columns of integers with nulls are masked, not converted to floats. The provenance is in `meta`.

    Raises
    ------
    QueryError
        If the file cannot be read as Parquet.

    Examples
    --------
    >>> from specclip_search import Atlas, similar, to_qtable
    >>> near = to_qtable(similar(Atlas("demo-atlas"), "gaia:1624605949904837888", k=3))
    >>> near["teff"].unit, near["source_id"].dtype
    (Unit("K"), dtype('int64'))
    """
    from astropy.table import QTable
    from astropy.units import UnrecognizedUnit

    from .write import as_arrow

    if isinstance(table, str | os.PathLike):
        table = _read_parquet(table)
    arrow = as_arrow(table)
    plain = to_table(arrow)
    plain.meta.update(about_of(arrow))
    for name in plain.colnames:
        if isinstance(plain[name].unit, UnrecognizedUnit):
            plain[name].meta["unit"] = str(plain[name].unit)
            plain[name].unit = None
    return QTable(plain)


def _read_parquet(path: str | os.PathLike[str]) -> pa.Table:
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise QueryError(
            f"Expected a Parquet file; {os.fspath(path)} cannot be read as one: {str(error).splitlines()[0][:100]}",
            "Write one with --output rows.parquet; astropy's `QTable.read` reads other formats.",
        ) from None


def _column(field: pa.Field, column: pa.ChunkedArray) -> Column:
    from astropy.table import Column, MaskedColumn

    column = plain_column(column)
    kind = column.type
    if pa.types.is_floating(kind):
        return Column(column.cast(pa.float32()).to_numpy() if pa.types.is_float16(kind) else column.to_numpy())
    if pa.types.is_fixed_size_list(kind) and column.null_count == 0 and pa.types.is_primitive(kind.value_type):
        from ..atlas.arrays import column_to_matrix

        matrix = column_to_matrix(column)
        return Column(matrix.astype(np.float32) if matrix.dtype == np.float16 else matrix)
    if pa.types.is_boolean(kind) and column.null_count:
        column, kind = column.cast(pa.int16()), pa.int16()
    if kind in _WIDER:
        # VOTable has no such integers, and FITS keeps signed bytes as unsigned ones
        column, kind = column.cast(_WIDER[kind]), _WIDER[kind]
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return _integers(column, kind)
    texts = [_text(value) for value in column.to_pylist()]
    if any(text is None for text in texts):
        return MaskedColumn([text or "" for text in texts], mask=[text is None for text in texts], dtype=str)
    return Column(texts, dtype=str)


def _integers(column: pa.ChunkedArray, kind: pa.DataType) -> Column:
    from astropy.table import Column, MaskedColumn

    if not column.null_count:
        return Column(column.to_numpy())
    mask = np.asarray(column.is_null())
    values = column.fill_null(0).to_numpy()
    # the value that represents null in a file: it is not a valid id, count or code
    limits = np.iinfo(values.dtype)
    fill = limits.min if limits.min < 0 else limits.max
    step, taken = (1 if limits.min < 0 else -1), set(np.unique(values[~mask]).tolist())
    # the smallest number may be a true value, too: then the next one that is none
    while fill in taken and limits.min < fill + step < limits.max:
        fill += step
    return MaskedColumn(np.where(mask, fill, values).astype(values.dtype), mask=mask, fill_value=fill)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | dict):
        return json.dumps(value, default=json_value)
    return str(json_value(value))


def write_votable(table: pa.Table, path: Path) -> None:
    """Write VOTable 1.4. Nulls of integers are empty cells, which mean null since version 1.3 of the standard."""
    from astropy.io.votable import from_table
    from astropy.io.votable.tree import Info

    plain = to_table(for_xml(table))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        votable = from_table(plain)
        for field in votable.get_first_table().fields:
            # VOTable's bit type has no null and few programs read it; boolean is fine
            if field.datatype == "bit":
                field.datatype = "boolean"
        votable.infos.extend(Info(name=name, value=xml_text(text)) for name, text in lines_of(table))
        votable.to_xml(str(path), tabledata_format="tabledata")


def xml_text(text: str) -> str:
    """Text that XML 1.0 can hold: control characters and halves of characters, for which it has none, become '?'."""
    return _NOT_XML.sub("?", text)


def for_xml(table: pa.Table) -> pa.Table:
    """The same table with names, descriptions and texts that XML can hold; see `xml_text`."""
    fields, columns = [], []
    for field, column in zip(table.schema, table.columns, strict=True):
        said = {name: xml_text(text) for name, text in said_of(field).items()}
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            column = pc.replace_substring_regex(column, _NOT_XML_RE2, "?")
        fields.append(pa.field(xml_text(field.name), column.type, field.nullable, said or None))
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, table.schema.metadata))


def write_fits(table: pa.Table, path: Path) -> None:
    """Write a FITS binary table; TNULLn for integers, TUCDn and TCOMMn for UCDs and descriptions."""
    from astropy.io import fits

    plain = to_table(table)
    units = {}
    for name in plain.colnames:
        column = plain[name]
        units[name] = _fits_unit(said_of(table.schema.field(name)).get("unit", "")) if column.unit is not None else ""
        column.unit = None
        if column.dtype.kind == "U":
            texts = column.filled("") if hasattr(column, "filled") else column
            plain[name] = np.array([_ascii(str(value)).encode() for value in texts], dtype=bytes)
    hdu = fits.table_to_hdu(plain) if len(plain.colnames) else fits.BinTableHDU()
    for number, name in enumerate(plain.colnames, 1):
        said = said_of(table.schema.field(name))
        # set by hand after TFORMn: astropy rejects units that are not in the FITS standard, such as dex
        for keyword, value in (
            (f"TUNIT{number}", units[name]),
            (f"TUCD{number}", said.get("ucd", "")),
            (f"TCOMM{number}", said.get("description", "")),
        ):
            if value:
                hdu.header.set(keyword, _ascii(value), after=f"TFORM{number}")
    for name, text in lines_of(table):
        hdu.header.add_history(_ascii(f"{name}: {text}"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True, output_verify="silentfix")


def _fits_unit(unit: str) -> str:
    """The unit as the FITS standard spells it; as it is where the standard has no such unit."""
    from astropy.units import Unit

    try:
        return Unit(unit).to_string("fits")
    except ValueError:
        return unit


def _ascii(text: str) -> str:
    """Text as printable ASCII for FITS: accents are dropped, other characters become '?'."""
    return "".join(
        c if " " <= c <= "~" else "?" for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)
    )
