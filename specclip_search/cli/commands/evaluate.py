"""`specclip-search evaluate`"""

from __future__ import annotations

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
    seed: SeedOption = 0,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Score every search on a simulated survey with known truth, with 95 % intervals.

    Needs `simulate --stars N`, then `embed`, `translate` and `index build`.

    Example: specclip-search evaluate --atlas demo-atlas --format json
    """
    from specclip_search.queries.evaluation.evaluate import evaluate as measure

    from ...tables import require_writable
    from ..reports import deliver

    require_writable(format, output)
    with progress_bar("evaluate", "parts") as progress:
        frame = measure(open_atlas(atlas), model, below=below, seed=seed, progress=progress)
    deliver(frame, format, output)
