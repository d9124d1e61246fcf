"""Model spectra of stars for given labels, from networks trained on LTE spectrum synthesis.

Small networks predict coefficients of principal components; they are evaluated with NumPy alone.
Training, errors and limits of the weights are described in docs/emulator.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .coverage import Coverage
from .labels import FloatArray, SimulationError, features, label_array

BLOCK = 128
"""Batch size. Batches are padded to it, so that a star's result does not depend on the other stars
of its batch: matrix products of another shape may round differently."""


@dataclass(frozen=True, slots=True)
class Head:
    """Mean spectrum, principal components and the networks that predict their coefficients.

    Attributes
    ----------
    mean, basis, scale
        (P,), (K, P) orthonormal rows, (K,) standard deviation of each coefficient.
    members
        Networks whose predictions are averaged; each a list of (weight (n_in, n_out), bias (n_out,)).
    """

    mean: FloatArray
    basis: FloatArray
    scale: FloatArray
    members: list[list[tuple[FloatArray, FloatArray]]]

    def predict(self, inputs: FloatArray) -> FloatArray:
        """Spectra (N, P) float64 for standardised inputs (N, n_in), independent of the batch."""
        spectra = np.empty((len(inputs), len(self.mean)))
        for start in range(0, len(inputs), BLOCK):
            block = inputs[start : start + BLOCK]
            padded = np.zeros((BLOCK, inputs.shape[1]))
            padded[: len(block)] = block
            coefficients = sum(_forward(layers, padded) for layers in self.members) / len(self.members)
            spectra[start : start + BLOCK] = ((coefficients * self.scale) @ self.basis + self.mean)[: len(block)]
        return spectra


def _forward(layers: list[tuple[FloatArray, FloatArray]], values: FloatArray) -> FloatArray:
    """Fully connected layers with SiLU, x / (1 + exp(-x)), between them."""
    for weight, bias in layers[:-1]:
        values = values @ weight + bias
        values = values / (1.0 + np.exp(-np.clip(values, -60.0, None)))
    weight, bias = layers[-1]
    return values @ weight + bias


def pack_head(name: str, head: Head) -> dict[str, np.ndarray]:
    """Arrays that store a head: networks in float32, the basis in float16 with a scale per row."""
    peak = np.abs(head.basis).max(axis=1)
    arrays: dict[str, np.ndarray] = {
        f"{name}_mean": head.mean.astype(np.float32),
        f"{name}_basis": (head.basis / peak[:, None]).astype(np.float16),
        f"{name}_basis_peak": peak.astype(np.float32),
        f"{name}_scale": head.scale.astype(np.float32),
        f"{name}_size": np.array([len(head.members), len(head.members[0])], dtype=np.int32),
    }
    for m, layers in enumerate(head.members):
        for i, (weight, bias) in enumerate(layers):
            arrays[f"{name}_{m}_weight_{i}"] = weight.astype(np.float32)
            arrays[f"{name}_{m}_bias_{i}"] = bias.astype(np.float32)
    return arrays


def unpack_head(name: str, arrays: Mapping[str, np.ndarray]) -> Head:
    """The head that `pack_head` stored under `name`."""
    n_members, n_layers = (int(n) for n in arrays[f"{name}_size"])

    def wide(key: str) -> FloatArray:
        return np.ascontiguousarray(arrays[key], dtype=np.float64)

    return Head(
        mean=wide(f"{name}_mean"),
        basis=wide(f"{name}_basis") * wide(f"{name}_basis_peak")[:, None],
        scale=wide(f"{name}_scale"),
        members=[
            [(wide(f"{name}_{m}_weight_{i}"), wide(f"{name}_{m}_bias_{i}")) for i in range(n_layers)]
            for m in range(n_members)
        ],
    )


FORMAT = 1
STEFAN_BOLTZMANN = 5.670374419e-5  # erg s-1 cm-2 K-4, CODATA 2018
FLOOR = 5e-4
"""Least normalised flux that is returned; the deepest line cores of the grid lie at 8e-4."""
LabelsLike = ArrayLike | Mapping[str, ArrayLike]
ERROR_CLASSES = ("other", "cool", "feh_below_-3", "carbon_rich", "hot")


def error_class(labels: FloatArray) -> np.ndarray:
    """Number (N,) in `ERROR_CLASSES`: hot teff >= 8000 K, carbon_rich c_fe > 0.7, feh < -3, cool teff < 4800 K.

    If several apply, the last one in `ERROR_CLASSES` is used.
    """
    teff, _, feh, _, c_fe = labels.T
    number = np.where(teff < 4800.0, 1, 0)
    number = np.where(feh < -3.0, 2, number)
    number = np.where(c_fe > 0.7, 3, number)
    return np.where(teff >= 8000.0, 4, number)


class Emulator:
    """Model spectra for labels (teff [K], logg, feh, alpha_fe, c_fe), one row per star.

    Every method takes an (N, 5) array or a mapping of columns (see `label_array`) and returns one
    row per star. A star's spectrum does not depend on the others in the call, bit for bit.
    Microturbulence is not a label: in the grid it is a function of teff and logg (`vmic`).

    Parameters
    ----------
    arrays
        Content of the weights file; use `Emulator.load`.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = dict(arrays)
        self.coverage = Coverage(
            low=self._wide("label_low"), high=self._wide("label_high"), nodes=self._wide("node_labels")
        )

    @classmethod
    def load(cls, path: Path | None = None) -> Emulator:
        """Load the emulator that ships with the package, or one from a weights file.

        Raises
        ------
        SimulationError
            If the file is missing or is not a weights file.
        """
        return _shipped() if path is None else cls(_read_weights(Path(path)))

    @property
    def wavelength(self) -> FloatArray:
        """(3923,) vacuum wavelength [Angstrom] of `lrs` and `normalised`: 10**(3.5670 + 1e-4 i)."""
        return np.asarray(10.0 ** (3.5670 + 1e-4 * np.arange(len(self._arrays["normalised_mean"]))), np.float64)

    @property
    def sed_wavelength(self) -> FloatArray:
        """(710,) vacuum wavelength [Angstrom] of the 10 A bins of `sed`."""
        return self._wide("sed_wavelength")

    @property
    def metrics(self) -> dict[str, Any]:
        """Errors on held-out stars and provenance of the weights."""
        return dict(json.loads(str(self._arrays["metrics"])))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights; spectra simulated with other weights are stale."""
        content = hashlib.sha256()
        for name in sorted(self._arrays):
            content.update(name.encode() + np.ascontiguousarray(self._arrays[name]).tobytes())
        return "sha256:" + content.hexdigest()

    @property
    def heldout_index(self) -> np.ndarray:
        """Numbers (int64) of the held-out grid stars."""
        return self._arrays["heldout_index"]

    def covers(self, labels: LabelsLike) -> np.ndarray:
        """Mask (N,) of the stars covered by this emulator (`margin` >= 0)."""
        return self.coverage.covers(label_array(labels))

    def margin(self, labels: LabelsLike) -> FloatArray:
        """(N,): 1 on a training star, 0 at the accepted distance from one, negative if not covered."""
        return self.coverage.margin(label_array(labels))

    def snap(self, labels: LabelsLike) -> FloatArray:
        """Labels (N, 5) in which feh, alpha_fe and c_fe slightly out of range are moved to the limit."""
        return self.coverage.snap(label_array(labels))

    def normalised(self, labels: LabelsLike) -> FloatArray:
        """Flux over continuum, (N, 3923), R = 1800, between `FLOOR` and 1.

        Raises
        ------
        SimulationError
            If a star is not covered, also in every other method that returns spectra.
        """
        return np.clip(self._heads["normalised"].predict(self._inputs(labels)), FLOOR, 1.0)

    def continuum(self, labels: LabelsLike) -> FloatArray:
        """Continuum surface flux [erg s-1 cm-2 A-1] on `wavelength`, (N, 3923), log-linear between nodes."""
        left, fraction = self._interpolation
        nodes = self._log_flux(labels)[:, self._n_sed :]
        return np.exp(nodes[:, left] * (1.0 - fraction) + nodes[:, left + 1] * fraction)

    def lrs(self, labels: LabelsLike) -> FloatArray:
        """Surface flux [erg s-1 cm-2 A-1] at the star, (N, 3923): normalised flux times continuum."""
        return self.normalised(labels) * self.continuum(labels)

    def sed(self, labels: LabelsLike) -> FloatArray:
        """Mean surface flux [erg s-1 cm-2 A-1] in bins of 10 A, (N, 710), 3305-10395 A."""
        return np.exp(self._log_flux(labels)[:, : self._n_sed])

    def uncertainty(self, labels: LabelsLike) -> FloatArray:
        """Rms error (N, 3923) of `normalised` by wavelength, measured on held-out stars of the same class.

        This is the emulation error alone; errors of the models themselves are in docs/emulator.md.
        """
        return self._wide("normalised_error")[error_class(self._checked(labels))]

    def sed_uncertainty(self, labels: LabelsLike) -> FloatArray:
        """Relative rms error (N, 710) of `sed` on held-out stars of the same class."""
        return self._wide("sed_error")[error_class(self._checked(labels))]

    def vmic(self, labels: LabelsLike) -> FloatArray:
        """Microturbulence [km/s] of the models, (N,): from the nearest training stars in teff and logg."""
        points = self._checked(labels)[:, :2] / (150.0, 0.15)
        nodes = self.coverage.nodes[:, :2] / (150.0, 0.15)
        values = self._wide("node_vmic")
        result = np.empty(len(points))
        for i, point in enumerate(points):
            weight = np.exp(-0.5 * ((nodes - point) ** 2).sum(axis=1)) + 1e-30
            design = np.column_stack([np.ones(len(nodes)), nodes - point]) * np.sqrt(weight)[:, None]
            result[i] = np.linalg.lstsq(design, values * np.sqrt(weight), rcond=None)[0][0]
        return result

    def _wide(self, name: str) -> FloatArray:
        return self._arrays[name].astype(np.float64)

    def _checked(self, labels: LabelsLike) -> FloatArray:
        array = label_array(labels)
        self.coverage.require(array)
        return array

    def _inputs(self, labels: LabelsLike) -> FloatArray:
        return (features(self._checked(labels)) - self._wide("feature_mean")) / self._wide("feature_scale")

    def _log_flux(self, labels: LabelsLike) -> FloatArray:
        """ln of surface flux (N, 710 + 328): the 10 A bins, then the continuum's nodes."""
        array = label_array(labels)
        level = np.log(STEFAN_BOLTZMANN) + 4.0 * np.log(array[:, :1])
        return self._heads["flux"].predict(self._inputs(array)) + level

    @cached_property
    def _heads(self) -> dict[str, Any]:
        return {name: unpack_head(name, self._arrays) for name in ("normalised", "flux")}

    @property
    def _n_sed(self) -> int:
        return len(self._arrays["sed_wavelength"])

    @cached_property
    def _interpolation(self) -> tuple[np.ndarray, FloatArray]:
        """(3923,) continuum node below each wavelength, and how far to the next one in wavelength, 0 to 1."""
        nodes = self._wide("continuum_wavelength")
        left = np.clip(np.searchsorted(nodes, self.wavelength, side="right") - 1, 0, len(nodes) - 2)
        return left, (self.wavelength - nodes[left]) / (nodes[left + 1] - nodes[left])


@lru_cache(maxsize=1)
def _shipped() -> Emulator:
    with resources.as_file(resources.files(__package__) / "data" / "emulator.npz") as path:
        return Emulator(_read_weights(path))


def _read_weights(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise SimulationError(
            f"The emulator's weights were expected at {path}; there is no such file.",
            "Make them with: python -m specclip_search.training.emulator.train GRID.npz --output FILE",
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError) as error:
        raise SimulationError(
            f"{path} is not an emulator's weights file: {error}.", "Download or make the file again."
        ) from error
    if int(arrays.get("format", np.array(-1))) != FORMAT:
        raise SimulationError(
            f"{path} must be an emulator's weights file of format {FORMAT}; found {arrays.get('format', 'none')}.",
            "Make the file again with this version of the package.",
        )
    return arrays
