"""What every request passes: host, origin, rights, rate and size; what every answer carries."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ..errors import QueryError
from .access import COOKIE, Person
from .answers import error_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .settings import Settings

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
OPEN_PATHS = ("/static/", "/login", "/healthz")
SAFE = frozenset({"GET", "HEAD"})
# a statement costs more than a page
SQL_COST = 8
_SMALL_BODY = 64_000
_MOST_ADDRESSES = 10_000


class Guard:
    """ASGI middleware around the whole explorer."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.buckets = Buckets(settings.per_second, settings.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # no page uses a websocket
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await self.app(scope, receive, send)
            return
        base = self.settings.base_url
        if base and (scope["path"] == base or scope["path"].startswith(base + "/")):
            # a proxy may take the prefix away or leave it
            scope = {**scope, "path": scope["path"][len(base) :] or "/"}
        request = Request(scope, receive)
        refused = self._refusal(request)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        if refused is not None:
            await refused(scope, receive, send_guarded)
            return
        limit = self.settings.upload_bytes + _SMALL_BODY if _path(request) == "/upload" else _SMALL_BODY
        await self.app(scope, _Limited(receive, limit), send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        """The answer to a request that may not pass; None where it may. Sets `request.state.person`."""
        headers = request.headers
        host = _host_of(headers)
        if host not in self.settings.hosts:
            return error_response(
                QueryError(f"This explorer is not called '{host[:80]}'.", "Name it with --allow-host NAME."), 421
            )
        # a job of TAP may be deleted
        ends_job = request.method == "DELETE" and _path(request).startswith("/tap/async/")
        if request.method not in SAFE and request.method != "POST" and not ends_job:
            return error_response(QueryError(f"{request.method[:20]} is not known here.", "Use GET or POST."), 405)
        if self.settings.rate_limited:
            address = request.client.host if request.client else ""
            cost = SQL_COST if _path(request).startswith(("/sql", "/upload", "/tap/sync", "/tap/async")) else 1
            wait = self.buckets.wait(address, cost)
            if wait > 0:
                answer = error_response(QueryError("Too many requests.", f"Wait {wait:.0f} s."), 429)
                answer.headers["Retry-After"] = str(max(1, round(wait)))
                return answer
        foreign = self._foreign(request, headers)
        if foreign is not None:
            return foreign
        length = headers.get("content-length", "0")
        limit = self.settings.upload_bytes + _SMALL_BODY if _path(request) == "/upload" else _SMALL_BODY
        if not length.isdigit() or int(length) > limit:
            return error_response(_too_large(limit), 413)
        return self._without_rights(request)

    def _foreign(self, request: Request, headers: Headers) -> Response | None:
        """Another site's page may link here, and nothing else."""
        site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
        origin = headers.get("origin")
        strange = origin is not None and not self._own_origin(origin, headers.get("host", ""))
        if strange or (site == "cross-site" and (mode != "navigate" or request.method not in SAFE)):
            return error_response(
                QueryError("A page of another site may not ask here.", "Open the explorer itself."), 403
            )
        return None

    def _own_origin(self, origin: str, host: str) -> bool:
        try:
            place = urlsplit(origin)
            named = (place.hostname or "").lower()
        except ValueError:
            return False
        # behind a proxy the port differs; only names that were allowed one by one count there
        return place.netloc.lower() == host.lower() or named in {name.lower() for name in self.settings.allowed_hosts}

    def _without_rights(self, request: Request) -> Response | None:
        person = self._person(request)
        request.state.person = person
        path = _path(request)
        if path.startswith(OPEN_PATHS):
            return None
        if person is None:
            wants_page = "text/html" in request.headers.get("accept", "") and request.method in SAFE
            if wants_page:
                return RedirectResponse(f"{self.settings.base_url}/login", 303, {"Cache-Control": "no-store"})
            answer = error_response(
                QueryError("This explorer is for people with a token.", "Send it as a bearer."), 401
            )
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        if request.method == "POST":
            return self._may_write(person, path)
        return None

    def _may_write(self, person: Person, path: str) -> Response | None:
        if path.startswith("/tap/"):
            # a question, however it is sent
            return None
        if path == "/upload":
            allowed = self.settings.uploads and (person.may("judge") or self.settings.allow_upload)
            what = "takes no uploads"
        else:
            allowed = not self.settings.read_only and person.may("judge")
            what = "takes no verdicts from you"
        if allowed:
            return None
        why = "it is read-only" if self.settings.read_only else f"you are {person.role}, not judge"
        return error_response(QueryError(f"This explorer {what}: {why}.", "Ask its owner for a token."), 403)

    def _person(self, request: Request) -> Person | None:
        tokens = self.settings.tokens
        if tokens is None:
            # on the loopback whoever reaches the port owns the atlas's files as well
            if self.settings.loopback and not self.settings.read_only:
                return Person("owner", "owner")
            return Person("visitor", "viewer")
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and secret:
            return tokens.person_of(secret.strip())
        person = tokens.person_of_cookie(request.cookies.get(COOKIE, ""))
        if person is None and self.settings.read_only:
            return Person("visitor", "viewer")
        return person


class Buckets:
    """Token buckets by address: each request takes from one that fills steadily."""

    def __init__(self, per_second: float, burst: int) -> None:
        self.per_second, self.burst = per_second, burst
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, address: str, cost: int = 1, now: float | None = None) -> float:
        """0 where a request may pass, and it is paid for; else the seconds after which it may."""
        now = time.monotonic() if now is None else now
        with self._lock:
            level, before = self._levels.pop(address, (float(self.burst), now))
            level = min(self.burst, level + (now - before) * self.per_second)
            passed = level >= cost
            self._levels[address] = (level - cost if passed else level, now)
            while len(self._levels) > _MOST_ADDRESSES:
                self._levels.popitem(last=False)
        return 0.0 if passed else (cost - level) / self.per_second


class BodyTooLarge(Exception):
    """More bytes came than may."""


class _Limited:
    """Counts the bytes of a body that does not say its length."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self.receive, self.limit, self.taken = receive, limit, 0

    async def __call__(self) -> Message:
        message = await self.receive()
        if message["type"] == "http.request":
            self.taken += len(message.get("body", b""))
            if self.taken > self.limit:
                raise BodyTooLarge
        return message


def _too_large(limit: int) -> QueryError:
    return QueryError(f"The request is larger than {limit / 1e6:.3g} MB.", "Send a smaller file.")


def too_large_response(settings: Settings) -> Response:
    """The answer to a body that turned out too large."""
    return error_response(_too_large(settings.upload_bytes), 413)


def _host_of(headers: Headers) -> str:
    host = headers.get("host", "").lower()
    if host.startswith("["):
        inner, closed, _ = host.partition("]")
        return inner + closed
    return host.partition(":")[0]


def _path(request: Request) -> str:
    return str(request.scope["path"])
