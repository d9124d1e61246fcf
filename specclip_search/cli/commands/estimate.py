"""`specclip-search estimate`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..options import AtlasOption, SchedulerOption, open_atlas, optional_client
from ..progress import progress_bar
from ..reports import say

if TYPE_CHECKING:
    from ...atlas import Atlas

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
    heads: Annotated[
        Path | None,
        typer.Option("--heads", metavar="DIR", help="Apply published label heads instead: lrs/*.pt, xp/*.pt, stats/."),
    ] = None,
) -> None:
    """Estimate Teff, logg, [Fe/H], [alpha/Fe], [C/Fe] and radial velocity from the vectors, with errors and flags.

    Up-to-date shards are kept, so a stopped run can be resumed. In SQL: estimates_gaia_xp, estimates_lamost_lrs.

    With --heads, published label heads give their labels (abundances, mass, age) of the vectors of a published model,
    without errors. In SQL: heads_gaia_xp, heads_lamost_lrs.

    Example: specclip-search estimate --atlas my-atlas

    specclip-search estimate --heads downloads/mlp --model pr --atlas my-atlas
    """
    if heads is not None:
        apply(open_atlas(atlas), heads, model, within, scheduler)
        return
    from specclip_search.indexing.vectors.estimate import estimate as estimate_atlas

    from ..options import chosen_model

    target = open_atlas(atlas)
    loaded = chosen_model(target, model, device="cpu")
    with optional_client(scheduler) as client, progress_bar("estimate", "spectra") as progress:
        report = estimate_atlas(target, loaded, within, progress=progress, client=client)
    say(str(report))


def apply(atlas: Atlas, heads: Path, model: str, within: list[str] | None, scheduler: str | None) -> None:
    """Apply published label heads and report."""
    from specclip_search.indexing.vectors.label_heads import apply_heads

    from ...errors import QueryError

    if within or scheduler:
        raise QueryError(
            "--heads takes no --within or --scheduler: the folder says which instruments.", "Leave these options out."
        )
    with progress_bar("estimate", "vectors") as progress:
        report = apply_heads(atlas, heads, model or None, progress=progress)
    say(*str(report).splitlines())
