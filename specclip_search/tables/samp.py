"""Exchange of tables with other desktop programs (TOPCAT, Aladin, ...) by SAMP.

The Simple Application Messaging Protocol, IVOA Recommendation 1.3 (2012): a hub run by one of the
programs forwards messages. A table is sent as the URL of a VOTable file
(`table.load.votable`), a spectrum likewise (`spectrum.load.ssa-generic`), rows as their numbers
(`table.select.rowList`, `table.highlight.row`).
"""

from __future__ import annotations

import tempfile
import threading
import time
import uuid
import warnings
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..errors import QueryError
from ..version import __version__

if TYPE_CHECKING:
    import pyarrow as pa

_LOAD = "table.load.votable"
_LOAD_SPECTRUM = "spectrum.load.ssa-generic"
_ROWS = "table.select.rowList"
_ROW = "table.highlight.row"


class SampTable:
    """A table shown in the programs on a hub until it is closed; usable in a `with` statement.

    Parameters
    ----------
    table
        Rows; units, descriptions and UCDs are sent too.
    name
        Name shown in the programs.
    client
        Name of one program, such as ``topcat``; by default all that accept tables.
    hub
        Parameters of the hub; by default those in the user's lock file.

    Attributes
    ----------
    receivers
        Names of the programs that accepted it.

    Raises
    ------
    QueryError
        If no hub is running, or no program on it accepts tables.
    """

    def __init__(
        self,
        table: pa.Table,
        name: str = "specclip-search",
        *,
        client: str | None = None,
        hub: dict[str, str] | None = None,
    ) -> None:
        self.table = table
        self.table_id = f"specclip-search-{uuid.uuid4()}"
        self._folder = tempfile.TemporaryDirectory(prefix="specclip-search-samp-")
        self._selected: list[int] | None = None
        self._news = threading.Condition()
        self._client = _connected(hub)
        try:
            for mtype in (_ROWS, _ROW):
                self._client.bind_receive_notification(mtype, self._notified)
                self._client.bind_receive_call(mtype, self._called)
            self.receivers = self._send(name, client)
        except BaseException:
            self.close()
            raise

    def _send(self, name: str, wanted: str | None) -> list[str]:
        from .binary import write_votable

        chosen = _chosen(self._client, (_LOAD,), wanted, "tables")
        path = Path(self._folder.name) / "rows.vot"
        write_votable(self.table, path)
        content = {"url": path.as_uri(), "table-id": self.table_id, "name": name}
        return [_delivered(self._client, to, _LOAD, content, "the table") for to in chosen]

    def _notified(self, key: str, sender: str, mtype: str, content: dict[str, Any], extra: Any) -> None:
        if content.get("table-id") != self.table_id:
            return
        rows = content.get("row-list", []) if mtype == _ROWS else [content.get("row", "")]
        numbers = [int(row) for row in rows if str(row).isdigit() and int(row) < self.table.num_rows]
        with self._news:
            self._selected = numbers
            self._news.notify_all()

    def _called(self, key: str, sender: str, message: str, mtype: str, content: dict[str, Any], extra: Any) -> None:
        self._notified(key, sender, mtype, content, extra)
        self._client.ereply(message, "samp.ok", result={})

    def selected(self, timeout_s: float | None = None) -> pa.Table | None:
        """Wait for rows that a user selects in another program.

        Returns
        -------
        pa.Table or None
            Those rows in the order received; each selection is returned once. None if none came within `timeout_s`.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        with self._news:
            while self._selected is None:
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._news.wait(left)
            numbers, self._selected = self._selected, None
        return self.table.take(numbers)

    def close(self) -> None:
        """Leave the hub and remove the file that was sent."""
        import contextlib

        with contextlib.suppress(Exception):
            # the hub may have stopped before this program
            self._client.disconnect()
        self._folder.cleanup()

    def __enter__(self) -> SampTable:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def send_spectrum(
    table: pa.Table,
    name: str,
    meta: dict[str, str] | None = None,
    *,
    client: str | None = None,
    hub: dict[str, str] | None = None,
) -> list[str]:
    """Send one spectrum to programs that show spectra (SPLAT, CASSIS, ...), or as a table to those that show tables.

    Parameters
    ----------
    table
        One row per pixel, with columns `wavelength` and `flux`.
    name
        Name shown in the programs.
    meta
        Metadata by SSA utype, such as ``Target.Name``.
    client, hub
        As of `SampTable`.

    Returns
    -------
    Names of the programs that accepted it.

    Raises
    ------
    QueryError
        If no hub is running, no program accepts it, or one reports an error.
    """
    from .binary import write_votable

    samp = _connected(hub)
    try:
        chosen = _chosen(samp, (_LOAD_SPECTRUM, _LOAD), client, "spectra or tables")
        with tempfile.TemporaryDirectory(prefix="specclip-search-samp-") as folder:
            path = Path(folder) / "spectrum.vot"
            write_votable(table, path)
            spectrum_id = f"specclip-search-{uuid.uuid4()}"
            known = {"Access.Format": "application/x-votable+xml", "Access.Reference": path.as_uri(), **(meta or {})}
            content: dict[str, dict[str, Any]] = {
                _LOAD_SPECTRUM: {"url": path.as_uri(), "meta": known, "spectrum-id": spectrum_id, "name": name},
                _LOAD: {"url": path.as_uri(), "table-id": spectrum_id, "name": name},
            }
            return [_delivered(samp, to, to[2], content[to[2]], "the spectrum") for to in chosen]
    finally:
        samp.disconnect()


# a program on the hub: its id, its name, the message it accepts
_Program = tuple[str, str, str]


def _chosen(samp: Any, mtypes: tuple[str, ...], wanted: str | None, what: str) -> list[_Program]:
    """Programs that accept one of these messages, with the first one that each accepts; all, or the wanted one."""
    programs: dict[str, _Program] = {}
    for mtype in mtypes:
        for number in samp.get_subscribed_clients(mtype):
            said = samp.get_metadata(number)
            programs.setdefault(number, (number, str(said.get("samp.name", number)), mtype))
    asked = [p for p in programs.values() if wanted is None or wanted.lower() in (p[0].lower(), p[1].lower())]
    if not asked:
        called = f"called '{wanted}' " if wanted else ""
        names = ", ".join(name for _, name, _ in programs.values()) or "none"
        raise QueryError(
            f"No program {called}on the SAMP hub accepts {what}; it has {names}.",
            "Start TOPCAT or Aladin, and send again.",
        )
    return sorted(asked)


ANSWER_S = "600"
"""Seconds, as text, that a program has to take a table: it may be large and the machine busy."""


def _delivered(samp: Any, to: _Program, mtype: str, content: dict[str, Any], what: str) -> str:
    """Send one message, wait for the answer (the file may then be removed) and return the program's name."""
    number, program, _ = to
    try:
        answer = samp.ecall_and_wait(number, mtype, ANSWER_S, **content)
    except samp_module().SAMPProxyError as silence:
        raise QueryError(f"{program} did not answer ({silence}).", "See whether that program still runs.") from silence
    if answer["samp.status"] != "samp.ok":
        error = answer.get("samp.error", {}).get("samp.errortxt", "no reason given")
        raise QueryError(f"{program} did not accept {what}: {error}.", "See the messages of that program.")
    return program


def _connected(hub: dict[str, str] | None) -> Any:
    samp = samp_module()
    client = samp.SAMPIntegratedClient(
        name="specclip-search",
        description="Vector search for stellar spectra",
        metadata={"specclip-search.version": __version__},
        # hub and programs are on this machine; other machines must not connect
        addr="127.0.0.1",
    )
    try:
        client.connect(hub_params=hub)
    except (samp.SAMPHubError, OSError) as error:
        raise QueryError(
            f"No SAMP hub answers ({error}).", "Start TOPCAT or Aladin, which run one, and send again."
        ) from error
    return client


def samp_module() -> Any:
    """astropy's SAMP module, or its successor in pyvo."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import astropy.samp as samp
        except ImportError:
            import pyvo.samp as samp
    return samp
