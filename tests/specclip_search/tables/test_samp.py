"""Tables to another program on a hub, and rows back; hub and program are astropy's, on the loopback interface."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.table import Table

from specclip_search.atlas import Atlas
from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.cli.main import run
from specclip_search.errors import QueryError
from specclip_search.surveys import get_modality
from specclip_search.tables.samp import SampTable, samp_module, send_spectrum

IDS = [2**61 + 1, None, 2**53 + 1]
ROWS = pa.table(
    {"source_id": pa.array(IDS, pa.int64()), "teff": pa.array([5000.0, None, 4000.0])},
    schema=pa.schema([pa.field("source_id", pa.int64()), pa.field("teff", pa.float64(), metadata={"unit": "K"})]),
)


class Viewer:
    """A program that takes tables, and answers with `status`."""

    def __init__(self, hub: Any, name: str = "viewer") -> None:
        self.client = samp_module().SAMPIntegratedClient(name=name, addr="127.0.0.1")
        self.client.connect(hub_params=dict(hub.params))
        self.client.bind_receive_call("table.load.votable", self.take)
        self.refuses = False
        self.tables: list[Table] = []
        self.ids: list[str] = []
        self.taken = threading.Event()

    def take(self, key: str, sender: str, message: str, mtype: str, content: dict[str, Any], extra: Any) -> None:
        if self.refuses:
            self.client.ereply(message, "samp.error", error={"samp.errortxt": "the disk is full"})
            return
        self.tables.append(Table.read(content["url"].removeprefix("file://"), format="votable"))
        self.ids.append(content["table-id"])
        self.client.ereply(message, "samp.ok", result={})
        self.taken.set()

    def select(self, rows: list[int], table_id: str | None = None) -> None:
        self.client.enotify_all(
            "table.select.rowList", **{"table-id": table_id or self.ids[-1], "row-list": [str(r) for r in rows]}
        )


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    samp = samp_module()
    # no look into the network for this machine's name
    monkeypatch.setattr(samp.conf, "use_internet", False)
    lock = tmp_path / "samp.lock"
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:{lock.as_uri()}")
    server = samp.SAMPHubServer(addr="127.0.0.1", lockfile=str(lock), web_profile=False)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def test_a_table_arrives_whole_and_rows_come_back(hub: Any) -> None:
    viewer, other = Viewer(hub), Viewer(hub, "other")
    with SampTable(ROWS, "mine", client="Viewer") as sent:
        assert sent.receivers == ["viewer"]
        assert not other.tables
        shown = viewer.tables[0]
        assert [None if i is np.ma.masked else int(i) for i in shown["source_id"]] == IDS
        assert str(shown["teff"].unit) == "K"
        viewer.select([0], table_id="of another program")
        viewer.select([2, 0, 99])
        back = sent.selected(20)
        assert back is not None
        assert back["source_id"].to_pylist() == [IDS[2], IDS[0]]
        assert sent.selected(0.05) is None
        viewer.client.enotify_all("table.highlight.row", **{"table-id": viewer.ids[0], "row": "1"})
        lit = sent.selected(20)
        assert lit is not None
        assert lit["teff"].to_pylist() == [None]
        ours = next(i for i in viewer.client.get_subscribed_clients("table.select.rowList"))
        asked = {"table-id": viewer.ids[0], "row-list": ["1"]}
        answer = viewer.client.ecall_and_wait(ours, "table.select.rowList", "20", **asked)
        assert answer["samp.status"] == "samp.ok"
        called = sent.selected(20)
        assert called is not None
        assert called["source_id"].to_pylist() == [None]
        folder = Path(sent._folder.name)
    assert not folder.exists()
    for each in (viewer, other):
        each.client.disconnect()


def test_every_program_that_takes_tables_gets_it(hub: Any) -> None:
    viewers = [Viewer(hub, "a"), Viewer(hub, "b")]
    with SampTable(ROWS, hub=dict(hub.params)) as sent:
        assert sorted(sent.receivers) == ["a", "b"]
    assert [len(viewer.tables) for viewer in viewers] == [1, 1]
    for viewer in viewers:
        viewer.client.disconnect()


def test_what_can_go_wrong_is_said(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(QueryError, match="No program on the SAMP hub accepts tables; it has none"):
        SampTable(ROWS)
    viewer = Viewer(hub)
    with pytest.raises(QueryError, match=r"No program called 'topcat' .* it has viewer"):
        SampTable(ROWS, client="topcat")
    viewer.refuses = True
    with pytest.raises(QueryError, match="viewer did not accept the table: the disk is full"):
        SampTable(ROWS)
    viewer.client.disconnect()
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:{(tmp_path / 'none.lock').as_uri()}")
    with pytest.raises(QueryError, match="No SAMP hub answers"):
        SampTable(ROWS)
    with pytest.raises(QueryError, match="No SAMP hub answers"):
        send_spectrum(ROWS, "mine")


def test_the_command_sends_and_prints_what_is_selected(
    hub: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    atlas = Atlas.create(tmp_path / "atlas")
    ingest_catalog_table(atlas, "c", pa.table({"source_id": [2**61 + 1, 2**61 + 2], "teff": [5000.0, 4000.0]}))
    viewer = Viewer(hub)
    statement = "SELECT source_id FROM c ORDER BY teff"
    with pytest.raises(SystemExit) as stop:
        run(["sql", statement, "-a", str(atlas.path), "--send", "viewer"])
    shown = capsys.readouterr()
    assert (stop.value.code, shown.out) == (0, "")
    assert "2 rows sent to viewer" in shown.err
    assert viewer.tables[0]["source_id"].tolist() == [2**61 + 2, 2**61 + 1]

    def select() -> None:
        viewer.taken.wait(30)
        viewer.select([1])

    viewer.taken.clear()
    thread = threading.Thread(target=select)
    thread.start()
    with pytest.raises(SystemExit) as stop:
        run(["sql", statement, "-a", str(atlas.path), "--send", "all", "--selected", "30", "-f", "csv"])
    thread.join()
    shown = capsys.readouterr()
    assert (stop.value.code, shown.out) == (0, f"source_id\n{2**61 + 1}\n")
    viewer.client.disconnect()
    with pytest.raises(SystemExit) as stop:
        run(["sql", statement, "-a", str(atlas.path), "--selected", "3"])
    assert stop.value.code == 2
    assert "Add --send" in capsys.readouterr().err


def test_a_spectrum_goes_to_those_that_show_spectra_and_as_a_table_to_others(
    hub: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from specclip_search.atlas.arrays import table_from_columns
    from specclip_search.atlas.schemas import spectra_schema

    atlas, star = Atlas.create(tmp_path / "atlas"), 2**61 + 1
    flux = np.linspace(0.5, 1.5, 343, dtype=np.float32)[None]
    known = {"spec_id": [star], "source_id": [star], "release": ["dr3"], "source": ["made"], "simulated": [False]}
    known |= {"flux": flux, "error": np.where(np.arange(343) == 5, np.inf, 0.1)[None]}
    schema = spectra_schema(get_modality("gaia_xp").columns, 343)
    columns = {f.name: known.get(f.name, pa.nulls(1, f.type)) for f in schema}
    with atlas.spectra("gaia_xp").lock():
        atlas.spectra("gaia_xp").write(0, table_from_columns(columns, schema), schema=schema, inputs="made")

    tables, shower = Viewer(hub, "tables"), Viewer(hub, "shower")
    messages: list[dict[str, Any]] = []

    def show(key: str, sender: str, message: str, mtype: str, content: dict[str, Any], extra: Any) -> None:
        messages.append(content)
        shower.take(key, sender, message, mtype, {**content, "table-id": content["spectrum-id"]}, extra)

    shower.client.bind_receive_call("spectrum.load.ssa-generic", show)
    with pytest.raises(SystemExit) as stop:
        run(["spectrum", f"gaia:{star}", "-a", str(atlas.path), "--send", "all"])
    shown = capsys.readouterr()
    assert (stop.value.code, shown.out) == (0, "")
    assert "tables" in shown.err
    assert "shower" in shown.err
    assert messages[0]["meta"]["Target.Name"] == f"Gaia DR3 {star}"
    for viewer in (tables, shower):
        (table,) = viewer.tables
        assert (str(table["wavelength"].unit), len(table)) == ("nm", 343)
        np.testing.assert_array_equal(np.asarray(table["flux"], np.float32), flux[0])
        assert np.flatnonzero(~np.isfinite(np.ma.filled(table["error"], np.nan))).tolist() == [5]
        viewer.client.disconnect()
    with pytest.raises(SystemExit) as stop:
        run(["spectrum", "gaia:1", "-a", str(atlas.path)])
    assert stop.value.code == 2
    assert "gaia:1 is not in this atlas" in capsys.readouterr().err
