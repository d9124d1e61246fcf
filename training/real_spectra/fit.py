"""Fine-tuning of the LRS side of a small model on real LAMOST spectra.

    python -m specclip_search.training.real_spectra.fit --atlas ATLAS --data DIR --output DIR [--recipe mini.toml]

Trained are the LRS encoder and what reads or writes LRS: its decoder, both cross decoders, its
label guide. The XP encoder and the temperature stay, so that XP vectors, indexes and estimators do.

Every batch holds pairs of a real XP spectrum with its simulated LRS, made metal-poor pairs, single
simulated LRS of all labels, and real spectra. Real LAMOST spectra have no XP partner. For them the
contrastive loss asks that the weight of all XP stars lies on those with like labels, whichever
they are (`multi_instance_loss`; MIL-NCE, Miech et al. 2020).
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from specclip_search.errors import CheckpointError
from specclip_search.keys import VALIDATION_SPLIT, split_of
from specclip_search.simulation.samples.metal_poor import FIRST_SIMULATED_ID
from specclip_search.surveys import LAMOST_LRS, LRS, XP

from ..checkpoints.folder import load_module
from ..checkpoints.settings import did_you_mean, read_settings
from ..fit.augment import Augmentation, _smooth_field, add_noise, bridge_pixels, scale_lines, shift_velocity
from ..fit.pairs import ArrayPairs
from ..networks.aligned import AlignedModel
from ..networks.label_scale import LABELS
from ..networks.losses import clip_logits, error_weights, l1_loss
from .line_correction import BAND_DEPTH, LineCorrection, band_reddening, learn_correction
from .spectra import LAMOST, RealSpectra

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas
    from specclip_search.simulation.spectra.emulator import Emulator

TRAINED = ("lamost_lrs_encoder", "lamost_lrs_decoder", "gaia_xp_cross_decoder", "lamost_lrs_cross_decoder",
           "lamost_lrs_labels")
LABEL_WIDTHS = np.array([80.0, 0.15, 0.10])
"""Widths of the label kernel: teff [K], logg, feh [dex]; about LASP's errors."""
LEAST_KERNEL = 0.3
"""A real spectrum with less alike XP stars than this in the bank teaches nothing by contrast."""
NO_REDDENING = 5.0
"""Distance, in widths, of an XP star whose reddening is not known."""
POOR_FEH = -1.8
CORRECTED_WHOLE = 0.5
SCALE_RATE = 20.0
"""Learning rate of a learned factor of the cosines against that of the weights."""
RIPPLE_KNOTS = {14: 0.7, 40: 0.5}
BAND_CENTRE_A, BAND_SIGMA_A = 4429.6, 5.3
Progress = Callable[..., None]


@dataclass(frozen=True)
class Phase:
    """One run of steps, table `[phases.NAME]` of a recipe."""

    steps: int
    """Number of steps."""
    seed: int = 0
    """Of everything random in it; follows from the recipe's unless given."""
    rate: float = 5e-4
    """Highest learning rate of the one-cycle schedule."""
    after: str = ""
    """Phase whose weights it starts from; the base model's unless given."""
    pairs: int = 144
    """Pairs of a real XP star in a batch."""
    poor: int = 32
    """Made metal-poor pairs."""
    spread: int = 32
    """Simulated LRS alone."""
    real: int = 64
    """Real LAMOST spectra."""
    miles: int = 8
    """MILES spectra."""
    bank: int = 3000
    """XP stars that a batch's spectra are contrasted with, beside those of the batch."""
    multi_instance: float = 0.5
    """Weight of the contrast of real spectra with XP stars of like labels."""
    label: float = 1.5
    """Weight of the label guide."""
    predict: float = 4.0
    """Weight of both cross-instrument predictions."""
    reconstruct: float = 1.0
    """Weight of the LRS reconstruction."""
    corrected: bool = False
    """Whether simulated LRS get a random share of what models lack of real spectra."""
    dust: bool = False
    """Whether like XP stars must be reddened alike, as the 4428 A band tells."""
    ripple: float = 0.0
    """Standard deviation of smooth errors of the continuum of simulated LRS."""
    band: float = 0.0
    """Standard deviation of the 4428 A band's strength of simulated LRS, relative."""
    velocity_kms: float = 60.0
    """Standard deviation of an extra radial velocity; the velocity label follows it."""
    rare: float = 0.0
    """How much more often rare real stars are drawn (below [Fe/H] = -1.5, above 7000 K, giants)."""
    gap: float = 0.0
    """Weight of one minus the cosine of a star's two vectors."""
    scale: float = 0.0
    """Factor of the cosines in the contrast at the start; it is learned then. The model's own unless given."""


