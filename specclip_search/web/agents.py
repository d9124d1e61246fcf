"""The atlas for agents: a server of the Model Context Protocol whose tools are the explorer's pages.

Everything is read-only: statements run in the sandbox, and no tool gives verdicts or reads files. Answers are cut to
what fits a conversation, and say so.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra, QueryError, SpecclipError
from ..version import __version__
from .answers import rows_json
from .pages import about, queues, sql, star
from .pages.curves import checked_key
from .resolve import resolve_target
from .session import Session
from .settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mcp.server import MCPServer

    from ..atlas import Atlas
    from .answers import Page

MOST_ROWS = 200
MOST_CELLS = 4000
_ANOMALY = (
    "rank",
    "key",
    "source_id",
    "score",
    "p_value",
    "q_value",
    "kind",
    "reason",
    "lrs_snr",
    "xp_snr",
    "similarity",
    "n_visits",
    "ra",
    "dec",
    "teff",
    "logg",
    "feh",
    "verdict",
)
_EMP = (
    "rank",
    "key",
    "source_id",
    "probability",
    "feh",
    "feh_err",
    "flags",
    "lrs_snr",
    "xp_snr",
    "p_lrs_estimator",
    "p_xp_estimator",
    "p_xp_network",
    "p_neighbours",
    "verdict",
)
_SIMILAR = (
    "rank",
    "modality",
    "spec_id",
    "source_id",
    "similarity",
    "release",
    "snr",
    "ra",
    "dec",
    "teff",
    "logg",
    "feh",
    "teff_estimated",
    "logg_estimated",
    "feh_estimated",
    "feh_err_estimated",
)
INSTRUCTIONS = """An atlas of stellar spectra (LAMOST low resolution, Gaia XP) in one vector space.
Stars are named by keys: gaia:SOURCE_ID or lamost:OBSID. Begin with `about` and `resolve`.
Ids are texts; never turn them into floating-point numbers.
A similarity is a cosine; compare it within one instrument only.
Scores are evidence, not classifications: quote p- or q-values and the reason with them."""


def make_server(atlas: Atlas) -> MCPServer[Any]:
    """The server with its tools; `run()` speaks on standard input and output.

    Raises
    ------
    MissingExtra
        If the official SDK is not installed.
    """
    try:
        from mcp.server import MCPServer
        from mcp.server.mcpserver import Image
    except ImportError as error:
        raise MissingExtra("mcp", "mcp", "The server for agents") from error
    session = Session(atlas, Settings(read_only=True, offline=True, sql_workers=1))
    session.warm()
    server: MCPServer[Any] = MCPServer("specclip-search", version=__version__, instructions=INSTRUCTIONS)

    @server.tool()
    def resolve(text: str) -> dict[str, Any]:
        """Find the star that an id, a LAMOST file name or a position (degrees or sexagesimal, ICRS) means."""
        found = _told(lambda: resolve_target(session, text))
        return {"key": found.key, "how": found.how, "nearest": found.near[:10]}

    @server.tool(name="about")
    def about_atlas() -> dict[str, Any]:
        """What the atlas holds, with what it was made, how well its indexes find, which searches can be asked."""
        page = _told(lambda: about.about_page(session, {})).content
        return {name: page[name] for name in ("atlas", "version", "digest", "counts", "rejected", "recall", "health")}

    @server.tool(name="star")
    def one_star(key: str) -> dict[str, Any]:
        """All that is known of one star: labels of each source with errors, anomaly score, [Fe/H] evidence, place."""
        page = dict(_told(lambda: star.star_page(session, key, {})).content)
        for name in ("copy", "tables", "links", "map"):
            page.pop(name, None)
        if page["anomaly"]:
            page["anomaly"] = {**page["anomaly"], "z": page["anomaly"]["z"][:8]}
        return _origin(session, page)

    @server.tool()
    def similar(key: str, k: int = 10, within: str = "") -> dict[str, Any]:
        """The nearest spectra of a star's spectrum; `within` is lamost_lrs, gaia_xp or empty for both."""
        query = {"k": str(min(k, 50)), **({"within": within} if within else {})}
        return _rows(session, lambda: star.neighbours_page(session, checked_key(key), query), _SIMILAR)

    @server.tool()
    def anomalies(top: int = 20, kind: str = "", q_at_most: float = 1.0) -> dict[str, Any]:
        """The strangest stars with reasons; `kind` is astrophysical, instrumental, wrong_match or empty."""
        query = {"top": str(min(top, MOST_ROWS)), "kind": kind, "q": str(q_at_most)}
        return _rows(session, lambda: queues.anomalies_page(session, query), _ANOMALY)

    @server.tool()
    def metal_poor(top: int = 20, probability_at_least: float = 0.0) -> dict[str, Any]:
        """The stars most likely to be metal-poor, with the probabilities by each part of the evidence."""
        query = {"top": str(min(top, MOST_ROWS)), "p": str(probability_at_least)}
        return _rows(session, lambda: queues.emp_page(session, query), _EMP)

    @server.tool()
    def schema(view: str = "") -> dict[str, Any]:
        """The views that SQL can read; with `view` its columns with units and meanings."""
        views = _told(lambda: sql.schema_page(session, {})).content["views"]
        if not view:
            return {"views": {one["name"]: one["description"] for one in views}}
        found = next((one for one in views if one["name"] == view), None)
        if found is None:
            names = ", ".join(one["name"] for one in views)
            raise _refusal(QueryError(f"There is no view '{view[:60]}'.", f"There are: {names}."))
        return dict(found)

    @server.tool(name="sql")
    def ask_sql(statement: str) -> dict[str, Any]:
        """One SELECT of DuckDB over the atlas's views, in a sandbox; `similar('gaia:ID', k)` is a table."""
        return _rows(session, lambda: sql.sql_page(session, {"q": statement}))

    @server.tool(structured_output=False)
    def picture(key: str, k: int = 10) -> Any:
        """A PNG of a star's spectra over those of its neighbours, telling windows marked."""
        return Image(data=_told(lambda: _picture(session, checked_key(key), min(k, 50))), format="png")

    return server


