"""A server in this process that behaves like the Gaia archive and LAMOST's interface, faults included."""

from __future__ import annotations

import io
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from astropy.table import Table

MOST_IDS = 5000


@dataclass
class FakeArchive:
    """What the server has, how it fails, and what it was asked.

    Attributes
    ----------
    products
        Lines of a CSV by id; the heading is `heading`.
    stars
        Rows of `gaia_source`.
    spectra
        LAMOST files by obsid: name and bytes.
    faults
        Taken one after the other by requests for data: ``500``, ``503``, ``cut`` (fewer bytes than announced),
        ``short`` (a cut file announced as whole), ``page`` (a web page), ``slow`` (no answer until `go` is set),
        ``forget`` (one in three ids is left out), ``pass``.
    user
        Name and password that data need; None: they are public.
    """

    heading: str = ""
    products: dict[int, str] = field(default_factory=dict)
    stars: Table | None = None
    spectra: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    user: tuple[str, str] | None = None
    token: str | None = None
    overflow: bool = False
    asked: list[dict[str, str]] = field(default_factory=list)
    jobs: dict[str, str] = field(default_factory=dict)
    go: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    def fault(self) -> str:
        return self.faults.pop(0) if self.faults else "pass"

    def ids_asked(self) -> list[list[int]]:
        return [[int(one) for one in request["ID"].split(",")] for request in self.asked if "ID" in request]

    def zipped(self, wanted: dict[str, str], forget: bool) -> bytes:
        ids = [int(one) for one in wanted["ID"].split(",")]
        lines = [self.products[one] for place, one in enumerate(ids) if one in self.products and not
                 (forget and place % 3 == 1)]
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            if lines:
                archive.writestr(f"{wanted['RETRIEVAL_TYPE']}_{wanted['DATA_STRUCTURE']}.csv",
                                 "\n".join([self.heading, *lines]) + "\n")
        return made.getvalue()

    def result(self, adql: str) -> bytes:
        """The VOTable of a query on ids or a circle."""
        assert self.stars is not None
        rows = self.stars
        if found := re.search(r"source_id IN \(([^)]*)\)", adql):
            rows = rows[np.isin(rows["source_id"], [int(one) for one in found[1].split(",")])]
        elif found := re.search(r"CIRCLE\('ICRS', ([\d.]+), (-?[\d.]+), ([\d.]+)\)", adql):
            ra, dec, radius = map(float, found.groups())
            away = np.hypot((rows["ra"] - ra) * np.cos(np.radians(dec)), rows["dec"] - dec)
            rows = rows[np.asarray(away) < radius]
        names = re.match(r"SELECT (.*?) FROM", adql)
        assert names is not None
        if names[1] != "*":
            rows = rows[[name.strip() for name in names[1].split(",")]]
        made = io.BytesIO()
        rows.write(made, format="votable")
        text = made.getvalue().decode()
        if self.overflow:
            text = text.replace("</RESOURCE>", '<INFO name="QUERY_STATUS" value="OVERFLOW"/></RESOURCE>')
        return text.encode()


class _Handler(BaseHTTPRequestHandler):
    archive: FakeArchive

    def log_message(self, *_: object) -> None:
        """The test's output is no log."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        fields = {name: values[0] for name, values in parse_qs(body).items()}
        path = urlsplit(self.path).path
        if path.endswith("/login"):
            right = self.archive.user == (fields.get("username"), fields.get("password"))
            self._send(200 if right else 401, b"OK" if right else b"wrong",
                       {"Set-Cookie": "JSESSIONID=abc; Path=/"} if right else {})
        elif path == "/data-server/data":
            self._datalink(fields)
        elif path == "/tap-server/tap/async":
            number = str(len(self.archive.jobs) + 1)
            self.archive.jobs[number] = fields["QUERY"]
            self._send(303, b"", {"Location": f"{self.archive.address}{path}/{number}"})
        else:
            self._send(404, b"no such service")

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if found := re.fullmatch(r"/tap-server/tap/async/(\d+)/(phase|results/result)", parts.path):
            if found[2] == "phase":
                self._send(200, b"COMPLETED")
            else:
                self._faulty(self.archive.result(self.archive.jobs[found[1]]), {})
        elif found := re.fullmatch(r"/openapi/(dr\d+)/(v[\d.]+)/(lrs|mrs)/spectrum/fits", parts.path):
            fields = {name: values[0] for name, values in parse_qs(parts.query).items()}
            self.archive.asked.append(fields)
            if self.archive.token is not None and fields.get("token") != self.archive.token:
                self._send(403, b"no permission")
                return
            name, data = self.archive.spectra.get(int(fields["obsid"]), ("", b""))
            if data:
                self._faulty(data, {"Content-Disposition": f"attachment; filename={name}"})
            else:
                self._send(404, b"not found")
        else:
            self._send(404, b"no such service")

    def _datalink(self, fields: dict[str, str]) -> None:
        archive = self.archive
        archive.asked.append(fields)
        if archive.user is not None and "JSESSIONID" not in (self.headers.get("Cookie") or ""):
            self._send(401, b"<li><b>Message: </b>log in</li>")
        elif len(fields["ID"].split(",")) > MOST_IDS:
            self._send(500, b"<li><b>Message: </b>too many ids</li>")
        else:
            forget = archive.faults[:1] == ["forget"]
            self._faulty(archive.zipped(fields, forget), {})

    def _faulty(self, data: bytes, headers: dict[str, str]) -> None:
        fault = self.archive.fault()
        if fault == "500":
            self._send(500, b"<html><li><b>Message: </b>out of order</li></html>")
        elif fault == "503":
            self._send(503, b"busy", {"Retry-After": "7"})
        elif fault == "page":
            self._send(200, b"<html><title>Maintenance</title></html>")
        elif fault == "short":
            self._send(200, data[: len(data) // 2], headers)
        elif fault == "cut":
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        else:
            if fault == "slow":
                self.archive.reached.set()
                self.archive.go.wait(60)
            self._send(200, data, headers)

    def _send(self, code: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        try:
            self.send_response(code)
            for name, value in (headers or {}).items():
                self.send_header(name, unquote(value))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):  # the client gave up
            self.close_connection = True


@contextmanager
def serving(archive: FakeArchive) -> Iterator[FakeArchive]:
    """Serve an archive on a free port of this machine."""
    handler = type("Handler", (_Handler,), {"archive": archive})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    archive.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield archive
    finally:
        archive.go.set()
        server.shutdown()
        server.server_close()
        thread.join()
