"""`specclip-search estimate`"""

from __future__ import annotations

from typing import Annotated

import typer

from ..options import AtlasOption, SchedulerOption, open_atlas, optional_client
from ..progress import progress_bar
from ..reports import say

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def estimate(
    atlas: AtlasOption,
    model: Annotated[
        str,
        typer.Option("--model", "-m", metavar="NAME|DIR", help="Model to use; by default the atlas's active one."),
    ] = "",
    within: Annotated[
        list[str] | None, typer.Option("--within", metavar="MODALITY", help="Only this instrument; repeatable.")
    ] = None,
    scheduler: SchedulerOption = None,
) -> None:
    """Estimate Teff, logg, [Fe/H], [alpha/Fe], [C/Fe] and radial velocity from the vectors, with errors and flags.

    Up-to-date shards are kept, so a stopped run can be resumed. In SQL: estimates_gaia_xp, estimates_lamost_lrs.

    Example: specclip-search estimate --atlas my-atlas
    """
    from specclip_search.indexing.vectors.estimate import estimate as estimate_atlas

    from ..options import chosen_model

    target = open_atlas(atlas)
    loaded = chosen_model(target, model, device="cpu")
    with optional_client(scheduler) as client, progress_bar("estimate", "spectra") as progress:
        report = estimate_atlas(target, loaded, within, progress=progress, client=client)
    say(str(report))
