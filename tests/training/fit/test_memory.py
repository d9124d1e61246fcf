"""Spectra of an atlas pass through training a piece at a time: memory does not grow with their number."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa

from specclip_search.atlas import Atlas
from specclip_search.training.fit.atlas_pairs import atlas_source
from specclip_search.training.fit.augment import Augmentation
from specclip_search.training.fit.pairs import ArrayPairs

from ..conftest import made_up_pairs
from .test_pairs import write_spectra

SHARD = 100


def made_up_atlas(folder: Path, pairs: ArrayPairs) -> Atlas:
    atlas = Atlas.create(folder)
    for number, start in enumerate(range(0, len(pairs.source_id), SHARD)):
        rows = np.arange(start, start + SHARD)
        for name in pairs.modalities:
            write_spectra(atlas, name, number, pairs, rows, pairs.source_id[rows] + 1, pairs.source_id[rows])
    return atlas


def peak_memory(folder: Path, stars: int) -> tuple[int, int]:
    """Most bytes that numpy and Arrow held while an atlas was copied and an epoch of it read; bytes of the copy."""
    atlas = made_up_atlas(folder / "atlas", made_up_pairs(stars))
    arrow, before = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(arrow)
    tracemalloc.start()
    try:
        source = atlas_source(atlas, folder / "copy", "mini")
        seen = sum(len(b.source_id) for b in source.batches("train", 32, 0, 0, Augmentation(0.5, noise=1.0)))
        peak = tracemalloc.get_traced_memory()[1] + arrow.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    assert seen == source.stars("train") == stars * 8 // 10
    assert all(isinstance(array, np.memmap) for array in (*source.flux.values(), *source.error.values()))
    return peak, sum(path.stat().st_size for path in (folder / "copy").iterdir())


def test_neither_the_copy_nor_an_epoch_holds_the_spectra_in_memory(tmp_path: Path) -> None:
    few, copied_few = peak_memory(tmp_path / "few", 400)
    many, copied_many = peak_memory(tmp_path / "many", 2000)
    assert copied_many > 4.9 * copied_few
    assert many < 1.3 * few
    assert many < copied_many / 2
