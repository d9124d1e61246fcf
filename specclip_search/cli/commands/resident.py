"""`specclip-search resident`"""

from __future__ import annotations

from typing import Annotated

import typer

from ..reports import say

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def resident() -> None:
    """Keep the program loaded in the background, so that the next commands answer at once.

    While it runs, `similar`, `anomalies`, `emp`, `sql` and `spectrum` go through it, with the same output. Set
    SPECCLIP_RESIDENT=off to run one without it. Only you can reach it; it ends itself when it is idle.

    Example: specclip-search resident start
    """


@app.command("start")
def start(
    idle: Annotated[
        float, typer.Option("--idle", min=0.001, metavar="MIN", help="End after this many minutes without a command.")
    ] = 30.0,
) -> None:
    """Start the resident process.

    Example: specclip-search resident start --idle 120
    """
    from ..resident import start as begin

    process = begin(60.0 * idle)
    say(f"The resident process {process} runs; it ends after {idle:g} minutes without a command.")


@app.command("stop")
def stop() -> None:
    """End the resident process.

    Example: specclip-search resident stop
    """
    from ..resident import stop as end

    say("The resident process has ended." if end() else "No resident process runs.")


@app.command("status")
def status() -> None:
    """Say whether a resident process runs. Exit code 1 if none does.

    Example: specclip-search resident status
    """
    from ..resident import running

    process = running()
    say("No resident process runs." if process is None else f"The resident process {process} runs.")
    if process is None:
        raise typer.Exit(1)
