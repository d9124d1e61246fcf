"""`doctor --release dr4 PATH`: what `ingest gaia-xp` makes of each column, on every Gaia file there is."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from specclip_search.cli.main import run
from specclip_search.errors import QueryError
from specclip_search.ingest.rehearsal import Rehearsed, rehearse

from ... import dr4_files


def whole(lines: list[Rehearsed]) -> dict[str, Rehearsed]:
    """Lines of files by their names."""
    return {line.file.rpartition("/")[2]: line for line in lines if line.column is None}


def columns(lines: list[Rehearsed], name: str) -> dict[str, Rehearsed]:
    return {line.column: line for line in lines if line.column is not None and line.file.endswith(name)}


def test_every_gaia_file_is_read_or_says_why_not(shared_data: Path, cases: Path) -> None:
    lines = rehearse([shared_data / "gaia_xp", shared_data / "surveys" / "gaia_datalink"], "dr4")
    found = whole(lines)
    assert {name for name, line in found.items() if line.status == "problem"} == {
        "18Sco-XP-spectra.csv",  # it does not say its release, and 55 coefficients are not DR4's
        "calibrator_solution_custom.csv",
        "calibrator_solution_v211w_custom.csv",
        "calibrator_solution_v211w_default.csv",
    }
    assert "55 BP coefficients in dr4" in found["18Sco-XP-spectra.csv"].note
    assert "says 343 values, 335 to 1019 nm" in found["calibrator_solution_v211w_default.csv"].note
    assert found["MCMC_MSC-Gaia DR3 5937083312263887616.fits"].status == "not read"
    assert "waiting" in found["regular_single_source_c04.avro"].note
    assert "solutions of Gaia DR3" in found["XP_CONTINUOUS_RAW.csv"].note
    assert not [line for line in lines if line.status in ("unknown", "missing")]
    capital = columns(rehearse([cases / "xp-capital-source-id"]), "one.fits")["SOURCE_ID"]
    assert (capital.status, capital.read_as, capital.note) == ("read", "source_id", "written in capitals")
    members = whole(rehearse([cases / "datalink-zip", cases / "xp-ecsv-blank"]))
    assert {line.status for line in members.values()} == {"file"}


def test_renamed_unknown_and_missing_columns_of_a_dr4_file(shared_data: Path, tmp_path: Path) -> None:
    _, new, _ = dr4_files.write_both(shared_data, tmp_path, 3)
    text = new.read_text("utf-8")
    heading, _, rest = text.partition("\n")
    for old, other in (("source_id", "odd_name"), ("rp_n_relevant_bases", "rp_new_quality")):
        heading = heading.replace(old, other)
    new.write_text(f"{heading}\n{rest}", "utf-8")
    with tarfile.open(tmp_path / "members.tar", "w") as archive:
        archive.add(new, new.name)
    new.unlink()
    lines = rehearse([tmp_path / "members.tar"], "dr4")
    head = whole(lines)[f"members.tar!{new.name}"]
    assert (head.product, head.status) == ("XP_CONTINUOUS", "problem")
    found = columns(lines, new.name)
    assert found["rp_new_quality"].status == "unknown"
    assert found["bp_n_relevant_bases"].status == "not needed"
    assert found["odd_name"].status == "unknown"
    assert found["source_id"].status == "missing"
    new.write_text(f"{heading.replace('odd_name', 'DR4Name')}\n{rest}", "utf-8")
    found = columns(rehearse([new]), new.name)
    assert (found["DR4Name"].status, found["DR4Name"].read_as) == ("renamed", "source_id")


def test_both_names_of_a_product_and_transits(tmp_path: Path, shared_data: Path) -> None:
    _, new, _ = dr4_files.write_both(shared_data, tmp_path, 2)
    older = new.rename(tmp_path / "XP_MEAN_SPECTRUM-Gaia DR4.csv")
    assert "MEAN_SPECTRUM_XP" in whole(rehearse([older]))[older.name].note
    epochs = tmp_path / "EPOCH_SPECTRUM_XP_CROWDING-Gaia DR4 5.csv"
    epochs.write_text("source_id,transit_id,flux,flux_error\n5,6,1.0,0.1\n", "utf-8")
    line = whole(rehearse([epochs], "dr4"))[epochs.name]
    assert (line.product, line.status) == ("XP_EPOCH", "problem")
    assert "single transits" in line.note


def test_the_command(shared_data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def ran(*arguments: str) -> int:
        with pytest.raises(SystemExit) as stop:
            run(["doctor", *arguments])
        return int(stop.value.code or 0)

    file = shared_data / "gaia_xp" / "continuous" / "XP_CONTINUOUS_RAW.csv"
    assert ran("--release", "dr4", str(file), "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["file"] == file.name
    assert {row["status"] for row in rows} == {"file", "read", "not needed"}
    assert ran("--release", "dr9", str(file)) == 2
    assert "'dr9' is no Gaia release" in capsys.readouterr().err
    assert ran("--release", "dr4") == 2
    assert "doctor --release dr4 ~/downloads" in capsys.readouterr().err
    (tmp_path / "web.csv").write_text("<html><title>Login</title>", "utf-8")
    assert ran(str(tmp_path / "web.csv")) == 1
    assert "web page" in capsys.readouterr().out
    with pytest.raises(QueryError, match="is no Gaia release"):
        rehearse([file], "lamost")
