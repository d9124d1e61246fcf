"""`specclip-search anomalies` and `anomalies label`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...errors import QueryError
from ..options import FormatOption, ModelOption, OutputOption, open_atlas
from ..progress import progress_bar
from ..quick_start import keep_pandas_out
from ..reports import deliver, say
from .changes import FIRST_CHANGED

# columns shown first on a terminal
FIRST = ("rank", "source_id", "score", "q_value", "kind", "reason")
FIRST_WITHIN = ("rank", "spec_id", "score", "q_value", "reason")

# `anomalies label --help` must not ask for an atlas first
OptionalAtlas = Annotated[
    Path | None,
    typer.Option("--atlas", "-a", envvar="SPECCLIP_ATLAS", metavar="DIR", help="The atlas folder.", show_envvar=True),
]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def anomalies(
    context: typer.Context,
    atlas: OptionalAtlas = None,
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="Number of stars to list.")] = 100,
    neighbours: Annotated[
        int,
        typer.Option(
            "-k",
            "--neighbours",
            min=4,
            max=1000,
            metavar="K",
            help="Number of neighbours that a star is compared with.",
        ),
    ] = 32,
    every_visit: Annotated[bool, typer.Option("--every-visit", help="One row per visit instead of per star.")] = False,
    within: Annotated[
        str | None,
        typer.Option(
            "--within", metavar="MODALITY",
            help="Rank the spectra of this instrument alone; named as its folder in spectra/.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by", metavar="QUANTITY", help="Rank by one quantity instead of the score: emission, identity, ..."
        ),
    ] = None,
    ignore_verdicts: Annotated[
        bool, typer.Option("--ignore-verdicts", help="Ignore your verdicts; rank by the score alone.")
    ] = False,
    model: ModelOption = None,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """List the most anomalous stars: translation errors compared with those of a star's neighbours, with reasons.

    Needs `translate` and `index build` first. The scores of all pairs are stored as the table `anomalies` in SQL.
    --by ranks by one of the columns z_QUANTITY: identity finds wrong matches, emission emission lines. --by change
    lists stars that changed between visits, as the command `changes` does.

    Example: specclip-search anomalies --atlas demo-atlas --top 10
    """
    context.obj = atlas
    if context.invoked_subcommand is not None:
        return
    atlas = _required(atlas)
    keep_pandas_out()
    from specclip_search.queries.anomalies.anomalies import anomalies_table

    from ...tables import require_writable

    require_writable(format, output)
    if within is not None:
        from specclip_search.queries.anomalies.one_instrument import anomalies_within

        with progress_bar("score", "spectra") as progress:
            frame = anomalies_within(
                open_atlas(atlas), within, top, model, neighbours, group=not every_visit, by=by, progress=progress
            )
        deliver(
            frame, format, output, FIRST_WITHIN if by is None else (*FIRST_WITHIN[:3], f"z_{by}", *FIRST_WITHIN[4:])
        )
        return
    if by == "change":
        from specclip_search.queries.changes.changes import changes

        with progress_bar("compare", "visits") as progress:
            changed = changes(open_atlas(atlas), top, progress=progress)
        deliver(changed, format, output, FIRST_CHANGED)
        return
    with progress_bar("score", "pairs") as progress:
        table = anomalies_table(
            open_atlas(atlas),
            top=top,
            model=model,
            k=neighbours,
            group=not every_visit,
            learn=not ignore_verdicts,
            by=by,
            progress=progress,
        )
    deliver(table, format, output, FIRST if by is None else (*FIRST[:3], f"z_{by}", *FIRST[4:]))


def _required(atlas: Path | None) -> Path:
    if atlas is None:
        raise QueryError("No atlas was given.", "Give its folder with --atlas, before `label`, or in SPECCLIP_ATLAS.")
    return atlas


@app.command("label")
def label(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="lamost:OBSID or gaia:SOURCE_ID of a scored pair.")],
    verdict: Annotated[str, typer.Argument(metavar="VERDICT", help="interesting, artifact or normal.")],
) -> None:
    """Store your verdict on a star; the ranking uses it for stars that are anomalous in the same way.

    Example: specclip-search anomalies --atlas demo-atlas label gaia:428578160659524352 interesting
    """
    from specclip_search.queries.anomalies.verdicts import record_verdict

    pairs = record_verdict(open_atlas(_required(context.obj)), key, verdict)
    say(f"{key} is {verdict} ({pairs} scored {'pair' if pairs == 1 else 'pairs'}); `anomalies` uses it from now on.")
