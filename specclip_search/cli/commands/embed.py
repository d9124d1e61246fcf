"""`specclip-search embed`"""

from __future__ import annotations

from typing import Annotated

import typer

from ..options import AtlasOption, SchedulerOption, open_atlas, optional_client
from ..progress import progress_bar
from ..reports import say, say_accounts

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def embed(
    atlas: AtlasOption,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", metavar="NAME|DIR", help="A shipped model, a model of the atlas, or a model folder."
        ),
    ] = "",
    within: Annotated[
        list[str] | None, typer.Option("--within", metavar="MODALITY", help="Only this instrument; repeatable.")
    ] = None,
    device: Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option("--precision", help="float32 or bf16.")] = "float32",
    batch: Annotated[int, typer.Option("--batch", min=1, metavar="N", help="Spectra per batch.")] = 1024,
    scheduler: SchedulerOption = None,
) -> None:
    """Turn spectra into vectors. Up-to-date shards are kept, so a stopped run can be resumed.

    With --scheduler a Dask cluster makes the shards, one per task; its workers must see the atlas under the same path.

    Example: specclip-search embed --model mini --atlas my-atlas
    """
    from specclip_search.indexing import embed as embed_atlas

    from ..options import chosen_model

    target = open_atlas(atlas)
    loaded = chosen_model(target, model, device=device, precision=precision)
    with optional_client(scheduler) as client, progress_bar("embed", "spectra") as progress:
        report = embed_atlas(target, loaded, within, batch_rows=batch, progress=progress, client=client, device=device)
    say_accounts("spectra", report)
    say(str(report))
