"""`specclip-search changes`"""

from __future__ import annotations

from typing import Annotated

import typer

from ..options import AtlasOption, FormatOption, OutputOption, open_atlas
from ..progress import progress_bar
from ..reports import deliver, say

FIRST_CHANGED = ("spec_id", "visits", "kind", "p_value", "rv_change", "what")
FIRST_VISITS = ("spec_id", "time", "snr", "rv", "rv_err", "what")

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def changes(
    atlas: AtlasOption,
    key: Annotated[
        str | None, typer.Option("--key", metavar="TARGET", help="Visits of this star: a key, a name or a position.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="Number of stars to list.")] = 100,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """List stars whose spectra changed between visits: velocity, lines, a second set of lines, and when.

    Needs spectra as observed, which `ingest` keeps. p-values are learned from the atlas's own repeats. Results are the
    tables `changes` and `visit_changes` in SQL.

    Example: specclip-search changes --top 20 --atlas my-atlas
    """
    from specclip_search.queries.changes.changes import changes as rank

    from ...tables import require_writable

    require_writable(format, output)
    with progress_bar("compare", "visits") as progress:
        frame = rank(open_atlas(atlas), top, key=key, progress=progress)
    deliver(frame, format, output, FIRST_CHANGED if key is None else FIRST_VISITS)
    if not frame["p_velocity"].notna().any():
        say("Fewer than 20 pairs of visits can be compared: there are no p-values, and nothing is named a change.")
