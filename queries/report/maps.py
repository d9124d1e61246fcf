"""Maps of a report: pictures inline, with the cards' stars marked on them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from specclip_search.errors import MissingExtra, SpecclipError
from specclip_search.tables.pictures import plain_style

from ..maps.colours import category_colours, colouring
from ..maps.map import make_map, map_columns, map_table
from ..maps.picture import POINTS_BELOW, map_image, view_of
from .words import figures

if TYPE_CHECKING:
    from specclip_search.progress import Progress

    from ..space.space import Space
    from .cards import Card

COLOURS = ("feh", "teff", "anomaly_score", "emp_probability")
PIXELS = 460
SAMPLE = 20_000
LEAST_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class MapPicture:
    """A map of the page.

    Attributes
    ----------
    image
        A data URI.
    name
        What it is coloured by, with the unit.
    low, high
        Ends of the colour bar.
    categories
        (name, colour) where the colours are categories.
    marks
        (card, left, top, title) of the stars on cards; left and top in per cent.
    """

    image: str
    name: str
    low: str
    high: str
    categories: list[tuple[str, str]]
    marks: list[tuple[str, float, float, str]]


def make_maps(
    space: Space, cards: Sequence[Card], seed: int = 0, progress: Progress | None = None
) -> tuple[list[MapPicture], str]:
    """Maps in every colour that the atlas has, and why there is none where there is none.

    The map that is kept is drawn where there is one of these vectors; else one is made.
    """
    try:
        stage = space.atlas.results("map")
        if not (stage.exists and _is_current(space)):
            make_map(space.atlas, sample=SAMPLE, seed=seed, model=space.model, progress=progress)
        known = set(map_columns(space.atlas))
        table = map_table(space.atlas, [name for name in COLOURS if name in known])
        with plain_style("a map of the space"):
            return _pictures(table, cards), ""
    except MissingExtra as error:
        return [], str(error)


def _is_current(space: Space) -> bool:
    """Whether the map that is kept shows the vectors there are, whatever sample and seed it was made with."""
    extra = space.atlas.results("map").parts()[0].extra
    rows = sum(len(space.keys(name)) for name in extra.get("modalities", []) if name in space.modalities)
    same = extra.get("model_digest") == space.model_digest() and extra.get("model") == space.model
    return same and space.atlas.results("map").rows == rows


def _pictures(table: pa.Table, cards: Sequence[Card]) -> list[MapPicture]:
    x, y = table["x"].to_numpy(), table["y"].to_numpy()
    extent = view_of(x, y)
    marks = _marks(table, cards, extent)
    pictures = []
    for column in (name for name in COLOURS if name in table.column_names):
        try:
            colours = colouring(table, column)
        except SpecclipError:
            continue
        if np.isfinite(colours.values).mean() < LEAST_SHARE:
            continue
        image, _ = map_image(x, y, colours, extent, PIXELS, spread=len(x) <= POINTS_BELOW)
        pairs = list(zip(colours.categories, category_colours(colours), strict=True))
        low, high = figures(colours.low), figures(colours.high)
        pictures.append(MapPicture(_data_uri(image), colours.label, low, high, pairs, marks))
    return pictures


def _marks(
    table: pa.Table, cards: Sequence[Card], extent: tuple[float, float, float, float]
) -> list[tuple[str, float, float, str]]:
    """Where the cards' stars lie; the XP spectrum speaks for a star that has both."""
    wanted = pa.array([key for card in cards for key in card.keys], pa.string())
    rows = np.flatnonzero(pc.is_in(table["key"], value_set=wanted).to_numpy())
    place = dict(zip(table["key"].take(rows).to_pylist(), rows.tolist(), strict=True))
    left, right, bottom, top = extent
    x, y = table["x"].to_numpy(), table["y"].to_numpy()
    marks = []
    for card in cards:
        row = next((place[key] for key in card.keys if key in place), None)
        if row is not None:
            across = 100 * float((x[row] - left) / (right - left))
            down = 100 * float((top - y[row]) / (top - bottom))
            marks.append((card.number, round(across, 2), round(down, 2), card.title))
    return marks


def _data_uri(image: np.ndarray) -> str:
    """RGBA rows from the bottom up as a PNG in the page itself."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    rows = (np.clip(image[::-1], 0, 1) * 255).astype(np.uint8)
    unnamed: dict[str, str | None] = {"Software": None}
    imsave(buffer, rows, format="png", metadata=unnamed)  # type: ignore[arg-type]
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
