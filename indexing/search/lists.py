"""The compressed part of an index: FAISS's inverted lists of product codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from specclip_search.errors import VectorIndexError

from .faiss_library import default_threads, faiss_threads, load_faiss
from .row_set import RowSet

_BATCH_FOR_THREADS = 8


class InvertedLists:
    """A trained IndexPreTransform(LinearTransform, IndexIVFPQ) with access to its inner parts.

    The outer object owns the inner ones, so a reference to it is kept while they are used.
    """

    def __init__(self, outer: Any) -> None:
        faiss = load_faiss()
        self.outer = outer
        self.ivf = faiss.downcast_index(outer.index)
        linear = faiss.downcast_VectorTransform(outer.chain.at(0))
        self.matrix = faiss.vector_to_array(linear.A).reshape(linear.d_out, linear.d_in).copy()
        self.offset = faiss.vector_to_array(linear.b).copy()

    @classmethod
    def load(cls, path: Path) -> InvertedLists:
        """Read from a file.

        Raises
        ------
        VectorIndexError
            If FAISS cannot read it, or it is another kind of index.
        """
        faiss = load_faiss("Opening this IVF-PQ index")
        try:
            return cls(faiss.read_index(str(path)))
        except (RuntimeError, AttributeError) as error:
            reason = str(error).strip().splitlines()[-1][:200]
            raise VectorIndexError(f"{path} is not a readable IVF-PQ index ({reason}).",
                                   "Run `specclip-search index build --fresh` to rebuild it from the vectors."
                                   ) from error

    def save(self, path: Path) -> None:
        load_faiss().write_index(self.outer, str(path))

    @property
    def rows(self) -> int:
        return int(self.ivf.ntotal)

    def project(self, vectors: np.ndarray) -> np.ndarray:
        """(N, dim) centred vectors to the (N, pca) space of the lists."""
        return np.ascontiguousarray(vectors @ self.matrix.T + self.offset)

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """(N, dim) centred vectors to (N, bytes) uint8: list number and product code."""
        return np.asarray(self.ivf.sa_encode(self.project(vectors)))

    def centroids(self) -> np.ndarray:
        """(nlist, pca) float32 centroids of the lists."""
        quantizer = load_faiss().downcast_index(self.ivf.quantizer)
        return np.asarray(quantizer.reconstruct_n(0, self.ivf.nlist), np.float32)

    def codebooks(self) -> np.ndarray:
        """(bytes, 256, pca / bytes) float32 centroids of the product codes."""
        product = self.ivf.pq
        return load_faiss().vector_to_array(product.centroids).reshape(product.M, product.ksub, product.dsub).copy()

    def product_codes(self, projected: np.ndarray) -> np.ndarray:
        """(N, bytes) uint8 product codes of projected vectors, whichever list they belong to."""
        return np.asarray(self.ivf.pq.compute_codes(np.ascontiguousarray(projected)))

    def joined(self, numbers: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Combine list numbers (N,) and product codes (N, bytes) as `encode` does."""
        prefix = self.ivf.sa_code_size() - self.ivf.code_size
        little = np.ascontiguousarray(numbers, "<i8").view(np.uint8).reshape(-1, 8)
        return np.concatenate([little[:, :prefix], codes], axis=1)

    def mean_distance(self, vectors: np.ndarray) -> float:
        """Mean squared distance of (N, dim) centred unit vectors to their nearest list's centroid.

        Components dropped by the PCA are included: new kinds of vectors may lie in those directions.
        """
        projected = self.project(vectors)
        distances, _ = self.ivf.quantizer.search(projected, 1)
        kept = projected - self.offset
        left_out = 1 - np.einsum("ij,ij->i", kept, kept)
        return float(np.mean(distances[:, 0] + left_out.clip(min=0), dtype=np.float64))

    def add_codes(self, codes: np.ndarray, first_row: int) -> None:
        """Add encoded vectors to their lists, numbered from `first_row`."""
        rows = np.arange(first_row, first_row + len(codes), dtype=np.int64)
        self.ivf.add_sa_codes(np.ascontiguousarray(codes), rows)
        self.outer.ntotal = self.ivf.ntotal

    def codes_by_row(self) -> np.ndarray:
        """Encoded vectors read back from the lists, (rows, bytes) uint8 in row order, as returned by `encode`."""
        faiss = load_faiss()
        codes = np.empty((self.rows, self.ivf.sa_code_size()), np.uint8)
        prefix = codes.shape[1] - self.ivf.code_size
        for number in range(self.ivf.nlist):
            size = self.ivf.invlists.list_size(number)
            if size:
                rows = faiss.rev_swig_ptr(self.ivf.invlists.get_ids(number), size)
                stored = faiss.rev_swig_ptr(self.ivf.invlists.get_codes(number), size * self.ivf.code_size)
                codes[rows, prefix:] = stored.reshape(size, -1)
                codes[rows, :prefix] = np.frombuffer(number.to_bytes(prefix, "little"), np.uint8)
        return codes

    def empty(self) -> None:
        """Remove all vectors and keep the trained parts."""
        self.ivf.reset()
        self.outer.ntotal = 0

    def candidates(self, queries: np.ndarray, depth: int, nprobe: int, allowed: RowSet | None = None) -> np.ndarray:
        """(Q, depth) int64 rows nearest by code among `nprobe` lists; padded with -1."""
        faiss = load_faiss()
        options: dict[str, Any] = {"nprobe": nprobe}
        # FAISS holds raw pointers: keep a local reference to every argument until the call returns
        bitmap = np.empty(0, np.uint8) if allowed is None else allowed.bitmap
        if allowed is not None:
            options["sel"] = faiss.IDSelectorBitmap(len(bitmap), faiss.swig_ptr(bitmap))
        if isinstance(faiss.downcast_index(self.ivf.quantizer), faiss.IndexHNSW):
            options["quantizer_params"] = faiss.SearchParametersHNSW(efSearch=max(64, 2 * nprobe))
        parameters = faiss.SearchParametersIVF(**options)
        threads = 1 if len(queries) < _BATCH_FOR_THREADS else default_threads()
        with faiss_threads(threads):
            _, rows = self.ivf.search(self.project(queries), depth, params=parameters)
        return np.asarray(rows)
