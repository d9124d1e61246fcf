"""The public names: what the command line does can be imported, and a name is retired with a warning."""

from __future__ import annotations

import inspect
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import click
import pytest
import typer.main

import specclip_search
from specclip_search.cli.main import app
from specclip_search.deprecation import deprecated

NAMES = {
    "ingest lamost": ["ingest_lamost"],
    "ingest gaia-xp": ["ingest_gaia_xp", "recalibrate"],
    "ingest sdss": ["ingest_survey"],
    "ingest desi": ["ingest_survey"],
    "ingest lamost-mrs": ["ingest_survey"],
    "ingest mmu": ["ingest_mmu"],
    "ingest catalog": ["ingest_catalog"],
    "ingest library": ["ingest_library"],
    "fetch gaia-xp": ["fetch_gaia_xp"],
    "fetch lamost": ["fetch_lamost"],
    "fetch catalog": ["fetch_catalog"],
    "link": ["link_stars"],
    "simulate": ["simulate_pairs", "simulate_metal_poor", "simulate_survey"],
    "train": ["train", "train_estimators", "adapt_to_catalogue"],
    "model list": ["shipped_models"],
    "model show": ["find_model", "load_card"],
    "model import": ["import_checkpoint"],
    "model use": ["Atlas.use_model"],
    "model export": ["export_model"],
    "embed": ["embed"],
    "estimate": ["estimate", "apply_heads"],
    "translate": ["translate"],
    "index build": ["build_index"],
    "index info": ["index_info"],
    "index check": ["check_index"],
    "index tune": ["tune_index"],
    "index neighbours": ["neighbours"],
    "similar": ["similar", "summarise", "plot_similar"],
    "anomalies": ["anomalies", "anomalies_within"],
    "anomalies label": ["record_verdict"],
    "emp": ["emp_candidates"],
    "compare": ["compare", "plot_comparison"],
    "changes": ["changes"],
    "explain": ["explain_match", "explain_group"],
    "map": ["make_map", "map_table", "draw_map"],
    "report": ["write_report"],
    "evaluate": ["evaluate", "evaluate_real"],
    "spectrum": ["spectrum_table", "observed_spectrum", "send_spectrum"],
    "sql": ["Atlas.sql", "connect", "write_rows"],
    "crossmatch": ["crossmatch"],
    "export": ["export_table", "export_bundle"],
    "explore": ["explore"],
    "mcp": ["make_server"],
    "doctor": ["examine_installation", "examine_atlas", "rehearse"],
}
# a script of other commands, and a process that runs them
NO_FUNCTION = {"demo", "resident start", "resident stop", "resident status"}


def commands(command: Any, path: str = "") -> Iterator[str]:
    """Every command that can be called, `anomalies` as well as `anomalies label`."""
    if not isinstance(command, click.Group) and not hasattr(command, "list_commands"):
        yield path
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        yield from commands(command.get_command(context, name), f"{path} {name}".strip())
    if path and command.invoke_without_command:
        yield path


def test_what_every_command_does_can_be_imported() -> None:
    assert set(commands(typer.main.get_command(app))) == set(NAMES) | NO_FUNCTION
    for name in (name for names in NAMES.values() for name in names):
        first, _, method = name.partition(".")
        assert first in specclip_search.__all__, name
        found = getattr(specclip_search, first)
        assert callable(getattr(found, method) if method else found), name


@pytest.mark.parametrize("name", sorted(specclip_search.__all__))
def test_public_functions_say_what_they_take(name: str) -> None:
    found = getattr(specclip_search, name)
    if not inspect.isfunction(found):
        return
    assert found.__doc__, name
    parameters = inspect.signature(found).parameters.values()
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in parameters), name
    assert inspect.signature(found).return_annotation is not inspect.Signature.empty, name


def test_the_package_is_imported_without_what_it_stands_on() -> None:
    script = "import sys, specclip_search; print(*{'torch', 'pandas', 'astropy', 'duckdb'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_retired_name_works_and_says_what_to_use() -> None:
    @deprecated("specclip_search.similar", removed_in="9.0")
    def search(key: str, k: int = 2) -> str:
        """Old search."""
        return key * k

    with pytest.warns(FutureWarning, match=r"search is deprecated .* version 9\.0; use specclip_search\.similar\."):
        assert search("a", k=3) == "aaa"
    assert search.__doc__ is not None
    assert search.__doc__.startswith("Old search.")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("default")
        search("a")
    # the caller's line, not that of the decorator
    assert heard[0].filename == __file__
