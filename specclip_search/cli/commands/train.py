"""`specclip-search train`, including `train estimators`"""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import QueryError
from ..options import AtlasOption, open_atlas
from ..progress import progress_bar
from ..reports import say

if TYPE_CHECKING:
    from ...atlas import Atlas

ESTIMATORS, ADAPT = "estimators", "adapt"

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A shipped recipe (mini), a recipe file, estimators, or adapt.")
    ],
    atlas: AtlasOption,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Run folder; becomes a model folder.")
    ] = None,
    resume: Annotated[str, typer.Option("--resume", help="auto (resume if there is a run), always or never.")] = "auto",
    device: Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")] = "auto",
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write curves to DIR/tensorboard.")] = False,
    model: Annotated[str, typer.Option("--model", "-m", metavar="NAME|DIR", help="For estimators: their model.")] = "",
    base: Annotated[
        str, typer.Option("--from", metavar="NAME|DIR", help="For adapt: the model that is adapted.")
    ] = "mini",
    labels: Annotated[
        str,
        typer.Option("--labels", metavar="CATALOGUE", help="For adapt, estimators: a catalogue with teff, logg, feh."),
    ] = "",
    rank: Annotated[int, typer.Option("--rank", min=1, max=256, metavar="N", help="For adapt: rank of it.")] = 8,
    steps: Annotated[int, typer.Option("--steps", min=1, metavar="N", help="For adapt: steps of training.")] = 300,
) -> None:
    """Train a model on the atlas's pairs: splits 0-7 for training, 8 for validation; split 9 is never used.

    `train estimators` trains label estimators of a finished model, stored next to its weights. With --labels it fits
    the LAMOST estimators of a model in the atlas to your own catalogue, with errors from held-out stars:

    specclip-search train estimators --labels my_labels --model mini --atlas my-atlas

    `train adapt` adapts a model's LAMOST side to your own labelled spectra by small low-rank changes:

    specclip-search train adapt --from mini --labels my_labels --rank 8 --output models/mine --atlas my-atlas

    Example: specclip-search train mini --atlas my-atlas --output runs/mini

    Several GPUs: torchrun --nproc-per-node 4 -m specclip_search train mini --atlas my-atlas --output runs/mini
    """
    if recipe == ESTIMATORS:
        if labels:
            fit_estimators(open_atlas(atlas), model, labels, device)
        else:
            train_estimators(open_atlas(atlas), model, device)
        return
    if recipe == ADAPT:
        train_adapter(open_atlas(atlas), base, labels, rank, steps, output, device)
        return
    from specclip_search.training.fit.train import Event
    from specclip_search.training.fit.train import train as run

    from ...errors import QueryError

    meanings = {"auto": "auto", "always": True, "never": False}
    if resume not in meanings:
        raise QueryError(f"--resume must be auto, always or never; found '{resume}'.", "auto is usually right.")
    if output is None:
        raise QueryError("A run needs a folder; none was given.", "Give one: --output runs/mini")
    target = open_atlas(atlas)
    first = os.environ.get("RANK", "0") == "0"  # only one of the processes started by torchrun reports
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


def train_estimators(atlas: Atlas, model: str, device: str) -> None:
    """Train label estimators and report their performance on validation stars."""
    from specclip_search.training.checkpoints.shipped import shipped_models
    from specclip_search.training.estimators.train import train_estimators as run
    from specclip_search.training.model import load_model

    if not model:
        raise QueryError("Label estimators need a model; none was given.", "Give one: --model mini, or its folder.")
    # prefer a shipped model to the atlas's copy: the estimators must be where copies are made from
    own = model in atlas.models() and model not in shipped_models()
    loaded = load_model(atlas.model_folder(model) if own else model, device=device)
    with progress_bar("train estimators", "steps") as progress:
        made = run(atlas, loaded, progress=progress)
    for modality in made.modalities:
        say(*_lines(modality, made.metrics[modality]))
    say(f"The estimators are in {loaded.folder}. Use them with: specclip-search estimate --atlas {atlas.path}")


def fit_estimators(atlas: Atlas, model: str, labels: str, device: str) -> None:
    """Fit the LAMOST estimators of a model of the atlas to a catalogue, and report held-out stars before and after."""
    from specclip_search.training.real_spectra.own_estimators import fit_to_catalogue

    from ..options import chosen_model

    made = fit_to_catalogue(atlas, chosen_model(atlas, model, device=device), labels)
    say(f"{made.training:,} stars trained, {made.held:,} held out; scatter (bias) and share within the stated error on "
        "these, before and after:")  # fmt: skip
    for row in made.comparison:
        sides = [f"{row[side]['scatter']:g} ({row[side]['bias']:+g}), {row[side]['within']:.2f}"
                 for side in ("before", "after")]  # fmt: skip
        say(f"  {row['label']:<6} {sides[0]:<28} {sides[1]}")
    say(f"The estimators are those of the model in {atlas.path}. Use them with: specclip-search estimate "
        f"--atlas {atlas.path}")  # fmt: skip


def train_adapter(
    atlas: Atlas, base: str, labels: str, rank: int, steps: int, output: Path | None, device: str
) -> None:
    """Adapt a model to the labels of a catalogue, and report held-out stars before and after."""
    from specclip_search.training.model import load_model
    from specclip_search.training.real_spectra.adapt_atlas import adapt_to_catalogue
    from specclip_search.training.real_spectra.low_rank import AdaptSettings

    if not labels or output is None:
        raise QueryError(
            "An adapter needs a catalogue of labels and a folder; one of them was not given.",
            "Give both: --labels CATALOGUE --output models/mine",
        )
    made = adapt_to_catalogue(
        atlas, load_model(base, device=device), labels, output, AdaptSettings(rank=rank, steps=steps)
    )
    say(f"{made.training:,} stars trained, {made.held:,} held out; sigma (bias) on these, before and after:")
    say(*(f"  {row['what']:<24} {_before_after(row)}" for row in made.comparison))
    say("with fewer training stars:")
    say(*(f"  {row['shots']:>6,} {row['what']:<24} {_before_after(row)}" for row in made.curve))
    say(
        f"'{made.card.name}' is in {output}. It has no label estimators. Use it with: "
        f"specclip-search embed --model {output} --atlas {atlas.path}"
    )


def _before_after(row: dict[str, Any]) -> str:
    sides = []
    for side in ("before", "after"):
        sigma, bias = row[f"{side}_sigma"], row[f"{side}_bias"]
        sides.append("no label" if sigma is None else f"{sigma:.4g} ({bias:+.3g})")
    return " -> ".join(sides)


def _lines(modality: str, metrics: dict[str, Any]) -> list[str]:
    lines = [f"{modality}: {metrics['training_stars']:,} stars trained, {metrics['validation_stars']:,} for validation"]
    for group in ("real", "made", "simulated"):
        for label, found in metrics.get(group, {}).items():
            lines.append(
                f"  {group:<9} {label:<16} sigma {found['sigma']:<8.4g} bias {found['bias']:<+8.3g} "
                f"{found['stars']:,} stars"
            )
    inside = [row["within_68"] for row in metrics["coverage"]]
    if inside:
        span = f"{min(inside):.0%} to {max(inside):.0%}"
        lines.append(f"  68.3 % intervals contain {span} of the true values, depending on label and S/N")
    return lines
