"""`specclip-search emp`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import AtlasOption, FormatOption, ModelOption, OutputOption, open_atlas
from ..quick_start import keep_pandas_out

# columns shown first on a terminal
FIRST = (
    "rank", "source_id", "probability", "feh", "feh_err", "catalog_feh", "flags", "teff", "logg", "lrs_snr", "xp_snr",
    "ra", "dec",
)  # fmt: skip

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def emp(
    atlas: AtlasOption,
    below: Annotated[float, typer.Option("--below", metavar="DEX", help="[Fe/H] below which a star counts.")] = -3.0,
    known: Annotated[
        Path | None,
        typer.Option("--known", metavar="FILE", help="Known metal-poor stars: source_id, or ra and dec in degrees."),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="Number of candidates to list.")] = 100,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Plot of the list: sky map and histogram.")
    ] = None,
    sky: Annotated[Path | None, typer.Option("--sky", metavar="FILE", help="Plot of the list on the sky.")] = None,
    histogram: Annotated[
        Path | None, typer.Option("--histogram", metavar="FILE", help="Histogram of the list's [Fe/H].")
    ] = None,
    equatorial: Annotated[
        bool, typer.Option("--equatorial", help="Plot the sky in RA and Dec instead of Galactic coordinates.")
    ] = False,
    model: ModelOption = None,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """List candidates for extremely metal-poor stars, with probabilities and evidence.

    Example: specclip-search emp --below -2 --top 20 --plot poor.png --atlas demo-atlas
    """
    keep_pandas_out()
    from specclip_search.queries.emp.candidates import emp_table

    from ...tables import require_writable
    from ...tables.provenance import about_of, to_frame
    from ..reports import deliver, say

    require_writable(format, output)
    table = emp_table(open_atlas(atlas), below=below, known=known, top=top, model=model)
    deliver(table, format, output, FIRST)
    say(*about_of(table)["notes"])
    if plot or sky or histogram:
        from specclip_search.queries.emp import pictures as emp_pictures

        frame = to_frame(table)
        if plot:
            emp_pictures.draw(frame, plot, not equatorial)
        if sky:
            emp_pictures.sky_map(frame, sky, not equatorial)
        if histogram:
            emp_pictures.histogram(frame, histogram)
