"""Which model a command means by a name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specclip_search.training.model import Model

    from ..atlas import Atlas

DEFAULT_MODEL = "mini"


def chosen_model(atlas: Atlas, name: str, *, device: str = "auto", precision: str = "float32") -> Model:
    """The model of that name in the atlas, else a model folder, else a shipped one.

    Without a name: the atlas's active model, else the shipped `mini`.
    """
    from specclip_search.training.model import load_model

    wanted = name or atlas.active_model or DEFAULT_MODEL
    kept = atlas.models()
    source = atlas.model_folder(wanted) if wanted in kept else wanted
    return load_model(source, device=device, precision=precision)
