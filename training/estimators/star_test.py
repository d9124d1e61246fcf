"""Is this the spectrum of a star at all, of a kind that the model was trained on?

An encoder gives every input a vector of some star's kind: galaxies, quasars, sky and noise too. Five
measures tell them apart. Each is large for what is no star, and each is compared with that of real
training stars of the same signal to noise:

* `misfit`: ln of the reduced chi2 of the spectrum against its own reconstruction;
* `smooth_misfit`: the same of both smoothed over 15 pixels, where noise counts less;
* `jagged_misfit`: the same of differences between neighbouring pixels, in units of the star's own lines;
* `no_signal`: minus the significance of the reconstruction's features in the spectrum, in ln(1 + sigma);
* `isolation`: ln of the distance to the nearest of a sample of training stars, over whitened leading axes.

The score of a spectrum is the root of the sum of squares of its measures, in robust sigma above the
stars of its signal to noise (those below count nothing). The threshold is the score that one in a
hundred training stars exceeds. Metal-poor stars hardly occur among labelled LAMOST stars, and their weak lines look
like noise to some of the measures; a spectrum is therefore compared with simulated metal-poor stars in the same way,
and flagged if it is unlike both kinds.
Spectra unlike any training star for another reason (white dwarfs, M dwarfs cooler than the models) are flagged
too: the flag says "unlike the training stars", not "a galaxy".
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from specclip_search.atlas.files import whole_file
from specclip_search.atlas.integrity import changing_files
from specclip_search.errors import CheckpointError
from specclip_search.surveys import LRS

if TYPE_CHECKING:
    from ..model import Model

STAR_TEST = "star_test.npz"
MEASURES = ("misfit", "smooth_misfit", "jagged_misfit", "no_signal", "isolation")
MODEL_ERROR = 0.015
"""What reconstructions of good spectra lack, of the continuum; added to every pixel's error."""
SMOOTH_MODEL_ERROR = 0.008
SMOOTH_PIXELS = 15
AXES, SAMPLE, NEAREST = 32, 1500, 5
KNOTS = 6
"""Points in log10 S/N between which middle and spread of a measure are interpolated."""
ALLOWED_SHARE = 0.01
"""Share of real training stars above the threshold."""
LEAST_STARS = 200
FORMAT = 2


