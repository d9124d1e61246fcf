"""An atlas without any catalogue: objects that are not stars do not lead the list, and cool stars are not hot ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from specclip_search.atlas import Atlas
from specclip_search.cli.main import app
from specclip_search.queries.emp.candidates import emp_candidates
from specclip_search.readers import read_spectrum


def test_a_white_dwarf_comes_last_with_its_flag_and_k_dwarfs_are_not_hot(tmp_path: Path, shared_data: Path) -> None:
    folder = shared_data / "lamost" / "dr5_mixed"
    if not folder.is_dir():
        pytest.skip("the mixed LAMOST spectra are not here")
    atlas = str(tmp_path / "atlas")
    for step in (("ingest", "lamost", str(folder)), ("embed",), ("index", "build"), ("estimate",)):
        done = CliRunner().invoke(app, [*step, "--atlas", atlas])
        assert done.exit_code == 0, done.output
    found = emp_candidates(Atlas(atlas), below=-2.0).set_index("lrs_spec_id")
    spectra = [read_spectrum(file) for file in sorted(folder.glob("*.gz"))]
    kinds = {one.spec_id: str(one.meta.get("subclass")) for one in spectra}
    dwarfs = [obsid for obsid in found.index if kinds[obsid].startswith("DB")]
    cool = [obsid for obsid in found.index if kinds[obsid][:1] in "GK"]
    assert dwarfs
    assert cool
    for obsid in dwarfs:
        assert "object_unlike_training" in found["flags"][obsid]
    flagged = found["flags"].str.contains("object_unlike_training")
    assert flagged[flagged.to_numpy().argmax() :].all()
    for obsid in cool:
        assert "hot_star" not in found["flags"][obsid]
        assert found["rank"][obsid] < min(found["rank"][dwarf] for dwarf in dwarfs)
