"""The space of one model in an atlas: keys, vectors and indexes of every instrument, opened on first use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from specclip_search.atlas.manifest import as_text
from specclip_search.errors import QueryError
from specclip_search.surveys import LRS, MODALITIES, XP, encoder_of

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas
    from specclip_search.indexing.search.index import VectorIndex
    from specclip_search.indexing.vectors.keys import KeyTable
    from specclip_search.indexing.vectors.table import VectorTable

MODALITY_ORDER = (LRS, XP)


class Space:
    """Vectors of one model for all instruments of an atlas.

    Parameters
    ----------
    atlas
        The atlas.
    model
        Model's name; the active one by default.

    Attributes
    ----------
    modalities
        Instruments that have vectors of this model.
    """

    def __init__(self, atlas: Atlas, model: str | None = None) -> None:
        self.atlas = atlas
        self.model = atlas.require_model(model)
        names = _with_vectors(atlas, self.model)
        self.modalities = tuple(name for name in names if atlas.vectors(self.model, name).exists)
        if not self.modalities:
            raise atlas.vectors(self.model, MODALITY_ORDER[0]).missing()
        self._tables: dict[str, VectorTable] = {}
        self._keys: dict[str, KeyTable] = {}
        self._indexes: dict[str, VectorIndex] = {}
        self._loaded: Any = None

    def table(self, modality: str) -> VectorTable:
        """An instrument's vectors."""
        if modality not in self._tables:
            from specclip_search.indexing.vectors.table import VectorTable

            self._tables[self.require(modality)] = VectorTable(self.atlas, self.model, modality)
        return self._tables[modality]

    def keys(self, modality: str) -> KeyTable:
        """Rows and keys of an instrument's vectors."""
        if modality not in self._keys:
            from specclip_search.indexing.vectors.keys import KeyTable

            self._keys[modality] = KeyTable.open(self.atlas, self.model, modality, self.table(modality))
        return self._keys[modality]

    def index(self, modality: str) -> VectorIndex:
        """The search index of an instrument's vectors.

        Raises
        ------
        VectorIndexError
            If it does not exist, or was built from other vectors.
        """
        if modality not in self._indexes:
            from specclip_search.indexing.search.index import VectorIndex

            table = self.table(modality)
            self._indexes[modality] = VectorIndex.open(self.atlas, self.model, modality, table=table)
        return self._indexes[modality]

    def require(self, modality: str) -> str:
        """`modality` if it has vectors, else a QueryError that lists the available ones."""
        if modality not in self.modalities:
            raise QueryError(
                f"There are no '{modality}' vectors of model '{self.model}' in this atlas; "
                f"it has {', '.join(self.modalities)}.",
                "Name one of these with --within, or ingest and embed that instrument's spectra.",
            )
        return modality

    def loaded_model(self) -> Any:
        """The loaded model, for spectra that are not in the atlas."""
        if self._loaded is None:
            from specclip_search.training.model import load_model

            self._loaded = load_model(self.atlas.model_folder(self.model))
        return self._loaded

    def mean(self, modality: str) -> np.ndarray:
        """(dim,) float64 mean vector of an instrument, which centring subtracts."""
        from specclip_search.indexing.vectors.means import ensure_mean

        return ensure_mean(self.atlas, self.model, modality).vector

    def other(self, modality: str) -> str | None:
        """The other instrument of the pair, if it has vectors; of a survey seen as one of them, too."""
        seen = encoder_of(modality)
        return next((name for name in self.modalities if name in MODALITY_ORDER and name != seen), None)

    def origin(self) -> dict[str, Any]:
        """Provenance of a result: model, its digest, digests of the vectors; raises as `model_digest`."""
        return {
            "model": self.model,
            "model_digest": self.model_digest(),
            "vectors_digest": {name: self.table(name).digest for name in self.modalities},
            "index_digest": {name: index.digest for name, index in self._indexes.items()},
            "index": {name: index.how for name, index in self._indexes.items()},
            **({"partial": as_text(self.atlas.partial)} if self.atlas.partial else {}),
        }

    def model_digest(self) -> str:
        """Digest of the weights that produced the vectors, from the sidecars of the shards.

        Raises
        ------
        QueryError
            If the vectors of two instruments are from different weights: their similarities mean nothing.
        """
        made = {name: [part for part in self.table(name).parts if part.inputs] for name in self.modalities}
        found = {name: str(own[0].extra.get("model_digest", "")) for name, own in made.items() if own}
        if len(set(found.values())) > 1:
            told = " and ".join(f"{digest[:19]} ({name})" for name, digest in found.items())
            raise QueryError(
                f"Vectors of one model were expected; those of '{self.model}' are from different weights: {told}.",
                f"Run `specclip-search embed --atlas {self.atlas.path}`, then `index build`.",
            )
        return next(iter(found.values()), "")


_OPEN: WeakKeyDictionary[Atlas, dict[str, tuple[tuple[int, ...], Space]]] = WeakKeyDictionary()


def open_space(atlas: Atlas, model: str | None = None) -> Space:
    """The space of `model`, cached on the atlas object while its vectors and indexes are unchanged."""
    name = atlas.require_model(model)
    state = _state(atlas, name)
    spaces = _OPEN.setdefault(atlas, {})
    kept = spaces.get(name)
    if kept is None or kept[0] != state:
        kept = (state, Space(atlas, name))
        spaces[name] = kept
    return kept[1]


def _state(atlas: Atlas, model: str) -> tuple[int, ...]:
    """Modification times of the relevant folders, which change with every commit."""
    times = []
    for modality in _with_vectors(atlas, model):
        for kind in ("vectors", "indexes"):
            try:
                times.append(os.stat(atlas.path / kind / model / modality).st_mtime_ns)
            except FileNotFoundError:
                times.append(0)
    return tuple(times)


def _with_vectors(atlas: Atlas, model: str) -> list[str]:
    """The pair, then further surveys by name that have a folder of vectors."""
    folder = atlas.path / "vectors" / model
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [*MODALITY_ORDER, *(name for name in names if name not in MODALITY_ORDER and name in MODALITIES)]
