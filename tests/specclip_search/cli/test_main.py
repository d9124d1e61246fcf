"""The frame of the command line: instant help, exit codes, no traceback for a user's mistake."""

import subprocess
import sys

import pytest

from specclip_search.cli.main import COMMANDS, run

HEAVY = ("torch", "faiss", "duckdb", "pyarrow", "astropy", "pandas", "gaiaxpy", "scipy", "numpy", "rich")


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-c", "from specclip_search.cli.main import run; run()", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


def test_help_lists_every_command_and_imports_nothing_heavy():
    script = (
        "import sys\nfrom specclip_search.cli.main import run\ntry: run(['--help'])\nexcept SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stderr.strip() == "[]"
    for name in COMMANDS:
        assert f"\n  {name} " in shown.stdout


def test_importing_the_package_imports_nothing_heavy():
    script = f"import sys, specclip_search\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_explains_itself_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as stop:
        run([name, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "Usage: specclip-search" in shown
    assert "Example" in shown or "Commands:" in shown


def test_a_missing_atlas_ends_with_exit_code_2_and_no_traceback(tmp_path):
    done = call("sql", "SELECT 1", "--atlas", str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"specclip-search: No atlas at {tmp_path / 'nowhere'}")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_unknown_command_ends_with_exit_code_2():
    done = call("simlar")
    assert done.returncode == 2
    assert "No such command 'simlar'" in done.stderr


def test_a_fault_of_ours_ends_with_exit_code_1_and_one_line(monkeypatch, capsys):
    from specclip_search.cli import main

    def broken(path):
        raise ZeroDivisionError("x")

    monkeypatch.setattr("specclip_search.atlas.Atlas.__init__", lambda self, path, **_: broken(path))
    assert main._guarded(["sql", "SELECT 1", "--atlas", "a"]) == 1
    assert "failed: ZeroDivisionError: x" in capsys.readouterr().err


def test_a_warning_is_one_line_without_code(monkeypatch, capsys, tmp_path):
    import warnings

    from specclip_search.cli import main

    def warns(self, path, **_):
        warnings.warn("the first of two is taken", stacklevel=1)
        warnings.warn("inner", RuntimeWarning, stacklevel=1)
        raise SystemExit(0)

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr("specclip_search.atlas.Atlas.__init__", warns)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        main._guarded(["sql", "SELECT 1", "--atlas", "a"])
    assert capsys.readouterr().err == "specclip-search: note: the first of two is taken\n"
