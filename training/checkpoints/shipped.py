"""Models shipped with the package, and lookup of model folders by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from specclip_search.errors import CheckpointError

from .folder import TOML, load_card
from .settings import did_you_mean


def find_model(name_or_folder: str | Path) -> Path:
    """Folder of a model: the given one, or that of a shipped model with this name."""
    folder = Path(name_or_folder)
    if (folder / TOML).is_file():
        return folder
    shipped = shipped_models()
    if str(name_or_folder) in shipped:
        return Path(str(files("specclip_search.training").joinpath("weights", str(name_or_folder))))
    if folder.is_dir():
        load_card(folder)
    raise CheckpointError(f"No model folder at '{name_or_folder}', and no shipped model of that name.",
                          did_you_mean(str(name_or_folder), shipped) if shipped else
                          "Make one with `specclip-search train mini` or `specclip-search model import`.")


def shipped_models() -> list[str]:
    """Names of the models shipped with the package."""
    weights = files("specclip_search.training").joinpath("weights")
    return sorted(p.name for p in weights.iterdir() if p.joinpath(TOML).is_file()) if weights.is_dir() else []
