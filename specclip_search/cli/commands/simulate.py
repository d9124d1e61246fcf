"""`specclip-search simulate`"""

from __future__ import annotations

from typing import Annotated

import typer

from ..options import AtlasOption, SeedOption, open_atlas
from ..progress import progress_bar
from ..reports import say_accounts

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def simulate(
    atlas: AtlasOption,
    catalog: Annotated[
        str, typer.Option("--catalog", metavar="NAME", help="Catalogue with source_id, teff, logg, feh.")
    ] = "apogee",
    metal_poor: Annotated[
        int,
        typer.Option(
            "--metal-poor",
            min=0,
            metavar="N",
            help="Also make N very metal-poor stars, their XP spectra moved from real stars by model ratios.",
        ),
    ] = 0,
    seed: SeedOption = 0,
) -> None:
    """Give each labelled Gaia XP star of the atlas a simulated LAMOST spectrum.

    Simulated spectra say so in their column `simulated`; a star without labels keeps its XP alone.

    Example: specclip-search simulate --catalog apogee --atlas demo-atlas
    """
    from ...simulation.metal_poor_stage import simulate_metal_poor
    from ...simulation.pairing import simulate_pairs

    target = open_atlas(atlas)
    with progress_bar("simulate", "stars") as progress:
        report = simulate_pairs(target, catalogue=catalog, seed=seed, progress=progress)
    say_accounts("stars", report)
    if metal_poor:
        with progress_bar("simulate metal-poor", "stars") as progress:
            report = simulate_metal_poor(target, metal_poor, catalogue=catalog, seed=seed, progress=progress)
        say_accounts("very metal-poor stars", report)
