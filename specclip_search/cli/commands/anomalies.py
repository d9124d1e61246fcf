"""`specclip-search anomalies` and `anomalies label`"""

from __future__ import annotations

from typing import Annotated

import typer

from ..options import AtlasOption, FormatOption, ModelOption, OutputOption, open_atlas
from ..progress import progress_bar
from ..reports import deliver, say

# columns shown first on a terminal
FIRST = ("rank", "source_id", "score", "q_value", "kind", "reason")
FIRST_WITHIN = ("rank", "spec_id", "score", "q_value", "reason")

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def anomalies(
    context: typer.Context,
    atlas: AtlasOption,
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
            "--within", metavar="MODALITY", help="lamost_lrs or gaia_xp: rank the spectra of this instrument alone."
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
    --by ranks by one of its columns z_QUANTITY: identity finds wrong matches, emission emission lines.

    Example: specclip-search anomalies --atlas demo-atlas --top 10
    """
    context.obj = atlas
    if context.invoked_subcommand is not None:
        return
    from specclip_search.queries.anomalies.anomalies import anomalies as rank
    from specclip_search.queries.anomalies.one_instrument import anomalies_within

    from ...errors import QueryError
    from ...tables import require_writable

    require_writable(format, output)
    if within is not None and by is not None:
        raise QueryError(
            "--by ranks pairs of spectra from two instruments; --within selects one instrument.",
            "Give only one of them.",
        )
    if within is not None:
        with progress_bar("score", "spectra") as progress:
            frame = anomalies_within(
                open_atlas(atlas), within, top, model, neighbours, group=not every_visit, progress=progress
            )
        deliver(frame, format, output, FIRST_WITHIN)
        return
    with progress_bar("score", "pairs") as progress:
        frame = rank(
            open_atlas(atlas),
            top=top,
            model=model,
            k=neighbours,
            group=not every_visit,
            learn=not ignore_verdicts,
            by=by,
            progress=progress,
        )
    deliver(frame, format, output, FIRST if by is None else (*FIRST[:3], f"z_{by}", *FIRST[4:]))


@app.command("label")
def label(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="lamost:OBSID or gaia:SOURCE_ID of a scored pair.")],
    verdict: Annotated[str, typer.Argument(metavar="VERDICT", help="interesting, artifact or normal.")],
) -> None:
    """Store your verdict on a star; the ranking uses it for stars that are anomalous in the same way.

    Example: specclip-search anomalies --atlas demo-atlas label gaia:428578160659524352 interesting
    """
    from specclip_search.queries.anomalies.verdicts import judge

    pairs = judge(open_atlas(context.obj), key, verdict)
    say(f"{key} is {verdict} ({pairs} scored {'pair' if pairs == 1 else 'pairs'}); `anomalies` uses it from now on.")
