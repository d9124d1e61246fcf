"""`specclip-search train`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import AtlasOption, open_atlas
from ..progress import progress_bar
from ..reports import say

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe (mini) or a TOML file.")],
    atlas: AtlasOption,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Run folder; becomes a model folder.")],
    resume: Annotated[str, typer.Option("--resume", help="auto: go on where a run stands; always; never.")] = "auto",
    device: Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Train a model on the atlas's pairs: stars of splits 0-7, judged on split 8; split 9 is never touched.

    Example: specclip-search train mini --atlas my-atlas --output runs/mini
    """
    from training.train import Event
    from training.train import train as run

    from ...errors import QueryError

    meanings = {"auto": "auto", "always": True, "never": False}
    if resume not in meanings:
        raise QueryError(f"--resume must be auto, always or never; found '{resume}'.", "auto is usually right.")
    target = open_atlas(atlas)
    with progress_bar(f"train {recipe}", "steps") as progress:

        def told(event: Event) -> None:
            done = (event.epoch - 1) * event.steps + event.step
            progress(done, event.epochs * event.steps, f"loss {event.loss:.3f}")
            if event.metrics is not None:
                say(
                    f"epoch {event.epoch}: "
                    + ", ".join(f"{n} {v:.4g}" for n, v in event.metrics.items() if n != "epoch")
                )

        folder = run(recipe, target, output, resume=meanings[resume], progress=told, device=device)  # type: ignore[arg-type]
    say(f"The model is {folder}. Use it with: specclip-search embed --model {folder} --atlas {target.path}")
