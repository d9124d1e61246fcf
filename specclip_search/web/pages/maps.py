"""The map of the space: tiles, points, and what lies inside a box or a lasso."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from specclip_search.queries.maps.colours import category_colours, colouring
from specclip_search.queries.maps.map import check_color, map_columns, map_table
from specclip_search.queries.space.spectra import read_spectra

from ...errors import QueryError
from ...surveys import PAIR, get_modality
from ..answers import Page, real_number, records, rows_json, whole_number
from .tiles import MOST_POINTS, Tiles, double, inside_polygon, polygon_sql

if TYPE_CHECKING:
    from ..session import Session

MOST_CORNERS = 64
MOST_CHOSEN = 100_000
SHOWN = 1000
MEAN_OF = 200
_ROWS = ("x", "y", "modality", "release", "spec_id", "source_id")
_SELECT = "SELECT spec_id, source_id, modality, release, x, y FROM map WHERE "


def tiles_of(session: Session) -> Tiles:
    """The map's points, sorted into cells; made once."""
    return session.kept(("tiles",), lambda: _read_tiles(session), grid=True)


def _read_tiles(session: Session) -> Tiles:
    stage = session.atlas.results("map")
    if not stage.exists:
        raise QueryError(
            "The atlas holds no map of its space.", "Run `specclip-search map --output map.png` on it first."
        )
    table = stage.read(["x", "y"])
    return Tiles(table["x"].to_numpy(), table["y"].to_numpy())


def map_page(session: Session, query: Mapping[str, str]) -> Page:
    """What the map covers, what it can be coloured by, and the scale of the colour chosen (`color`)."""
    tiles = tiles_of(session)
    stage = session.atlas.results("map")
    colour = _colour(session, query.get("color"))
    columns = session.kept(("map columns",), lambda: map_columns(session.atlas))
    extra = stage.parts()[0].extra
    content = {
        "points": len(tiles.x),
        "extent": [tiles.extent.x0, tiles.extent.y0, tiles.extent.side],
        "levels": tiles.levels,
        "most_points": MOST_POINTS,
        "columns": columns,
        "color": None if colour is None else colour.told,
        "sample": extra.get("sample"),
        "model": extra.get("model"),
        "digest": stage.parts()[0].inputs,
    }
    return Page(content, stage.read(list(_ROWS)).slice(0, MOST_CHOSEN))


class Colour:
    """One column of the map as colours between 0 and 1."""

    def __init__(self, session: Session, name: str) -> None:
        check_color(session.atlas, name)
        found = colouring(map_table(session.atlas, [name]), name)
        if found.categories:
            last = max(len(found.categories) - 1, 1)
            self.values = np.where(found.values >= 0, found.values / last, np.nan)
        else:
            with np.errstate(invalid="ignore"):
                self.values = np.clip((found.values - found.low) / (found.high - found.low), 0, 1)
        self.grid = tiles_of(session).colour_grid(self.values)
        self.told: dict[str, Any] = {
            "name": found.name, "label": found.label, "low": found.low, "high": found.high,
            "categories": list(found.categories), "colours": category_colours(found),
        }  # fmt: skip


def _colour(session: Session, name: str | None) -> Colour | None:
    if not name:
        return None
    return session.kept(("colour", name), lambda: Colour(session, name), grid=True)


def tile_bytes(session: Session, level: str, tx: str, ty: str, query: Mapping[str, str]) -> bytes:
    """One tile, as `Tiles.tile` packs it."""
    tiles = tiles_of(session)
    z = whole_number(level, "the level", 0, tiles.levels, 0)
    x, y = (whole_number(text, "the tile's place", 0, 2**z - 1, 0) for text in (tx, ty))
    colour = _colour(session, query.get("color"))
    return tiles.tile(z, x, y, None if colour is None else colour.grid)


def point_bytes(session: Session, query: Mapping[str, str]) -> bytes | None:
    """Single points of a box; None where more are in it than a browser draws quickly."""
    tiles = tiles_of(session)
    box = _box(query.get("box"))
    colour = _colour(session, query.get("color"))
    rows = tiles.within(*box, MOST_POINTS)
    return None if rows is None else tiles.points(rows, box, None if colour is None else colour.values)


def point_page(session: Session, query: Mapping[str, str]) -> Page:
    """One point of the map: its key and what is known of its star."""
    tiles = tiles_of(session)
    row = whole_number(query.get("row"), "row", 0, len(tiles.x) - 1, 0)
    table = _rows(session, np.array([row], np.int64))
    return Page(_keyed(table), table)


