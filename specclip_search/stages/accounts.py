"""Counts of what an ingest did: read = kept + waiting + rejected."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class IngestReport:
    """Accounts of an ingest: read = kept + waiting + the sum of rejected.

    Attributes
    ----------
    read, kept
        Number of spectra (or stars) read, and of those in the atlas.
    rejected
        Number of rejected spectra by reason code.
    waiting
        Number of spectra kept as coefficients until their calibration is installed.
    shards_written, shards_current
        Shards written by this run, and shards that were up to date.
    observed
        Kept spectra that are in the atlas as observed, too; None where that does not apply.
    """

    read: int = 0
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    shards_written: int = 0
    shards_current: int = 0
    waiting: int = 0
    observed: int | None = None

    def add(self, accounts: dict[str, Any]) -> None:
        """Add one shard's counts."""
        self.read += accounts["read"]
        self.kept += accounts["kept"]
        self.waiting += accounts.get("waiting", 0)
        self.rejected.update(accounts["rejected"])
