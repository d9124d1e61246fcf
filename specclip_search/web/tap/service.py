"""The endpoints of TAP: one query at once, or as a job."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from specclip_search.queries.sql.sandbox_worker import Limits

from ...errors import QueryError, SpecclipError
from ..answers import table_bytes, whole_number
from ..pages.sql import schema_page
from .adql import to_duckdb
from .documents import VOTABLE, XML, availability, capabilities, error_votable, job_xml, result_votable, tableset

if TYPE_CHECKING:
    from starlette.requests import Request

    from ..session import Session

MOST_JOBS = 50
LIFETIME_S = 3600.0
_CSV, _PARQUET = "text/csv", "application/vnd.apache.parquet"
_FORMATS = {
    **dict.fromkeys(("", "votable", VOTABLE, "application/xml", "text/xml", "votable/td"), VOTABLE),
    **dict.fromkeys(("csv", _CSV), _CSV),
    **dict.fromkeys(("parquet", _PARQUET), _PARQUET),
}
_LANGUAGES = ("ADQL", "ADQL-2.0", "ADQL-2.1", "SQL")


@dataclass
class Job:
    """One query that runs while its asker waits elsewhere."""

    number: str
    owner: str
    parameters: dict[str, str]
    phase: str = "PENDING"
    created: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    result: bytes = b""
    kind: str = VOTABLE
    error: str = ""
    seconds: float = Limits().seconds
    lifetime: float = LIFETIME_S


class TapService:
    """TAP over one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.jobs: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(session.settings.sql_workers, thread_name_prefix="tap")

    def routes(self) -> list[Route]:
        """All routes, below /tap."""
        return [
            Route("/tap/sync", self.sync, methods=["GET", "POST"]),
            Route("/tap/async", self.create, methods=["POST"]),
            Route("/tap/async/{number}", self.job, methods=["GET", "POST", "DELETE"]),
            Route("/tap/async/{number}/phase", self.phase, methods=["GET", "POST"]),
            Route("/tap/async/{number}/results/result", self.result),
            Route("/tap/async/{number}/error", self.error),
            Route("/tap/async/{number}/{part}", self.part),
            Route("/tap/tables", self.tables),
            Route("/tap/availability", self.availability),
            Route("/tap/capabilities", self.capabilities),
        ]

    # -- at once ----------------------------------------------------------------------------------

    async def sync(self, request: Request) -> Response:
        """Run a query and answer with its rows."""
        parameters = await _parameters(request)
        try:
            body, kind = await run_in_threadpool(self._run, parameters)
        except SpecclipError as error:
            return _refused(error)
        return Response(body, media_type=kind, headers={"Cache-Control": "no-store"})

    def _run(self, parameters: Mapping[str, str]) -> tuple[bytes, str]:
        query = parameters.get("QUERY", "").strip()
        language = parameters.get("LANG", "ADQL").upper()
        wanted = parameters.get("RESPONSEFORMAT", parameters.get("FORMAT", "")).split(";")[0].strip().lower()
        if parameters.get("REQUEST", "doQuery") not in ("doQuery", ""):
            raise QueryError("REQUEST must be doQuery.", "Leave it out.")
        if "UPLOAD" in parameters:
            raise QueryError("Tables cannot be uploaded here.", "Join with a table of the atlas.")
        if not query:
            raise QueryError("The parameter QUERY is missing.", "Send QUERY=SELECT ... and LANG=ADQL.")
        if language not in _LANGUAGES:
            raise QueryError(
                f"LANG must be one of {', '.join(_LANGUAGES)}; found '{language[:40]}'.", "Send LANG=ADQL."
            )
        if wanted not in _FORMATS:
            raise QueryError(f"There is no format '{wanted[:60]}'.", "Send RESPONSEFORMAT=votable, csv or parquet.")
        most = whole_number(parameters.get("MAXREC"), "MAXREC", 0, 10**12, Limits().rows)
        answer = self.session.sandboxed(query if language == "SQL" else to_duckdb(query))
        table = answer.table.slice(0, most)
        overflow = answer.truncated or table.num_rows < answer.table.num_rows
        kind = _FORMATS[wanted]
        if kind == VOTABLE:
            return result_votable(table, overflow), kind
        return table_bytes(table, "csv" if kind == _CSV else "parquet"), kind

    # -- as a job ---------------------------------------------------------------------------------

    async def create(self, request: Request) -> Response:
        """Make a job, and start it where PHASE=RUN."""
        parameters = await _parameters(request)
        job = Job(secrets.token_urlsafe(16), request.state.person.user, parameters)
        run = job.parameters.pop("PHASE", "").upper() == "RUN"
        with self._lock:
            self._forget()
            if len(self.jobs) >= MOST_JOBS:
                return _refused(QueryError("Too many jobs wait.", "Try again in a few minutes."))
            self.jobs[job.number] = job
        if run:
            self._start(job)
        return self._to(request, job)

    def _forget(self) -> None:
        """Let go of jobs whose time is over, and of the oldest that are done where there are many."""
        now = time.time()
        for number, job in list(self.jobs.items()):
            done = job.phase in ("COMPLETED", "ERROR", "ABORTED")
            if now > job.created + job.lifetime or (done and len(self.jobs) >= MOST_JOBS):
                del self.jobs[number]

    def _start(self, job: Job) -> None:
        with self._lock:
            if job.phase != "PENDING":
                return
            job.phase = "QUEUED"
        self._pool.submit(self._work, job)

    def _work(self, job: Job) -> None:
        if job.phase != "QUEUED":
            return
        job.phase, job.started = "EXECUTING", time.time()
        try:
            result, kind = self._run(job.parameters)
            outcome = "COMPLETED"
            job.result, job.kind = result, kind
        except SpecclipError as error:
            job.error, outcome = str(error), "ERROR"
        # a job must not stay in a phase for ever
        except Exception as error:
            job.error, outcome = f"the query failed: {type(error).__name__}", "ERROR"
        job.ended = time.time()
        if job.phase == "EXECUTING":
            job.phase = outcome

    def _job(self, request: Request) -> Job:
        job = self.jobs.get(request.path_params["number"])
        if job is None or job.owner != request.state.person.user:
            raise QueryError("There is no such job; it is not in this atlas's explorer any more.", "Start another one.")
        return job

    def _to(self, request: Request, job: Job) -> Response:
        return RedirectResponse(f"{self.base(request)}/async/{job.number}", 303)

    async def job(self, request: Request) -> Response:
        """What a job is doing; ACTION=DELETE ends it."""
        job = self._job(request)
        if request.method == "DELETE":
            self.jobs.pop(job.number, None)
            return Response(status_code=204)
        if request.method == "POST":
            if (await _parameters(request)).get("ACTION", "").upper() == "DELETE":
                self.jobs.pop(job.number, None)
                return Response(status_code=204)
            return self._to(request, job)
        # UWS 1.1: WAIT answers when the phase has changed, or after so many seconds
        wait = whole_number(request.query_params.get("WAIT"), "WAIT", -1, 10**9, 0)
        until = time.monotonic() + min(wait if wait >= 0 else 20, 20)
        while job.phase in ("QUEUED", "EXECUTING") and time.monotonic() < until:
            await run_in_threadpool(time.sleep, 0.05)
        return Response(job_xml(job, f"{self.base(request)}/async/{job.number}"), media_type=XML)

    async def phase(self, request: Request) -> Response:
        """The phase; PHASE=RUN starts a job, PHASE=ABORT ends it."""
        job = self._job(request)
        if request.method == "GET":
            return Response(job.phase, media_type="text/plain")
        wanted = (await _parameters(request)).get("PHASE", "").upper()
        if wanted == "RUN":
            self._start(job)
        elif wanted == "ABORT":
            job.phase = "ABORTED"
        else:
            return _refused(QueryError("PHASE must be RUN or ABORT.", "Send one of these."))
        return self._to(request, job)

    def result(self, request: Request) -> Response:
        """Rows of a job that is done."""
        job = self._job(request)
        if job.phase != "COMPLETED":
            return Response(error_votable(job.error or f"the job is {job.phase}"), 404, media_type=VOTABLE)
        return Response(job.result, media_type=job.kind)

    def error(self, request: Request) -> Response:
        """Why a job failed."""
        return Response(error_votable(self._job(request).error), media_type=VOTABLE)

    def part(self, request: Request) -> Response:
        """Single values of a job."""
        job = self._job(request)
        values = {
            "owner": job.owner,
            "executionduration": f"{job.seconds:.0f}",
            "quote": "",
            "destruction": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(job.created + job.lifetime)),
        }
        part = request.path_params["part"]
        if part in ("results", "parameters"):
            return Response(job_xml(job, f"{self.base(request)}/async/{job.number}"), media_type=XML)
        if part not in values:
            raise QueryError("A job has no such part.", "Ask for phase, results, parameters or error.")
        return Response(values[part], media_type="text/plain")

    # -- what there is ----------------------------------------------------------------------------

    def base(self, request: Request) -> str:
        """Address of the service as the asker sees it."""
        scheme = request.headers.get("x-forwarded-proto", request.url.scheme)
        scheme = scheme if scheme in ("http", "https") else "http"
        return f"{scheme}://{request.headers['host']}{self.session.settings.base_url}/tap"

    def tables(self, request: Request) -> Response:
        """VOSI tables."""
        return Response(tableset(schema_page(self.session, {}).content["views"]), media_type=XML)

    def availability(self, request: Request) -> Response:
        """VOSI availability."""
        return Response(availability(), media_type=XML)

    def capabilities(self, request: Request) -> Response:
        """VOSI capabilities."""
        limits = Limits()
        return Response(capabilities(self.base(request), limits.rows, limits.seconds), media_type=XML)

    def close(self) -> None:
        """Start no more jobs."""
        self._pool.shutdown(wait=False, cancel_futures=True)


async def _parameters(request: Request) -> dict[str, str]:
    """Parameters of query and form; their names are case-insensitive (DALI 1.1, section 3)."""
    given = list(request.query_params.multi_items())
    if request.method == "POST":
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            async with request.form(max_files=0, max_fields=20) as form:
                given += [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
        else:
            body = (await request.body()).decode("utf-8", "replace")
            try:
                given += parse_qsl(body, keep_blank_values=True, max_num_fields=50)
            except ValueError as error:
                raise QueryError("The form has too many fields.", "Send QUERY and LANG.") from error
    return {name.upper(): value for name, value in given}


def _refused(error: SpecclipError) -> Response:
    return Response(error_votable(str(error)), 400, media_type=VOTABLE, headers={"Cache-Control": "no-store"})
