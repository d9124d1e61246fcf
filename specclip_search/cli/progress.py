"""Progress on stderr: a bar on a terminal, otherwise a plain line from time to time."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import printable
from ..progress import Progress

PLAIN_INTERVAL_S = 10.0


@contextmanager
def progress_bar(label: str, unit: str = "rows") -> Iterator[Progress]:
    """Yield a callable `progress(done, total, note)`; rate and remaining time are computed from its calls."""
    if sys.stderr.isatty():
        with _terminal_bar(label, unit) as update:
            yield update
    else:
        yield _plain_lines(label, unit)


@contextmanager
def _terminal_bar(label: str, unit: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        # notes name files, which may look like rich's markup
        TextColumn("{task.fields[note]}", markup=False),
    )
    started = time.monotonic()
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None, count="", left="", note="")

        def update(done: int, total: int | None, note: str = "") -> None:
            rate = done / max(time.monotonic() - started, 1e-6)
            bar.update(task, completed=done, total=total, count=_count(done, total, rate, unit),
                       left=_left(done, total, rate), note=printable(note))

        yield update


def _plain_lines(label: str, unit: str) -> Progress:
    started = last = time.monotonic()

    def update(done: int, total: int | None, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < PLAIN_INTERVAL_S:
            return
        last = now
        rate = done / max(now - started, 1e-6)
        left = _left(done, total, rate)
        line = f"{label}: {_count(done, total, rate, unit)}{', ' if left else ''}{left} {note}"
        print(printable(line.rstrip()), file=sys.stderr, flush=True)

    return update


def _count(done: int, total: int | None, rate: float, unit: str) -> str:
    """How much is done, of what if that is known, and how fast."""
    whole = f" of {total:,}" if total else ""
    return f"{done:,}{whole} {unit}, {_rate(rate)} {unit}/s"


def _left(done: int, total: int | None, rate: float) -> str:
    """Time left; nothing where the total is unknown or nothing is done yet."""
    if not total or rate <= 0 or done <= 0:
        return ""
    seconds = max(total - done, 0) / rate
    return f"{seconds:,.0f} s left" if seconds < 120 else f"{seconds / 60:,.0f} min left"


def _rate(rate: float) -> str:
    """Rate with as many digits as are useful."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
