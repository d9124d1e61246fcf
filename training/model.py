"""Interface of a trained model: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from specclip_search.errors import CheckpointError, QueryError, Reason, SpectrumError
from specclip_search.surveys import LRS

from .checkpoints.folder import (
    LABEL_HEAD,
    PIXELS,
    ModelCard,
    check_model_files,
    load_card,
    load_metrics,
    load_module,
)
from .checkpoints.settings import did_you_mean
from .checkpoints.shipped import find_model
from .networks.aligned import OTHER, AlignedModel
from .networks.autoencoder import AutoEncoder
from .networks.tokens import mean_and_std

FLAT = 1e-6
CPU_BATCH, GPU_BATCH = 128, 2048
PRECISIONS = ("auto", "float32", "bf16")


class Model:
    """A model with its weights.

    Parameters
    ----------
    card, module
        From `specclip_search.training.checkpoints.folder.load_module`.
    device
        Torch device, or ``auto``: the first GPU, else the CPU.
    precision
        `float32`, or `bf16`: matrix products in bfloat16, several times faster if the
        hardware supports it; vectors then differ by about 1e-2 of their length. `auto`: bf16 on a GPU, float32
        elsewhere.
    batch_size
        Spectra processed at once; bounds memory. By default 2,048 on a GPU, 128 elsewhere.
    compile_module
        Compile the module with torch.compile at its first use: worth the minute it takes for a million spectra or
        more of a published kind on a GPU.

    Attributes
    ----------
    name, kind, dim, digest, modalities
        See `specclip_search.training.checkpoints.folder.ModelCard`; `dim` is the length of the indexed vector and
        `digest` the SHA-256 of the weights.
    """

    def __init__(self, card: ModelCard, module: nn.Module, device: str = "auto", precision: str = "auto",
                 batch_size: int | None = None, metrics: dict[str, Any] | None = None,
                 folder: Path | None = None, compile_module: bool = False) -> None:
        if precision not in PRECISIONS:
            raise QueryError(f"precision must be one of {', '.join(PRECISIONS)}; found '{precision}'.",
                             "Choose one of these.")
        self.card, self.metrics, self.folder = card, metrics or {}, folder
        self.name, self.kind, self.dim, self.digest = card.name, card.kind, card.dim, card.digest
        self.modalities = card.modalities
        self.device = pick_device(device)
        on_gpu = self.device.type == "cuda"
        self.precision = ("bf16" if on_gpu else "float32") if precision == "auto" else precision
        self.batch_size = batch_size or (GPU_BATCH if on_gpu else CPU_BATCH)
        self.module = module.to(self.device).eval()
        self._padded = compile_module
        if compile_module:
            for part in self.module.children():
                part.compile()

    @property
    def can_translate(self) -> bool:
        """Whether the model can predict one instrument's spectrum from the other's."""
        return isinstance(self.module, AlignedModel) and self.module.can_decode

    def embed(self, modality: str, inputs: np.ndarray) -> np.ndarray:
        """Shared vectors of unit length; see `embed_raw`."""
        return self.embed_raw(modality, inputs)[0]

    def embed_raw(self, modality: str, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shared unit vectors and their original length.

        An encoder of one instrument alone gives the mean over its tokens (transformers) or its
        latent vector (auto-encoder).

        Parameters
        ----------
        modality
            `lamost_lrs` or `gaia_xp`.
        inputs
            (N, n) model inputs from `Modality.prepare`.

        Returns
        -------
        vectors, norms
            (N, dim) float32 of unit length and (N,) float32.

        Raises
        ------
        QueryError
            If the model does not support the instrument or the array has another shape.
        SpectrumError
            If a spectrum is constant or not finite, so it has no vector; see `unusable`.
        """
        self._require_usable(modality, inputs)
        return self.embed_usable(modality, inputs)

    def embed_usable(self, modality: str, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `embed_raw`, for inputs of which `unusable` names none; they are not looked at again."""
        vectors = self._computed(modality, inputs, self._shared)
        norms = np.linalg.norm(vectors, axis=1)
        bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
        if len(bad):
            raise SpectrumError(Reason.NOT_FINITE, f"Model '{self.name}' gives no finite vector for {_rows(bad)}.",
                                "These values are far outside the training data of the model; leave these spectra out.")
        return vectors / norms[:, None], norms

    def embed_private(self, modality: str, inputs: np.ndarray) -> np.ndarray:
        """(N, 256) private vectors of a `split` model, float32, not normalised."""
        if self.kind != "split":
            raise QueryError(f"Model '{self.name}' of kind '{self.kind}' has no private vector.", "Only 'split' has.")
        return self._run(modality, inputs, lambda m, x: self._aligned().encode(m, x)["private"])

    def translate(self, source_modality: str, inputs: np.ndarray) -> np.ndarray:
        """Predicted spectra of the other instrument.

        Returns
        -------
        ndarray
            (N, n_other) float32: XP as flux over flux at 550 nm, LRS as flux over continuum.
        """
        self._need_decoders()
        return self._run(source_modality, inputs, lambda m, x: self._aligned().translate(m, x))

    def reconstruct(self, modality: str, inputs: np.ndarray) -> np.ndarray:
        """Spectra through their own decoder, (N, n) float32 in the units of `inputs`."""
        self._need_decoders()
        return self._run(modality, inputs, self._reconstructed)

    def translate_and_reconstruct(self, modality: str, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`translate` and `reconstruct` of the same spectra, which are encoded once."""
        self._need_decoders()

        def decoded(name: str, x: Tensor) -> Tensor:
            encoded = self._aligned().encode(name, x)
            across = self._aligned().decode(OTHER[name], encoded, same=False)
            return torch.cat([across.float(), self._in_units(name, x, encoded).float()], dim=1)

        both = self._run(modality, inputs, decoded)
        width = both.shape[1] - PIXELS[modality]
        return both[:, :width], both[:, width:]

    def estimate(self, modality: str, inputs: np.ndarray, snr: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Labels of stars with errors, flag and distance; see
        `specclip_search.training.estimators.estimators.Estimators.estimate`.

        Parameters
        ----------
        modality, inputs
            As for `embed_raw`.
        snr
            (N,) signal to noise per pixel, NaN if unknown; errors depend on it.

        Raises
        ------
        CheckpointError
            If the model has no estimators, or they belong to other weights.
        """
        from .estimators.estimators import load_estimators

        estimators = load_estimators(self)
        if estimators is None:
            raise CheckpointError(f"Model '{self.name}' has no label estimators.",
                                  "Train them: specclip-search train estimators --atlas ATLAS --model NAME|DIR.")
        return estimators.estimate(modality, self.embed(modality, inputs), snr)

    def unusable(self, modality: str, inputs: np.ndarray) -> dict[int, Reason]:
        """Rows that have no vector, and why: not finite, or constant."""
        inputs = self._checked_shape(modality, inputs)
        finite = np.isfinite(inputs).all(axis=1)
        flat = np.zeros(len(inputs), bool)
        good = inputs[finite]
        level = np.abs(good).max(axis=1, initial=1.0)
        flat[finite] = np.ptp(good, axis=1) <= FLAT * level
        reasons = {int(i): Reason.NOT_FINITE for i in np.flatnonzero(~finite)}
        return reasons | {int(i): Reason.FLAT_OR_ZERO for i in np.flatnonzero(flat)}

    # -- inside -----------------------------------------------------------------------------

    def _shared(self, modality: str, x: Tensor) -> Tensor:
        if isinstance(self.module, AlignedModel):
            return self.module.encode(modality, x)["shared"]
        features = self.module.embed(x)  # type: ignore[operator]
        return features if isinstance(self.module, AutoEncoder) else features.mean(dim=1)

    def _reconstructed(self, modality: str, x: Tensor) -> Tensor:
        return self._in_units(modality, x, self._aligned().encode(modality, x))

    def _in_units(self, modality: str, x: Tensor, encoded: dict[str, Tensor]) -> Tensor:
        """Spectra `x` through their own decoder, in their units."""
        result = self._aligned().decode(modality, encoded, same=True)
        if modality != LRS:
            return result
        mean, std = mean_and_std(x, self._aligned().floor())
        return result * std + mean

    def _aligned(self) -> AlignedModel:
        assert isinstance(self.module, AlignedModel)
        return self.module

    def _need_decoders(self) -> None:
        if not self.can_translate:
            raise QueryError(f"Model '{self.name}' of kind '{self.kind}' has no decoders: it cannot translate.",
                             "Use a model of kind 'mini', 'pr' or 'split'.")

    def _checked_shape(self, modality: str, inputs: np.ndarray) -> np.ndarray:
        if modality not in self.modalities:
            other = did_you_mean(modality, self.modalities)
            raise QueryError(f"Model '{self.name}' takes {' and '.join(self.modalities)}; found '{modality}'.", other)
        inputs = np.asarray(inputs)
        size = PIXELS[modality]
        if inputs.ndim != 2 or inputs.shape[1] != size:
            raise QueryError(f"{modality} inputs must have shape (N, {size}); found {inputs.shape}.",
                             f"Make them with the modality's prepare(); one spectrum is an array of shape (1, {size}).")
        return inputs

    def _run(self, modality: str, inputs: np.ndarray, function: Callable[[str, Tensor], Tensor]) -> np.ndarray:
        self._require_usable(modality, inputs)
        return self._computed(modality, inputs, function)

    def _require_usable(self, modality: str, inputs: np.ndarray) -> None:
        refused = self.unusable(modality, inputs)
        if refused:
            row, reason = min(refused.items())
            raise SpectrumError(reason, f"{len(refused)} of {len(inputs)} spectra have no vector; first row {row}: "
                                f"{reason.value}.", "Leave these rows out; Model.unusable() lists them.")

    def _computed(self, modality: str, inputs: np.ndarray, function: Callable[[str, Tensor], Tensor]) -> np.ndarray:
        inputs = self._checked_shape(modality, inputs)
        # no spectra: use one dummy row to get the width of the output
        given = inputs if len(inputs) else np.linspace(0.5, 1.5, PIXELS[modality])[None]
        # one copy back for all batches: each copy would wait for the device
        parts = [result.float() for result in self._batches(modality, given, function)]
        return torch.cat(parts)[: len(inputs)].cpu().numpy()

    def _batches(self, modality: str, inputs: np.ndarray, function: Callable[[str, Tensor], Tensor],
                 ) -> Iterator[Tensor]:
        enabled = self.precision == "bf16"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
            for start in range(0, len(inputs), self.batch_size):
                rows = torch.from_numpy(np.require(inputs[start : start + self.batch_size], np.float32, ["C", "W"]))
                count = len(rows)
                if self._padded and count < self.batch_size:  # another shape would be compiled anew
                    rows = torch.cat([rows, rows[-1:].expand(self.batch_size - count, -1)])
                if self.device.type == "cuda":  # from pinned memory the copy runs while the device computes
                    rows = rows.pin_memory()
                yield function(modality, rows.to(self.device, non_blocking=True))[:count]

    def __repr__(self) -> str:
        return f"Model(name={self.name!r}, kind={self.kind!r}, dim={self.dim}, device='{self.device}')"


def load_model(name_or_folder: str | Path, *, device: str = "auto", precision: str = "auto",
               batch_size: int | None = None, threads: int | None = None, verify: bool = True,
               compile_module: bool = False) -> Model:
    """Load a shipped model by name, or a model folder.

    Parameters
    ----------
    name_or_folder
        For example ``mini``, or a folder written by `train` or `import_checkpoint`.
    device, precision, batch_size, compile_module
        See `Model`.
    threads
        Number of torch CPU threads, for the whole process; unchanged if not given.
    verify
        Whether to check the weights against their digest.

    Raises
    ------
    CheckpointError
        If there is no such model, or its folder is damaged.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    folder = find_model(name_or_folder)
    check_model_files(folder)
    if load_card(folder).kind == LABEL_HEAD:
        raise CheckpointError(f"{folder} holds a label head, not a model that gives vectors.",
                              "Load it with specclip_search.training.checkpoints.folder.load_label_head.")
    card, module = load_module(folder, verify)
    return Model(card, module, device, precision, batch_size, load_metrics(folder), folder, compile_module)


def pick_device(device: str) -> torch.device:
    """The device of this name; ``auto`` is the first GPU, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise QueryError(f"'{device}' is not a device.", "Use auto, cpu, cuda or cuda:1.") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise QueryError(f"Device '{device}' was requested, but no GPU is available.", "Use --device cpu or auto.")
    return chosen


def _rows(rows: np.ndarray) -> str:
    shown = ", ".join(map(str, rows[:5]))
    return f"row {shown}" if len(rows) == 1 else f"{len(rows)} rows ({shown}{', ...' if len(rows) > 5 else ''})"
