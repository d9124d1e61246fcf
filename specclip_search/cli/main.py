"""The program `specclip-search`: one group whose commands are imported only when they run."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from ..errors import SpecclipError, printable
from .quick_start import read_plainly

PROGRAM = "specclip-search"
ALLOW_PARTIAL = "--allow-partial"
NETWORK = "--network"

# name -> one-line help. The module is specclip_search.cli.commands.<name with _>; it is
# imported when the command runs, so that --help only needs to import typer.
COMMANDS: dict[str, str] = {
    "demo": "Build a small atlas from real Gaia XP stars and run the three searches.",
    "fetch": "Download Gaia XP spectra, LAMOST spectra or a catalogue from their archives.",
    "ingest": "Read LAMOST spectra, Gaia XP spectra or a catalogue into the atlas.",
    "link": "Find the Gaia star of each LAMOST spectrum, by id or by position.",
    "simulate": "Pair the atlas's Gaia XP stars with simulated LAMOST spectra.",
    "train": "Train a model from a recipe.",
    "model": "List, show, import or choose models.",
    "embed": "Turn spectra into vectors.",
    "estimate": "Estimate stellar labels from vectors.",
    "translate": "Turn pairs of spectra into translation errors.",
    "index": "Build, inspect, check or tune the vector index.",
    "similar": "Find the spectra most similar to a given one.",
    "anomalies": "List the most anomalous stars, with reasons.",
    "changes": "List stars whose spectra changed between visits, and how.",
    "emp": "List candidates for extremely metal-poor stars, with evidence.",
    "compare": "Compare labels of catalogues and of this atlas.",
    "explain": "Say why two spectra are alike, or what a list has in common.",
    "map": "Plot a map of all spectra, coloured by any column.",
    "report": "Write the results of the searches as one HTML page.",
    "evaluate": "Score the searches on a simulated survey with known truth.",
    "spectrum": "Write one spectrum of the atlas, or send it to another program.",
    "sql": "Query the atlas with SQL.",
    "crossmatch": "Match two tables by position on the sky.",
    "export": "Export a whole table for other programs.",
    "explore": "Look at the atlas, query it and judge its stars in a browser.",
    "mcp": "Serve the atlas to agents by the Model Context Protocol.",
    "resident": "Keep the program loaded, so that commands answer at once.",
    "doctor": "Check the installation and the atlas, and report problems.",
}


# words that people try first
ALIASES = {"search": "similar", "neighbours": "similar", "neighbors": "similar", "query": "sql", "import": "ingest",
           "catalog": "ingest", "catalogue": "ingest", "lamost": "ingest", "anomaly": "anomalies", "umap": "map",
           "download": "fetch", "match": "crossmatch", "xmatch": "crossmatch"}


@cache
def built(name: str) -> Any:
    """The command of that name, built once a process."""
    module = import_module(f"specclip_search.cli.commands.{name.replace('-', '_')}")
    return read_plainly(typer.main.get_command(module.app))


@cache
def program() -> Any:
    """The whole program as one command."""
    return read_plainly(typer.main.get_command(app))


class LazyGroup(typer.core.TyperGroup):
    """A command group that imports the module of a command when the command is used."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return built(cmd_name) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS:
            close = get_close_matches(args[0], [*COMMANDS, *ALIASES], 2, 0.6)
            meant = list(dict.fromkeys(ALIASES.get(name, name) for name in close))
            hint = f" Did you mean {' or '.join(meant)}?" if meant else f" `{PROGRAM} --help` lists the commands."
            ctx.fail(f"No such command '{args[0]}'.{hint}")
        return super().resolve_command(ctx, args)

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
    epilog=f"Start with: {PROGRAM} demo",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from ..version import __version__

        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
    partial: Annotated[
        bool, typer.Option(ALLOW_PARTIAL, help="Answer also from an atlas with missing files, and say which.")
    ] = False,
    network: Annotated[
        bool, typer.Option(NETWORK, help="Ask CDS Sesame for names of stars that the atlas does not know.")
    ] = False,
) -> None:
    """Vector search and anomaly discovery for stellar spectra.

    Every command works on an atlas, a folder given by --atlas or SPECCLIP_ATLAS.
    """
    from .options import allow_partial

    allow_partial(partial)
    if network:
        from specclip_search.queries.space.resolve import names_online

        ctx.with_resource(names_online())


def run(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exit codes: 0 success, 1 failure while running, 2 invalid request."""
    # importing makes many objects and no garbage: looking for it costs a short command a tenth of its time
    gc.set_threshold(100_000, 20, 20)
    sys.exit(_guarded(list(sys.argv[1:] if arguments is None else arguments)))


def _guarded(arguments: list[str]) -> int:
    warnings.showwarning = _note
    # each call of this program tells what it has to tell, also where one process makes several
    warnings.simplefilter("always", UserWarning)
    arguments = _global_first(arguments)
    try:
        program()(arguments, prog_name=PROGRAM)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except SpecclipError as error:
        _complain(error.message, error.hint)
        return error.exit_code
    except KeyboardInterrupt:
        _complain("interrupted by the keyboard.", "Run the same command again to resume it.")
        return 130
    except BrokenPipeError:
        # the reader of the output (head, less) has exited; avoid an error message at interpreter exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        from ..atlas.files import is_full, is_refusal, no_room, not_permitted

        if not (is_refusal(error) or is_full(error)) or os.environ.get("SPECCLIP_DEBUG"):
            return _failed(error)
        refused = no_room(error, Path(error.filename or ".")) if is_full(error) else not_permitted(error)
        _complain(refused.message, refused.hint)
        return refused.exit_code
    except Exception as error:
        return _failed(error)
    return 0


def _failed(error: Exception) -> int:
    """Tell of an error that was not foreseen."""
    if os.environ.get("SPECCLIP_DEBUG"):
        raise error
    _complain(
        f"failed: {type(error).__name__}: {error}",
        "Set SPECCLIP_DEBUG=1 to see the traceback; finished shards are kept, so the command can be repeated.",
    )
    return 1


def _global_first(arguments: list[str]) -> list[str]:
    """An option of the program may stand behind the command as well, as users expect of one that all commands have."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    first = [word for word in (ALLOW_PARTIAL, NETWORK) if word in arguments[:end]]
    return [*first, *(word for word in arguments[:end] if word not in first), *arguments[end:]]


def _note(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Show user warnings without the line of code; other categories of warning are not shown."""
    if category is UserWarning:
        typer.echo(f"{PROGRAM}: note: {printable(str(message))}", err=True)


def _complain(message: str, hint: str) -> None:
    typer.echo(f"{PROGRAM}: {printable(message)}", err=True)
    if hint:
        typer.echo(printable(hint), err=True)
