"""`specclip-search link`"""

from __future__ import annotations

from typing import Annotated

import typer

from ..options import AtlasOption, open_atlas
from ..reports import say

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def link(
    atlas: AtlasOption,
    catalog: Annotated[
        str | None,
        typer.Option(
            "--catalog",
            metavar="NAME",
            help="Catalogue with source_id, ra, dec and, for proper motion, pmra, pmdec; "
            "by default the atlas's own XP spectra.",
        ),
    ] = None,
    radius: Annotated[
        float, typer.Option("--radius", min=0.01, max=60.0, metavar="ARCSEC", help="Largest separation.")
    ] = 2.0,
    lamost_epoch: Annotated[
        float, typer.Option("--lamost-epoch", metavar="YEAR", help="Epoch of LAMOST's positions.")
    ] = 2000.0,
    gaia_epoch: Annotated[
        float | None,
        typer.Option(
            "--gaia-epoch",
            metavar="YEAR",
            help="Epoch of the catalogue's positions; by default its column ref_epoch, else that of its release.",
        ),
    ] = None,
) -> None:
    """Find the Gaia star of each LAMOST spectrum: by id if a catalogue gives it, else by position.

    Ambiguous matches are reported but not linked; `SELECT * FROM links WHERE candidates > 1` lists them.

    Example: specclip-search link --catalog gaia --radius 3 --atlas my-atlas
    """
    from specclip_search.queries.sky.link import link_stars

    report = link_stars(
        open_atlas(atlas), catalog, radius_arcsec=radius, lamost_epoch=lamost_epoch, gaia_epoch=gaia_epoch
    )
    visits = f" (of {report.visits:,} spectra, some in several releases)" if report.visits != report.spectra else ""
    say(
        f"{report.spectra:,} LAMOST obsids{visits} = {report.by_id:,} linked by id "
        f"+ {report.by_position:,} by position + {report.ambiguous:,} ambiguous "
        f"+ {report.unmatched:,} without a star within {radius:g} arcsec "
        f"+ {report.without_position:,} without position"
        + (f" + {report.elsewhere:,} whose star in a catalogue lies elsewhere" if report.elsewhere else "")
    )
    say(f"Positions of the stars are of J{report.gaia_epoch:g}.")
    if report.translated:
        say(f"{report.translated:,} stars have another id in the catalogue; the cross-walk gave that of XP spectra.")
    if not report.spectra:
        say("The atlas holds only simulated LAMOST spectra, whose stars are known: there is nothing to link.")
    if report.elsewhere:
        say(
            f"{report.elsewhere:,} obsids are given stars more than 10 arcsec from their own position, as by ids "
            "of another Gaia release; none of them is linked (`SELECT * FROM links WHERE conflict`)."
        )
    if report.conflicts:
        say(f"{report.conflicts:,} obsids have different stars in different catalogues; they were matched by position.")
