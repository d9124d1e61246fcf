"""The Gaia archive, and other TAP services, through astroquery: with time limits and a reason for each failure."""

from __future__ import annotations

import contextlib
import http.client
import io
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import FetchError, MissingExtra, QueryError
from ..opening.regular import shown_text
from ..readers.gaia_bases import release_of
from .patience import Transient

GAIA = "https://gea.esac.esa.int"
#: ids that DataLink takes in one request
MOST_IDS = 5000
#: release: DataLink's name of it, its products by ours, and the structure of one row a source
DATALINK = {
    "dr3": ("Gaia DR3", {"continuous": "XP_CONTINUOUS", "sampled": "XP_SAMPLED"}, "RAW"),
    "dr4": ("Gaia DR4", {"continuous": "MEAN_SPECTRUM_XP"}, "DATAMODEL_GAIA"),
}
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_PASSING = {408, 425, 429, 500, 502, 503, 504}


class Connections:
    """Connections for astroquery, which makes its own without a limit of time and forgets the server's answer.

    Attributes
    ----------
    status, retry_after
        Of the last answer.
    """

    def __init__(self, host: str, port: int, secure: bool, seconds: float) -> None:
        self._to, self._secure, self._seconds = (host, port), secure, seconds
        self.status = 0
        self.retry_after: str | None = None

    def get_connection(self, *, ishttps: bool = False, cookie: Any = None, verbose: bool = False) -> Any:
        """A new connection."""
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(*self._to, timeout=self._seconds)
        ask = connection.getresponse

        def getresponse() -> http.client.HTTPResponse:
            response = ask()
            self.status, self.retry_after = response.status, response.getheader("Retry-After")
            return response

        connection.getresponse = getresponse  # type: ignore[method-assign]
        return connection

    def get_connection_secure(self, verbose: bool = False) -> Any:
        """A new connection; `Archive` logs in over https alone."""
        return self.get_connection()


class Archive:
    """A TAP service, with DataLink where it is the Gaia archive.

    Parameters
    ----------
    address
        ``https://host`` of a service that is laid out as the Gaia archive, or the whole address of a TAP service:
        ``https://host/context/tap``.
    seconds
        Time without a byte after which a request fails.
    credentials
        File with the user's name and password in two lines; None: anonymous.

    Raises
    ------
    MissingExtra
        If astroquery is not installed.
    QueryError
        If the address is none, or a password would go over an open connection.
    FetchError
        If the login is refused.
    """

    def __init__(self, address: str = GAIA, *, seconds: float = 120.0, credentials: Path | None = None) -> None:
        try:
            from astroquery.utils.tap import TapPlus
            from astroquery.utils.tap.conn.tapconn import TapConn
        except ImportError:
            raise MissingExtra("astroquery", "fetch", "Fetching from an archive") from None
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise QueryError(f"'{address}' is no address of an archive.", f"For example --archive {GAIA}")
        secure = parts.scheme == "https"
        if credentials is not None and not secure and parts.hostname not in _LOCAL:
            raise QueryError(f"A password would go to {address} unencrypted.", "Give an address with https://.")
        self.address = address.rstrip("/")
        self._connections = Connections(
            parts.hostname, parts.port or (443 if secure else 80), secure, seconds
        )

        def service(context: str, tap: str) -> Any:
            connection = TapConn(
                secure, parts.hostname, server_context=context, tap_context=tap, data_context="data",
                datalink_context="datalink", port=parts.port or 80, sslport=parts.port or 443,
                connhandler=self._connections,
            )
            with _quiet():
                return TapPlus(url=self.address, server_context=context, tap_context=tap, connhandler=connection)

        path = parts.path.strip("/")
        context, _, tap = path.rpartition("/") if path else ("tap-server", "/", "tap")
        self._tap, self._data = service(context, tap), service("data-server", "tap")
        if credentials is not None:
            for server in (self._tap, self._data):
                with self._asking("login"):
                    server.login(credentials_file=os.fspath(credentials))

    def datalink(self, ids: Sequence[int], release: str, product: str, structure: str, form: str, to: Path) -> None:
        """Write DataLink's zip archive of the products of `ids`."""
        params = {
            "VALID_DATA": "false",
            "ID": ",".join(map(str, ids)),
            "RELEASE": release,
            "DATA_STRUCTURE": structure,
            "FORMAT": form,
            "RETRIEVAL_TYPE": product,
            "USE_ZIP_ALWAYS": "true",
        }
        with self._asking(f"DataLink of {len(ids):,} ids"):
            self._data.load_data(params_dict=params, output_file=os.fspath(to))

    def query(self, adql: str, to: Path, form: str = "votable") -> None:
        """Write the result of a query, which runs as an asynchronous job: a synchronous one is cut at 2,000 rows."""
        with self._asking("the query"):
            job = self._tap.launch_job_async(
                adql, dump_to_file=True, output_file=os.fspath(to), output_format=form,
                format_with_results_compressed=(),
            )
            phase = job.get_phase(update=True).strip().upper()
            if phase != "COMPLETED":
                raise FetchError(f"The query ended as {phase}.", "Check it in the archive's own query form.")

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Failures of the body as `Transient` or `FetchError`."""
        from requests import HTTPError

        connections = self._connections
        connections.status, connections.retry_after = 0, None
        try:
            with _quiet():
                yield
        except HTTPError as error:
            said = re.sub(r"\s+", " ", shown_text(str(error)))[:300]
            if connections.status in _PASSING:
                after = connections.retry_after
                wait = float(after) if after is not None and str(after).isdigit() else None
                raise Transient(f"the archive answered {connections.status} ({said})", wait) from None
            hint = "Check the request; `--archive` names the server."
            if connections.status in (401, 403):
                hint = "Log in with --credentials FILE, which has the user's name and the password in two lines."
            raise FetchError(f"{self.address} refused {what} with {connections.status}: {said}", hint) from None
        except (OSError, http.client.HTTPException) as error:
            raise Transient(f"no whole answer ({type(error).__name__}: {shown_text(str(error))[:200]})") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """astroquery prints what it does and what goes wrong; a library does not."""
    log = logging.getLogger("astroquery")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(before)


def known_release(release: str) -> str:
    """``Gaia DR4`` as ``dr4``.

    Raises
    ------
    QueryError
        If DataLink has no XP spectra of that release.
    """
    known = release_of(release)
    if known == "edr3":
        known = "dr3"
    if known not in DATALINK:
        raise QueryError(f"There are no XP spectra of '{release}'.", f"Choose one of {', '.join(DATALINK)}.")
    return known
