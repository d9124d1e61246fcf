"""Strict reading of settings tables: a misspelt name is an error with a suggestion."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from specclip_search.errors import CheckpointError

T = TypeVar("T")


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """A hint: the closest of `choices`, or all of them."""
    known = sorted(choices)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"Did you mean '{close[0]}'?" if close else f"Known names: {', '.join(known)}."


def read_settings(kind: type[T], table: Mapping[str, Any], where: str) -> T:
    """Create a dataclass from a TOML table.

    Parameters
    ----------
    kind
        A dataclass whose fields are numbers, text, booleans, tuples of one type, or dataclasses.
    table
        The parsed table.
    where
        Name of the table in messages, for example ``mini.toml [optimiser]``.

    Raises
    ------
    CheckpointError
        If a name is unknown, a value has the wrong type, or a required name is missing.
    """
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name not in known:
            raise CheckpointError(f"{where} has no setting '{name}'.", did_you_mean(name, known))
        values[name] = _typed(hints[name], value, f"{where} {name}")
    missing = [n for n, f in known.items()
               if n not in values and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        raise CheckpointError(f"{where} lacks '{missing[0]}'.", "Add it; the shipped recipes show every setting.")
    return kind(**values)


def _typed(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise CheckpointError(f"{where} must be a table; found {value!r}.", f"Write it as [{where.split()[-1]}].")
        return read_settings(hint, value, where)
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise CheckpointError(f"{where} must be a list; found {value!r}.", "Write it as [a, b, ...].")
        return tuple(_typed(get_args(hint)[0], v, where) for v in value)
    allowed = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if any(type(value) is kind for kind in allowed):
        return value
    expected = " or ".join(kind.__name__ for kind in allowed)
    raise CheckpointError(f"{where} must be {expected}; found {value!r}.", "Correct the value.")
