"""`specclip-search simulate`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..options import AtlasOption, SeedOption, open_atlas
from ..progress import progress_bar
from ..reports import say_accounts

if TYPE_CHECKING:
    from ...atlas import Atlas
    from ...simulation.samples.rates import Rates

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
            help="Also make N very metal-poor stars; XP spectra are real ones scaled by ratios of model spectra.",
        ),
    ] = 0,
    spread: Annotated[
        int,
        typer.Option(
            "--spread",
            min=0,
            metavar="N",
            help="Also make LAMOST spectra of N stars spread over the label range of the models, without XP spectra.",
        ),
    ] = 0,
    stars: Annotated[
        int | None,
        typer.Option("--stars", min=1, metavar="N", help="Make a survey of N stars with known truth instead."),
    ] = None,
    emp_rate: Annotated[
        float,
        typer.Option(
            "--emp-rate", min=0.0, max=1.0, metavar="SHARE", help="With --stars: fraction of stars with [Fe/H] < -3."
        ),
    ] = 0.002,
    odd_rate: Annotated[
        float,
        typer.Option(
            "--odd-rate", min=0.0, max=1.0, metavar="SHARE", help="With --stars: fraction of each class of anomalies."
        ),
    ] = 0.002,
    rate: Annotated[
        list[str] | None,
        typer.Option(
            "--rate",
            metavar="CLASS=SHARE",
            help="With --stars: fraction of one class of anomalies (emission=0.01). Repeatable.",
        ),
    ] = None,
    seed: SeedOption = 0,
) -> None:
    """Give each labelled Gaia XP star of the atlas a simulated LAMOST spectrum.

    Simulated spectra are marked in the column `simulated`; stars without labels get no LAMOST spectrum.
    With --stars N, N new stars are made from the real ones, including rare and anomalous ones. Their
    true properties are in the catalogues `truth` and `truth_lrs`, which `evaluate` uses to score the searches.

    Example: specclip-search simulate --catalog apogee --atlas demo-atlas
    """
    from ...simulation.samples.metal_poor import simulate_metal_poor
    from ...simulation.samples.pairs import simulate_pairs
    from ...simulation.samples.rates import rates_from_words

    target = open_atlas(atlas)
    if stars is not None:
        _survey(target, stars, seed, rates_from_words(rate or (), emp=emp_rate, every=odd_rate), catalog)
        return
    with progress_bar("simulate", "stars") as progress:
        report = simulate_pairs(target, catalogue=catalog, seed=seed, progress=progress)
    say_accounts("stars", report)
    if metal_poor:
        with progress_bar("simulate metal-poor", "stars") as progress:
            report = simulate_metal_poor(target, metal_poor, catalogue=catalog, seed=seed, progress=progress)
        say_accounts("very metal-poor stars", report)
    if spread:
        from ...simulation.samples.spread import simulate_spread

        with progress_bar("simulate spread", "stars") as progress:
            report = simulate_spread(target, spread, seed=seed, progress=progress)
        say_accounts("spread stars", report)


def _survey(target: Atlas, stars: int, seed: int, rates: Rates, catalog: str) -> None:
    from ...simulation.samples.survey import simulate_survey

    with progress_bar("simulate", "stars") as progress:
        report = simulate_survey(target, stars, seed=seed, rates=rates, catalogue=catalog, progress=progress)
    say_accounts("simulated spectra", report)
