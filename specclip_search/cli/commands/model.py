"""`specclip-search model list | show | import | use | export`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import AtlasOption, FormatOption, OutputOption, open_atlas
from ..reports import say, setting_rows

# training data, intended use and known failures, beside the weights
MODEL_CARD = "MODEL_CARD.md"
app = typer.Typer(
    add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="List, show, import or choose models."
)

OptionalAtlas = Annotated[
    Path | None,
    typer.Option("--atlas", "-a", envvar="SPECCLIP_ATLAS", metavar="DIR", help="List the models of this atlas too."),
]


@app.command("list")
def list_models(atlas: OptionalAtlas = None, format: FormatOption = None, output: OutputOption = None) -> None:
    """List the shipped models and those of the atlas.

    Example: specclip-search model list --atlas my-atlas
    """
    import pyarrow as pa

    from specclip_search.training.checkpoints.folder import load_card
    from specclip_search.training.checkpoints.shipped import find_model, shipped_models

    from ...tables import write_rows

    folders = [("shipped", find_model(name)) for name in shipped_models()]
    active = None
    if atlas is not None:
        target = open_atlas(atlas)
        active = target.active_model
        folders += [("atlas", target.model_folder(name)) for name in target.models()]
    rows = []
    for place, folder in folders:
        card = load_card(folder)
        rows.append(
            {
                "name": card.name,
                "where": place,
                "kind": card.kind,
                "dim": card.dim,
                "active": place == "atlas" and card.name == active,
                "digest": card.digest[:19],
            }
        )
    write_rows(pa.Table.from_pylist(rows), format, output)


@app.command("show")
def show(
    model: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A shipped model or a model folder.")],
    atlas: OptionalAtlas = None,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Show a model's description, where its model card is, and the metrics measured when it was trained.

    Example: specclip-search model show mini
    """
    import dataclasses

    import pyarrow as pa

    from specclip_search.training.checkpoints.folder import load_card, load_metrics
    from specclip_search.training.checkpoints.shipped import find_model

    from ...tables import write_rows

    target = open_atlas(atlas) if atlas is not None else None
    folder = target.model_folder(model) if target is not None and model in target.models() else find_model(model)
    about = folder / MODEL_CARD
    content = dataclasses.asdict(load_card(folder)) | ({"model_card": str(about)} if about.is_file() else {})
    content["metrics"] = load_metrics(folder)
    write_rows(pa.Table.from_pylist(setting_rows(content)), format, output)


@app.command("import")
def import_model(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A published .ckpt or .pt file.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Model folder to create.")],
) -> None:
    """Convert a published checkpoint to safetensors without running any code in it.

    Example: specclip-search model import specclip_model_predrecon_mlp.ckpt --output models/pr
    """
    from specclip_search.training.checkpoints.importing import import_checkpoint

    report = import_checkpoint(checkpoint, output)
    say(*str(report).splitlines())


@app.command("use")
def use(name: Annotated[str, typer.Argument(metavar="NAME", help="A model of the atlas.")], atlas: AtlasOption) -> None:
    """Choose the model whose vectors are searched by default.

    Example: specclip-search model use mini --atlas my-atlas
    """
    from ...errors import AtlasError

    target = open_atlas(atlas)
    if name not in target.models():
        raise AtlasError(
            f"The atlas has no model '{name}'; it has {', '.join(target.models()) or 'none'}.",
            "`specclip-search embed --model NAME` adds a model to the atlas.",
        )
    target.use_model(name)
    say(f"'{name}' is now the active model of {target.path}.")


@app.command("export")
def export(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="A run or model folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Model folder to create.")],
    precision: Annotated[str, typer.Option("--precision", help="float16, bfloat16 or float32.")] = "float16",
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="New name.")] = None,
) -> None:
    """Copy a model with smaller weights and without the training state.

    Example: specclip-search model export runs/mini --output models/mini
    """
    from specclip_search.training.checkpoints.folder import export_model

    card = export_model(run, output, precision, name)
    say(f"'{card.name}' ({card.kind}, {card.dim}-D) is in {output}.")
