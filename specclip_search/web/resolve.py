"""What a person types into the box, as a star of the atlas."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from specclip_search.queries.space.resolve import parse_position, resolve

from ..errors import QueryError
from .answers import records

if TYPE_CHECKING:
    from .session import Session

_LONGEST = 200
_AT_ARCSEC, _NEAR_ARCSEC = 5.0, 3600.0
_NEAREST = 20
_HOW = {"key": "its key", "id": "its id", "name": "its name"}


@dataclass(frozen=True)
class Found:
    """What a text means.

    Attributes
    ----------
    key
        Key of the star's page; None where no star of the atlas is meant.
    how
        In words, how it was found.
    ra, dec
        The place that was meant, ICRS degrees; None where the text named a star.
    near
        The nearest stars of the atlas to that place, as plain objects with `key` and `separation_arcsec`.
    """

    key: str | None
    how: str
    ra: float | None = None
    dec: float | None = None
    near: list[dict[str, Any]] = field(default_factory=list)


def resolve_target(session: Session, text: str) -> Found:
    """The star that `text` means: everything that the command line understands, except files of the server.

    Unlike there, a position without a star is an answer, too: the nearest stars are listed.

    Raises
    ------
    QueryError
        If it means nothing that the atlas knows.
    """
    text = " ".join(text.split())
    if not text or len(text) > _LONGEST:
        raise QueryError("The box needs a name, an id or a position.", "Try gaia:SOURCE_ID, or 188.7 12.6 in degrees.")
    place = parse_position(text)
    if place is not None:
        return _by_position(session, *place, f"the position {place[0]:.5f} {place[1]:+.5f}")
    found = resolve(session.space.atlas, text, network=not session.settings.offline, files=False)
    asked = found.releases[0] if "@" in text else None
    return Found(f"{found.keys[0]}@{asked}" if asked else str(found.keys[0]), _HOW[found.kind])


def nearest_stars(session: Session, ra: float, dec: float, radius_arcsec: float = _NEAR_ARCSEC) -> list[dict[str, Any]]:
    """The nearest stars of the atlas to a place, as plain objects, the nearest first."""
    with session.connection() as connection:
        statement = (
            "SELECT coalesce('gaia:' || gaia_spec_id::VARCHAR, 'lamost:' || lamost_spec_id::VARCHAR) AS key, "
            "source_id, ra, dec, separation_arcsec FROM cone(?, ?, ?) ORDER BY separation_arcsec "
            f"LIMIT {_NEAREST}"
        )
        table = connection.run(statement, [ra, dec, radius_arcsec / 3600])
        assert table is not None
        return records(table.arrow())


def _by_position(session: Session, ra: float, dec: float, how: str) -> Found:
    near = nearest_stars(session, ra, dec)
    if near and near[0]["separation_arcsec"] <= _AT_ARCSEC:
        return Found(near[0]["key"], how, ra, dec, near)
    return Found(None, how, ra, dec, near)
