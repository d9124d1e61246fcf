"""`specclip-search spectrum`"""

from __future__ import annotations

from typing import Annotated

import typer

from ..options import AtlasOption, FormatOption, OutputOption, open_atlas
from ..reports import say

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def spectrum(
    atlas: AtlasOption,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="lamost:OBSID or gaia:SOURCE_ID, optionally @RELEASE; or a file.")
    ],
    send: Annotated[
        str | None,
        typer.Option(
            "--send", metavar="PROGRAM", help="Send it by SAMP to splat, topcat, ... or all, instead of printing."
        ),
    ] = None,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Write the model's input of one spectrum (wavelength, flux, error), or send it to another program.

    Example: specclip-search spectrum gaia:428578160659524352 --output spectrum.vot --atlas demo-atlas
    """
    from specclip_search.queries.sql.spectrum_table import spectrum_table, ssa_meta

    from ...tables import format_of, write_rows

    format_of(format, output)
    table = spectrum_table(open_atlas(atlas), target)
    if send is not None:
        from ...tables.samp import send_spectrum

        client = None if send.lower() == "all" else send
        say(f"{target} sent to {', '.join(send_spectrum(table, target, ssa_meta(table), client=client))}")
    if send is None or output is not None:
        write_rows(table, format, output)
