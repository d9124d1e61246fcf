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
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        # notes name files, which may look like rich's markup
        TextColumn("{task.fields[note]}", markup=False),
    )
    started = time.monotonic()
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None, rate="", note="")

        def update(done: int, total: int | None, note: str = "") -> None:
            rate = done / max(time.monotonic() - started, 1e-6)
            bar.update(task, completed=done, total=total, rate=f"{_rate(rate)} {unit}/s", note=printable(note))

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
        whole = f" of {total:,}" if total else ""
        left = f", {(total - done) / rate:,.0f} s left" if total and rate > 0 else ""
        line = f"{label}: {done:,}{whole} {unit}, {_rate(rate)} {unit}/s{left} {note}"
        print(printable(line.rstrip()), file=sys.stderr, flush=True)

    return update


def _rate(rate: float) -> str:
    """Rate with as many digits as are useful."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
