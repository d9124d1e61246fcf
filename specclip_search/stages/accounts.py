"""What an ingest did, in counts that reconcile."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class IngestReport:
    """Accounts of an ingest: read = kept + the sum of rejected.

    Attributes
    ----------
    read, kept
        Spectra (or stars) met, and those that stand in the atlas.
    rejected
        Spectra set aside, by reason code.
    shards_written, shards_current
        Shards made by this run, and shards that stood already.
    """

    read: int = 0
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    shards_written: int = 0
    shards_current: int = 0

    def add(self, accounts: dict[str, Any]) -> None:
        """Add one shard's accounts."""
        self.read += accounts["read"]
        self.kept += accounts["kept"]
        self.rejected.update(accounts["rejected"])
