"""Map rows to keys and keys to rows, in int64 throughout, by binary search in sorted arrays."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specclip_search.atlas import Atlas
from specclip_search.atlas.files import write_json
from specclip_search.atlas.links import NO_SOURCE, StarLinks, star_links
from specclip_search.errors import QueryError, VectorIndexError
from specclip_search.keys import release_order
from specclip_search.surveys import get_modality

from .table import VectorTable

RELEASES = "releases.json"
EPOCHS = "epoch.npy"
_ARRAYS = ("spec_id", "source_id", "release", "by_spec", "by_source")
COMBINED = np.iinfo(np.int64).min
"""Epoch of a combined spectrum in a `KeyTable`."""


@dataclass(frozen=True)
class KeyTable:
    """Keys of a vector table, in row order.

    Attributes
    ----------
    modality
        Instrument of the spectra.
    spec_id, source_id
        (N,) int64; `source_id` is `NO_SOURCE` where unknown.
    release
        (N,) int16 numbers into `releases`.
    by_spec, by_source
        (N,) int64 rows ordered by spec_id and by source_id; equal ids are in row order.
    releases
        Names of the data releases, oldest first (dr7 before dr11).
    epoch
        (N,) int64 number of the visit or exposure, `COMBINED` for a combined spectrum; None where all are combined.
    """

    modality: str
    spec_id: np.ndarray
    source_id: np.ndarray
    release: np.ndarray
    by_spec: np.ndarray
    by_source: np.ndarray
    releases: tuple[str, ...]
    epoch: np.ndarray | None = None

    @classmethod
    def of(cls, table: VectorTable) -> KeyTable:
        """Read the keys of a vector table and sort them."""
        spec_id = np.empty(table.rows, np.int64)
        source_id = np.empty(table.rows, np.int64)
        release = np.empty(table.rows, np.int16)
        epoch = np.full(table.rows, COMBINED, np.int64)
        names: dict[str, int] = {}
        for number, part in enumerate(table.parts):
            rows = table.part_rows(number)
            file = pq.ParquetFile(part.path)
            more = ["epoch"] if "epoch" in file.schema_arrow.names else []
            columns = file.read(columns=["spec_id", "source_id", "release", *more])
            if more:
                epoch[rows] = columns.column("epoch").fill_null(COMBINED).to_numpy()
            spec_id[rows] = columns.column("spec_id").to_numpy()
            source_id[rows] = columns.column("source_id").fill_null(NO_SOURCE).to_numpy()
            release[rows] = _numbered(columns.column("release"), names)
        ordered = sorted(names, key=release_order)
        renumber = np.empty(max(len(names), 1), np.int16)
        renumber[[names[name] for name in ordered]] = np.arange(len(ordered))
        return cls(table.modality, spec_id, source_id, renumber[release], np.argsort(spec_id, kind="stable"),
                   np.argsort(source_id, kind="stable"), tuple(ordered),
                   None if (epoch == COMBINED).all() else epoch)

    @classmethod
    def open(cls, atlas: Atlas, model: str, modality: str, table: VectorTable | None = None) -> KeyTable:
        """Keys of the current vectors: memory-mapped from the index folder if it is up to date, else read.

        Parameters
        ----------
        table
            The vectors, where they are open already.
        """
        from .index_folder import current_generation

        table = table or VectorTable(atlas, model, modality)
        try:
            kept = current_generation(atlas, model, modality)
            current = kept is not None and kept.manifest["vectors_digest"] == table.digest
            keys = cls.load(kept.folder, modality) if kept is not None and current else cls.of(table)
        except VectorIndexError:
            # with a damaged index this is only slower
            keys = cls.of(table)
        return keys.linked(star_links(atlas, get_modality(modality).link_column))

    def linked(self, links: StarLinks) -> KeyTable:
        """The same keys with source_ids from catalogues; unchanged if catalogues give none."""
        stars = links.fill(np.asarray(self.spec_id), np.asarray(self.source_id))
        if not len(links) or np.array_equal(stars, self.source_id):
            return self
        return replace(self, source_id=stars, by_source=np.argsort(stars, kind="stable"))

    def save(self, folder: Path) -> None:
        """Save the arrays to `folder` (a build folder not yet in use)."""
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))
        if self.epoch is not None:
            np.save(folder / EPOCHS, self.epoch)
        with_epochs = {} if self.epoch is None else {"epochs": True}
        write_json(folder / RELEASES, {"releases": list(self.releases), **with_epochs})

    @classmethod
    def load(cls, folder: Path, modality: str) -> KeyTable:
        """Memory-map the saved arrays; data are read on demand.

        Raises
        ------
        VectorIndexError
            If a file is missing or damaged.
        """
        from .index_folder import check_index_files

        check_index_files(folder, [RELEASES, *(f"{name}.npy" for name in _ARRAYS)])
        try:
            file = RELEASES
            said = json.loads((folder / file).read_text(encoding="utf-8"))
            releases = said["releases"]
            arrays: dict[str, Any] = {}
            for name in _ARRAYS:
                file = f"{name}.npy"
                arrays[name] = np.load(folder / file, mmap_mode="r")
            if said.get("epochs"):
                file = EPOCHS
                check_index_files(folder, [file])
                arrays["epoch"] = np.load(folder / file, mmap_mode="r")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise VectorIndexError(f"The keys of the index in {folder} cannot be read: {file} is damaged ({error}).",
                                   "Run `specclip-search index build --fresh`.") from error
        return cls(modality, releases=tuple(releases), **arrays)

    def __len__(self) -> int:
        return len(self.spec_id)

    def release_names(self, rows: np.ndarray) -> list[str]:
        """Data release of each row."""
        return [self.releases[code] for code in self.release[rows]]

    def epochs(self, rows: np.ndarray) -> list[int | None]:
        """Number of the visit or exposure of each row; None for combined spectra."""
        if self.epoch is None:
            return [None] * len(rows)
        return [None if number == COMBINED else number for number in self.epoch[rows].tolist()]

    def rows_of(self, spec_ids: np.ndarray | list[int], release: str | None = None) -> np.ndarray:
        """Row of every id, (len(spec_ids),) int64; in the newest release unless one is given.

        Raises
        ------
        QueryError
            If ids are not integers, or one is not in the table.
        """
        ids = _int64(spec_ids)
        rows, queries = self.all_rows_of(ids, release)
        found = np.full(len(ids), -1, np.int64)
        # releases are numbered oldest first, so the newest is written last; of one release a combined spectrum wins
        # over single exposures, and else the first row
        whole = np.zeros(len(rows)) if self.epoch is None else self.epoch[rows] == COMBINED
        order = np.lexsort((-rows, whole, self.release[rows])) if len(rows) else np.empty(0, np.int64)
        found[queries[order]] = rows[order]
        missing = ids[found < 0]
        if len(missing):
            raise self._not_here(missing, release)
        return found

    def all_rows_of(self, spec_ids: np.ndarray | list[int], release: str | None = None,
                    ) -> tuple[np.ndarray, np.ndarray]:
        """All rows of the ids, in every release unless one is given; unknown ids give no row.

        Returns
        -------
        rows, queries
            Both (M,) int64: a row, and its position in `spec_ids`.
        """
        rows, queries = _find(self.spec_id, self.by_spec, _int64(spec_ids))
        if release is not None and len(rows):
            keep = self.release[rows] == (self.releases.index(release) if release in self.releases else -1)
            rows, queries = rows[keep], queries[keep]
        return rows, queries

    def rows_of_sources(self, source_ids: np.ndarray | list[int]) -> tuple[np.ndarray, np.ndarray]:
        """All rows of the stars, as `all_rows_of`; `NO_SOURCE` matches nothing."""
        ids = _int64(source_ids)
        rows, queries = _find(self.source_id, self.by_source, ids)
        known = ids[queries] != NO_SOURCE
        return rows[known], queries[known]

    def repeats_of(self, rows: np.ndarray) -> list[np.ndarray]:
        """For each row, all rows of the same star (itself included): same source_id or same spec_id."""
        wanted = np.asarray(rows, np.int64)
        by_id, owner_id = self.all_rows_of(self.spec_id[wanted])
        by_star, owner_star = self.rows_of_sources(self.source_id[wanted])
        owner = np.concatenate([owner_id, owner_star])
        order = np.argsort(owner, kind="stable")
        grouped = np.concatenate([by_id, by_star])[order]
        ends = np.searchsorted(owner[order], np.arange(1, len(wanted)))
        return [np.unique(rows) for rows in np.split(grouped, ends)] if len(wanted) else []

    def _not_here(self, missing: np.ndarray, release: str | None) -> QueryError:
        named = ", ".join(str(value) for value in missing[:3]) + (", ..." if len(missing) > 3 else "")
        inside = f" of release '{release}'" if release is not None else ""
        smallest, largest = (self.spec_id[self.by_spec[0]], self.spec_id[self.by_spec[-1]]) if len(self) else (0, 0)
        return QueryError(
            f"No {self.modality} spectrum{inside} with id {named} in this atlas; it holds {len(self)} "
            f"(ids {smallest} to {largest}, releases: {', '.join(self.releases) or 'none'}).",
            "Check the id's digits and the survey before the colon, or ingest and embed that spectrum first.",
        )


def _find(values: np.ndarray, order: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All rows whose value is in `ids`, by binary search through the sorting permutation."""
    first = np.searchsorted(values, ids, side="left", sorter=order)
    last = np.searchsorted(values, ids, side="right", sorter=order)
    counts = last - first
    queries = np.repeat(np.arange(len(ids), dtype=np.int64), counts)
    within = np.arange(len(queries)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(order[np.repeat(first, counts) + within], np.int64), queries


def _numbered(column: pa.ChunkedArray, names: dict[str, int]) -> np.ndarray:
    """Release names as numbers, adding new names to `names`."""
    encoded = column.fill_null("").combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    codes = [names.setdefault(name, len(names)) for name in encoded.dictionary.to_pylist()]
    return np.asarray(codes, np.int16)[encoded.indices.to_numpy()] if codes else np.empty(0, np.int16)


def _int64(ids: np.ndarray | list[int]) -> np.ndarray:
    array = np.asarray(ids)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise QueryError(
            f"Ids must be 64-bit integers; found {array.dtype}.",
            "A float cannot hold a Gaia source_id exactly; keep ids as int64.",
        )
    return array.astype(np.int64, copy=False).reshape(-1)
