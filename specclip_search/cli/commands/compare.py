"""`specclip-search compare`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import AtlasOption, FormatOption, OutputOption, open_atlas
from ..reports import deliver, say

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def compare(
    atlas: AtlasOption,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="NAME",
                     help="teff, logg, feh, alpha_fe, c_fe or rv; repeatable. By default all that two sources have."),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", metavar="NAME",
                     help="A catalogue, CATALOGUE.PIPELINE, xp or lrs; repeatable. By default all."),
    ] = None,
    reference: Annotated[
        str | None, typer.Option("--reference", metavar="NAME", help="The source whose offset is 0.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="SQL", help="Repeat the table in five bins of a column of `stars`, e.g. snr_lrs."),
    ] = None,
    show: Annotated[
        str, typer.Option("--show", metavar="TABLE", help="offsets, pairs, or stars whose sources disagree.")
    ] = "offsets",
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Plot differences of every two sources; needs one --label."),
    ] = None,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Compare labels of catalogues, of pipelines within them, and of this atlas over the stars they share.

    Offsets are solved together over all pairs; a note says what a disagreement looks like.

    Example: specclip-search compare --label feh --by snr_xp --atlas demo-atlas
    """
    from specclip_search.queries.compare.compare import compare as measure

    from ...tables import require_writable

    require_writable(format, output)
    if plot is not None:
        from ...tables.pictures import picture_format

        picture_format(plot)
        if not label or len(label) != 1:
            raise typer.BadParameter("a picture shows one label: add --label feh", param_hint="--plot")
    opened = open_atlas(atlas)
    deliver(measure(opened, label, source, reference, by, show), format, output)
    if plot is not None:
        from specclip_search.queries.compare.picture import plot_comparison

        plot_comparison(opened, plot, label[0] if label else "feh", source)
        say(f"picture written to {plot}")
