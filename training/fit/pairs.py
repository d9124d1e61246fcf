"""Sources of training spectra: batches that depend only on seed and epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from specclip_search.errors import CheckpointError
from specclip_search.keys import ACCEPTANCE_SPLIT, VALIDATION_SPLIT, split_of

from .augment import Augmentation
from .augment import augment as augmented

_NO_ROWS = np.empty(0, np.int64)
Split = Literal["train", "validation"]


@dataclass(slots=True)
class Batch:
    """Spectra of B stars, by modality.

    Attributes
    ----------
    inputs
        (B, n) float32 model inputs.
    targets
        (B, n) float32 targets of the decoders; the same arrays without augmentation.
    errors
        (B, n) float32 1 sigma, inf for pixels without information; empty if unknown.
    source_id
        (B,) int64 Gaia source_id of each star.
    labels
        (B, labels) float32 in the order and units of `specclip_search.training.networks.label_scale.LABELS`, NaN if
        unknown; empty if none were requested.

    An instrument may have more rows than the other: the rest are stars without a spectrum of the other.
    """

    inputs: dict[str, np.ndarray]
    targets: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    source_id: np.ndarray
    labels: dict[str, np.ndarray] = field(default_factory=dict)


class PairSource(Protocol):
    """Interface of the data for `train`."""

    modalities: tuple[str, ...]
    digest: str

    def stars(self, split: Split) -> int:
        """Number of stars in a split; an epoch uses each once."""

    def batches(self, split: Split, size: int, seed: int, epoch: int, augment: Augmentation | None = None,
                limit: int | None = None, share: tuple[int, int] | None = None) -> Iterator[Batch]:
        """Batches of an epoch, the same for the same arguments; `share` is used with several processes only."""


class ArrayPairs:
    """Pairs, or single spectra, held in arrays (memory-mapped ones too).

    Parameters
    ----------
    flux
        By modality, (N, n) model inputs.
    source_id
        (M,) int64 Gaia source_id of each pair, which determines its split. Stars of the acceptance split
        are always left out; `excluded` counts their pairs.
    rows
        By modality, (M,) row numbers in `flux` that make up the pairs; by default row i is paired with row i.
    error
        By modality, (N, n) 1 sigma.
    labels
        By modality, (N, labels) as in `Batch`.
    alone
        By modality, rows in `flux` of stars without a pair, and their source_id; `alone_share`
        of the number of pairs in a training batch is added from them.
    digest
        Digest of the data; computed from the ids and a sample of the fluxes if not given.

    Raises
    ------
    CheckpointError
        If the arrays are inconsistent, or no star is left to train on.
    """

    def __init__(self, flux: Mapping[str, np.ndarray], source_id: np.ndarray, *,
                 rows: Mapping[str, np.ndarray] | None = None, error: Mapping[str, np.ndarray] | None = None,
                 labels: Mapping[str, np.ndarray] | None = None,
                 alone: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None, alone_share: float = 0.0,
                 digest: str | None = None) -> None:
        if source_id.dtype != np.int64:
            raise CheckpointError(f"source_id must be int64; found {source_id.dtype}.", "Keep ids as integers.")
        self.flux, self.error, self.source_id = dict(flux), dict(error or {}), source_id
        self.modalities = tuple(flux)
        self.rows = dict(rows) if rows else {name: np.arange(len(source_id)) for name in flux}
        for name, array in self.flux.items():
            if len(self.rows[name]) != len(source_id) or (len(source_id) and self.rows[name].max() >= len(array)):
                raise CheckpointError(f"{len(source_id)} pairs do not fit {len(array)} {name} spectra.",
                                      "Give one source_id for each pair and row numbers that exist.")
        number = split_of(source_id)
        self.excluded = int((number == ACCEPTANCE_SPLIT).sum())
        self._pairs = {"train": np.flatnonzero(number < VALIDATION_SPLIT),
                       "validation": np.flatnonzero(number == VALIDATION_SPLIT)}
        self.labels, self.alone_share = dict(labels or {}), alone_share
        self.alone_rows = dict(alone or {})
        self._alone = {name: rows[split_of(ids) < VALIDATION_SPLIT] for name, (rows, ids) in (alone or {}).items()}
        self.digest = digest or _digest(self.flux, source_id)

    def stars(self, split: Split) -> int:
        """Number of stars in a split."""
        return len(np.unique(self.source_id[self._pairs[split]]))

    def batches(self, split: Split, size: int, seed: int, epoch: int, augment: Augmentation | None = None,
                limit: int | None = None, share: tuple[int, int] | None = None) -> Iterator[Batch]:
        """Batches in which no star occurs twice: one pair per star is drawn for the epoch.

        Training batches all have `size` pairs (the few remaining stars are skipped in this epoch);
        validation batches come in order of source_id and the last may be smaller. With `share`
        (rank, world), only the rank-th of world equal pieces of each batch, with independent augmentation.
        """
        rng = np.random.default_rng([seed, epoch, 0 if split == "train" else 1])
        pairs = self._one_a_star(self._pairs[split], rng, draw=split == "train")
        if split == "train":
            rng.shuffle(pairs)
        pairs = pairs[:limit]
        stop = len(pairs) // size * size if split == "train" else len(pairs)
        rank, world = share or (0, 1)
        if share is not None:
            rng = np.random.default_rng([seed, epoch, 0 if split == "train" else 1, rank])
        for start in range(0, stop, size):
            whole = pairs[start : start + size]
            mine = whole[rank * size // world : (rank + 1) * size // world]
            yield self._batch(mine, self._unpaired(len(mine), rng) if split == "train" else {}, augment, rng)

    def _unpaired(self, pairs: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        count = round(self.alone_share * pairs)
        return {name: rows[rng.integers(0, len(rows), count)] for name, rows in self._alone.items()
                if count and len(rows)}

    def _one_a_star(self, pairs: np.ndarray, rng: np.random.Generator, draw: bool) -> np.ndarray:
        order = rng.permutation(len(pairs)) if draw else np.arange(len(pairs))
        _, first = np.unique(self.source_id[pairs[order]], return_index=True)
        return pairs[order[first]]

    def _batch(self, pairs: np.ndarray, alone: Mapping[str, np.ndarray], augment: Augmentation | None,
               rng: np.random.Generator) -> Batch:
        batch = Batch({}, {}, {}, self.source_id[pairs])
        for name in self.modalities:
            rows = np.concatenate([self.rows[name][pairs], alone.get(name, _NO_ROWS)])
            if name in self.labels:
                batch.labels[name] = np.asarray(self.labels[name][rows], dtype=np.float32)
            flux = np.asarray(self.flux[name][rows], dtype=np.float32)
            error = np.asarray(self.error[name][rows], dtype=np.float32) if name in self.error else None
            target = flux
            if augment is not None:
                flux, target = augmented(name, flux, error, augment, rng)
            batch.inputs[name], batch.targets[name] = flux, target
            if error is not None:
                batch.errors[name] = error
        return batch


def _digest(flux: Mapping[str, np.ndarray], source_id: np.ndarray) -> str:
    digest = hashlib.sha256(source_id.tobytes())
    for name in sorted(flux):
        digest.update(f"{name} {flux[name].shape}".encode())
        digest.update(np.ascontiguousarray(flux[name][:: max(1, len(flux[name]) // 64)], dtype=np.float32).tobytes())
    return "sha256:" + digest.hexdigest()
