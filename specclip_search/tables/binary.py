"""Rows as Parquet, VOTable and FITS files, with units, descriptions and UCDs."""

from __future__ import annotations

import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa

from .convert import said_of, to_table
from .provenance import lines_of


def write_parquet(table: pa.Table, path: Path) -> None:
    """Parquet; what is known of a column stays in its field's metadata."""
    import pyarrow.parquet as pq

    pq.write_table(table, path, compression="zstd")


def write_votable(table: pa.Table, path: Path) -> None:
    """VOTable 1.4. Nulls of integers are empty cells, which the standard has meant by null since 1.3."""
    from astropy.io.votable import from_table
    from astropy.io.votable.tree import Info

    plain = to_table(table)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        votable = from_table(plain)
        for field in votable.get_first_table().fields:
            # a bare number of bits has no null and few readers; boolean has both
            if field.datatype == "bit":
                field.datatype = "boolean"
        votable.infos.extend(Info(name=name, value=text) for name, text in lines_of(table))
        votable.to_xml(str(path), tabledata_format="tabledata")


def write_fits(table: pa.Table, path: Path) -> None:
    """A FITS binary table; TNULLn for integers, TUCDn and TCOMMn for UCDs and descriptions."""
    from astropy.io import fits

    plain = to_table(table)
    units = {}
    for name in plain.colnames:
        column = plain[name]
        units[name] = said_of(table.schema.field(name)).get("unit", "") if column.unit is not None else ""
        column.unit = None
        if column.dtype.kind == "U":
            texts = column.filled("") if hasattr(column, "filled") else column
            plain[name] = np.array([_ascii(str(value)).encode() for value in texts], dtype=bytes)
    hdu = fits.table_to_hdu(plain) if len(plain.colnames) else fits.BinTableHDU()
    for number, name in enumerate(plain.colnames, 1):
        said = said_of(table.schema.field(name))
        # set after TFORMn and by hand: astropy would refuse units that are not in the FITS standard, as dex
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


def _ascii(text: str) -> str:
    """FITS holds printable ASCII alone: accents are dropped, what has no such likeness becomes '?'."""
    return "".join(
        c if " " <= c <= "~" else "?" for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)
    )
