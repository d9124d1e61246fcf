"""One self-contained HTML page: what was searched, what was found, and what every number means."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from specclip_search.atlas.files import write_text
from specclip_search.errors import QueryError, SpecclipError
from specclip_search.progress import Progress
from specclip_search.version import __version__

from ..space.space import Space, open_space
from .cards import Card, make_cards
from .facts import Facts, definitions, gather_facts
from .maps import MapPicture, make_maps

if TYPE_CHECKING:
    import pandas as pd

    from specclip_search.atlas import Atlas

MOST_CARDS = 100
ANOMALY_HEADLINE = ("score", "p_value", "q_value", "similarity", "lrs_snr", "xp_snr", "n_visits", "n_odd_visits")
EMP_HEADLINE = ("probability", "feh", "feh_err", "lrs_snr", "xp_snr")


@dataclass(frozen=True, slots=True)
class ReportResult:
    """What was written.

    Attributes
    ----------
    path
        The page.
    size
        Its bytes.
    anomalies, emp, maps
        Numbers of cards and pictures on it.
    notes
        What is missing on the page, and why.
    """

    path: Path
    size: int
    anomalies: int
    emp: int
    maps: int
    notes: list[str]


def write_report(
    atlas: Atlas,
    path: str | Path,
    *,
    anomalies: int = 20,
    emp: int = 20,
    below: float = -3.0,
    maps: bool = True,
    model: str | None = None,
    title: str = "",
    progress: Progress | None = None,
) -> ReportResult:
    """Search the atlas and write what was found as a page that needs no network.

    The same atlas and options give the same bytes.

    Parameters
    ----------
    path
        Ends in .html.
    anomalies, emp
        How many cards of each, 0 to 100; 0 leaves that search out.
    below
        [Fe/H] below which a star counts as metal-poor.
    maps
        Draw maps of the space, where umap-learn is installed.

    Raises
    ------
    QueryError
        If the name ends otherwise, a number of cards is out of range, or translations are there but out of date.
    VectorIndexError
        If an index is missing or stale.
    """
    target = Path(path)
    _check(target, anomalies, emp)
    space = open_space(atlas, model)
    notes: list[str] = []
    tell = progress or (lambda done, total, note: None)
    tell(0, 4, "anomalies")
    # a page without anomalies is for atlases that cannot have any, not for those where something is amiss
    usable = atlas.translations(space.model).exists
    odd = _searched(notes, "anomalies", anomalies, lambda: _anomalies(atlas, anomalies, space.model), usable)
    tell(1, 4, "emp")
    poor = _searched(notes, "emp", emp, lambda: _emp(atlas, emp, below, space.model))
    tell(2, 4, "cards")
    odd_cards = [] if odd is None else make_cards(space, odd, "a", ANOMALY_HEADLINE)
    poor_cards = [] if poor is None else make_cards(space, poor, "e", EMP_HEADLINE)
    tell(3, 4, "maps")
    pictures, why = make_maps(space, [*odd_cards, *poor_cards]) if maps else ([], "")
    notes += [f"map: {why}"] if why else []
    page = _Page(
        title or f"What was found in {atlas.path.resolve().name}",
        gather_facts(space),
        odd_cards,
        poor_cards,
        below,
        pictures,
        notes,
        [_provenance(frame) for frame in (odd, poor) if frame is not None],
    )
    text = render(space, page)
    write_text(target, text)
    tell(4, 4, "")
    return ReportResult(target, len(text.encode()), len(odd_cards), len(poor_cards), len(pictures), notes)


@dataclass(frozen=True, slots=True)
class _Page:
    """Everything that the template shows."""

    title: str
    facts: Facts
    anomalies: list[Card]
    emp: list[Card]
    below: float
    maps: list[MapPicture]
    notes: list[str]
    provenance: list[str]


def _check(path: Path, anomalies: int, emp: int) -> None:
    if path.suffix.lower() not in (".html", ".htm"):
        raise QueryError(f"A report's name must end in .html; found '{path.name}'.", "Name it, say, report.html.")
    for name, number in (("anomalies", anomalies), ("emp", emp)):
        if not 0 <= number <= MOST_CARDS:
            raise QueryError(
                f"A report shows 0 to {MOST_CARDS} cards of {name}; found {number}.",
                f"`specclip-search {name} --top {max(number, 1)}` lists more, as a table.",
            )


def _searched(
    notes: list[str], name: str, number: int, search: Callable[[], pd.DataFrame], strict: bool = False
) -> pd.DataFrame | None:
    """A search's result; None where it cannot be done on this atlas, which a note tells unless `strict`."""
    if number == 0:
        return None
    try:
        return search()
    except SpecclipError as error:
        if strict:
            raise
        notes.append(f"{name}: {error}")
        return None


def _anomalies(atlas: Atlas, top: int, model: str) -> pd.DataFrame:
    from ..anomalies.anomalies import anomalies

    return anomalies(atlas, top=top, model=model)


def _emp(atlas: Atlas, top: int, below: float, model: str) -> pd.DataFrame:
    from ..emp.candidates import emp_candidates

    return emp_candidates(atlas, below=below, top=top, model=model)


def _provenance(frame: pd.DataFrame) -> str:
    """Options and digests of a search; its columns' meanings stand in the definitions."""
    from specclip_search.tables.provenance import COLUMNS

    told = {name: value for name, value in frame.attrs.items() if name != COLUMNS}
    return json.dumps(told, sort_keys=True, default=str, indent=1)


def render(space: Space, page: _Page) -> str:
    """The page as HTML; everything that came from the atlas is escaped."""
    from jinja2 import Environment, StrictUndefined

    folder = files(__package__) / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    content: dict[str, Any] = {
        "page": page,
        "version": __version__,
        "definitions": definitions(space),
        "style": Markup((folder / "report.css").read_text(encoding="utf-8")),
        "script": Markup((folder / "report.js").read_text(encoding="utf-8")),
    }
    return environment.from_string((folder / "report.html").read_text(encoding="utf-8")).render(content) + "\n"
