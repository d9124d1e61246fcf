"""`specclip-search spectrum`"""

from __future__ import annotations

from typing import Annotated

import typer

from ...errors import QueryError
from ..options import AsOption, AtlasOption, FormatOption, MediumOption, OutputOption, UnitOption, open_atlas
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
    observed: Annotated[
        bool, typer.Option("--observed", help="As observed, over the survey's full range, not the model's input.")
    ] = False,
    epoch: Annotated[
        int | None, typer.Option("--epoch", metavar="N", help="Visit or exposure; by default the combined spectrum.")
    ] = None,
    unit: UnitOption = None,
    medium: MediumOption = None,
    instrument: AsOption = None,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Write one spectrum (wavelength, flux, error), or send it to another program.

    By default it is the model's input; with --observed, what the survey delivered.

    Example: specclip-search spectrum gaia:428578160659524352 --output spectrum.vot --atlas demo-atlas
    """
    from specclip_search.queries.sql.spectrum_table import observed_table, spectrum_table, ssa_meta

    from ...tables import format_of, write_rows

    format_of(format, output)
    if epoch is not None and not observed:
        raise QueryError("--epoch chooses a spectrum as observed.", "Add --observed.")
    if observed:
        table = observed_table(open_atlas(atlas), target, epoch=epoch)
    else:
        table = spectrum_table(open_atlas(atlas), target, unit=unit, medium=medium, modality=instrument)
    if send is not None:
        from ...tables.samp import send_spectrum

        client = None if send.lower() == "all" else send
        say(f"{target} sent to {', '.join(send_spectrum(table, target, ssa_meta(table), client=client))}")
    if send is None or output is not None:
        write_rows(table, format, output)
