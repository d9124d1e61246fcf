"""The program `specclip-search`: one group whose commands are imported only when they run."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from ..errors import SpecclipError, printable

PROGRAM = "specclip-search"
ALLOW_PARTIAL = "--allow-partial"

# name -> one line of help. The module is specclip_search.cli.commands.<name with _>; it is
# imported when the command runs, so that --help costs the interpreter's start and typer alone.
COMMANDS: dict[str, str] = {
    "demo": "Build a small atlas from real Gaia XP stars and run the three searches.",
    "ingest": "Read LAMOST spectra, Gaia XP spectra or a catalogue into the atlas.",
    "link": "Find the Gaia star of each LAMOST spectrum, by id or by position.",
    "simulate": "Pair the atlas's Gaia XP stars with simulated LAMOST spectra.",
    "train": "Train a model from a recipe.",
    "model": "List, show, import or choose models.",
    "embed": "Turn spectra into vectors.",
    "estimate": "Estimate stellar labels from vectors.",
    "translate": "Turn pairs of spectra into translation errors.",
    "index": "Build, inspect, check or tune the vector index.",
    "similar": "Find the spectra most like a given one.",
    "anomalies": "List the strangest stars, with reasons.",
    "emp": "List candidates for extremely metal-poor stars, with evidence.",
    "map": "Draw the space of spectra as a map, coloured by any column.",
    "report": "Write what was searched and found as one HTML page.",
    "evaluate": "Score the searches against a simulated survey's known truth.",
    "spectrum": "Write one spectrum of the atlas, or send it to another program.",
    "sql": "Ask the atlas in SQL.",
    "crossmatch": "Match two tables by position on the sky.",
    "export": "Write a whole table for other programs.",
    "doctor": "Say what is installed, what is in the atlas and what is wrong.",
}


class LazyGroup(typer.core.TyperGroup):
    """A command group that knows its commands by name and loads one when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"specclip_search.cli.commands.{cmd_name.replace('-', '_')}")
        return typer.main.get_command(module.app)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    name=PROGRAM,
    cls=LazyGroup,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"Begin with: {PROGRAM} demo",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from ..version import __version__

        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
    partial: Annotated[
        bool, typer.Option(ALLOW_PARTIAL, help="Answer also from an atlas with missing files, and say which.")
    ] = False,
) -> None:
    """Vector search and anomaly discovery for stellar spectra.

    Every command works on an atlas, a folder named by --atlas or by SPECCLIP_ATLAS.
    """
    from .options import allow_partial

    allow_partial(partial)


def run(arguments: Sequence[str] | None = None) -> None:
    """Entry point: exit code 0 done, 1 failed on the way, 2 bad request."""
    sys.exit(_guarded(list(sys.argv[1:] if arguments is None else arguments)))


def _guarded(arguments: list[str]) -> int:
    warnings.showwarning = _note
    # each call of this program tells what it has to tell, also where one process makes several
    warnings.simplefilter("always", UserWarning)
    arguments = _global_first(arguments)
    try:
        typer.main.get_command(app)(arguments, prog_name=PROGRAM)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except SpecclipError as error:
        _complain(error.message, error.hint)
        return error.exit_code
    except KeyboardInterrupt:
        _complain("stopped by the keyboard.", "Start the same command again to continue where it stopped.")
        return 130
    except BrokenPipeError:
        # the reader of our output (head, less) has gone; keep the interpreter from complaining at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("SPECCLIP_DEBUG"):
            raise
        _complain(
            f"failed on the way: {type(error).__name__}: {error}",
            "Set SPECCLIP_DEBUG=1 to see where; finished parts are kept, so the command can be repeated.",
        )
        return 1
    return 0


def _global_first(arguments: list[str]) -> list[str]:
    """An option of the program may stand behind the command as well, as users expect of one that all commands have."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    if ALLOW_PARTIAL not in arguments[:end]:
        return arguments
    return [ALLOW_PARTIAL, *(word for word in arguments[:end] if word != ALLOW_PARTIAL), *arguments[end:]]


def _note(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Tell what users are warned of, without the line of code it comes from; other kinds of warning stay silent."""
    if category is UserWarning:
        typer.echo(f"{PROGRAM}: note: {printable(str(message))}", err=True)


def _complain(message: str, hint: str) -> None:
    typer.echo(f"{PROGRAM}: {printable(message)}", err=True)
    if hint:
        typer.echo(printable(hint), err=True)
