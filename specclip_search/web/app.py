"""The explorer as an ASGI application: which address gives what."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from specclip_search.queries.anomalies.verdicts import record

from ..atlas.files import text_digest
from ..errors import QueryError, SpecclipError
from ..keys import parse_int64
from .access import COOKIE, COOKIE_SECONDS
from .answers import FORMATS, Page, cache_headers, error_response, packed, page_response, unchanged
from .guard import BodyTooLarge, Guard, too_large_response
from .pages import about, maps, queues, sky, sql, star, uploads
from .resolve import resolve_target
from .session import Busy, Session
from .shell import StaticFile, login_html, shell_html, static_files
from .tap.service import TapService

if TYPE_CHECKING:
    from ..atlas import Atlas
    from .settings import Settings

LOG = logging.getLogger("specclip_search.web")
PageMaker = Callable[[Session, Mapping[str, str]], Page]
BytesMaker = Callable[[Session, Mapping[str, str]], bytes | None]
LONGEST_QUERY = 30_000
PAGES: dict[str, PageMaker] = {
    "/index": about.home_page,
    "/anomalies": queues.anomalies_page,
    "/emp": queues.emp_page,
    "/verdicts": queues.history_page,
    "/map": maps.map_page,
    "/map/chosen": maps.chosen_page,
    "/map/point": maps.point_page,
    "/sky": sky.sky_page,
    "/sql": sql.sql_page,
    "/sql/schema": sql.schema_page,
    "/about": about.about_page,
}
# addresses that a person types; the others are data alone
SHELLS = ("/", "/anomalies", "/emp", "/map", "/sky", "/sql", "/about", "/star/{key}", "/file")


def make_app(atlas: Atlas, settings: Settings) -> Starlette:
    """The explorer of an atlas.

    Parameters
    ----------
    atlas
        Atlas to show.
    settings
        What the explorer may do; see `specclip_search.web.settings`.
    """
    session = Session(atlas, settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        # in the main thread, before any request
        session.warm()
        try:
            yield
        finally:
            tap.close()
            await run_in_threadpool(session.close)

    explorer = Explorer(session)
    tap = TapService(session)
    app = Starlette(
        routes=[*explorer.routes(), *tap.routes()],
        middleware=[Middleware(Guard, settings=settings)],
        exception_handlers={
            SpecclipError: _own_error,
            HTTPException: _http_error,
            BodyTooLarge: lambda request, error: too_large_response(settings),
            Exception: _unforeseen,
        },
        lifespan=lifespan,
    )
    app.state.session = session
    return app


class Explorer:
    """Endpoints over one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.settings = session.settings
        self.files: dict[str, StaticFile] = static_files()

    def routes(self) -> list[Route]:
        """All routes."""
        found = [Route(path, self.shell) for path in SHELLS if path != "/star/{key}"]
        for address, maker in PAGES.items():
            found += [Route(f"{address}.{format}", self._page(address, maker, format)) for format in FORMATS]
        data: dict[str, tuple[BytesMaker, str]] = {
            "/map/points": (maps.point_bytes, "application/octet-stream"),
            "/sky/density": (sky.density_bytes, "application/octet-stream"),
        }
        found += [Route(path, self._bytes(maker)) for path, (maker, _) in data.items()]
        return [
            *found,
            Route("/map/tiles/{z}/{x}/{y}", self.tile),
            Route("/star/{key}", self.star),
            Route("/star/{key}/spectra", self.spectra),
            Route("/star/{key}/{part}", self.star_part),
            Route("/api/resolve", self.resolve),
            Route("/api/similar", self.similar),
            Route("/verdict", self.verdict, methods=["POST"]),
            Route("/upload", self.upload, methods=["POST"]),
            Route("/login", self.login, methods=["GET", "POST"]),
            Route("/logout", self.logout, methods=["POST"]),
            Route("/me.json", self.me),
            Route("/healthz", self.healthz),
            Route("/static/{path:path}", self.static),
        ]

    # -- pages ------------------------------------------------------------------------------------

    def shell(self, request: Request) -> Response:
        """The page that the modules fill."""
        return packed(
            request, shell_html(self.settings.base_url), "text/html; charset=utf-8", {"Cache-Control": "no-cache"}
        )

    def _page(self, address: str, maker: PageMaker, format: str) -> Callable[[Request], Response]:
        def page(request: Request) -> Response:
            return self._answer(request, lambda: maker(self.session, _query(request)), format, address.split("/")[-1])

        return page

    def _answer(self, request: Request, make: Callable[[], Page], format: str, name: str) -> Response:
        etag = self._etag(request)
        if unchanged(request, etag):
            return Response(status_code=304, headers=cache_headers(etag))
        return page_response(request, make(), format, etag, name)

    def _etag(self, request: Request) -> str:
        """Digest of the atlas and of all that was asked."""
        return text_digest(self.session.digest(), request.scope["path"], str(request.url.query))[:32]

    def star(self, request: Request) -> Response:
        """A star's page, or its data where the address ends in a format."""
        key, format = _split(request.path_params["key"])
        if format is None:
            return self.shell(request)
        return self._answer(
            request, lambda: star.star_page(self.session, key, _query(request)), format, key.replace(":", "_")
        )

    def star_part(self, request: Request) -> Response:
        """Neighbours of a star."""
        part, format = _split(request.path_params["part"])
        if part != "neighbours" or format is None:
            raise HTTPException(404)
        key = request.path_params["key"]
        return self._answer(
            request, lambda: star.neighbours_page(self.session, key, _query(request)), format, f"neighbours_{key}"
        )

    def spectra(self, request: Request) -> Response:
        """A star's spectra for the viewer."""
        key = request.path_params["key"]
        return self._sent(request, lambda: star.spectra_bytes(self.session, key, _query(request)))

    def _bytes(self, maker: BytesMaker) -> Callable[[Request], Response]:
        def page(request: Request) -> Response:
            return self._sent(request, lambda: maker(self.session, _query(request)))

        return page

    def tile(self, request: Request) -> Response:
        """One tile of the map."""
        z, x, y = (request.path_params[name] for name in "zxy")
        return self._sent(request, lambda: maps.tile_bytes(self.session, z, x, y, _query(request)))

    def _sent(self, request: Request, make: Callable[[], bytes | None]) -> Response:
        etag = self._etag(request)
        headers = cache_headers(etag)
        if unchanged(request, etag):
            return Response(status_code=304, headers=headers)
        body = make()
        if body is None:
            return Response(status_code=204, headers=headers)
        return packed(request, body, "application/octet-stream", headers)

    def static(self, request: Request) -> Response:
        """A file of the front end, held in memory."""
        found = self.files.get(request.path_params["path"])
        if found is None:
            raise HTTPException(404)
        return found.response(request)

    # -- questions --------------------------------------------------------------------------------

    def resolve(self, request: Request) -> Response:
        """What a text means."""
        found = resolve_target(self.session, _query(request).get("q", ""))
        content = {"key": found.key, "how": found.how, "ra": found.ra, "dec": found.dec, "near": found.near}
        return _json(content)

    def similar(self, request: Request) -> Response:
        """The nearest spectra of `target`."""
        query = _query(request)
        return self._answer(
            request, lambda: star.neighbours_page(self.session, query.get("target", ""), query), "json", "similar"
        )

    def me(self, request: Request) -> Response:
        """Who is asking, and what this explorer lets them do."""
        person = request.state.person
        writes = not self.settings.read_only and person.may("judge")
        uploads = self.settings.uploads and (person.may("judge") or self.settings.allow_upload)
        return _json(
            {"user": person.user, "role": person.role, "judges": writes, "uploads": uploads,
             "upload_bytes": self.settings.upload_bytes, "login": self.settings.tokens is not None}
        )  # fmt: skip

    def healthz(self, request: Request) -> Response:
        """Whether the explorer answers; for watchers."""
        return _json({"ok": True})

    # -- what changes something --------------------------------------------------------------------

    async def verdict(self, request: Request) -> Response:
        """Keep a verdict."""
        body = await _json_body(request)
        pair = (_id_or_none(body.get("lrs_spec_id"), "lrs_spec_id"), _id_or_none(body.get("xp_spec_id"), "xp_spec_id"))
        texts = [body.get(name) or "" for name in ("queue", "verdict", "note")]
        if not all(isinstance(text, str) for text in texts):
            raise QueryError("queue, verdict and note must be texts.", 'Send {"queue": "anomalies", "verdict": ...}.')
        queue, word, note = texts
        user = request.state.person.user
        log = await run_in_threadpool(record, self.session.atlas, queue, pair, word, user, note)
        stands = log.standing(queue).get(pair)
        return _json(
            {"verdict": stands.verdict if stands else None, "judged_by": stands.users if stands else None,
             "note": stands.note if stands else None, "judged": len(log.standing(queue))}
        )  # fmt: skip

    async def upload(self, request: Request) -> Response:
        """Read a file, and find the stars that are most like it. Its bytes are written nowhere."""
        options = {name: value for name, value in _query(request).items() if name in uploads.OPTIONS and value}
        name = _query(request).get("name", "upload")
        pieces = bytearray()
        async for piece in request.stream():
            pieces += piece
            if len(pieces) > self.settings.upload_bytes:
                return too_large_response(self.settings)
        page = await run_in_threadpool(uploads.upload_page, self.session, bytes(pieces), name, options)
        return page_response(request, page, "json", "", "upload")

    async def login(self, request: Request) -> Response:
        """A form for a token, and the cookie that stands for it."""
        tokens = self.settings.tokens
        base = self.settings.base_url
        if tokens is None:
            return RedirectResponse(f"{base}/", 303)
        if request.method == "GET":
            return Response(login_html(base, ""), media_type="text/html; charset=utf-8")
        async with request.form(max_files=0, max_fields=4) as form:
            secret = form.get("token", "")
        if not isinstance(secret, str) or tokens.person_of(secret.strip()) is None:
            text = "This token is not known here."
            return Response(login_html(base, text), 403, media_type="text/html; charset=utf-8")
        answer = RedirectResponse(f"{base}/", 303)
        secure = request.headers.get("x-forwarded-proto", request.url.scheme) == "https"
        answer.set_cookie(
            COOKIE, tokens.cookie_for(secret.strip()), max_age=COOKIE_SECONDS, path=f"{base}/", httponly=True,
            samesite="strict", secure=secure,
        )  # fmt: skip
        return answer

    def logout(self, request: Request) -> Response:
        """Forget the cookie."""
        base = self.settings.base_url
        answer = RedirectResponse(f"{base}/login", 303)
        answer.delete_cookie(COOKIE, path=f"{base}/")
        return answer


