"""`specclip-search simulate`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..options import AtlasOption, SeedOption, open_atlas
from ..progress import progress_bar
from ..reports import say_accounts

if TYPE_CHECKING:
    from ...atlas import Atlas

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
    stars: Annotated[
        int | None,
        typer.Option("--stars", min=1, metavar="N", help="Make a survey of N stars with known truth instead."),
    ] = None,
    emp_one_in: Annotated[
        float,
        typer.Option("--emp-one-in", min=1.0, metavar="N", help="With --stars: one star in N has [Fe/H] < -3."),
    ] = 500.0,
    odd_rate: Annotated[
        float,
        typer.Option("--odd-rate", min=0.0, metavar="SHARE", help="With --stars: share of stars of each odd class."),
    ] = 0.002,
    seed: SeedOption = 0,
) -> None:
    """Give each labelled Gaia XP star of the atlas a simulated LAMOST spectrum.

    Simulated spectra say so in their column `simulated`; a star without labels keeps its XP alone.
    With --stars N, N new stars are made from the real ones, rare and odd ones among them; what they
    truly are stands in the catalogues `truth` and `truth_lrs`, and `evaluate` scores every search by it.

    Example: specclip-search simulate --catalog apogee --atlas demo-atlas
    """
    from ...simulation.metal_poor_stage import simulate_metal_poor
    from ...simulation.pairing import simulate_pairs

    target = open_atlas(atlas)
    if stars is not None:
        _survey(target, stars, seed, emp_one_in, odd_rate, catalog)
        return
    with progress_bar("simulate", "stars") as progress:
        report = simulate_pairs(target, catalogue=catalog, seed=seed, progress=progress)
    say_accounts("stars", report)
    if metal_poor:
        with progress_bar("simulate metal-poor", "stars") as progress:
            report = simulate_metal_poor(target, metal_poor, catalogue=catalog, seed=seed, progress=progress)
        say_accounts("very metal-poor stars", report)


def _survey(target: Atlas, stars: int, seed: int, emp_one_in: float, odd_rate: float, catalog: str) -> None:
    from ...simulation.oddities import ODDITIES
    from ...simulation.population import Rates
    from ...simulation.survey import simulate_survey

    rates = Rates(1.0 / emp_one_in, dict.fromkeys(ODDITIES, odd_rate))
    with progress_bar("simulate", "stars") as progress:
        report = simulate_survey(target, stars, seed=seed, rates=rates, catalogue=catalog, progress=progress)
    say_accounts("simulated spectra", report)
