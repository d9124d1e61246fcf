"""Keys that are taken: (release, spec_id) of every spectrum kept so far, to find duplicates."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


class SortedRuns:
    """A growing set of 64-bit integers: sorted runs, merged as they grow; 8 bytes a number."""

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []

    def add(self, numbers: np.ndarray) -> None:
        """Take (N,) numbers."""
        if not len(numbers):
            return
        self._runs.append(np.sort(numbers))
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            last, before = self._runs.pop(), self._runs.pop()
            self._runs.append(np.sort(np.concatenate([before, last]), kind="stable"))

    def known(self, numbers: np.ndarray) -> np.ndarray:
        """(N,) bool: met before, here or earlier in `numbers` itself."""
        result = np.ones(len(numbers), dtype=bool)
        result[np.unique(numbers, return_index=True)[1]] = False
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, numbers), len(run) - 1)
            result |= run[at] == numbers
        return result


class KeyLedger:
    """Keys of spectra by their release."""

    def __init__(self) -> None:
        self._releases: dict[str | None, SortedRuns] = {}

    def add(self, release: np.ndarray, spec_id: np.ndarray) -> None:
        """Take the keys of one part: (N,) objects and (N,) int64."""
        for name, places in _by_release(release):
            self._releases.setdefault(name, SortedRuns()).add(spec_id[places])

    def taken(self, release: np.ndarray, spec_id: np.ndarray) -> np.ndarray:
        """(N,) bool: keys met before, in the ledger or earlier in these very arrays."""
        result = np.zeros(len(spec_id), dtype=bool)
        for name, places in _by_release(release):
            result[places] = self._releases.get(name, SortedRuns()).known(spec_id[places])
        return result


def _by_release(release: np.ndarray) -> Iterator[tuple[str | None, np.ndarray]]:
    """Each release and the places where it stands; None is a release of its own."""
    names = release.tolist()
    for wanted in dict.fromkeys(names):
        yield wanted, np.flatnonzero([name == wanted for name in names])
