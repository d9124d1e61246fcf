"""How library code reports how far it is; it never prints."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A callable `progress(done, total, note)` that a caller hands to whatever takes long.

    Parameters
    ----------
    done, total
        Rows, spectra or pairs so far and in all; `total` is None where it is not known.
    note
        What is being worked on, in a few words.
    """

    def __call__(self, done: int, total: int | None, note: str = "") -> None: ...
