"""Index recipes: chosen by the number of vectors, or given by the user."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from specclip_search.errors import VectorIndexError

FLAT_BELOW = 50_000
HNSW_COARSE_ABOVE = 8192
_EXAMPLES = "auto, flat, ivfpq, or in full PCA128,IVF4096,PQ64 (PCA128,IVF16384_HNSW32,PQ64 for 10 million)"
_PATTERN = re.compile(r"(?:PCAR?(?P<pca>\d+),)?IVF(?P<nlist>\d+)(?P<hnsw>_HNSW32)?,PQ(?P<pq>\d+)(?:np)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class IndexRecipe:
    """How vectors are indexed.

    Attributes
    ----------
    kind
        `flat`: exact search over the float16 store. `ivfpq`: PCA, inverted lists and product
        codes, re-ranked exactly from the store.
    pca
        Dimensions kept by the PCA.
    nlist
        Inverted lists.
    hnsw
        Whether lists are found through an HNSW graph over their centroids instead of by brute force.
    pq
        Bytes of code per vector (8 bits each).
    train_per_list
        Random training vectors per list.
    iterations
        Iterations of the coarse k-means.
    pq_iterations, pq_sample
        Iterations and training vectors of the codebooks' k-means.
    """

    kind: Literal["flat", "ivfpq"]
    pca: int = 0
    nlist: int = 0
    hnsw: bool = False
    pq: int = 0
    train_per_list: int = 48
    iterations: int = 6
    pq_iterations: int = 8
    pq_sample: int = 16384

    def __str__(self) -> str:
        if self.kind == "flat":
            return "flat"
        return f"PCAR{self.pca},IVF{self.nlist}{'_HNSW32' if self.hnsw else ''},PQ{self.pq}np"

    def training_rows(self, rows: int) -> int:
        """Number of random vectors that the coarse quantiser is trained on."""
        per_list = min(self.train_per_list, 32) if self.nlist > HNSW_COARSE_ABOVE else self.train_per_list
        return min(rows, max(per_list * self.nlist, min(self.pq_sample, rows)))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def choose_recipe(text: str | None, rows: int, dim: int) -> IndexRecipe:
    """The recipe for `rows` vectors of `dim` numbers.

    Parameters
    ----------
    text
        None or `auto`: flat below 50,000 vectors, else IVF-PQ. `flat`, `ivfpq`, or a factory
        string such as `PCA128,IVF4096,PQ64`.

    Raises
    ------
    VectorIndexError
        If the text is not a recipe, or `rows` or `dim` do not allow it.
    """
    name = (text or "auto").strip()
    if name.lower() == "auto":
        return IndexRecipe("flat") if rows < FLAT_BELOW else ivfpq_for(rows, dim)
    if name.lower() == "flat":
        return IndexRecipe("flat")
    if name.lower() == "ivfpq":
        return ivfpq_for(rows, dim)
    return _from_factory_string(name, rows, dim)


def ivfpq_for(rows: int, dim: int) -> IndexRecipe:
    """IVF-PQ by size: about 4 sqrt(N) lists, a graph over them above 8192, PCA to 128, 64 bytes."""
    wanted = 2 ** math.ceil(math.log2(max(4 * math.sqrt(rows), 1)))
    fed = 2 ** math.floor(math.log2(max(rows / 39, 1)))
    nlist = max(1, min(wanted, fed))
    pq = next(m for m in (64, 32, 16, 8, 4, 2, 1) if 2 * m <= dim or m == 1)
    pca = min(128, dim - dim % pq)
    return _validated(IndexRecipe("ivfpq", pca, nlist, nlist > HNSW_COARSE_ABOVE, pq), rows, dim)


def with_pca(recipe: IndexRecipe, pca: int) -> IndexRecipe:
    """The same recipe with another number of PCA dimensions."""
    return replace(recipe, pca=pca)


def _from_factory_string(text: str, rows: int, dim: int) -> IndexRecipe:
    match = _PATTERN.fullmatch(text.replace(" ", ""))
    if match is None:
        raise VectorIndexError(f"'{text}' is not an index recipe.", f"Give one of: {_EXAMPLES}.")
    pq = int(match["pq"])
    pca = int(match["pca"]) if match["pca"] else dim
    return _validated(IndexRecipe("ivfpq", pca, int(match["nlist"]), match["hnsw"] is not None, pq), rows, dim)


def _validated(recipe: IndexRecipe, rows: int, dim: int) -> IndexRecipe:
    """Return the recipe if it suits these vectors, else raise."""
    if not 0 < recipe.pca <= dim:
        raise VectorIndexError(f"A PCA to {recipe.pca} dimensions needs at least as many; the vectors have {dim}.",
                               "Ask for fewer PCA dimensions.")
    if recipe.pq < 1 or recipe.pca % recipe.pq:
        raise VectorIndexError(f"PQ{recipe.pq} must divide the number of PCA dimensions, {recipe.pca}.",
                               f"Use a divisor of {recipe.pca}, for example PQ{_divisor_near(recipe.pca, 64)}.")
    if not 0 < recipe.nlist <= rows or rows < 256:
        raise VectorIndexError(
            f"{recipe} needs at least {max(recipe.nlist, 256)} training vectors; there are {rows}.",
            "Use --recipe flat: exact search is fast for so few vectors.",
        )
    return recipe


def _divisor_near(number: int, wanted: int) -> int:
    return max(value for value in range(1, min(number, wanted) + 1) if number % value == 0)
