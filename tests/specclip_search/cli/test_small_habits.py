"""Small habits of the command line: help without an atlas, suggestions, progress that promises nothing."""

from __future__ import annotations

import io

import pytest

from specclip_search.cli import main
from specclip_search.cli.progress import _count, _left


def test_help_of_a_subcommand_needs_no_atlas(capsys: pytest.CaptureFixture[str]) -> None:
    assert main._guarded(["anomalies", "label", "--help"]) == 0
    assert "KEY" in capsys.readouterr().out


def test_a_missing_atlas_is_still_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPECCLIP_ATLAS", raising=False)
    for command in (["anomalies"], ["anomalies", "label", "gaia:1", "normal"]):
        assert main._guarded(command) == 2
        assert "--atlas" in capsys.readouterr().err


@pytest.mark.parametrize(("typed", "meant"), [("simlar", "similar"), ("anomoly", "anomalies"), ("search", "similar"),
                                              ("xmatch", "crossmatch"), ("ingset", "ingest"), ("zzzz", "--help")])
def test_a_mistyped_command_is_answered_with_the_one_meant(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main._guarded([typed]) == 2
    assert meant in capsys.readouterr().err


def test_a_column_of_the_map_is_suggested() -> None:
    from specclip_search.queries.maps.map import did_you_mean

    known = ["teff", "feh", "phot_g_mean_mag", "snr"]
    assert did_you_mean("Teff", known) == "Did you mean teff? "
    assert did_you_mean("[Fe/H]", known) == "Did you mean feh? "
    assert did_you_mean("tef", known) == "Did you mean teff? "
    assert did_you_mean("zzzz", known) == ""


def test_time_left_is_told_only_where_it_is_known() -> None:
    assert _left(0, None, 0.0) == _left(0, 100, 5.0) == _left(10, None, 5.0) == ""
    assert _left(50, 100, 5.0) == "10 s left"
    assert _left(0 + 1, 10_001, 1.0) == "167 min left"
    assert _count(5, None, 2.0, "rows") == "5 rows, 2 rows/s"
    assert _count(5, 10, 2.0, "rows") == "5 of 10 rows, 2 rows/s"


def test_a_bar_on_a_terminal_promises_nothing_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    from specclip_search.cli import progress

    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress.sys, "stderr", shown)
    with progress.progress_bar("embed", "spectra") as update:
        update(0, None)
    assert "/?" not in shown.getvalue()
    assert "0:00:00 left" not in shown.getvalue()