def chosen_page(session: Session, query: Mapping[str, str]) -> Page:
    """Spectra in a box (`box=x0,y0,x1,y1`) or a lasso (`lasso=x,y,x,y,...`): rows, mean spectra, SQL."""
    tiles = tiles_of(session)
    lasso = query.get("lasso")
    if lasso:
        corners = _corners(lasso)
        low, high = corners.min(axis=0), corners.max(axis=0)
        rows = tiles.within(low[0], low[1], high[0], high[1], MOST_CHOSEN)
        condition = polygon_sql(corners)
        if rows is not None:
            rows = rows[inside_polygon(tiles.x[rows], tiles.y[rows], corners)]
    else:
        box = _box(query.get("box"))
        rows = tiles.within(*box, MOST_CHOSEN)
        x0, y0, x1, y1 = (double(value) for value in box)
        condition = f"x BETWEEN {x0} AND {x1} AND y BETWEEN {y0} AND {y1}"
    if rows is None:
        raise QueryError(
            f"The area holds more than {MOST_CHOSEN:,} spectra.",
            "Choose a smaller one, or take its SQL to the SQL page.",
        )
    table = _rows(session, rows)
    content = {
        **_keyed(table.slice(0, SHOWN)),
        "chosen": table.num_rows,
        "shown": min(table.num_rows, SHOWN),
        "sql": _SELECT + condition,
        "mean": _mean_spectra(session, table),
    }
    return Page(content, table)


def _keyed(table: pa.Table) -> dict[str, Any]:
    prefix = {modality.name: modality.prefix for modality in PAIR}
    keys = [f"{prefix.get(row['modality'], row['modality'])}:{row['spec_id']}" for row in records(table)]
    return {**rows_json(table), "keys": keys}


def _rows(session: Session, rows: np.ndarray) -> pa.Table:
    """Stored rows of the map by their number over all shards."""
    pieces, start = [], 0
    schema = None
    for part in session.atlas.results("map").parts():
        schema = schema or pq.read_schema(part.path)
        here = rows[(rows >= start) & (rows < start + part.rows)] - start
        if len(here):
            pieces.append(pq.ParquetFile(part.path).read(columns=list(_ROWS)).take(pa.array(here)))
        start += part.rows
    if not pieces:
        assert schema is not None
        return pa.schema([schema.field(name) for name in _ROWS]).empty_table()
    return pa.concat_tables(pieces)


def _mean_spectra(session: Session, table: pa.Table) -> list[dict[str, Any]]:
    """Median and 16-84 % band of up to 200 spectra of each instrument among those chosen."""
    found = []
    modalities = np.array(table["modality"].to_pylist(), dtype=object)
    for modality in sorted(set(modalities.tolist())):
        if not session.atlas.spectra(modality).exists:
            continue
        here = np.flatnonzero(modalities == modality)
        some = here[np.unique(np.linspace(0, len(here) - 1, min(MEAN_OF, len(here))).astype(int))]
        ids = table["spec_id"].take(pa.array(some)).to_numpy()
        spectra = read_spectra(session.atlas, modality, ids, table["release"].take(pa.array(some)).to_pylist())
        flux = spectra.flux[spectra.found]
        if not len(flux):
            continue
        known = get_modality(modality)
        low, median, high = np.quantile(flux, (0.16, 0.5, 0.84), axis=0)
        found.append(
            {"modality": modality, "title": known.title, "unit": known.unit, "spectra": len(flux), "of": len(here),
             "wavelength": np.round(known.wavelength, 3).tolist(), "low": np.round(low, 4).tolist(),
             "median": np.round(median, 4).tolist(), "high": np.round(high, 4).tolist()}
        )  # fmt: skip
    return found


def _numbers(text: str | None, name: str, example: str) -> list[float]:
    values = [real_number(piece, name) for piece in (text or "").split(",", 4 * MOST_CORNERS) if piece.strip()]
    if any(value is not None and abs(value) > 1e9 for value in values):
        raise QueryError(f"{name} holds a number that is on no map.", f"Write {example}.")
    return [value for value in values if value is not None]


def _box(text: str | None) -> tuple[float, float, float, float]:
    values = _numbers(text, "box", "box=x0,y0,x1,y1")
    if len(values) != 4 or values[0] >= values[2] or values[1] >= values[3]:
        raise QueryError("A box needs four numbers, the lower left corner first.", "Write box=x0,y0,x1,y1.")
    return values[0], values[1], values[2], values[3]


def _corners(text: str) -> np.ndarray:
    values = _numbers(text, "lasso", "lasso=x,y,x,y,x,y")
    if len(values) % 2 or not 6 <= len(values) <= 2 * MOST_CORNERS:
        raise QueryError(
            f"A lasso needs 3 to {MOST_CORNERS} corners, two numbers each; found {len(values)} numbers.",
            "Write lasso=x,y,x,y,x,y.",
        )
    return np.array(values, dtype=np.float64).reshape(-1, 2)
