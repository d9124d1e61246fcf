"""LAMOST spectra by obsid, one file each, from the survey's open interface."""

from __future__ import annotations

import gzip
import os
import re
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..atlas.files import whole_file
from ..errors import FetchError, MissingExtra, QueryError
from ..opening.regular import shown_text
from ..progress import Progress
from .ledger import FetchReport, different, ids_digest, open_ledger, read_ids
from .patience import Patience, Transient

LAMOST = "https://www.lamost.org"
VERSION = "v2.0"
#: failures in a row after which the server, not a file, is what fails
GIVE_UP = 3
_NAME = re.compile(r"(?:spec|med)-[\w.+-]{1,100}\.fits(?:\.gz)?", re.ASCII)
_MOST_BYTES = 64 << 20


def fetch_lamost(
    folder: str | os.PathLike[str],
    *,
    obsids: Sequence[int] | str | os.PathLike[str],
    release: str,
    version: str = VERSION,
    medium: bool = False,
    archive: str = LAMOST,
    token: str | None = None,
    patience: Patience | None = None,
    progress: Progress | None = None,
) -> FetchReport:
    """Download LAMOST spectra into a folder that `ingest_lamost` takes.

    A file is whole or not there: it is read, and its OBSID compared, before it gets its name. What the server does
    not have is named in ``missing.txt``; what it failed to send is named, too, and asked for again by the next run.

    Parameters
    ----------
    folder
        A new folder, or that of the same download before.
    obsids
        Ids, or a file of them.
    release, version
        ``dr11``; ``v2.0``.
    medium
        Medium-resolution spectra.
    archive
        Address of the server.
    token
        Of a registered user, for releases that are not public yet.
    patience
        How often and how long is asked.
    progress
        Called with (ids done, ids in all, note).

    Raises
    ------
    QueryError
        If the request is not valid, or the folder holds another one.
    FetchError
        If the server refuses, or does not answer; what came is kept.
    """
    release = release.lower()
    if not re.fullmatch(r"dr\d{1,2}", release) or not re.fullmatch(r"v\d+(\.\d+)*", version):
        raise QueryError(
            f"'{release}' with '{version}' is no LAMOST release.", "For example --release dr11 --version v2.0"
        )
    patient = patience or Patience()
    given, repeated = different(
        read_ids(obsids, "obsid") if isinstance(obsids, str | os.PathLike) else obsids
    )
    request = {"what": "lamost", "archive": archive, "release": release, "version": version,
               "resolution": "mrs" if medium else "lrs", "of": ids_digest(given)}
    with open_ledger(folder, request) as ledger:
        ledger.set_asked(given)
        server = _Server(f"{archive.rstrip('/')}/openapi/{release}/{version}/{request['resolution']}/spectrum/fits",
                         token, patient.timeout)
        missing: dict[int, str] = {}
        taken = {name for entry in ledger.done.values() for name in entry["files"]}
        requests = failed = 0
        for number, obsid in enumerate(given, 1):
            entry = ledger.done.get(str(obsid))
            if entry is None:
                try:
                    target = patient.call(f"obsid {obsid}", partial(server.fetch, obsid, ledger.folder, taken))
                    failed = 0
                except NotThere as error:
                    ledger.add(str(obsid), files={}, missing=str(error))
                except FetchError as error:
                    failed += 1
                    if failed >= GIVE_UP or "refused" in error.message:
                        raise
                    missing[obsid] = error.message
                else:
                    requests += 1
                    taken.add(target.name)
                    ledger.add(str(obsid), files={target.name: target.stat().st_size}, missing=None)
                entry = ledger.done.get(str(obsid))
            if entry is not None and entry["missing"]:
                missing[obsid] = entry["missing"]
            if progress is not None:
                progress(number, len(given), "")
        return ledger.report(given, len(given) - len(missing), missing, repeated, requests)


class NotThere(Exception):
    """The server has no such spectrum."""


class _Server:
    def __init__(self, address: str, token: str | None, seconds: float) -> None:
        try:
            import requests
        except ImportError:
            raise MissingExtra("astroquery", "fetch", "Fetching from an archive") from None
        if not address.startswith(("http://", "https://")):
            raise QueryError(f"'{address}' is no address of a server.", f"For example --archive {LAMOST}")
        self.address, self._seconds = address, seconds
        self._session = requests.Session()
        self._more = {"token": token} if token else {}

    def fetch(self, obsid: int, folder: Path, taken: set[str]) -> Path:
        """Write one spectrum under the name that the server gives it, unless another obsid's file has it.

        Raises
        ------
        NotThere
            If the server has none of that obsid.
        """
        import requests

        try:
            with self._session.get(
                self.address, params={"obsid": str(obsid), **self._more}, stream=True, timeout=self._seconds
            ) as answer:
                self._check(answer, obsid)
                data = b"".join(_bounded(answer.iter_content(1 << 16)))
                name = _name(answer.headers.get("Content-Disposition", ""), obsid)
        except requests.RequestException as error:
            # the address holds the token, and errors tell the address
            raise Transient(f"no whole answer ({type(error).__name__})") from None
        target = folder / name
        if name in taken:
            target = folder / f"obsid-{obsid}.fits{'.gz' if data[:2] == bytes([31, 139]) else ''}"
        with whole_file(target) as temporary:
            temporary.write_bytes(data)
            _check_fits(data, obsid)
        return target

    def _check(self, answer: Any, obsid: int) -> None:
        code = answer.status_code
        if code == 404:
            raise NotThere("the server has no such spectrum (404)")
        if code == 429 or code >= 500:
            after = answer.headers.get("Retry-After", "")
            raise Transient(f"the server answered {code}", float(after) if after.isdigit() else None)
        if code != 200:
            said = shown_text(answer.text[:200])
            hint = "A release that is not public needs a token: --token-file FILE." if code in (401, 403) else (
                "Check --release and --version.")
            raise FetchError(f"{self.address} refused obsid {obsid} with {code}: {said}", hint)


def _bounded(pieces: Any) -> Any:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > _MOST_BYTES:
            raise Transient(f"more than {_MOST_BYTES >> 20} MiB came for one spectrum")
        yield piece


def _name(disposition: str, obsid: int) -> str:
    """The file's name as the server gives it, if it is one of LAMOST's; never a path."""
    found = re.search(r"filename\*?=\s*(?:UTF-8'')?\"?([^\";]+)", disposition, re.IGNORECASE)
    name = found[1].strip() if found else ""
    return name if _NAME.fullmatch(name) else f"obsid-{obsid}.fits.gz"


def _check_fits(data: bytes, obsid: int) -> None:
    """Read the whole file, so that a cut one is found, and compare its OBSID where it has one."""
    import io

    from astropy.io import fits

    if not data:
        raise Transient("an empty file came")
    if data[:1].isspace() or data[:1] in b"<{":
        raise NotThere(f"the server sent no spectrum but text: {shown_text(data[:120].decode('utf-8', 'replace'))}")
    try:
        plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        with warnings.catch_warnings(action="error"), fits.open(io.BytesIO(plain), memmap=False) as hdus:
            named = hdus[0].header.get("OBSID")
            for hdu in hdus:
                _ = hdu.data
    except Exception as error:  # whatever a decoder raises, the file is not whole
        kind = type(error).__name__
        raise Transient(f"a file of {len(data):,} bytes came, which is cut or damaged ({kind})") from None
    if isinstance(named, int) and named != obsid:
        raise NotThere(f"the server sent obsid {named} instead")
