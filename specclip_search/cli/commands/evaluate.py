"""`specclip-search evaluate`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import AtlasOption, FormatOption, ModelOption, OutputOption, SeedOption, open_atlas
from ..progress import progress_bar

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def evaluate(
    atlas: AtlasOption,
    below: Annotated[
        float, typer.Option("--below", metavar="DEX", help="[Fe/H] below which a star counts as metal-poor.")
    ] = -3.0,
    model: ModelOption = None,
    real: Annotated[
        Path | None,
        typer.Option("--real", metavar="DIR", help="Score on the real spectra in this folder (docs/real_spectra.md)."),
    ] = None,
    seed: SeedOption = 0,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Score every search on a simulated survey with known truth, with 95 % intervals; with --real on real spectra.

    Needs `simulate --stars N`, then `embed`, `translate` and `index build`. With --real: an atlas of real labelled XP
    stars (`ingest library --stars all`, `embed`, `index build`) and a folder of LAMOST, MILES and XP spectra.

    Example: specclip-search evaluate --atlas demo-atlas --format json

    specclip-search evaluate --real DIR --atlas xp-atlas --output real.csv
    """
    from specclip_search.queries.evaluation.evaluate import evaluate as measure

    from ...tables import require_writable
    from ..reports import deliver

    require_writable(format, output)
    if real is not None:
        from specclip_search.queries.evaluation.real import evaluate_real

        with progress_bar("evaluate", "parts") as progress:
            deliver(evaluate_real(open_atlas(atlas), real, model, seed=seed, progress=progress), format, output)
        return
    with progress_bar("evaluate", "parts") as progress:
        frame = measure(open_atlas(atlas), model, below=below, seed=seed, progress=progress)
    deliver(frame, format, output)
