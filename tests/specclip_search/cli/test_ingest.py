"""What the ingest commands tell on stderr."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table

from specclip_search.cli.main import run


def test_a_catalogue_tells_what_was_changed_or_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table()
    table["source_id"] = [str(2**61 + 1), str(2**61 + 1), "G123x", str(2**61 + 3)]
    table["obsid"] = MaskedColumn([11, 12, 13, 0], mask=[False] * 3 + [True], dtype=np.int64)
    table["Fe_H"] = np.array([-1.0, -1.1, -9999.0, 0.0], dtype=np.float32)
    table["ABUNDANCES"] = np.ones((4, 3))
    table.write(tmp_path / "c.fits")

    def ingest() -> list[str]:
        with pytest.raises(SystemExit) as stop:
            run(["ingest", "catalog", "labels", str(tmp_path / "c.fits"), "--atlas", str(tmp_path / "atlas")])
        shown = capsys.readouterr()
        assert (stop.value.code, shown.out) == (0, "")
        return [" ".join(line.split()) for line in shown.err.splitlines()]

    told = ingest()
    assert "4 rows of catalogue 'labels' read = 4 kept + 0 rejected" in told
    assert "1 values of source_id are not valid ids and became null" in told
    assert "1 rows repeat an earlier source_id; they are kept, labels are taken from the first" in told
    assert "1 codes for a missing value in feh became null" in told
    assert "column Fe_H was renamed feh" in told
    assert any(line.startswith("column ABUNDANCES left out: ") for line in told)
    assert not any("obsid" in line for line in told)
    again = ingest()
    assert "the file is unchanged: nothing was done" in again
    assert [line for line in told if "left out" in line] == [line for line in again if "left out" in line]