@dataclass(frozen=True)
class AdaptRecipe:
    """A fine-tuning: phases, and whose weights are averaged in the end."""

    base: str
    """Shipped model or folder that is fine-tuned."""
    average: tuple[str, ...]
    """Phases whose weights are averaged."""
    phases: Mapping[str, Phase]
    """By name, in order."""
    seed: int = 1
    """Of everything random."""


def read_adapt_recipe(path: Path) -> AdaptRecipe:
    """A recipe from a TOML file.

    Raises
    ------
    CheckpointError
        If the file is missing or not valid, or names an unknown setting or phase.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise CheckpointError(f"{path} is not a readable recipe ({error}).", "Name a TOML file.") from error
    phases = {name: read_settings(Phase, one, f"{path.name} [phases.{name}]")
              for name, one in table.get("phases", {}).items()}
    recipe = AdaptRecipe(str(table.get("base", "mini")), tuple(table.get("average", ())), phases,
                         int(table.get("seed", 1)))
    known = list(phases)
    wanted = [*recipe.average, *(p.after for p in phases.values() if p.after)]
    if not recipe.average or not phases:
        raise CheckpointError(f"{path.name} must name phases, and in 'average' whose weights are kept.",
                              "See training/mini.toml.")
    for name in wanted:
        if name not in phases:
            raise CheckpointError(f"{path.name} names a phase '{name}' that it does not have.",
                                  did_you_mean(name, known))
    return recipe


@dataclass(frozen=True)
class AdaptData:
    """What a fine-tuning sees, by row of the atlas's arrays and of the real spectra.

    Attributes
    ----------
    lrs, lrs_error, xp, xp_error
        Simulated LRS and XP inputs with errors, all rows.
    lrs_labels, xp_labels
        (N, 6) labels of `LABELS`, NaN where unknown.
    xp_vectors
        (N, dim) float32 unit vectors of the frozen XP encoder.
    xp_ebv, lrs_ebv
        E(B-V), NaN where unknown.
    pairs, poor
        (M, 2) rows (XP, LRS) of training pairs: of real XP stars, and of made metal-poor ones.
    spread
        Rows of training LRS alone.
    bank
        Rows of labelled training XP stars.
    real
        Real spectra; `correction` and `band` belong to them.
    """

    lrs: np.ndarray
    lrs_error: np.ndarray
    xp: np.ndarray
    xp_error: np.ndarray
    lrs_labels: np.ndarray
    xp_labels: np.ndarray
    xp_vectors: np.ndarray
    xp_ebv: np.ndarray
    lrs_ebv: np.ndarray
    pairs: np.ndarray
    poor: np.ndarray
    spread: np.ndarray
    bank: np.ndarray
    real: RealSpectra
    correction: LineCorrection
    band: np.ndarray


def gather_data(source: ArrayPairs, module: AlignedModel, real: RealSpectra, emulator: Emulator,
                spread_ebv: Mapping[str, np.ndarray]) -> AdaptData:
    """Arrays of an atlas's pairs, the frozen XP vectors, reddening, and the correction learned from `real`.

    Parameters
    ----------
    spread_ebv
        `source_id` and `ebv` of made stars, see `made_reddening`.
    """
    from specclip_search.simulation.spectra.reddening import fit_reddening

    xp, lrs = source.flux[XP], source.flux[LRS]
    ids, xp_rows, lrs_rows = source.source_id, source.rows[XP], source.rows[LRS]
    train = split_of(ids) < VALIDATION_SPLIT
    made = ids >= FIRST_SIMULATED_ID
    both = np.stack([xp_rows, lrs_rows], axis=1)
    xp_labels, lrs_labels = (np.asarray(source.labels[m], np.float64) for m in (XP, LRS))
    xp_ebv = np.full(len(xp), np.nan)
    asked = np.nan_to_num(xp_labels[:, :5], nan=0.0)
    known = np.asarray(np.isfinite(xp_labels[:, :3]).all(axis=1))
    snapped = np.full_like(asked, np.nan)
    snapped[known] = emulator.snap(asked[known])
    known[known] = emulator.covers(snapped[known])
    xp_ebv[known] = fit_reddening(emulator, snapped[known], np.asarray(xp)[known])
    lrs_ebv = np.full(len(lrs), np.nan)
    lrs_ebv[lrs_rows] = xp_ebv[xp_rows]
    alone_rows, alone_ids = source.alone_rows[LRS]
    place = np.searchsorted(spread_ebv["source_id"], alone_ids).clip(max=len(spread_ebv["source_id"]) - 1)
    found = spread_ebv["source_id"][place] == alone_ids
    lrs_ebv[alone_rows[found]] = spread_ebv["ebv"][place[found]]
    spread = alone_rows[split_of(alone_ids) < VALIDATION_SPLIT]
    xp_ids = np.full(len(xp), -1, np.int64)
    xp_ids[xp_rows] = ids
    alone_xp, alone_xp_ids = source.alone_rows[XP]
    xp_ids[alone_xp] = alone_xp_ids
    bank = np.flatnonzero((xp_ids >= 0) & (split_of(xp_ids) < VALIDATION_SPLIT)
                          & np.isfinite(xp_labels[:, :3]).all(axis=1))
    correction = learn_correction(emulator, real)
    return AdaptData(lrs, source.error[LRS], xp, source.error[XP], lrs_labels, xp_labels,
                     unit_vectors(module, XP, xp), xp_ebv, lrs_ebv, both[train & ~made], both[train & made], spread,
                     bank, real, correction, band_reddening(emulator, real, correction))


def made_reddening(atlas: Atlas, catalogues: tuple[str, ...] = ("truth", "truth_spread")) -> dict[str, np.ndarray]:
    """`source_id` (int64, sorted) and `ebv` of the made stars of an atlas."""
    ids, ebv = [np.empty(0, np.int64)], [np.empty(0)]
    for name in catalogues:
        stage = atlas.catalog(name)
        if stage.exists:
            table = stage.read(["source_id", "ebv"])
            ids.append(table["source_id"].to_numpy().astype(np.int64))
            ebv.append(table["ebv"].to_numpy().astype(float))
    both = np.concatenate(ids), np.concatenate(ebv)
    order = np.argsort(both[0])
    return {"source_id": both[0][order], "ebv": both[1][order]}


@torch.inference_mode()
def unit_vectors(module: AlignedModel, modality: str, inputs: np.ndarray, block: int = 1024) -> np.ndarray:
    """(N, dim) float32 unit vectors."""
    module.eval()
    parts = [F.normalize(module.encode(modality, torch.from_numpy(np.ascontiguousarray(inputs[i : i + block],
                                                                                     np.float32)))["shared"], dim=-1)
             for i in range(0, len(inputs), block)]
    return torch.cat(parts).numpy()


def label_kernel(labels: np.ndarray, others: np.ndarray, widths: np.ndarray = LABEL_WIDTHS) -> np.ndarray:
    """(N, M) how alike stars are by teff, logg and feh (N, 3) and (M, 3): 1 for the same labels; 0 where unknown."""
    total = np.zeros((len(labels), len(others)))
    for i, width in enumerate(widths):
        total += ((labels[:, i, None] - others[None, :, i]) / width) ** 2
    return np.nan_to_num(np.exp(-0.5 * total), nan=0.0)


def dust_kernel(band: np.ndarray, snr: np.ndarray, ebv: np.ndarray) -> np.ndarray:
    """(N, M) how alike reddenings are: of LRS by the 4428 A band (N,), of XP stars (M,).

    The band's width is hypot(0.07, 2 / S/N, 0.2 E(B-V)) mag; where it is not known every star is alike.
    """
    seen = np.nan_to_num(band, nan=0.0)
    width = np.sqrt(0.07**2 + (2.0 / np.maximum(snr, 1.0)) ** 2 + (0.2 * seen) ** 2)
    pull = (seen[:, None] - ebv[None, :]) / width[:, None]
    pull = np.where(np.isnan(pull), NO_REDDENING, pull)
    return np.where(np.isnan(band)[:, None], 1.0, np.exp(-0.5 * pull**2))


def multi_instance_loss(logits: Tensor, kernel: Tensor) -> Tensor:
    """Mean of -ln of the weight that a softmax over others puts on those alike.

    Parameters
    ----------
    logits
        (N, M) scaled cosines.
    kernel
        (N, M) likeness in 0 to 1; rows whose sum is not above 0.3 count for nothing.
    """
    use = kernel.sum(1) > LEAST_KERNEL
    if not bool(use.any()):
        return logits.new_zeros(())
    log_weight = F.log_softmax(logits[use], dim=1)
    return -torch.logsumexp(log_weight + torch.log(kernel[use].clamp_min(1e-30)), dim=1).mean()


class Sampler:
    """Draws the batches of a phase; every draw comes from one generator."""

    def __init__(self, data: AdaptData, phase: Phase, rng: np.random.Generator) -> None:
        self.data, self.phase, self.rng = data, phase, rng
        train = ~data.real.held & data.real.is_star
        self.lamost = np.flatnonzero(train & (data.real.origin == LAMOST))
        self.miles = np.flatnonzero(train & (data.real.origin != LAMOST))
        self.chance = rare_chance(data.real.labels[self.lamost], phase.rare)
        wave = LAMOST_LRS.wavelength
        self.band_shape = BAND_DEPTH * np.exp(-0.5 * ((wave - BAND_CENTRE_A) / BAND_SIGMA_A) ** 2)

    def simulated(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Input, target, error and labels of simulated LRS."""
        data, phase, rng = self.data, self.phase, self.rng
        flux, labels = np.asarray(data.lrs[rows], np.float32), data.lrs_labels[rows].copy()
        error = np.asarray(data.lrs_error[rows], np.float32)
        if phase.corrected:
            known = np.flatnonzero(np.isfinite(labels[:, :3]).all(axis=1))
            share = np.where(rng.random(len(known)) < CORRECTED_WHOLE, 1.0, rng.random(len(known)))
            share = share * np.exp(-np.maximum(0.0, POOR_FEH - labels[known, 2]))
            flux[known] += (share[:, None] * data.correction.at(labels[known])).astype(np.float32)
        if phase.band:
            strength = np.nan_to_num(data.lrs_ebv[rows]) * rng.normal(0.0, phase.band, len(rows))
            flux -= (strength[:, None] * self.band_shape).astype(np.float32)
        target = self._moved(flux, labels)
        seen = scale_lines(target, Augmentation(line_strength=0.1), rng)
        if phase.ripple:
            field = sum(w * _smooth_field(len(rows), flux.shape[1], k, rng) for k, w in RIPPLE_KNOTS.items())
            seen = seen * (1.0 + phase.ripple * np.abs(rng.normal(size=(len(rows), 1))) * field)
        return self._observed(seen, error), target, error, labels

    def real(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Input, target, error and labels of real LRS."""
        real = self.data.real
        labels, error = real.labels[rows].copy(), real.errors[rows]
        target = self._moved(real.inputs[rows], labels)
        return self._observed(target, error), target, error, labels

    def _moved(self, flux: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Spectra at another velocity; their velocity label follows."""
        velocity = self.rng.normal(0.0, self.phase.velocity_kms, len(flux)) * (self.rng.random(len(flux)) < 0.5)
        labels[:, LABELS.index("rv")] += velocity
        return shift_velocity(flux, velocity).astype(np.float32)

    def _observed(self, flux: np.ndarray, error: np.ndarray) -> np.ndarray:
        seen = add_noise(flux, error, Augmentation(noise=1.0), self.rng)
        return bridge_pixels(seen, Augmentation(mask_pixels=40), self.rng).astype(np.float32)

    def draw(self) -> dict[str, Any]:
        """A batch: pairs first, then LRS alone, then real spectra."""
        data, phase, rng = self.data, self.phase, self.rng
        chosen = np.concatenate([data.pairs[rng.choice(len(data.pairs), phase.pairs, replace=False)],
                                 data.poor[rng.choice(len(data.poor), phase.poor, replace=False)]])
        xp_rows, lrs_rows = chosen.T
        spread = data.spread[rng.integers(0, len(data.spread), phase.spread)]
        real = np.concatenate([rng.choice(self.lamost, phase.real, p=self.chance),
                               rng.choice(self.miles, phase.miles)])
        parts = self.simulated(np.concatenate([lrs_rows, spread])), self.real(real)
        seen, target, error, labels = (np.concatenate(both) for both in zip(*parts, strict=True))
        bank = data.bank[rng.integers(0, len(data.bank), phase.bank)]
        kernel = label_kernel(data.real.labels[real], data.xp_labels[bank])
        if phase.dust:
            kernel *= dust_kernel(data.band[real], data.real.snr[real], data.xp_ebv[bank])
        return {"seen": seen, "target": target, "error": error, "labels": labels, "xp_rows": xp_rows, "bank": bank,
                "kernel": kernel, "real": len(real)}


def rare_chance(labels: np.ndarray, rare: float) -> np.ndarray:
    """(N,) chance of being drawn; `rare` times more for each of metal-poor, hot, giant."""
    with np.errstate(invalid="ignore"):
        weight = 1.0 + rare * (3.0 * (labels[:, 2] < -1.5) + 2.0 * (labels[:, 0] > 7000.0)
                               + 1.0 * (labels[:, 1] < 3.5))
    return weight / weight.sum()


def step_loss(module: AlignedModel, data: AdaptData, batch: Mapping[str, Any], phase: Phase,
              scale: float | Tensor) -> dict[str, Tensor]:
    """Loss terms of a batch and their weighted sum `total`."""
    seen, target, error = (torch.from_numpy(batch[n]) for n in ("seen", "target", "error"))
    labels = torch.from_numpy(batch["labels"].astype(np.float32))
    xp_rows, pairs = batch["xp_rows"], len(batch["xp_rows"])
    xp_vector, bank = (torch.from_numpy(data.xp_vectors[rows]) for rows in (xp_rows, batch["bank"]))
    vector = module.encode(LRS, seen)["shared"]
    candidates = torch.cat([xp_vector, bank])
    logits = clip_logits(vector, candidates, scale)
    to_xp = logits[:pairs].clone()
    same = torch.from_numpy(xp_rows[:, None] == batch["bank"][None, :])
    to_xp[:, pairs:] = to_xp[:, pairs:].masked_fill(same, -torch.inf)
    own = torch.arange(pairs)
    terms = {"clip": 0.5 * (F.cross_entropy(to_xp, own) + F.cross_entropy(logits[:pairs, :pairs].T, own))}
    real = logits[len(logits) - batch["real"] :, pairs:]
    terms["multi_instance"] = multi_instance_loss(real, torch.from_numpy(batch["kernel"].astype(np.float32)))
    terms["label"] = module.lamost_lrs_labels.loss(vector, labels)  # type: ignore[operator, union-attr]
    xp_flux = torch.from_numpy(np.asarray(data.xp[xp_rows], np.float32))
    xp_weight = error_weights(torch.from_numpy(np.asarray(data.xp_error[xp_rows], np.float32)))
    weight = error_weights(error)
    terms["predict_xp"] = l1_loss(module.decode(XP, {"shared": vector[:pairs]}, False), xp_flux, xp_weight)
    raw_xp = module.encode(XP, xp_flux)["shared"].detach()
    terms["predict_lrs"] = l1_loss(module.decode(LRS, {"shared": raw_xp}, False), target[:pairs], weight[:pairs])
    mean = seen.mean(1, keepdim=True)
    std = seen.std(1, keepdim=True).clamp_min(module.floor())
    terms["reconstruct"] = l1_loss(module.decode(LRS, {"shared": vector}, True), (target - mean) / std, weight)
    if phase.gap:
        terms["gap"] = 1.0 - F.cosine_similarity(vector[:pairs], xp_vector).mean()
    factor = {"clip": 1.0, "multi_instance": phase.multi_instance, "label": phase.label, "predict_xp": phase.predict,
              "predict_lrs": phase.predict, "reconstruct": phase.reconstruct, "gap": phase.gap}
    terms["total"] = torch.stack([factor[name] * term for name, term in terms.items()]).sum()
    return terms


def run_phase(module: AlignedModel, data: AdaptData, phase: Phase, seed: int,
              progress: Progress | None = None) -> dict[str, float]:
    """Train a module in place; the mean of each loss term over the last tenth of the steps."""
    module.requires_grad_(False)
    for name in TRAINED:
        getattr(module, name).requires_grad_(True)
    module.train()
    parameters = [p for p in module.parameters() if p.requires_grad]
    # vectors that lie near those of the other instrument differ by little: their cosines need a larger factor
    log_scale = nn.Parameter(torch.tensor(float(np.log(phase.scale or float(module.scale())))))
    groups = [{"params": parameters, "weight_decay": 0.01}]
    if phase.scale:
        groups.append({"params": [log_scale], "weight_decay": 0.0})
    rates = [phase.rate, SCALE_RATE * phase.rate][: len(groups)]
    optimiser = torch.optim.AdamW(groups, phase.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=phase.steps, pct_start=0.1)
    sampler = Sampler(data, phase, np.random.default_rng([seed, phase.steps]))
    torch.manual_seed(seed)
    last: list[dict[str, float]] = []
    for step in range(phase.steps):
        terms = step_loss(module, data, sampler.draw(), phase,
                          log_scale.exp() if phase.scale else float(module.scale()))
        optimiser.zero_grad()
        terms["total"].backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step >= phase.steps * 9 // 10:
            last.append({name: float(term.detach()) for name, term in terms.items()})
        if progress is not None and (step + 1) % 20 == 0:
            progress(step + 1, phase.steps, f"clip {float(terms['clip'].detach()):.3f}")
    module.eval()
    result = {name: round(float(np.mean([one[name] for one in last])), 4) for name in last[0]}
    return result | {"scale": round(float(log_scale.detach().exp()), 2)}


def averaged(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of several states of one architecture; fine-tunes from one start may be averaged (Wortsman et al. 2022)."""
    return {name: torch.stack([state[name].float() for state in states]).mean(0) for name in states[0]}


def fit_real(recipe: AdaptRecipe, data: AdaptData, base: Path,
             progress: Progress | None = None) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Weights by phase, and what each phase's losses were; the average is called `average`."""
    states: dict[str, dict[str, Tensor]] = {}
    record: dict[str, Any] = {}
    for number, (name, phase) in enumerate(recipe.phases.items()):
        _, module = load_module(base)
        assert isinstance(module, AlignedModel)
        if phase.after:
            module.load_state_dict(states[phase.after])
        started = time.process_time()
        losses = run_phase(module, data, phase, phase.seed or recipe.seed + number,
                           partial(progress, name) if progress is not None else None)
        record[name] = {"settings": asdict(phase), "losses": losses,
                        "cpu_seconds": round(time.process_time() - started, 1)}
        states[name] = {key: value.detach().clone() for key, value in module.state_dict().items()}
    states["average"] = averaged([states[name] for name in recipe.average])
    return states, record
