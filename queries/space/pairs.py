"""Pairs of LRS and XP spectra of the same star, and their fluxes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.atlas.files import TEMPORARY_PREFIX
from specclip_search.atlas.links import NO_SOURCE, StarLinks, linked_ids, star_links
from specclip_search.keys import release_order
from specclip_search.preparation.bands import BANDS
from specclip_search.surveys import get_modality

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas, Part

BLOCK_COLUMNS = ("spec_id", "source_id", "release", "snr", "flux", "error", "sed")
# bands in nm for the colour of a star from its XP spectrum; both avoid the noisy ends
BLUE_BAND, RED_BAND = (440.0, 480.0), (640.0, 680.0)


def newest_first(releases: list[str]) -> dict[str, int]:
    """Rank of each release name, 0 for the newest."""
    ordered = sorted(set(releases), key=release_order, reverse=True)
    return {name: rank for rank, name in enumerate(ordered)}


@dataclass(frozen=True, slots=True)
class StarKeys:
    """The spectra of one instrument by star, sorted by source_id, one spectrum (the newest) per star."""

    source_id: np.ndarray
    spec_id: np.ndarray
    release: np.ndarray
    part: np.ndarray
    row: np.ndarray
    digests: dict[int, str]

    def find(self, source_id: np.ndarray) -> np.ndarray:
        """Index of each star, -1 if it has no spectrum."""
        if len(self.source_id) == 0:
            return np.full(len(source_id), -1)
        position = np.minimum(np.searchsorted(self.source_id, source_id), len(self.source_id) - 1)
        return np.where(self.source_id[position] == source_id, position, -1)


def star_keys(atlas: Atlas, modality: str) -> StarKeys:
    """Keys of all spectra of `modality` with a known star; the newest of several releases."""
    pieces, digests = [], {}
    links = star_links(atlas, get_modality(modality).link_column)
    for part in atlas.spectra(modality).parts():
        table = pq.ParquetFile(part.path).read(columns=["spec_id", "source_id", "release"])
        stars = linked_ids(table, links)
        known = np.flatnonzero(stars != NO_SOURCE)
        table = table.set_column(1, "source_id", pa.array(stars)).take(pa.array(known))
        pieces.append((table, np.full(len(known), part.number), known))
        digests[part.number] = part.digest
    if not pieces:
        empty = np.empty(0, np.int64)
        return StarKeys(empty, empty, np.empty(0, object), empty, empty, digests)
    table = pa.concat_tables([piece[0] for piece in pieces])
    part_number = np.concatenate([piece[1] for piece in pieces])
    row = np.concatenate([piece[2] for piece in pieces])
    source_id = table["source_id"].to_numpy()
    spec_id = table["spec_id"].to_numpy()
    names = table["release"].combine_chunks().dictionary_encode()
    ranks = newest_first([str(name) for name in names.dictionary.to_pylist()])
    lookup = np.array([ranks[str(name)] for name in names.dictionary.to_pylist()], dtype=np.int64)
    codes = names.indices.to_numpy()
    order = np.lexsort((row, part_number, lookup[codes], source_id))
    _, first = np.unique(source_id[order], return_index=True)
    chosen = order[first]
    release = np.array(names.dictionary.to_pylist(), dtype=object)[codes[chosen]]
    return StarKeys(source_id[chosen], spec_id[chosen], release, part_number[chosen], row[chosen], digests)


@dataclass(frozen=True, slots=True)
class FluxStore:
    """Fluxes and errors of chosen spectra, memory-mapped, by position in a `StarKeys`."""

    slot: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    snr: np.ndarray

    def take(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N, n) float64 flux and error, and (N,) S/N, at the given positions."""
        slot = self.slot[position]
        return self.flux[slot].astype(np.float64), self.error[slot].astype(np.float64), self.snr[slot]


