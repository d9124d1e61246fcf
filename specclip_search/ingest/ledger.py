"""Keys that are taken: (release, spec_id) of every spectrum kept so far, to find duplicates."""

from __future__ import annotations

import numpy as np


class KeyLedger:
    """Sorted runs of int64 keys a release, merged as they grow: 8 bytes a spectrum."""

    def __init__(self) -> None:
        self._runs: dict[str | None, list[np.ndarray]] = {}

    def add(self, release: np.ndarray, spec_id: np.ndarray) -> None:
        """Take the keys of one part: (N,) objects and (N,) int64."""
        for name, keys in _by_release(release, spec_id):
            runs = self._runs.setdefault(name, [])
            runs.append(np.sort(keys))
            while len(runs) > 1 and len(runs[-2]) <= 2 * len(runs[-1]):
                last, before = runs.pop(), runs.pop()
                runs.append(np.sort(np.concatenate([before, last]), kind="stable"))

    def taken(self, release: np.ndarray, spec_id: np.ndarray) -> np.ndarray:
        """(N,) bool: keys met before, in the ledger or earlier in these very arrays."""
        result = np.zeros(len(spec_id), dtype=bool)
        for name, keys in _by_release(release, spec_id):
            places = np.flatnonzero(release == name) if name is not None else np.flatnonzero(_is_none(release))
            repeated = np.ones(len(keys), dtype=bool)
            repeated[np.unique(keys, return_index=True)[1]] = False
            for run in self._runs.get(name, []):
                at = np.minimum(np.searchsorted(run, keys), len(run) - 1)
                repeated |= run[at] == keys
            result[places] = repeated
        return result


def _is_none(release: np.ndarray) -> np.ndarray:
    return np.array([name is None for name in release], dtype=bool)


def _by_release(release: np.ndarray, spec_id: np.ndarray) -> list[tuple[str | None, np.ndarray]]:
    groups = []
    for name in dict.fromkeys(release.tolist()):
        chosen = _is_none(release) if name is None else release == name
        groups.append((name, spec_id[chosen]))
    return groups
