"""Text of stage reports on stderr; stdout is reserved for rows."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import QueryError, printable

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class Accounts(Protocol):
    """A report with read = kept + the sum of rejected, and those that wait, where it has any."""

    @property
    def read(self) -> int: ...
    @property
    def kept(self) -> int: ...
    @property
    def rejected(self) -> Mapping[str, int]: ...


def say(*lines: str) -> None:
    """Print a message that is not a result."""
    for line in lines:
        print(printable(line), file=sys.stderr, flush=True)


def deliver(
    rows: pa.Table | pd.DataFrame, format: str | None, output: Path | None, first: Sequence[str] = ()
) -> None:
    """Write a search's rows, columns of `first` first; messages about the file or an empty result go to stderr."""
    from ..tables import write_rows

    write_rows(rows, format, output, first=first)
    if output is not None:
        say(f"{len(rows):,} row{'s' if len(rows) != 1 else ''} written to {output}")
    elif len(rows) == 0:
        say("Nothing was found: no row matches the request.")


def say_accounts(what: str, report: Accounts, observed: int | None = None) -> None:
    """`119 LAMOST spectra read = 112 kept + 7 rejected`, a line per reason, and how many are kept as observed."""
    rejected = sum(report.rejected.values())
    waiting = getattr(report, "waiting", 0)
    beside = f"{waiting:,} waiting + " if waiting else ""
    say(f"{report.read:,} {what} read = {report.kept:,} kept + {beside}{rejected:,} rejected")
    if waiting:
        say(
            f"  {waiting:>8,}  wait for basis functions that are not installed; their coefficients are kept.",
            "Run `pip install --upgrade gaiaxpy specclip-search`, then `specclip-search ingest gaia-xp --recalibrate`.",
        )
    for reason, count in sorted(report.rejected.items(), key=lambda item: (-item[1], item[0])):
        say(f"  {count:>8,}  {reason}")
    if observed is not None:
        say(f"  {observed:>8,}  of those kept are in the atlas as observed, over their full range")


class CatalogueAccounts(Protocol):
    """Counts of a catalogue ingest besides those of rows."""

    @property
    def invalid_ids(self) -> Mapping[str, int]: ...
    @property
    def repeated_ids(self) -> Mapping[str, int]: ...
    @property
    def missing_values(self) -> Mapping[str, int]: ...
    @property
    def implausible(self) -> Mapping[str, int]: ...
    @property
    def limits(self) -> Mapping[str, int]: ...
    @property
    def not_numbers(self) -> Mapping[str, int]: ...
    @property
    def examples(self) -> Mapping[str, str]: ...
    @property
    def renamed(self) -> Mapping[str, str]: ...
    @property
    def skipped(self) -> Mapping[str, str]: ...
    @property
    def unchanged(self) -> bool: ...
    @property
    def notes(self) -> Sequence[str]: ...


def catalogue_notes(report: CatalogueAccounts) -> list[str]:
    """A line for each thing that a catalogue's reader changed, left out or found odd; none where all is plain."""
    lines = ["  the file is unchanged: nothing was done"] if report.unchanged else []
    lines += [f"  {note}" for note in report.notes]
    for key, count in sorted(report.invalid_ids.items()):
        if count:
            lines.append(f"  {count:>8,}  values of {key} are not valid ids and became null")
    for key, count in sorted(report.repeated_ids.items()):
        if count:
            lines.append(f"  {count:>8,}  rows repeat an earlier {key}; they are kept, labels are taken from the first")
    for counts, words in (
        (report.missing_values, "codes for a missing value in {} became null"),
        (report.implausible, "values of {} that no star can have became null"),
        (report.limits, "limits in {} are no values and became null"),
        (report.not_numbers, "values of {} that are no number became null"),
    ):
        for name, count in sorted(counts.items()):
            example = report.examples.get(name) if counts is not report.missing_values else None
            lines.append(f"  {count:>8,}  {words.format(name)}" + (f" (for example '{example}')" if example else ""))
    lines += [
        f"  column {theirs} was renamed {ours}" for theirs, ours in report.renamed.items() if theirs.lower() != ours
    ]
    lines += [f"  column {name} left out: {why}" for name, why in report.skipped.items()]
    return lines


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
    """Nested settings as rows `setting`, `value`; nested names are joined with a dot, list indices are in brackets."""
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