@contextmanager
def flux_store(atlas: Atlas, modality: str, keys: StarKeys, wanted: np.ndarray, folder: Path) -> Iterator[FluxStore]:
    """Copy the requested spectra to contiguous scratch files in `folder`, removed at the end.

    Partners of one shard are spread over all shards of the other instrument; reading those
    again for every shard would take quadratic time.
    """
    positions = np.unique(wanted[wanted >= 0])
    slot = np.full(len(keys.source_id), -1, dtype=np.int64)
    slot[positions] = np.arange(len(positions))
    scratch = [folder / f"{TEMPORARY_PREFIX}{modality}-{kind}" for kind in ("flux", "error")]
    try:
        yield FluxStore(slot, *_fill(atlas, modality, keys, positions, scratch))
    finally:
        for path in scratch:
            path.unlink(missing_ok=True)


def _fill(
    atlas: Atlas, modality: str, keys: StarKeys, positions: np.ndarray, scratch: list[Path]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    flux = error = np.empty((0, 0))
    snr = np.full(len(positions), np.nan, dtype=np.float32)
    for part in atlas.spectra(modality).parts():
        here = np.flatnonzero(keys.part[positions] == part.number)
        if len(here) == 0:
            continue
        table = pq.ParquetFile(part.path).read(columns=["snr", "flux", "error"])
        rows = keys.row[positions[here]]
        part_flux = column_to_matrix(table["flux"])
        if flux.size == 0:
            shape = (len(positions), part_flux.shape[1])
            flux = np.memmap(scratch[0], np.float32, "w+", shape=shape)
            error = np.memmap(scratch[1], np.float16, "w+", shape=shape)
        flux[here] = part_flux[rows]
        error[here] = column_to_matrix(table["error"])[rows]
        snr[here] = table["snr"].to_numpy()[rows]
    return flux, error, snr


@dataclass(frozen=True, slots=True)
class SpectraBlock:
    """Spectra of one shard as arrays."""

    part: Part
    spec_id: np.ndarray
    source_id: np.ndarray
    known: np.ndarray
    release: np.ndarray
    snr: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    sed: np.ndarray


def read_keys(part: Part, links: StarLinks) -> tuple[np.ndarray, np.ndarray]:
    """source_id of a shard's spectra (`NO_SOURCE` where unknown) and whether it is known."""
    stars = linked_ids(pq.ParquetFile(part.path).read(columns=["spec_id", "source_id"]), links)
    return stars, stars != NO_SOURCE


def read_block(part: Part, links: StarLinks) -> SpectraBlock:
    """A whole shard of LRS spectra; shards fit in memory."""
    file = pq.ParquetFile(part.path)
    names = [name for name in BLOCK_COLUMNS if name in file.schema_arrow.names]
    table = file.read(columns=names)
    stars = linked_ids(table, links)
    return SpectraBlock(
        part,
        table["spec_id"].to_numpy(),
        stars,
        stars != NO_SOURCE,
        np.array(table["release"].to_pylist(), dtype=object),
        table["snr"].to_numpy(),
        column_to_matrix(table["flux"]).astype(np.float64),
        column_to_matrix(table["error"]).astype(np.float64),
        _shapes(table),
    )


def _shapes(table: pa.Table) -> np.ndarray:
    """(N, 15) broad-band shapes; NaN for spectra ingested before this column existed."""
    result = np.full((table.num_rows, BANDS), np.nan, np.float32)
    if "sed" in table.column_names:
        known = table["sed"].is_valid().to_numpy(zero_copy_only=False)
        result[known] = column_to_matrix(table["sed"].drop_null())
    return result


def star_color(xp_flux: np.ndarray, wavelength_nm: np.ndarray) -> np.ndarray:
    """(N,) log10 of mean flux at 640-680 nm over that at 440-480 nm; NaN if not positive."""
    blue = xp_flux[:, (wavelength_nm >= BLUE_BAND[0]) & (wavelength_nm <= BLUE_BAND[1])].mean(axis=1)
    red = xp_flux[:, (wavelength_nm >= RED_BAND[0]) & (wavelength_nm <= RED_BAND[1])].mean(axis=1)
    good = (blue > 0) & (red > 0)
    return np.where(good, np.log10(np.where(good, red, 1.0) / np.where(good, blue, 1.0)), np.nan)
