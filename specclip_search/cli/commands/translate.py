"""`specclip-search translate`"""

from __future__ import annotations

import typer

from ..options import AtlasOption, ModelOption, SchedulerOption, open_atlas, optional_client
from ..progress import progress_bar
from ..reports import say

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def translate(atlas: AtlasOption, model: ModelOption = None, scheduler: SchedulerOption = None) -> None:
    """Predict each star's spectrum in one instrument from the other, both ways, and store the errors.

    Only stars with both spectra (a common source_id) can be translated. Up-to-date shards are kept.

    Example: specclip-search translate --atlas my-atlas
    """
    from specclip_search.queries.translation.translate import translate as translate_atlas

    with optional_client(scheduler) as client, progress_bar("translate", "pairs") as progress:
        report = translate_atlas(open_atlas(atlas), model, progress=progress, client=client)
    say(
        f"{report.pairs:,} pairs have translation errors; {report.shards_written} shards written, "
        f"{report.shards_current} were up to date",
        f"sigma includes the model's own error, learned from {report.error_stars:,} {report.error_split} stars",
        *report.notes,
    )
