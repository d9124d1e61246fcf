"""`specclip-search doctor`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import FormatOption, OutputOption
from ..quick_start import keep_pandas_out

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def doctor(
    atlas: Annotated[
        Path | None,
        typer.Option("--atlas", "-a", envvar="SPECCLIP_ATLAS", metavar="DIR", help="Check this atlas too."),
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Re-read every shard and index file and check its digest.")
    ] = False,
    forget: Annotated[
        bool, typer.Option("--forget-missing", help="Give up missing shards: stages are what is there from now on.")
    ] = False,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Check the installation and the atlas, and report problems. Exit code 1 if there is a problem.

    Example: specclip-search doctor --atlas demo-atlas --deep
    """
    keep_pandas_out()
    import pyarrow as pa

    from ...tables import write_rows
    from ..doctor import examine_atlas, examine_installation, forget_missing

    findings = examine_installation()
    if atlas:
        findings += (forget_missing(atlas) if forget else []) + examine_atlas(atlas, deep)
    write_rows(
        pa.Table.from_pylist([{"status": f.status, "subject": f.subject, "finding": f.finding} for f in findings]),
        format,
        output,
    )
    if any(f.status == "problem" for f in findings):
        raise typer.Exit(1)