def _query(request: Request) -> Mapping[str, str]:
    """The address's query; of a name that comes twice the last."""
    if len(request.url.query) > LONGEST_QUERY:
        raise QueryError("The address is too long.", "Shorten the statement.")
    return request.query_params


def _split(text: str) -> tuple[str, str | None]:
    """`gaia:1.json` as (`gaia:1`, `json`)."""
    stem, dot, end = text.rpartition(".")
    return (stem, end) if dot and end in FORMATS else (text, None)


def _id_or_none(value: Any, name: str) -> int:
    return -1 if value in (None, "", "-1", -1) else parse_int64(value, name)


async def _json_body(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise QueryError("A verdict is sent as application/json.", "Set the header Content-Type: application/json.")
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise QueryError("The request's body is not JSON.", 'Send {"queue": "anomalies", ...}.') from error
    if not isinstance(body, dict):
        raise QueryError("The request's body is not a JSON object.", 'Send {"queue": "anomalies", ...}.')
    return body


def _json(content: Any) -> Response:
    body = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, media_type=FORMATS["json"], headers={"Cache-Control": "no-store"})


def _own_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SpecclipError)
    status = 503 if isinstance(error, Busy) else 404 if "not in this atlas" in error.message else 400
    return error_response(error, status)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return error_response(QueryError("There is no such page.", "Begin at the first page."), 404)
    return error_response(QueryError(error.detail or "The request cannot be answered.", ""), error.status_code)


def _unforeseen(request: Request, error: Exception) -> Response:
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)
    LOG.error("%s %s failed", request.method, request.scope["path"], exc_info=error)
    return error_response(QueryError("The explorer failed on this request.", "Its log says why."), 500)
