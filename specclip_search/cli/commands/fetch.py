"""`specclip-search fetch gaia-xp | lamost | catalog`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..progress import progress_bar
from ..reports import say

if TYPE_CHECKING:
    from ...fetch import FetchReport
    from ...fetch.patience import Patience

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Download files that `ingest` takes: in chunks, resumable, each missing id named. Needs the extra `fetch`.",
)

FolderOption = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="New folder; the same one continues a download.")
]
ConeOption = Annotated[
    str | None, typer.Option("--cone", metavar="RA,DEC,RADIUS", help="All stars of a circle, degrees.")
]
SqlOption = Annotated[str | None, typer.Option("--sql", metavar="ADQL", help="The archive's query language.")]
CredentialsOption = Annotated[
    Path | None,
    typer.Option("--credentials", metavar="FILE", help="User's name and password, in two lines; else anonymous."),
]
ChunkOption = Annotated[int, typer.Option("--chunk", metavar="N", help="Ids a request, at most 5000.")]
PauseOption = Annotated[
    float, typer.Option("--pause", min=0, metavar="SECONDS", help="Least time between two requests.")
]
TriesOption = Annotated[int, typer.Option("--tries", min=1, metavar="N", help="Times that one thing is asked for.")]
WaitOption = Annotated[
    float, typer.Option("--wait", min=0, metavar="SECONDS", help="Before the second try; doubled each time.")
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="Time without a byte that ends a request.")
]


@app.command("gaia-xp")
def fetch_gaia_command(
    output: FolderOption,
    ids: Annotated[
        Path | None, typer.Option("--ids", metavar="FILE", help="Gaia ids: one a line, or a table with source_id.")
    ] = None,
    cone: ConeOption = None,
    sql: SqlOption = None,
    release: Annotated[str, typer.Option("--release", metavar="NAME", help="dr3 or dr4.")] = "dr3",
    product: Annotated[
        str, typer.Option("--product", metavar="NAME", help="continuous (coefficients), or of DR3 sampled.")
    ] = "continuous",
    form: Annotated[
        str, typer.Option("--format", "-f", metavar="FORMAT", help="csv, ecsv, fits or votable.")
    ] = "csv",
    archive: Annotated[
        str, typer.Option("--archive", metavar="URL", help="Address of the server.")
    ] = "https://gea.esac.esa.int",
    credentials: CredentialsOption = None,
    chunk: ChunkOption = 2000,
    pause: PauseOption = 0.2,
    tries: TriesOption = 5,
    wait: WaitOption = 2.0,
    timeout: TimeoutOption = 120.0,
) -> None:
    """Download Gaia XP spectra through DataLink, as zip archives that `ingest gaia-xp` takes.

    DataLink leaves out ids without a word: what came is compared with what was asked for, and asked for again.

    Example: specclip-search fetch gaia-xp --cone 56.75,24.12,0.5 --release dr3 --output pleiades
    """
    from ...fetch import fetch_gaia_xp

    with progress_bar("fetch gaia-xp", "ids") as progress:
        report = fetch_gaia_xp(
            output, ids=ids, cone=cone_of(cone), sql=sql, release=release, product=product, form=form,
            archive=archive, credentials=credentials, chunk=chunk, progress=progress,
            patience=_patience(pause, tries, wait, timeout),
        )  # fmt: skip
    _say(report, "ids", f"specclip-search ingest gaia-xp {output}")


@app.command("lamost")
def fetch_lamost_command(
    output: FolderOption,
    obsids: Annotated[
        Path, typer.Option("--obsids", metavar="FILE", help="Obsids: one a line, or a table with obsid.")
    ],
    release: Annotated[str, typer.Option("--release", metavar="NAME", help="For example dr11.")],
    version: Annotated[str, typer.Option("--version", metavar="NAME", help="Version of the release.")] = "v2.0",
    medium: Annotated[bool, typer.Option("--mrs", help="Medium-resolution spectra.")] = False,
    archive: Annotated[
        str, typer.Option("--archive", metavar="URL", help="Address of the server.")
    ] = "https://www.lamost.org",
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="A registered user's token, in one line.")
    ] = None,
    pause: PauseOption = 0.2,
    tries: TriesOption = 5,
    wait: WaitOption = 2.0,
    timeout: TimeoutOption = 120.0,
) -> None:
    """Download LAMOST spectra by obsid, one file each.

    Example: specclip-search fetch lamost --obsids stars.csv --release dr11 --output dr11-stars
    """
    from ...fetch import fetch_lamost

    token = None if token_file is None else token_file.read_text(encoding="utf-8").strip()
    with progress_bar("fetch lamost", "obsids") as progress:
        report = fetch_lamost(
            output, obsids=obsids, release=release, version=version, medium=medium, archive=archive, token=token,
            progress=progress, patience=_patience(pause, tries, wait, timeout),
        )  # fmt: skip
    _say(report, "obsids", f"specclip-search ingest {'lamost-mrs' if medium else 'lamost'} {output}")


@app.command("catalog")
def fetch_catalog_command(
    output: FolderOption,
    table: Annotated[
        str | None, typer.Argument(metavar="TABLE", help="Table of the archive, for example gaiadr3.gaia_source.")
    ] = None,
    columns: Annotated[str | None, typer.Option("--columns", metavar="A,B,...", help="By default all.")] = None,
    ids: Annotated[Path | None, typer.Option("--ids", metavar="FILE", help="One id a line, or a table.")] = None,
    key: Annotated[str, typer.Option("--key", metavar="COLUMN", help="The table's column of ids.")] = "source_id",
    cone: ConeOption = None,
    sql: SqlOption = None,
    archive: Annotated[
        str, typer.Option("--archive", metavar="URL", help="The Gaia archive, or a TAP service: https://host/context/tap.")
    ] = "https://gea.esac.esa.int",
    credentials: CredentialsOption = None,
    chunk: ChunkOption = 2000,
    pause: PauseOption = 0.2,
    tries: TriesOption = 5,
    wait: WaitOption = 2.0,
    timeout: TimeoutOption = 120.0,
) -> None:
    """Download rows of a table from a TAP service, as Parquet files that `ingest catalog` takes.

    Example: specclip-search fetch catalog gaiadr3.gaia_source --columns ra,dec,pmra,pmdec --ids stars.txt -o gaia
    """
    from ...fetch import fetch_catalog

    with progress_bar("fetch catalog", "ids") as progress:
        report = fetch_catalog(
            output, table=table, columns=None if columns is None else [name.strip() for name in columns.split(",")],
            ids=ids, key=key, cone=cone_of(cone), sql=sql, archive=archive, credentials=credentials, chunk=chunk,
            progress=progress, patience=_patience(pause, tries, wait, timeout),
        )  # fmt: skip
    _say(report, "ids", f"specclip-search ingest catalog NAME {output}")


def cone_of(text: str | None) -> tuple[float, float, float] | None:
    """`RA,DEC,RADIUS` as numbers.

    Raises
    ------
    QueryError
        If it is not three numbers.
    """
    from ...errors import QueryError

    if text is None:
        return None
    try:
        ra, dec, radius = (float(part) for part in text.split(","))
    except ValueError:
        raise QueryError(f"--cone takes RA,DEC,RADIUS in degrees; found '{text}'.", "--cone 56.75,24.12,0.5") from None
    return ra, dec, radius


def _patience(pause: float, tries: int, wait: float, timeout: float) -> Patience:
    from ...fetch.patience import Patience

    return Patience(tries=tries, wait=wait, pause=pause, timeout=timeout)


def _say(report: FetchReport, what: str, then: str) -> None:
    if report.asked:
        say(f"{report.asked:,} {what} asked = {report.got:,} got + {len(report.missing):,} missing")
        if report.repeated:
            say(f"  {report.repeated:>8,}  were given more than once and asked for once")
        shown = list(report.missing.items())[:5]
        say(*(f"  {one}: {why}" for one, why in shown))
        if len(report.missing) > len(shown):
            say(f"  and {len(report.missing) - len(shown):,} more: all are in {report.folder / 'missing.txt'}")
    say(f"{report.files:,} files in {report.folder}" + ("" if report.requests else "; nothing was left to fetch"))
    if report.files:
        say(f"Then: {then}")