def _picture(session: Session, key: str, k: int) -> bytes:
    from specclip_search.queries.similar.picture import plot_similar
    from specclip_search.queries.similar.similar import similar

    frame = similar(session.atlas, key, k)
    with TemporaryDirectory(prefix="specclip-search-") as folder:
        path = Path(folder) / "similar.png"
        plot_similar(session.atlas, frame, path)
        return path.read_bytes()


def _rows(session: Session, make: Callable[[], Page], columns: tuple[str, ...] = ()) -> dict[str, Any]:
    """Rows as objects, no more than fit a conversation."""
    table = _told(make).table
    names = [name for name in columns if name in table.column_names] or table.column_names
    most = max(1, min(MOST_ROWS, MOST_CELLS // max(len(names), 1)))
    content = rows_json(table.select(names).slice(0, most))
    rows = [dict(zip(names, row, strict=True)) for row in content["rows"]]
    units = {column["name"]: column["unit"] for column in content["columns"] if column["unit"]}
    return _origin(session, {"rows": rows, "units": units, "rows_in_all": table.num_rows})


def _origin(session: Session, content: Mapping[str, Any]) -> dict[str, Any]:
    """An answer with what it came from, so that it can be had again."""
    space = session.space
    return {**content, "from": {"atlas_digest": session.digest(), "model": space.model, "version": __version__}}


def _told(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except SpecclipError as error:
        raise _refusal(error) from error


def _refusal(error: SpecclipError) -> Exception:
    """An error of ours as the protocol's: the agent reads what was expected, found, and what to do."""
    from mcp.server.mcpserver.exceptions import ToolError

    return ToolError(str(error))
