"""`specclip-search train`"""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from ..options import AtlasOption, open_atlas
from ..progress import progress_bar
from ..reports import say

ESTIMATORS = "estimators"

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe (mini), a file, or estimators.")],
    atlas: AtlasOption,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Run folder; becomes a model folder.")
    ] = None,
    resume: Annotated[str, typer.Option("--resume", help="auto: go on where a run stands; always; never.")] = "auto",
    device: Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")] = "auto",
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write curves to DIR/tensorboard.")] = False,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="NAME|DIR", help="For estimators: the model they belong to.")
    ] = "",
) -> None:
    """Train a model on the atlas's pairs: stars of splits 0-7, judged on split 8; split 9 is never touched.

    `train estimators` trains a finished model's label estimators, and keeps them beside its weights.

    Example: specclip-search train mini --atlas my-atlas --output runs/mini

    Several GPUs: torchrun --nproc-per-node 4 -m specclip_search.__main__ mini --atlas my-atlas --output
    runs/mini
    """
    if recipe == ESTIMATORS:
        from .estimators import train_estimators

        train_estimators(open_atlas(atlas), model, device)
        return
    from specclip_search.training.fit.train import Event
    from specclip_search.training.fit.train import train as run

    from ...errors import QueryError

    meanings = {"auto": "auto", "always": True, "never": False}
    if resume not in meanings:
        raise QueryError(f"--resume must be auto, always or never; found '{resume}'.", "auto is usually right.")
    if output is None:
        raise QueryError("A run needs a folder of its own; none was given.", "Name one: --output runs/mini")
    target = open_atlas(atlas)
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started, one speaks
    with progress_bar(f"train {recipe}", "steps") if first else nullcontext(lambda *_: None) as progress:

        def told(event: Event) -> None:
            done = (event.epoch - 1) * event.steps + event.step
            progress(done, event.epochs * event.steps, f"loss {event.loss:.3f}")
            if event.metrics is not None:
                say(
                    f"epoch {event.epoch}: "
                    + ", ".join(f"{n} {v:.4g}" for n, v in event.metrics.items() if n != "epoch")
                )

        folder = run(recipe, target, output, resume=meanings[resume], progress=told, device=device,  # type: ignore[arg-type]
                     tensorboard=tensorboard)
    if first:
        say(f"The model is {folder}. Use it with: specclip-search embed --model {folder} --atlas {target.path}")
