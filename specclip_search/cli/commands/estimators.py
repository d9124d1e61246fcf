"""What `train estimators` does and tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import QueryError
from ..progress import progress_bar
from ..reports import say

if TYPE_CHECKING:
    from ...atlas import Atlas


def train_estimators(atlas: Atlas, model: str, device: str) -> None:
    """Train label estimators and say how well they do on validation stars."""
    from specclip_search.training.estimators.train import train_estimators as run
    from specclip_search.training.model import load_model, shipped_models

    if not model:
        raise QueryError("Label estimators belong to a model; none was named.",
                         "Name one: --model mini, or its folder.")
    # a shipped model comes before the atlas's copy of it: the estimators shall lie where copies are made from
    own = model in atlas.models() and model not in shipped_models()
    loaded = load_model(atlas.model_folder(model) if own else model, device=device)
    with progress_bar("train estimators", "steps") as progress:
        made = run(atlas, loaded, progress=progress)
    for modality in made.modalities:
        say(*_lines(modality, made.metrics[modality]))
    say(f"The estimators are in {loaded.folder}. Use them with: specclip-search estimate --atlas {atlas.path}")


def _lines(modality: str, metrics: dict[str, Any]) -> list[str]:
    lines = [f"{modality}: {metrics['training_stars']:,} stars trained, {metrics['validation_stars']:,} judge"]
    for group in ("real", "made", "simulated"):
        for label, found in metrics.get(group, {}).items():
            lines.append(f"  {group:<9} {label:<16} sigma {found['sigma']:<8.4g} bias {found['bias']:<+8.3g} "
                         f"{found['stars']:,} stars")
    inside = [row["within_68"] for row in metrics["coverage"]]
    if inside:
        span = f"{min(inside):.0%} to {max(inside):.0%}"
        lines.append(f"  68.3 % intervals hold {span} of the true values, by label and S/N")
    return lines
