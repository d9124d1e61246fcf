"""`specclip-search similar`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..options import (
    AsOption,
    AtlasOption,
    FormatOption,
    MediumOption,
    ModelOption,
    OutputOption,
    ResolutionOption,
    UnitOption,
    open_atlas,
)
from ..quick_start import keep_pandas_out
from ..reports import deliver, say

if TYPE_CHECKING:
    import pandas as pd

# columns shown first on a terminal
FIRST = (
    "target", "rank", "modality", "spec_id", "similarity", "teff", "logg", "feh", "snr",
    "teff_estimated", "logg_estimated", "feh_estimated", "feh_err_estimated", "ra", "dec",
)  # fmt: skip

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def similar(
    atlas: AtlasOption,
    targets_given: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TARGET...",
            help="lamost:OBSID, lamost:OBSID@RELEASE, gaia:SOURCE_ID, a spectrum file (FILE#ROW, ARCHIVE!MEMBER), "
            "'Gaia DR3 ID', 'RA DEC', or a name in one of the atlas's catalogues.",
        ),
    ] = None,
    star: Annotated[
        list[str] | None,
        typer.Option("--star", metavar="LABELS",
                     help="Search with a model spectrum, e.g. teff=4900,logg=1.8,feh=-3.1,c_fe=1.5; repeatable."),
    ] = None,
    but: Annotated[
        str | None,
        typer.Option("--but", metavar="CHANGES", help="Search with the targets changed, e.g. feh=-1,teff=200."),
    ] = None,
    binary: Annotated[
        list[str] | None,
        typer.Option("--binary", metavar="LABELS;LABELS",
                     help="Search with the summed light of two stars, e.g. 'teff=5800,logg=4.4;teff=4500,logg=4.6'."),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--count", min=1, max=10_000, metavar="K", help="Number of neighbours.")] = 20,
    within: Annotated[
        str | None,
        typer.Option("--within", metavar="MODALITY",
                     help="Search only this instrument, named as its folder in spectra/; by default all."),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="SQL", help="SQL condition on the view `spectra`, e.g. 'teff > 4500'."),
    ] = None,
    combine: Annotated[str, typer.Option("--combine", help="For several targets: each, mean or any.")] = "each",
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every spectrum, without the index.")] = False,
    include_self: Annotated[bool, typer.Option("--include-self", help="Include the target itself.")] = False,
    exclude_repeats: Annotated[
        bool, typer.Option("--exclude-repeats", help="Leave out every spectrum of the target's star.")
    ] = False,
    summary: Annotated[
        bool, typer.Option("--summary", help="Print a summary of the neighbours' labels to stderr.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Plot target and neighbours to a .png, .svg or .pdf file."),
    ] = None,
    unit: UnitOption = None,
    medium: MediumOption = None,
    instrument: AsOption = None,
    resolution: ResolutionOption = None,
    model: ModelOption = None,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Find the spectra most similar to a given one, within an instrument or across instruments.

    Example: specclip-search similar gaia:1624605949904837888 -k 10 --within gaia_xp --atlas demo-atlas
    """
    keep_pandas_out()
    from specclip_search.queries.similar.similar import similar_table

    from ...tables import require_writable
    from ...tables.provenance import to_frame

    targets = _all_targets(targets_given or [], star or [], binary or [], but)
    require_writable(format, output)
    if plot is not None:
        from ...tables.pictures import picture_format

        picture_format(plot)
    atlas_there = open_atlas(atlas)
    table = similar_table(
        atlas_there,
        targets if len(targets) > 1 else targets[0],
        k=k,
        within=within,
        where=where,
        exact=exact,
        model=model,
        exclude_self=not include_self,
        exclude_repeats=exclude_repeats,
        combine=combine,
        unit=unit,
        medium=medium,
        modality=instrument,
        resolution=resolution,
    )
    deliver(table, format, output, FIRST)
    found = sorted(set(table["modality"].to_pylist()))
    if len(found) > 1:
        choices = " or ".join(f"--within {name}" for name in found)
        say("Similarities are comparable only within one instrument, and are lower across: the lists are merged by "
            f"rank. {choices} gives one of them.")
    if plot is not None:
        from specclip_search.queries.similar.picture import plot_similar

        plot_similar(atlas_there, to_frame(table), plot)
    if summary:
        from specclip_search.queries.similar.summary import summarise

        say(*_summary_lines(summarise(to_frame(table))))


def _all_targets(named: list[str], stars: list[str], binaries: list[str], but: str | None) -> list[str]:
    """Every target of the call, as the text that a search takes."""
    if but is not None and not named:
        raise typer.BadParameter("it changes a star of the atlas, and none is named: specclip-search similar KEY --but "
                                 "feh=-1", param_hint="--but")
    for text in binaries:
        if ";" not in text:
            raise typer.BadParameter(f"two stars are needed, separated by ';'; found '{text}'", param_hint="--binary")
    targets = [*(named if but is None else [f"{one} but {but}" for one in named]), *stars, *binaries]
    if not targets:
        raise typer.BadParameter("name a spectrum, or describe a star with --star or --binary",
                                 param_hint="TARGET")
    return targets


def _summary_lines(summary: pd.DataFrame) -> list[str]:
    """One line per label, preceded by the target if there were several."""
    if summary.empty:
        return ["none of the neighbours has labels"]
    targets = summary["target"] if "target" in summary else [None] * len(summary)
    return [f"{target}: {text}" if target else text for target, text in zip(targets, summary["text"], strict=True)]
