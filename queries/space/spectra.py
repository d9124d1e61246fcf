"""Read spectra by key from the atlas's shards without reading whole shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.keys import release_order
from specclip_search.surveys import get_modality

from .lookup import Lookup, open_lookup

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

    from .space import Space

SAMPLED_GROUPS = 8


@dataclass(frozen=True, slots=True)
class SpectrumRows:
    """Spectra of one instrument on the model's grid.

    Attributes
    ----------
    modality
        The instrument.
    flux, error
        (N, n) float64 model input and its 1 sigma; error is inf for pixels without information. NaN
        rows for spectra that were not found.
    snr
        (N,) float64.
    source_id
        (N,) int64, -1 where unknown.
    simulated
        (N,) bool.
    """

    modality: str
    flux: np.ndarray
    error: np.ndarray
    snr: np.ndarray
    source_id: np.ndarray
    simulated: np.ndarray

    def __len__(self) -> int:
        return len(self.flux)

    @property
    def found(self) -> np.ndarray:
        """(N,) bool."""
        return np.isfinite(self.flux).all(axis=1)


_COLUMNS = ("release", "snr", "source_id", "simulated", "flux", "error")


def read_spectra(
    atlas: Atlas,
    modality: str,
    spec_id: np.ndarray,
    release: Sequence[str | None] | None = None,
    epoch: Sequence[int | None] | None = None,
) -> SpectrumRows:
    """Spectra of `modality` by id, in the requested order.

    Parameters
    ----------
    spec_id
        (N,) int64; -1 for no spectrum.
    release
        Data release of each; None for the newest.
    epoch
        Visit or exposure of each, None for the combined spectrum. By default the combined spectrum, or the first
        exposure where there is none.
    """
    wanted = np.asarray(spec_id, dtype=np.int64)
    lookup = _lookup(atlas, modality)
    query, row = lookup.find(wanted)
    has_epochs = get_modality(modality).has_epochs
    table = lookup.take(row, [*_COLUMNS, *(["epoch"] if has_epochs else [])])
    names = table["release"].to_pylist()
    epochs = table["epoch"].to_pylist() if has_epochs else [None] * len(names)
    best: dict[int, int] = {}
    for i, number in enumerate(query.tolist()):
        asked = None if release is None else release[number]
        if asked is not None and names[i] != asked:
            continue
        if epoch is not None and epochs[i] != epoch[number]:
            continue
        if number not in best or _rank(names[i], epochs[i]) > _rank(names[best[number]], epochs[best[number]]):
            best[number] = i
    return _rows(modality, table, len(wanted), best)


def _rank(release: str, epoch: int | None) -> tuple[tuple[tuple[int, str], ...], bool]:
    """Newer releases first, and of one release the combined spectrum."""
    return release_order(release), epoch is None


def _lookup(atlas: Atlas, modality: str) -> Lookup:
    files = atlas.spectra(modality).paths()
    if not files:
        raise atlas.spectra(modality).missing()
    return open_lookup(atlas, f"spectra_{modality}", files, "spec_id")


def _rows(modality: str, table: object, size: int, best: dict[int, int]) -> SpectrumRows:
    points = get_modality(modality).size
    flux, error = np.full((size, points), np.nan), np.full((size, points), np.inf)
    snr, source_id, simulated = np.full(size, np.nan), np.full(size, -1, dtype=np.int64), np.zeros(size, dtype=bool)
    if best:
        place = np.fromiter(best, dtype=np.int64)
        chosen = table.take(list(best.values()))  # type: ignore[attr-defined]
        flux[place] = column_to_matrix(chosen["flux"])
        error[place] = column_to_matrix(chosen["error"])
        snr[place] = chosen["snr"].to_numpy()
        source_id[place] = chosen["source_id"].fill_null(-1).to_numpy()
        simulated[place] = chosen["simulated"].to_numpy()
    return SpectrumRows(modality, flux, error, snr, source_id, simulated)


def sample_fluxes(atlas: Atlas, modality: str, most: int = 1000, seed: int = 0) -> np.ndarray:
    """(m, n) float64 model input of spectra from a few random row groups of the shards.

    Whole row groups are read, because random single rows would require reading all of them.
    """
    parts = atlas.spectra(modality).parts()
    groups = [(part.path, i) for part in parts for i in range(pq.ParquetFile(part.path).metadata.num_row_groups)]
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(groups), size=min(SAMPLED_GROUPS, len(groups)), replace=False)
    share = -(-most // len(chosen))
    pieces = []
    for number in np.sort(chosen):
        path, group = groups[number]
        matrix = column_to_matrix(pq.ParquetFile(path).read_row_group(group, columns=["flux"])["flux"])
        rows = np.sort(rng.choice(len(matrix), size=min(share, len(matrix)), replace=False))
        pieces.append(np.asarray(matrix[rows], dtype=np.float64))
    return np.concatenate(pieces)[:most]


def read_columns(space: Space, modality: str, rows: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Numeric columns of the spectra at vector rows, as float64; NaN for null.

    Vector shards hold the rows of the spectra shards of the same number, in the same order.
    """
    parts = space.atlas.vectors(space.model, modality).parts()
    offsets = np.concatenate([[0], np.cumsum([part.rows for part in parts])])
    result = {name: np.full(len(rows), np.nan) for name in names}
    owner = np.searchsorted(offsets, rows, side="right") - 1
    for number in np.unique(owner):
        path = space.atlas.spectra(modality).shard_path(parts[number].number)
        present = [name for name in names if name in pq.read_schema(path).names]
        table = pq.ParquetFile(path).read(columns=present)
        here = owner == number
        for name in present:
            column = table[name].cast("uint8") if pa.types.is_boolean(table.schema.field(name).type) else table[name]
            values = column.cast("float64").to_numpy()
            result[name][here] = values[rows[here] - offsets[number]]
    return result
