"""How reports of a stage are put into words on stderr, so that stdout stays free for rows."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Protocol

from ..errors import QueryError


class Accounts(Protocol):
    """A report whose counts reconcile: read = kept + the sum of rejected."""

    @property
    def read(self) -> int: ...
    @property
    def kept(self) -> int: ...
    @property
    def rejected(self) -> Mapping[str, int]: ...


def say(*lines: str) -> None:
    """Tell the user something that is not a result."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def say_accounts(what: str, report: Accounts) -> None:
    """`119 LAMOST spectra read = 112 kept + 7 set aside`, then a line a reason."""
    aside = sum(report.rejected.values())
    say(f"{report.read:,} {what} read = {report.kept:,} kept + {aside:,} set aside")
    for reason, count in sorted(report.rejected.items(), key=lambda item: (-item[1], item[0])):
        say(f"  {count:>8,}  {reason}")


def star_count(text: str) -> int | None:
    """`6000` or `all` (None).

    Raises
    ------
    QueryError
        If it is neither.
    """
    if text.lower() == "all":
        return None
    if not text.isdigit() or int(text) < 1:
        raise QueryError(f"--stars must be a number of at least 1, or 'all'; found '{text}'.", "Try --stars 6000.")
    return int(text)


def setting_rows(content: Mapping[str, Any], prefix: str = "") -> list[dict[str, str]]:
    """Nested settings as rows `setting`, `value`; inner names follow a point, lists their place in brackets."""
    rows: list[dict[str, str]] = []
    for name, value in content.items():
        if isinstance(value, Mapping):
            rows += setting_rows(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for number, entry in enumerate(value):
                rows += setting_rows(entry, f"{prefix}{name}[{number}].")
        else:
            rows.append({"setting": prefix + name, "value": str(value)})
    return rows
