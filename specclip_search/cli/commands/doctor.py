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
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH...", help="Rehearse the ingest of these Gaia XP files, column by column."),
    ] = None,
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
    release: Annotated[
        str | None, typer.Option("--release", metavar="NAME", help="Gaia release of the files: dr3, dr4.")
    ] = None,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Check the installation and the atlas, and report problems. Exit code 1 if there is a problem.

    With files it rehearses their ingest instead, and writes nothing: see docs/dr4.md.

    Example: specclip-search doctor --release dr4 ~/downloads/gaia
    """
    if paths or release:
        _rehearse(paths or [], release, format, output)
        return
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


def _rehearse(paths: list[Path], release: str | None, format: str | None, output: Path | None) -> None:
    import pyarrow as pa

    from ...errors import QueryError
    from ...ingest.rehearsal import rehearse
    from ...tables import write_rows

    if not paths:
        raise QueryError(
            "--release is for the rehearsal of files, and no file was given.",
            f"For example: specclip-search doctor --release {release} ~/downloads/gaia",
        )
    lines = rehearse(paths, release)
    rows = [
        {
            "file": Path(line.file).name if line.column is None else "",
            "product": line.product if line.column is None else "",
            "column": line.column or "",
            "status": line.status,
            "read_as": line.read_as,
            "note": line.note,
        }
        for line in lines
    ]
    write_rows(pa.Table.from_pylist(rows), format, output)
    if any(line.status == "problem" for line in lines):
        raise typer.Exit(1)
