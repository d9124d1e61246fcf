"""The README tells of every command, and of none that is not there."""

import re
import shlex
from pathlib import Path

import pytest

from specclip_search.cli.main import COMMANDS, run

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = [
    line.split("#")[0].strip() for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()
]
CALLS = [line for line in SHELL if line.startswith("specclip-search ")]


def test_every_command_has_a_line_in_the_table():
    rows = re.findall(r"^\| `(\S+?)[ `]", README, re.M)
    assert set(rows) == set(COMMANDS)


def test_there_are_examples():
    assert len(CALLS) > 8


@pytest.mark.parametrize("call", CALLS)
def test_every_example_names_options_that_exist(call, capsys):
    words = shlex.split(call)[1:]
    group = words[:2] if words[0] in ("ingest", "index", "model") else words[:1]
    with pytest.raises(SystemExit) as stop:
        run([*group, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for option in (w for w in words if w.startswith("-")):
        assert re.search(rf"(^|\W){re.escape(option)}\b", shown), f"{option} of: {call}"


def test_every_file_that_is_linked_exists():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_help_texts_examples_name_commands_that_exist(capsys):
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            run([name, "--help"])
        text = " ".join(capsys.readouterr().out.split())
        for example in re.findall(r"Example: specclip-search (\S+)", text):
            assert example in COMMANDS
