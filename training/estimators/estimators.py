"""Estimate labels of stars from a model's shared vectors: value, error, flag and distance from the training stars.

Estimators are stored as `estimators.safetensors` and `estimators.json` next to a model's weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from specclip_search.atlas.files import file_digest, write_json
from specclip_search.atlas.integrity import changing_files
from specclip_search.errors import CheckpointError, QueryError
from specclip_search.version import __version__

from ..checkpoints.folder import cast, fill_module, load_tensors, save_tensors
from ..checkpoints.settings import did_you_mean
from ..networks.label_scale import (
    CARBON_GUESSED,
    CARBON_MAX_FEH,
    FAR,
    HOT,
    HOT_TEFF,
    LABELS,
    LOW_SNR,
    OUT_OF_RANGE,
    SNR_UNKNOWN,
    WIDE,
    floor_on_scale,
    from_scale,
    sigma_from_scale,
    to_scale,
)
from .calibration import Calibration
from .network import EstimatorModule, EstimatorSizes, Mixture

if TYPE_CHECKING:
    from ..model import Model

DISTANCE_AXES = 32
"""Number of leading principal axes used for `distance`; later ones are mostly noise."""
FEH_LIMITS = {"feh_p_below_m2": -2.0, "feh_p_below_m3": -3.0}
"""Columns of stored estimates with the probability of being below a metallicity."""
_WIDE_LABELS = ("teff", "logg", "feh")


@dataclass(frozen=True)
class InstrumentEstimator:
    """The estimator of one instrument.

    Attributes
    ----------
    labels
        Names of the labels, in the order of the arrays below.
    module
        Network from unit vectors to mixtures.
    floor
        Error floor by label in its unit, added in quadrature; `ERROR_FLOOR` unless given.
    calibration
        See `Calibration`.
    mean, std
        (labels,) standardisation on the learned scale.
    low, high
        (labels,) 0.1 and 99.9 % quantiles of the training stars, in the labels' units.
    far
        99.5 % quantile of `distance` of the training stars.
    lowest_snr
        0.5 % quantile of the S/N of the training stars.
    """

    labels: tuple[str, ...]
    module: EstimatorModule
    calibration: Calibration
    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray
    far: float
    lowest_snr: float
    floor: Mapping[str, float] | None = None

    def raw(self, vectors: np.ndarray) -> tuple[np.ndarray, Mixture]:
        """`distance` (N,) and the uncalibrated mixtures, in standardised units."""
        x, mixture = self.module.run(vectors)
        return distance_of(x), mixture

    def posterior(self, modality: str, vectors: np.ndarray, snr: np.ndarray | None) -> tuple[np.ndarray, Mixture]:
        """`distance` and calibrated mixtures in standardised units, including the error floor."""
        distance, mixture = self.raw(vectors)
        mean = mixture.mean
        floors = [floor_on_scale(modality, n, from_scale(n, self.mean[i] + self.std[i] * mean[:, i]), self.floor)
                  / self.std[i] for i, n in enumerate(self.labels)]
        return distance, self.calibration.apply(mixture, snr, np.stack(floors, axis=1), self.mean, self.std)

    def flags(self, result: Mapping[str, np.ndarray], snr: np.ndarray | None) -> np.ndarray:
        """(N,) int64 flags; see `specclip_search.training.networks.label_scale.FLAGS`."""
        count = len(result["distance"])
        flag = np.where(result["distance"] > self.far, FAR, 0)
        values = np.stack([result[name] for name in self.labels], axis=1)
        flag |= np.where(((values < self.low) | (values > self.high)).any(axis=1), OUT_OF_RANGE, 0)
        known = np.zeros(count, bool) if snr is None else np.isfinite(snr) & (np.asarray(snr) > 0)
        flag |= np.where(known, 0, SNR_UNKNOWN)
        if snr is not None:
            flag |= np.where(known & (np.nan_to_num(snr) < self.lowest_snr), LOW_SNR, 0)
        if "c_fe" in self.labels and "feh" in self.labels:
            flag |= np.where(result["feh"] > CARBON_MAX_FEH, CARBON_GUESSED, 0)
        if "teff" in self.labels:
            flag |= np.where(result["teff"] > HOT_TEFF, HOT, 0)
        for name in set(_WIDE_LABELS) & set(self.labels):
            place = self.labels.index(name)
            spread = sigma_from_scale(name, result[name], np.full(count, self.std[place]))
            flag |= np.where(result[name + "_err"] > 0.5 * spread, WIDE, 0)
        return flag.astype(np.int64)


@dataclass(frozen=True)
class Estimators:
    """The estimators of a model, by instrument; see `load_estimators`.

    Attributes
    ----------
    model_digest
        Digest of the model weights whose vectors they use.
    digest
        Digest of the estimators themselves.
    instruments
        One `InstrumentEstimator` a modality.
    metrics
        Metrics on validation stars, including coverage.
    """

    model_digest: str
    digest: str
    instruments: Mapping[str, InstrumentEstimator]
    metrics: Mapping[str, Any]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Supported instruments."""
        return tuple(self.instruments)

    def estimate(self, modality: str, vectors: np.ndarray, snr: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Labels of stars.

        Parameters
        ----------
        modality
            `lamost_lrs` or `gaia_xp`.
        vectors
            (N, dim) shared vectors of unit length.
        snr
            (N,) signal to noise per pixel (LRS: g band; XP: median), NaN if unknown. Errors depend on it.

        Returns
        -------
        dict
            (N,) each: `teff` (K), `logg` (log10 cm s-2), `feh`, `alpha_fe`, `c_fe` (dex), `rv` (km/s; NaN for
            XP) with their 1 sigma errors `<label>_err`; `distance`, the root mean square of the whitened
            principal coordinates, 1 for a typical training star; `flag` (int64), see
            `specclip_search.training.networks.label_scale.FLAGS`.

        Raises
        ------
        QueryError
            If there is no estimator of this instrument, or the arrays have other shapes.
        """
        chosen, vectors, snr = self._checked(modality, vectors, snr)
        distance, mixture = chosen.posterior(modality, vectors, snr)
        return self._described(chosen, distance, mixture, snr)

    def estimate_all(self, modality: str, vectors: np.ndarray, snr: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """As `estimate`, with the probabilities of `FEH_LIMITS`, in one pass."""
        chosen, vectors, snr = self._checked(modality, vectors, snr)
        distance, mixture = chosen.posterior(modality, vectors, snr)
        result = self._described(chosen, distance, mixture, snr)
        place = chosen.labels.index("feh")
        for name, limit in FEH_LIMITS.items():
            result[name] = mixture.below((limit - chosen.mean[place]) / chosen.std[place])[:, place]
        return result

    def probability_below(self, modality: str, vectors: np.ndarray, label: str, value: float,
                          snr: np.ndarray | None = None) -> np.ndarray:
        """(N,) posterior probability that `label` is below `value`; arguments as for `estimate`."""
        chosen, vectors, snr = self._checked(modality, vectors, snr)
        if label not in chosen.labels:
            raise QueryError(f"No estimator gives '{label}' from {modality} spectra.",
                             did_you_mean(label, chosen.labels))
        place = chosen.labels.index(label)
        limit = (to_scale(label, value) - chosen.mean[place]) / chosen.std[place]
        return chosen.posterior(modality, vectors, snr)[1].below(limit)[:, place]

    def _described(self, chosen: InstrumentEstimator, distance: np.ndarray, mixture: Mixture,
                   snr: np.ndarray | None) -> dict[str, np.ndarray]:
        mean, sigma = mixture.mean, mixture.sigma
        result: dict[str, np.ndarray] = {}
        for name in LABELS:
            if name not in chosen.labels:
                result[name] = result[name + "_err"] = np.full(len(distance), np.nan)
                continue
            i = chosen.labels.index(name)
            result[name] = from_scale(name, chosen.mean[i] + chosen.std[i] * mean[:, i])
            result[name + "_err"] = sigma_from_scale(name, result[name], chosen.std[i] * sigma[:, i])
        result["distance"] = distance
        result["flag"] = chosen.flags(result, snr)
        return result

    def _checked(self, modality: str, vectors: np.ndarray, snr: np.ndarray | None,
                 ) -> tuple[InstrumentEstimator, np.ndarray, np.ndarray | None]:
        if modality not in self.instruments:
            raise QueryError(f"These estimators take {' and '.join(self.modalities)}; found '{modality}'.",
                             did_you_mean(modality, self.modalities))
        chosen = self.instruments[modality]
        dim = chosen.module.sizes.dim
        vectors = np.asarray(vectors)
        if vectors.ndim != 2 or vectors.shape[1] != dim:
            raise QueryError(f"Vectors must have shape (N, {dim}); found {vectors.shape}.",
                             "Give the shared vectors of the model these estimators belong to.")
        if snr is not None:
            snr = np.asarray(snr, np.float64)
            if snr.shape != (len(vectors),):
                raise QueryError(f"snr must have shape ({len(vectors)},), one per vector; found {snr.shape}.",
                                 "Use NaN where the signal to noise is unknown.")
        return chosen, vectors, snr


def distance_of(coordinates: np.ndarray) -> np.ndarray:
    """Root mean square of the leading whitened coordinates, (N, axes) to (N,)."""
    return np.sqrt(np.mean(coordinates[:, :DISTANCE_AXES] ** 2, axis=1))


def load_estimators(model: Model) -> Estimators | None:
    """The estimators of a model; None if it has none.

    They are stored next to its weights. A copy of a shipped model, for example in an atlas, that was made
    without them uses the shipped ones if its weights are the same.

    Raises
    ------
    CheckpointError
        If the file is damaged or belongs to other weights.
    """

    folder = find_estimators(model)
    return None if folder is None else read_estimators(folder, model.digest)


FORMAT_VERSION = 1
TENSORS, CARD = "estimators.safetensors", "estimators.json"
_ARRAYS = ("mean", "std", "low", "high")
_AGAIN = "Train them: specclip-search train estimators --atlas ATLAS --model NAME|DIR."


def save_estimators(folder: Path, model_digest: str, instruments: dict[str, InstrumentEstimator],
                    metrics: dict[str, Any]) -> Estimators:
    """Write estimators next to the weights of a model: tensors as float16, then the card with their digest."""
    with changing_files(folder, (TENSORS, CARD)):
        _write(folder, model_digest, instruments, metrics)
    return read_estimators(folder, model_digest)


def _write(folder: Path, model_digest: str, instruments: dict[str, InstrumentEstimator],
           metrics: dict[str, Any]) -> None:
    card_path = folder / CARD
    card_path.unlink(missing_ok=True)
    tensors: dict[str, Tensor] = {}
    for modality, one in instruments.items():
        state = one.module.state_dict()
        kept = {key: v if key in ("axis_mean", "axis_std", "center") else v.half() for key, v in state.items()}
        tensors |= {f"{modality}/{key}": value for key, value in kept.items()}
    save_tensors(folder / TENSORS, tensors)
    card = {"format_version": FORMAT_VERSION, "created_by": __version__, "model_digest": model_digest,
            "digest": file_digest(folder / TENSORS), "metrics": metrics,
            "instruments": {name: _card_of(one) for name, one in instruments.items()}}
    write_json(card_path, card)


def _card_of(one: InstrumentEstimator) -> dict[str, Any]:
    calibration = {"edges": list(one.calibration.edges)} | {
        name: np.round(getattr(one.calibration, name), 5).tolist() for name in ("factors", "knots", "offsets")}
    calibration["classes"] = {of: {"edges": list(edges), "factors": np.round(factors, 4).tolist()}
                              for of, (edges, factors) in one.calibration.classes.items()}
    floor = {} if one.floor is None else {"floor": dict(one.floor)}
    return {"labels": list(one.labels), **floor, "sizes": asdict(one.module.sizes), "far": one.far,
            "lowest_snr": one.lowest_snr, "calibration": calibration,
            **{name: getattr(one, name).tolist() for name in _ARRAYS}}


def find_estimators(model: Model) -> Path | None:
    """Folder of the estimators of a model: its own, or that of a shipped model with the same weights.

    A copy of a shipped model may be older than its estimators. If nothing matches, its own
    folder is returned if it has estimators, so that loading reports the mismatch; else None.
    """
    from ..checkpoints.shipped import find_model, shipped_models

    own = [model.folder] if model.folder is not None else []
    for folder in (*own, *map(find_model, shipped_models())):
        if (folder / CARD).is_file() and _belongs_to(folder / CARD) == model.digest:
            return folder
    return own[0] if own and (own[0] / CARD).is_file() else None


def _belongs_to(card: Path) -> str | None:
    """Digest of the weights given in a card; None if it cannot be read."""
    try:
        return json.loads(card.read_text(encoding="utf-8")).get("model_digest")
    except (OSError, ValueError, AttributeError):
        return None


def read_estimators(folder: Path, model_digest: str) -> Estimators:
    """Estimators of a model folder.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, or the estimators belong to other weights than `model_digest`.
    """
    path = folder / CARD
    found = _read(folder, path.stat().st_mtime_ns if path.is_file() else 0)
    if found.model_digest != model_digest:
        raise CheckpointError(f"The label estimators at {folder} belong to the weights {found.model_digest[:19]}; "
                              f"these are {model_digest[:19]}.", _AGAIN)
    return found


@lru_cache(maxsize=4)
def _read(folder: Path, changed_ns: int) -> Estimators:
    """`changed_ns` invalidates the cache when the file is rewritten."""
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        version = card["format_version"]
        if version == FORMAT_VERSION:
            tensors = _tensors(folder, card["digest"])
            instruments = {name: _instrument(one, name, tensors) for name, one in card["instruments"].items()}
            return Estimators(card["model_digest"], card["digest"], instruments, card["metrics"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not a readable card of label estimators ({type(error).__name__}: {error}).",
                              f"Copy the model folder again. {_AGAIN}") from error
    raise CheckpointError(f"{path} has format {version}; this version reads format {FORMAT_VERSION}.", _AGAIN)


def _tensors(folder: Path, digest: str) -> dict[str, Tensor]:
    path = folder / TENSORS
    if not path.is_file() or file_digest(path) != digest:
        raise CheckpointError(f"{path} is missing or does not match {CARD}.",
                              f"Copy the complete model folder again. {_AGAIN}")
    return load_tensors(path)


def _instrument(card: dict[str, Any], modality: str, tensors: dict[str, Tensor]) -> InstrumentEstimator:
    module = EstimatorModule(EstimatorSizes(**card["sizes"]))
    own = {key.partition("/")[2]: value for key, value in tensors.items() if key.startswith(f"{modality}/")}
    project = own["project"]
    fill_module(module, cast(own, torch.float32) | {"project": project}, f"{TENSORS} ({modality})")
    kept = card["calibration"]
    classes = {of: (tuple(one["edges"]), np.array(one["factors"])) for of, one in kept.get("classes", {}).items()}
    factors, knots, offsets = (np.array(kept[name]) for name in ("factors", "knots", "offsets"))
    calibration = Calibration(tuple(kept["edges"]), factors, knots, offsets, classes)
    arrays = {name: np.array(card[name], np.float64) for name in _ARRAYS}
    return InstrumentEstimator(tuple(card["labels"]), module.eval().requires_grad_(False), calibration,
                               far=float(card["far"]), lowest_snr=float(card["lowest_snr"]),
                               floor=card.get("floor"), **arrays)
