"""What a result was made with, so that it can be made again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..version import __version__
from .frames import COLUMNS

if TYPE_CHECKING:
    import pandas as pd


def stamp(frame: pd.DataFrame, query: str, options: dict[str, Any], **origin: Any) -> pd.DataFrame:
    """Put the query's name, its options, the code version and `origin` (digests) into `frame.attrs`.

    Only plain values are kept, so that the attributes survive Parquet and JSON. What `to_frame`
    said of the columns (units, meanings) stays.
    """
    said = {COLUMNS: frame.attrs[COLUMNS]} if COLUMNS in frame.attrs else {}
    frame.attrs = {
        "query": query,
        "version": __version__,
        "options": _plain(options),
        **{key: _plain(value) for key, value in origin.items()},
        **said,
    }
    return frame


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return value.item() if hasattr(value, "item") else str(value)
