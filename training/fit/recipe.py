"""Training recipes: all settings of a run in one TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from specclip_search.errors import CheckpointError

from ..checkpoints.settings import did_you_mean, read_settings
from ..networks.mini import MiniSizes
from ..networks.published import KINDS as PUBLISHED_KINDS
from ..networks.published import PublishedSizes
from .augment import Augmentation

TRAINABLE_KINDS = ("mini", *PUBLISHED_KINDS)


@dataclass(frozen=True)
class DataSettings:
    """Table `[data]`."""

    batch_size: int = 256
    """Stars per step; also the number of candidates in the contrastive loss."""
    validation_pairs: int = 4096
    """Maximum number of validation pairs used after each epoch."""
    labels: tuple[str, ...] = ()
    """Catalogues of the atlas with labels by `source_id`, for `[loss] label`; the first one with a star is used."""
    alone: float = 0.0
    """Spectra of stars without a pair added to each batch, as a fraction of its pairs."""


@dataclass(frozen=True)
class OptimiserSettings:
    """Table `[optimiser]`: AdamW with linear warm-up and cosine decay."""

    rate: float = 1e-3
    """Highest learning rate."""
    final_fraction: float = 0.01
    """Ratio of the last to the highest learning rate."""
    warmup_steps: int = 300
    """Steps of linear warm-up."""
    epochs: int = 16
    """Passes over the training stars."""
    total_steps: int = 0
    """Steps until the last rate is reached; 0: the whole run."""
    weight_decay: float = 0.05
    """Decoupled weight decay."""
    decay_vectors: bool = False
    """Whether biases and norms decay too, as in the published training."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.98
    """Decay of the second moment."""
    clip_norm: float = 1.0
    """Maximum gradient norm; larger gradients are clipped."""
    patience: int = 6
    """Epochs without a better validation loss before stopping; 0: never."""
    min_delta: float = 1e-4
    """Minimum decrease of the validation loss that counts as better."""
    precision: str = "bf16"
    """`bf16` (autocast) or `float32`."""
    accumulate: int = 1
    """Number of parts a batch is encoded in to save memory; the gradient is the same."""
    compile: str = "auto"
    """Whether torch compiles the encoders: `on`, `off`, or `auto`, on a GPU only."""


@dataclass(frozen=True)
class LossSettings:
    """Table `[loss]`."""

    contrast: float = 1.0
    """Weight of the contrastive loss."""
    reconstruct: float = 1.0
    """Weight of both reconstruction losses."""
    predict: float = 1.0
    """Weight of both cross-instrument predictions."""
    label: float = 0.0
    """Weight of both label losses, for models with `label_hidden`."""
    error_weighted: bool = False
    """Whether pixels are weighted by their errors (see `specclip_search.training.networks.losses.error_weights`)."""
    error_floor: float = 0.01
    """Error floor of the pixel weights."""


@dataclass(frozen=True)
class Backbones:
    """Table `[backbones]`: pretrained encoders that an aligned published kind starts from."""

    gaia_xp: str = ""
    """Model folder of the XP encoder."""
    lamost_lrs: str = ""
    """Model folder of the LRS encoder."""
    frozen: bool = True
    """Whether they are frozen, as published; if false they are trained too, and no folders are needed."""


@dataclass(frozen=True)
class Recipe:
    """All settings of a run."""

    name: str
    """Name of the resulting model."""
    kind: str
    """`mini` or a published kind (`lrs_mt`, `xp_mt`, `xp_oae`, `base`, `base_xpmt`, `pr`, `split`)."""
    seed: int = 42
    """Seed of weights, order, augmentation and dropout."""
    model: MiniSizes = field(default_factory=MiniSizes)
    """Sizes, for kind `mini`."""
    published: PublishedSizes = field(default_factory=PublishedSizes)
    """Sizes, for published kinds."""
    data: DataSettings = field(default_factory=DataSettings)
    """Batches."""
    augment: Augmentation = field(default_factory=Augmentation)
    """Augmentation of training spectra."""
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    """Steps."""
    loss: LossSettings = field(default_factory=LossSettings)
    """Weights of the loss terms."""
    backbones: Backbones = field(default_factory=Backbones)
    """Pretrained encoders."""

    def __post_init__(self) -> None:
        if self.kind not in TRAINABLE_KINDS:
            raise CheckpointError(f"Recipe '{self.name}': there is no model kind '{self.kind}'.",
                                  did_you_mean(self.kind, TRAINABLE_KINDS))
        for what, choices in (("precision", ("bf16", "float32")), ("compile", ("auto", "on", "off"))):
            if getattr(self.optimiser, what) not in choices:
                raise CheckpointError(f"Recipe '{self.name}': {what} must be {' or '.join(map(repr, choices))}; "
                                      f"found '{getattr(self.optimiser, what)}'.", f"Correct [optimiser] {what}.")
        for what, value in (("batch_size", self.data.batch_size), ("epochs", self.optimiser.epochs),
                            ("accumulate", self.optimiser.accumulate)):
            if value < (2 if what == "batch_size" else 1):
                raise CheckpointError(f"Recipe '{self.name}': {what} is {value}.", "Give a larger number.")

    def to_dict(self) -> dict[str, Any]:
        """Plain tables, as written to the run folder."""
        return asdict(self)


def load_recipe(recipe: str | Path | Recipe) -> Recipe:
    """Load a recipe by shipped name or path; a `Recipe` is returned unchanged.

    Raises
    ------
    CheckpointError
        If there is no such recipe or file, it is not valid TOML, or a setting is unknown or wrong.
    """
    if isinstance(recipe, Recipe):
        return recipe
    text, where = _recipe_text(recipe)
    try:
        return read_settings(Recipe, tomllib.loads(text), where)
    except tomllib.TOMLDecodeError as error:
        raise CheckpointError(f"{where} is not valid TOML ({error}).", "Correct the file.") from error


def shipped_recipes() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(p.name.removesuffix(".toml") for p in _recipes().iterdir() if p.name.endswith(".toml"))


def _recipes() -> Any:
    return files("specclip_search.training").joinpath("recipes")


def _recipe_text(recipe: str | Path) -> tuple[str, str]:
    path = Path(recipe)
    if path.is_file():
        return path.read_text(encoding="utf-8"), path.name
    name = str(recipe).removesuffix(".toml")
    if name in shipped_recipes():
        return _recipes().joinpath(f"{name}.toml").read_text(encoding="utf-8"), f"{name}.toml"
    raise CheckpointError(f"No recipe file {recipe}, and none of that name is shipped.",
                          did_you_mean(name, shipped_recipes()))
