"""What a command that only prints a table does not need to load: pandas, and the validation library of typer.

pyarrow imports pandas at its first conversion of anything, to know whether it is given pandas objects; that costs as
much as a whole search. typer imports pydantic to turn ``10`` into a number.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?", re.ASCII)


class _NoPandas:
    """An import hook that finds no pandas."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is imported when it is needed", name=name)


def keep_pandas_out() -> None:
    """Make pyarrow's first look for pandas fail, unless it is imported already.

    `Table.to_pandas` and `Table.from_pandas` look again and find it. Only `pyarrow.array(series)` before either of them
    would take a pandas Series for a plain sequence: commands that use this function make no such call.
    """
    if "pandas" in sys.modules:
        return
    hook = _NoPandas()
    sys.meta_path.insert(0, hook)  # type: ignore[arg-type]
    try:
        import pyarrow as pa

        pa.array([])
    finally:
        sys.meta_path.remove(hook)  # type: ignore[arg-type]


def read_plainly(command: Any) -> Any:
    """Let a typer command read plain text, paths and numbers itself; return the command.

    Whatever is not plain (a number out of its range, a path that must exist, an unusual type) goes to typer as before,
    so that its messages are the same. Versions of typer without pydantic are left as they are.
    """
    for parameter in getattr(command, "params", ()):
        _wrap(parameter)
    for below in getattr(command, "commands", {}).values():
        read_plainly(below)
    made = getattr(command, "get_help_option", None)
    if made is not None:
        command.get_help_option = lambda context: _wrap(made(context))
    return command


def _wrap(parameter: Any) -> Any:
    """The parameter, which reads plain values itself."""
    if not hasattr(parameter, "get_runtime_param") or not hasattr(parameter, "type_descriptor"):
        return parameter
    careful = type(parameter).process_value
    described = parameter.type_descriptor

    def process_value(context: Any, value: Any) -> Any:
        if parameter.value_is_missing(value):
            if value is not None or parameter.required:
                return careful(parameter, context, value)
            plain = () if parameter.multiple or parameter.nargs == -1 else None
        else:
            try:
                plain = _plain(value, described.annotation, described.parameter_info)
            except ValueError:
                return careful(parameter, context, value)
        return plain if parameter.callback is None else parameter.callback(context, parameter, plain)

    parameter.process_value = process_value
    return parameter


def _plain(value: Any, kind: Any, info: Any) -> Any:
    """The value of a plain parameter; ValueError if it is not plain, or may be wrong."""
    if info.parser is not None:
        raise ValueError
    if kind == list[str] and isinstance(value, list | tuple):
        return [_plain(item, str, info) for item in value]
    if kind is bool and isinstance(value, bool):
        return value
    if kind is str and isinstance(value, str):
        return value
    if kind is Path and isinstance(value, str | Path):
        demands = info.exists or info.resolve_path or info.writable or not (info.file_okay and info.dir_okay)
        if demands or (info.readable and os.path.exists(value) and not os.access(value, os.R_OK)):
            raise ValueError
        return Path(value)
    if kind is int and (type(value) is int or (isinstance(value, str) and _WHOLE.fullmatch(value))):
        return _inside(int(value), info)
    if kind is float and (type(value) in (int, float) or (isinstance(value, str) and _DECIMAL.fullmatch(value))):
        return _inside(float(value), info)
    raise ValueError


def _inside(number: float, info: Any) -> float:
    if info.clamp or (info.min is not None and number < info.min) or (info.max is not None and number > info.max):
        raise ValueError
    return number