@dataclass(frozen=True)
class StarTest:
    """What training stars look like to `scores`.

    Attributes
    ----------
    knots
        (KNOTS,) log10 S/N.
    middle, spread
        (kinds, KNOTS, measures) median and upper robust sigma of each kind of training stars.
    threshold
        (kinds,) score above which a spectrum is unlike this kind.
    center, axes
        (dim,) and (dim, AXES): vectors to whitened coordinates.
    sample
        (SAMPLE, AXES) float32 whitened vectors of training stars.
    model_digest
        Digest of the weights whose vectors and reconstructions it takes.
    least_signal
        ln(1 + sigma) of the reconstruction's features below which a spectrum could be noise.
    """

    knots: np.ndarray
    middle: np.ndarray
    spread: np.ndarray
    threshold: np.ndarray
    center: np.ndarray
    axes: np.ndarray
    sample: np.ndarray
    model_digest: str
    least_signal: float = 0.0

    def measures(self, flux: np.ndarray, error: np.ndarray, given: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """(N, measures) as they come; see the module's text.

        Parameters
        ----------
        flux, error
            (N, n) model inputs and their 1 sigma, inf where a pixel says nothing.
        given
            (N, n) reconstructions.
        vectors
            (N, dim) unit vectors.
        """
        own = (vectors - self.center) @ self.axes
        return np.column_stack([*spectrum_measures(flux, error, given), log_nearest(own, self.sample)])

    def scores(self, measures: np.ndarray, snr: np.ndarray, kind: int = 0) -> np.ndarray:
        """(N,) measures in sigma above training stars of this signal to noise, joined; unknown S/N counts as 20."""
        return np.sqrt((np.maximum(self.pulls(measures, snr, kind), 0.0) ** 2).sum(axis=1))

    def pulls(self, measures: np.ndarray, snr: np.ndarray, kind: int = 0) -> np.ndarray:
        """(N, measures) each in sigma of one kind of training stars."""
        place = np.log10(np.where(np.isfinite(snr), np.maximum(snr, 0.1), 20.0))
        middle, spread = self.middle[kind], self.spread[kind]
        columns = [(measures[:, i] - np.interp(place, self.knots, middle[:, i]))
                   / np.interp(place, self.knots, spread[:, i]) for i in range(measures.shape[1])]
        return np.nan_to_num(np.stack(columns, axis=1), nan=np.inf)

    def unlike(self, measures: np.ndarray, snr: np.ndarray) -> np.ndarray:
        """(N,) bool: no training star of any kind is like it, or it could be noise."""
        noise = -measures[:, MEASURES.index("no_signal")] < self.least_signal
        beyond = [self.scores(measures, snr, kind) > limit for kind, limit in enumerate(self.threshold)]
        return noise | np.all(beyond, axis=0)


@dataclass(frozen=True)
class Spectra:
    """Spectra with their reconstructions; arguments as for `StarTest.measures`, `snr` (N,)."""

    flux: np.ndarray
    error: np.ndarray
    given: np.ndarray
    vectors: np.ndarray
    snr: np.ndarray

    def take(self, rows: slice) -> Spectra:
        """The rows asked for."""
        return Spectra(*(getattr(self, field.name)[rows] for field in fields(self)))


def spectrum_measures(flux: np.ndarray, error: np.ndarray, given: np.ndarray) -> list[np.ndarray]:
    """The four measures that need no vector, (N,) each."""
    flux, given = flux.astype(np.float64), given.astype(np.float64)
    weight = 1.0 / (error.astype(np.float64) ** 2 + MODEL_ERROR**2)
    weight = np.where(np.isfinite(weight), weight, 0.0)
    rest = np.where(weight > 0, flux - given, 0.0)
    count = np.maximum((weight > 0).sum(axis=1), 1)
    misfit = np.log(np.maximum((weight * rest**2).sum(axis=1) / count, 1e-3))
    smooth, variance = _smoothed(rest, weight)
    softer = 1.0 / (variance + SMOOTH_MODEL_ERROR**2)
    smooth_misfit = np.log(np.maximum((softer * smooth**2).mean(axis=1), 1e-3))
    steps, lines = np.diff(rest, axis=1), np.diff(given, axis=1)
    pair = 2.0 / (1.0 / np.maximum(weight[:, 1:], 1e-9) + 1.0 / np.maximum(weight[:, :-1], 1e-9))
    jagged = np.log(np.maximum((pair * steps**2).mean(axis=1), 1e-3) / np.maximum((pair * lines**2).mean(axis=1), 1e-3))
    shape = given - 1.0
    size = np.sqrt(np.maximum((weight * shape**2).sum(axis=1), 1e-12))
    signal = (weight * np.where(weight > 0, flux - 1.0, 0.0) * shape).sum(axis=1) / size
    return [misfit, smooth_misfit, jagged, -np.log1p(np.maximum(signal, 0.0))]


def _smoothed(rest: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted means over runs of pixels and their variances, (N, n // SMOOTH_PIXELS) each."""
    size = rest.shape[1] // SMOOTH_PIXELS * SMOOTH_PIXELS
    w = weight[:, :size].reshape(len(rest), -1, SMOOTH_PIXELS)
    r = rest[:, :size].reshape(w.shape)
    total = np.maximum(w.sum(axis=2), 1e-9)
    return (w * r).sum(axis=2) / total, np.minimum(1.0 / total, 1e6)


def log_nearest(own: np.ndarray, sample: np.ndarray, skip: int = 0) -> np.ndarray:
    """(N,) ln of the distance to the fifth nearest row of `sample`; `skip` 1 for rows that are in it themselves."""
    apart = (own**2).sum(axis=1)[:, None] + (sample**2).sum(axis=1) - 2.0 * own @ sample.T
    kth = np.partition(apart, NEAREST - 1 + skip, axis=1)[:, NEAREST - 1 + skip]
    return 0.5 * np.log(np.maximum(kth, 1e-6))


def learn_star_test(flux: np.ndarray, error: np.ndarray, given: np.ndarray, vectors: np.ndarray, snr: np.ndarray,
                    model_digest: str, *, others: np.ndarray | None = None, noise: np.ndarray | None = None,
                    rare: Spectra | None = None, seed: int = 0) -> StarTest:
    """Learn from real training stars; arguments as for `StarTest.measures`, `snr` (N,).

    Parameters
    ----------
    others
        (M, dim) vectors of further training stars, of kinds that are few among the real ones; they only
        join the sample that isolation is measured by.
    noise
        (K,) `no_signal` of spectra that are noise alone: 99 % of them are told to be no stars.
    rare
        Spectra of a second kind of training stars, such as simulated metal-poor stars, in random order. Every second
        one joins the sample that isolation is measured by, the others give the kind's median, spread and threshold.

    Raises
    ------
    CheckpointError
        If there are fewer than 200 stars of known signal to noise.
    """
    known = np.isfinite(snr) & (snr > 0)
    if known.sum() < LEAST_STARS:
        raise CheckpointError(f"{int(known.sum())} real stars of known signal to noise; {LEAST_STARS} are needed.",
                              "Give more labelled real spectra.")
    flux, error, given, vectors, snr = (a[known] for a in (flux, error, given, vectors, snr))
    rng = np.random.default_rng(seed)
    center = vectors.mean(axis=0, dtype=np.float64)
    _, size, directions = np.linalg.svd(vectors - center, full_matrices=False)
    axes = directions[:AXES].T / (size[:AXES] / np.sqrt(len(vectors)))
    own = ((vectors - center) @ axes).astype(np.float32)
    if rare is not None:
        others = rare.vectors[::2] if others is None else np.concatenate([others, rare.vectors[::2]])
    order = rng.permutation(len(own))
    sample, beyond = own[order[:SAMPLE]], order[SAMPLE:]
    isolation = np.empty(len(own))
    isolation[order[:SAMPLE]] = log_nearest(sample, sample, skip=1)
    isolation[beyond] = log_nearest(own[beyond], sample)
    if others is not None:
        more = ((others - center) @ axes).astype(np.float32)
        isolation = np.minimum(isolation, log_nearest(own, more))
        sample = np.concatenate([sample, more])
    measures = np.column_stack([*spectrum_measures(flux, error, given), isolation])
    kinds = [(measures, snr)]
    if rare is not None:
        tested = rare.take(slice(1, None, 2))
        kinds.append((np.column_stack([*spectrum_measures(tested.flux, tested.error, tested.given),
                                       log_nearest(((tested.vectors - center) @ axes).astype(np.float32), sample)]),
                      tested.snr))
    knots = np.quantile(np.log10(snr), np.linspace(0.02, 0.98, KNOTS))
    middle, spread = (np.stack(each) for each in zip(*(_at_knots(*kind, knots) for kind in kinds), strict=True))
    made = StarTest(knots, middle, spread, np.full(len(kinds), np.inf), center.astype(np.float32),
                    axes.astype(np.float32), sample, model_digest,
                    0.0 if noise is None else float(np.quantile(-noise, 0.99)))
    scores = (made.scores(*kind, number) for number, kind in enumerate(kinds))
    return replace(made, threshold=np.array([np.quantile(score, 1.0 - ALLOWED_SHARE) for score in scores]))


def _at_knots(measures: np.ndarray, snr: np.ndarray, knots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(KNOTS, measures) median and upper robust sigma of the stars nearest to each knot in log10 S/N."""
    place = np.log10(np.maximum(snr, 0.1))
    count = max(LEAST_STARS, len(place) // KNOTS)
    chosen = [measures[np.argsort(np.abs(place - knot))[:count]] for knot in knots]
    middle = np.stack([np.median(near, axis=0) for near in chosen])
    upper = np.stack([np.quantile(near, 0.9772, axis=0) for near in chosen])
    return middle, np.maximum(upper - middle, 1e-3) / 2.0


def save_star_test(path: Path, test: StarTest) -> None:
    """Write a test as `.npz` atomically; the sample and the axes as float16."""
    with changing_files(path.parent, [path.name]), whole_file(path) as beside, open(beside, "wb") as handle:
        np.savez(handle, format=FORMAT, model_digest=test.model_digest, threshold=test.threshold,
                 least_signal=test.least_signal, knots=test.knots,
                 middle=test.middle, spread=test.spread, center=test.center, axes=test.axes.astype(np.float16),
                 sample=test.sample.astype(np.float16))


def read_star_test(path: Path, model_digest: str) -> StarTest:
    """The test of a model folder.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, or belongs to other weights.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        if int(arrays["format"]) != FORMAT:
            raise ValueError(f"format {int(arrays['format'])}")
        test = StarTest(arrays["knots"], arrays["middle"], arrays["spread"], arrays["threshold"],
                        arrays["center"].astype(np.float32), arrays["axes"].astype(np.float32),
                        arrays["sample"].astype(np.float32), str(arrays["model_digest"]),
                        float(arrays["least_signal"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is not a readable test of training stars ({error}).",
                              "Copy the model folder again.") from error
    if test.model_digest != model_digest:
        raise CheckpointError(f"{path} belongs to the weights {test.model_digest[:19]}; these are {model_digest[:19]}.",
                              "Make it again: python -m specclip_search.training.real_spectra.ship.")
    return test


def load_star_test(model: Model) -> StarTest | None:
    """The test of a model's LRS spectra; None if it has none.

    As for estimators, a copy of a shipped model made without the test uses the shipped one if its weights are the same.

    Raises
    ------
    CheckpointError
        If the file is damaged.
    """
    from ..checkpoints.folder import load_card
    from ..checkpoints.shipped import find_model, shipped_models

    if model.folder is not None and (model.folder / STAR_TEST).is_file():
        return _read(model.folder / STAR_TEST, model.digest, (model.folder / STAR_TEST).stat().st_mtime_ns)
    for folder in map(find_model, shipped_models()):
        path = folder / STAR_TEST
        if path.is_file() and load_card(folder).digest == model.digest:
            return _read(path, model.digest, path.stat().st_mtime_ns)
    return None


@lru_cache(maxsize=2)
def _read(path: Path, model_digest: str, changed_ns: int) -> StarTest:
    """`changed_ns` invalidates the cache when the file is rewritten."""
    return read_star_test(path, model_digest)


def unlike_training(model: Model, modality: str, flux: np.ndarray, error: np.ndarray, vectors: np.ndarray,
                    snr: np.ndarray) -> np.ndarray:
    """(N,) bool: spectra unlike those of all training stars; all False for an instrument or model without a test.

    Parameters
    ----------
    flux, error
        (N, n) model inputs and their 1 sigma, inf for pixels without information.
    vectors
        (N, dim) unit vectors.
    snr
        (N,) signal to noise, NaN if unknown.
    """
    test = load_star_test(model) if modality == LRS and len(flux) else None
    if test is None:
        return np.zeros(len(flux), dtype=bool)
    given = model.reconstruct(modality, np.asarray(flux, np.float32))
    return test.unlike(test.measures(flux, error, given, vectors), np.asarray(snr, np.float64))
