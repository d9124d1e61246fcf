"""Options shared by several commands, and the atlas, model and Dask client that they select."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dask.distributed import Client

    from specclip_search.training.model import Model

    from ..atlas import Atlas

AtlasOption = Annotated[
    Path,
    typer.Option("--atlas", "-a", envvar="SPECCLIP_ATLAS", metavar="DIR", help="The atlas folder.", show_envvar=True),
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        metavar="FORMAT",
        help="table, csv, json, parquet, votable or fits; by default from the suffix of --output, else table.",
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write the rows to this file instead of the terminal."),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", metavar="NAME", help="Model to use; by default the atlas's active one.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", "-j", min=1, metavar="N", help="Number of processes; by default one per core."),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option("--scheduler", metavar="ADDRESS", help="Run on this Dask cluster: tcp://host:8786."),
]
UnitOption = Annotated[
    str | None,
    typer.Option("--unit", metavar="UNIT", help="Wavelength unit of a file that does not say: Angstrom, nm, um."),
]
MediumOption = Annotated[
    str | None,
    typer.Option("--medium", metavar="air|vacuum", help="Medium of a file's wavelengths, if it does not say."),
]
AsOption = Annotated[
    str | None,
    typer.Option("--as", metavar="MODALITY", help="Instrument of a file that does not say: a folder of spectra/."),
]
ResolutionOption = Annotated[
    float | None,
    typer.Option("--resolution", min=1, metavar="R", help="Resolving power of a file that does not say."),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, metavar="S", help="Random seed.")]


_partial = False


def allow_partial(allowed: bool) -> None:
    """Whether commands of this call may answer from an atlas with missing shards."""
    global _partial
    _partial = allowed


def open_atlas(path: Path) -> Atlas:
    """The atlas at `path`; raises `AtlasError` if there is none."""
    from ..atlas import Atlas

    if open_atlases and not _partial and (kept := open_atlases.get((os.getcwd(), str(path)))) is not None:
        return kept
    return Atlas(path, allow_partial=_partial)


open_atlases: dict[tuple[str, str], Atlas] = {}
"""Atlases that a resident process keeps open, by working folder and path as given: messages name it as given."""


def create_atlas(path: Path) -> Atlas:
    """The atlas at `path`, created if there is none."""
    from ..atlas import Atlas

    return Atlas.create(path)


@contextmanager
def optional_client(scheduler: str | None) -> Iterator[Client | None]:
    """A client of the given Dask scheduler; None if none was given."""
    if scheduler is None:
        yield None
        return
    from ..stages.cluster import dask_client

    with dask_client(scheduler) as client:
        yield client


DEFAULT_MODEL = "mini"


def chosen_model(atlas: Atlas, name: str, *, device: str = "auto", precision: str = "float32") -> Model:
    """The model of that name in the atlas, else a model folder, else a shipped one.

    Without a name: the atlas's active model, else the shipped `mini`.
    """
    from specclip_search.training.model import load_model

    wanted = name or atlas.active_model or DEFAULT_MODEL
    kept = atlas.models()
    source = atlas.model_folder(wanted) if wanted in kept else wanted
    return load_model(source, device=device, precision=precision)
