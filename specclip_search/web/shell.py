"""The front end's files, held in memory, and the two pages that are made here."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.responses import Response

from .answers import cache_headers, unchanged

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from starlette.requests import Request

KINDS = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".toml": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file of the front end."""

    body: bytes
    packed: bytes
    kind: str
    etag: str

    def response(self, request: Request) -> Response:
        """The file, or 304."""
        headers = cache_headers(self.etag)
        if unchanged(request, self.etag):
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(self.packed, media_type=self.kind, headers={**headers, "Content-Encoding": "gzip"})
        return Response(self.body, media_type=self.kind, headers=headers)


def static_files() -> dict[str, StaticFile]:
    """All files below `static/` that a browser may have, by their path."""
    return dict(_below(files("specclip_search.web") / "static", ""))


def _below(folder: Traversable, prefix: str) -> list[tuple[str, StaticFile]]:
    found: list[tuple[str, StaticFile]] = []
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        path = f"{prefix}{entry.name}"
        if entry.is_dir():
            found += _below(entry, f"{path}/")
            continue
        kind = next((kind for end, kind in KINDS.items() if entry.name.endswith(end)), None)
        if kind is not None:
            body = entry.read_bytes()
            etag = hashlib.sha256(body).hexdigest()[:32]
            found.append((path, StaticFile(body, gzip.compress(body, 9, mtime=0), kind, etag)))
    return found


@lru_cache(maxsize=8)
def shell_html(base: str) -> bytes:
    """The page that every address of a person gets; its modules ask for the data."""
    text = (files("specclip_search.web") / "static" / "index.html").read_text(encoding="utf-8")
    return text.replace("{base}", escape(base, quote=True)).encode()


def login_html(base: str, message: str) -> bytes:
    """A form for a token."""
    text = (files("specclip_search.web") / "static" / "login.html").read_text(encoding="utf-8")
    return text.replace("{base}", escape(base, quote=True)).replace("{message}", escape(message)).encode()
