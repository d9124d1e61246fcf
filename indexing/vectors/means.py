"""Mean vector of each instrument, and centring, which removes the constant offset between instruments.

A contrastive model leaves the vectors of two instruments in two separate cones ("modality gap").
Subtracting each instrument's own mean before the vectors are compared removes that offset. A model
trained without such a gap declares it (`centre = false` in its model.toml); its mean is then taken as zero.
`index build` measures retrieval with and without centring.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from specclip_search.atlas import Atlas
from specclip_search.atlas.files import text_digest, whole_file, write_json
from specclip_search.atlas.integrity import check_folder
from specclip_search.errors import AtlasError

from .float16 import to_single, unit_rows
from .table import VectorTable


@dataclass(frozen=True, slots=True)
class ModalityMean:
    """Mean of one instrument's unit vectors.

    Attributes
    ----------
    vector
        (dim,) float64.
    rows
        Number of vectors averaged.
    vectors_digest
        Digest of the vectors averaged.
    digest
        Digest of the mean itself.
    """

    vector: np.ndarray
    rows: int
    vectors_digest: str
    digest: str

    @property
    def length(self) -> float:
        """Length of the mean: 1 if all vectors are alike, about 0 if they are spread over the sphere."""
        return float(np.linalg.norm(self.vector))


def centre(vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Subtract `mean` (dim,) from unit vectors (N, dim) and renormalise to unit length; float32."""
    return unit_rows(vectors.astype(np.float32, copy=False) - mean.astype(np.float32))


def compute_mean(table: VectorTable) -> ModalityMean:
    """Mean over all vectors of a table, summed in float64, one batch at a time."""
    total = np.zeros(table.dim, np.float64)
    for _, half in table.batches():
        total += np.add.reduce(to_single(half), axis=0, dtype=np.float64)
    vector = total / table.rows
    return ModalityMean(vector, table.rows, table.digest, _digest_of(vector))


def ensure_mean(atlas: Atlas, model: str, modality: str) -> ModalityMean:
    """The mean of the current vectors: read if stored and up to date, else computed and stored."""
    table = VectorTable(atlas, model, modality)
    if not centred(atlas, model):
        nothing = np.zeros(table.dim)
        return ModalityMean(nothing, table.rows, table.digest, _digest_of(nothing))
    try:
        kept = load_mean(atlas, model, modality)
    except AtlasError:
        kept = None
    if kept is not None and kept.vectors_digest == table.digest:
        return kept
    mean = compute_mean(table)
    write_mean(_folder(atlas, model), modality, mean)
    return mean


def centred(atlas: Atlas, model: str) -> bool:
    """Whether this model's vectors are centred; true unless its card says otherwise."""
    card = atlas.model_folder(model) / "model.toml"
    check_folder(card.parent, [card.name])
    return not card.is_file() or bool(tomllib.loads(card.read_text(encoding="utf-8")).get("centre", True))


def load_mean(atlas: Atlas, model: str, modality: str) -> ModalityMean | None:
    """The mean stored by an earlier build, up to date or not; None if there is none."""
    return read_mean(_folder(atlas, model), modality)


def write_mean(folder: Path, modality: str, mean: ModalityMean) -> None:
    """Save a mean to `folder`: the array, then its description."""
    with whole_file(folder / f"{modality}.npy") as temporary, open(temporary, "wb") as handle:
        np.save(handle, mean.vector)
    content = {"rows": mean.rows, "vectors_digest": mean.vectors_digest, "digest": mean.digest}
    write_json(folder / f"{modality}.json", content)


def read_mean(folder: Path, modality: str) -> ModalityMean | None:
    """Read a stored mean; None if it is missing or its two files do not match."""
    try:
        content = json.loads((folder / f"{modality}.json").read_text(encoding="utf-8"))
        vector = np.load(folder / f"{modality}.npy", allow_pickle=False)
        mean = ModalityMean(vector, int(content["rows"]), content["vectors_digest"], content["digest"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        raise AtlasError(
            f"The mean vector of {modality} in {folder} cannot be read ({error}).",
            f"Remove {folder / f'{modality}.json'}; it is computed again when needed.",
        ) from error
    return mean if _digest_of(vector) == mean.digest else None


def _folder(atlas: Atlas, model: str) -> Path:
    return atlas.index_folder(model, "means")


def _digest_of(vector: np.ndarray) -> str:
    return text_digest(np.ascontiguousarray(vector, np.float64).tobytes().hex())
