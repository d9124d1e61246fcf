"""`similar --plot`, `map` and `report` from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from specclip_search.cli.main import run

pytestmark = pytest.mark.usefixtures("toy_model")

pytest.importorskip("matplotlib")


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        run(list(arguments))
    return int(stop.value.code or 0)


def test_similar_writes_rows_and_picture(drawn: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "near.png"
    target = f"gaia:{drawn.source_id[5]}"
    assert (
        call("similar", target, "-k", "4", "--atlas", str(drawn.atlas.path), "--plot", str(picture), "-f", "csv") == 0
    )
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_a_bad_name_is_refused_before_the_search(
    drawn: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = call("similar", "gaia:1", "--atlas", str(drawn.atlas.path), "--plot", str(tmp_path / "near.txt"))
    assert code == 2
    assert "must end in .png, .svg or .pdf; found 'near.txt'" in capsys.readouterr().err


def test_map_is_coloured_and_kept(drawn: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("umap")
    picture, rows = tmp_path / "map.png", tmp_path / "map.parquet"
    options = ["--atlas", str(drawn.atlas.path), "--sample", "500", "--within", "gaia_xp"]
    assert call("map", *options, "--color", "feh", "-o", str(picture), "--parquet", str(rows)) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert pq.read_table(rows).num_rows == len(drawn.source_id)
    assert "900 spectra of gaia_xp, model 'toy'" in capsys.readouterr().err
    assert call("map", *options, "--color", "hue", "-o", str(picture)) == 2
    assert "there is no 'hue'" in capsys.readouterr().err


def test_report_tells_what_it_holds(drawn: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    options = ["--anomalies", "3", "--emp", "0", "--no-maps", "--title", "Three odd stars"]
    assert call("report", "--atlas", str(drawn.atlas.path), "-o", str(page), *options) == 0
    assert "3 anomalies, 0 metal-poor candidates, 0 maps" in capsys.readouterr().err
    assert "<h1>Three odd stars</h1>" in page.read_text(encoding="utf-8")
