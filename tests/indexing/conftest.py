"""Small atlases of vectors: two instruments that see the same stars, each with its own offset."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.schemas import vectors_schema

MODEL = "tiny"
DIM = 64
BIG = 2**53 + 1
LISTS = "PCA32,IVF32,PQ16"
"""A compressed recipe that is learnt in a second."""


def star_vectors(count: int, view: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    """Unit vectors on a curved 6-D manifold; another view has another offset and other noise."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(count, 6)) + 1.5 * rng.normal(size=(12, 6))[rng.integers(0, 12, count)]
    weights = np.random.default_rng(99)
    hidden = np.tanh(latent @ weights.normal(size=(6, 96)) / 2)
    vectors = hidden @ weights.normal(size=(96, dim)) / 10
    offset = np.random.default_rng([7, view]).normal(size=dim) * (0.3 + 0.5 * view)
    noise = np.random.default_rng([seed, 1000 + view]).normal(size=vectors.shape) * 0.1
    moved = vectors + offset + noise
    return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)


def write_vectors(atlas: Atlas, modality: str, vectors: np.ndarray, *, part_rows: int = 700, first_id: int = BIG,
                  first_part: int = 0, model: str = MODEL, model_digest: str = "sha256:tiny") -> None:
    """Vectors as shards; ids from `first_id` on, odd steps so that floats would merge them."""
    stage = atlas.vectors(model, modality)
    schema = vectors_schema(vectors.shape[1])
    for number, start in enumerate(range(0, len(vectors), part_rows), first_part):
        part = vectors[start : start + part_rows]
        ids = first_id + np.arange(start, start + len(part), dtype=np.int64)
        table = table_from_columns({"spec_id": ids, "source_id": ids, "release": ["dr7"] * len(part), "vector": part,
                                    "norm": np.ones(len(part), np.float32)}, schema)
        with stage.lock():
            stage.write(number, table, schema=schema, inputs=f"test-{number}", extra={"model_digest": model_digest})


@pytest.fixture
def make_atlas(tmp_path: Path) -> Callable[..., Atlas]:
    """`make_atlas(count, dim=64)`: an atlas with vectors of both instruments."""

    def make(count: int = 3000, dim: int = DIM, name: str = "atlas") -> Atlas:
        atlas = Atlas.create(tmp_path / name)
        write_vectors(atlas, "gaia_xp", star_vectors(count, 0, dim=dim))
        write_vectors(atlas, "lamost_lrs", star_vectors(count, 1, dim=dim), part_rows=900)
        atlas.use_model(MODEL)
        return atlas

    return make
