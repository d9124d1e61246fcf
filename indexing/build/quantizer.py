"""Training an IVF-PQ index on a random sample: projection, coarse centroids, codebooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..search.faiss_library import load_faiss
from ..search.recipe import IndexRecipe

if TYPE_CHECKING:
    import faiss

PCA_SAMPLE = 100_000


@dataclass(frozen=True, slots=True)
class Projection:
    """PCA followed by a random rotation: x -> matrix @ x + offset.

    Attributes
    ----------
    matrix
        (kept, dim) float32 with orthonormal rows.
    offset
        (kept,) float32.
    explained
        Fraction of the variance kept.
    """

    matrix: np.ndarray
    offset: np.ndarray
    explained: float

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """(N, dim) float32 to (N, kept) float32."""
        return vectors @ self.matrix.T + self.offset


def learn_projection(sample: np.ndarray, kept: int, seed: int) -> Projection:
    """PCA of a sample (n, dim); the rotation spreads the variance evenly over the codes' subspaces."""
    few = sample[:: max(1, len(sample) // PCA_SAMPLE)]
    mean = few.mean(axis=0, dtype=np.float64)
    centred = few - mean.astype(np.float32)
    covariance = (centred.T @ centred).astype(np.float64) / max(len(few) - 1, 1)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    # an eigenvector's sign is arbitrary: make its largest entry positive
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.sign(vectors[largest, np.arange(vectors.shape[1])])
    rotation, triangle = np.linalg.qr(np.random.default_rng([seed, kept]).normal(size=(kept, kept)))
    matrix = (rotation * np.sign(np.diag(triangle))) @ vectors[:, :kept].T
    explained = float(values[:kept].sum() / max(values.sum(), 1e-300))
    return Projection(matrix.astype(np.float32), (-matrix @ mean).astype(np.float32), explained)


def assemble(projection: Projection, centroids: np.ndarray, sample: np.ndarray, recipe: IndexRecipe,
             seed: int) -> faiss.IndexPreTransform:
    """An empty, trained index: projection, lists around `centroids`, codebooks trained on the sample."""
    faiss = load_faiss()
    quantizer = _coarse_quantizer(faiss, centroids, recipe)
    lists = faiss.IndexIVFPQ(quantizer, recipe.pca, recipe.nlist, recipe.pq, 8)
    lists.own_fields = True
    quantizer.this.disown()
    lists.do_polysemous_training = False
    lists.pq.cp.niter = recipe.pq_iterations
    lists.pq.cp.seed = seed + 2
    lists.pq.cp.min_points_per_centroid = 1
    lists.pq.cp.max_points_per_centroid = max(1, recipe.pq_sample // 256)
    # codes of the vectors themselves, not of residuals: in 2-D subspaces recall is the same, a query
    # needs one table instead of one per list, and no tables of 64 KB per list are kept in memory
    lists.by_residual = False
    lists.train(sample)
    outer = faiss.IndexPreTransform(_linear(faiss, projection), lists)
    lists.this.disown()
    outer.own_fields = True
    outer.is_trained = True
    return outer


def _coarse_quantizer(faiss: Any, centroids: np.ndarray, recipe: IndexRecipe) -> Any:
    if not recipe.hnsw:
        quantizer = faiss.IndexFlatL2(recipe.pca)
        quantizer.add(centroids)
        return quantizer
    quantizer = faiss.IndexHNSWFlat(recipe.pca, 32)
    quantizer.hnsw.efConstruction = 100
    quantizer.hnsw.efSearch = 64
    before = faiss.omp_get_max_threads()
    # with several threads the order of graph insertion would differ from run to run
    faiss.omp_set_num_threads(1)
    quantizer.add(centroids)
    faiss.omp_set_num_threads(before)
    return quantizer


def _linear(faiss: Any, projection: Projection) -> Any:
    kept, dim = projection.matrix.shape
    transform = faiss.LinearTransform(dim, kept, True)
    faiss.copy_array_to_vector(np.ascontiguousarray(projection.matrix).ravel(), transform.A)
    faiss.copy_array_to_vector(np.ascontiguousarray(projection.offset), transform.b)
    transform.is_trained = True
    transform.is_orthonormal = True
    transform.this.disown()
    return transform
