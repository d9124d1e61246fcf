"""What a person types into the box, as a star of the atlas.

`resolve_target` is the only function that pages call; a resolver shared with the command line takes its place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from specclip_search.queries.space.resolve import sesame

from ..errors import QueryError
from ..keys import INT64_MAX, SpectrumKey
from ..surveys import LRS, XP
from .answers import records

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord

    from .session import Session

_GAIA_NAME = re.compile(r"gaia\s*(?:e?dr[34])?\s*[:\s]\s*(\d{1,19})", re.IGNORECASE)
_LAMOST_NAME = re.compile(r"lamost\s*(?:obsid)?\s*[:\s]\s*(\d{1,19})(@[\w.]{1,20})?", re.IGNORECASE)
_LAMOST_FILE = re.compile(r"spec-(\d{5})-([\w+-]{1,40})_sp(\d{2})-(\d{3})(?:\.fits(?:\.gz)?)?", re.IGNORECASE)
_J_NAME = re.compile(r"(?:\w+\s+)?J(\d{2})(\d{2})(\d{2}(?:\.\d*)?)([+-])(\d{2})(\d{2})(\d{2}(?:\.\d*)?)")
_GALACTIC = re.compile(r"l\s*=?\s*([-+]?\d+(?:\.\d*)?)\s*[,\s]\s*b\s*=?\s*([-+]?\d+(?:\.\d*)?)", re.IGNORECASE)
_DEGREES = re.compile(r"([-+]?\d{1,3}(?:\.\d*)?)[,\s]+([-+]?\d{1,2}(?:\.\d*)?)")
_SEXAGESIMAL = re.compile(
    r"(\d{1,2})[:h\s]\s*(\d{1,2})[:m\s]\s*(\d{1,2}(?:\.\d*)?)s?[,\s]*([-+])\s*(\d{1,2})[:d\s]\s*(\d{1,2})[:m\s]\s*"
    r"(\d{1,2}(?:\.\d*)?)s?",
    re.IGNORECASE,
)
_LONGEST = 200
_AT_ARCSEC, _NEAR_ARCSEC = 5.0, 3600.0
_NEAREST = 20


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
    """The star that `text` means.

    Parameters
    ----------
    text
        A key, an id, a file name of LAMOST, coordinates or a name.

    Raises
    ------
    QueryError
        If it is none of these, or means nothing that is known.
    """
    text = " ".join(text.split())
    if not text or len(text) > _LONGEST:
        raise QueryError("The box needs a name, an id or a position.", "Try gaia:SOURCE_ID, or 188.7 12.6 in degrees.")
    found = _by_id(session, text) or _by_lamost_file(session, text)
    if found is not None:
        return found
    place = position_of(text)
    if place is not None:
        return _by_position(session, *place, f"the position {place[0]:.5f} {place[1]:+.5f}")
    ra, dec = _by_sesame(session, text)
    return _by_position(session, ra, dec, f"'{text}' by Sesame")


def _by_id(session: Session, text: str) -> Found | None:
    for pattern, modality in ((_GAIA_NAME, XP), (_LAMOST_NAME, LRS)):
        named = pattern.fullmatch(text)
        if named:
            release = named[2] or "" if modality == LRS else ""
            key = _key_of(session, int(named[1]), (modality,), release)
            if key is None:
                raise _not_here(session, text)
            return Found(key, "its id")
    if text.isascii() and text.isdigit():
        key = _key_of(session, int(text), (XP, LRS) if len(text) >= 15 else (LRS, XP))
        if key is None:
            raise _not_here(session, text)
        return Found(key, "its id")
    return None


def _key_of(session: Session, number: int, modalities: tuple[str, ...], release: str = "") -> str | None:
    """Key of a spectrum or, for a Gaia id, of any spectrum of that star."""
    if number > INT64_MAX:
        return None
    space = session.space
    for modality in modalities:
        if modality not in space.modalities:
            continue
        rows, _ = space.keys(modality).all_rows_of(np.array([number], np.int64), release.removeprefix("@") or None)
        if len(rows):
            return f"{SpectrumKey(modality, number)}{release}"
    if XP in modalities and LRS in space.modalities:
        keys = space.keys(LRS)
        rows, _ = keys.rows_of_sources(np.array([number], np.int64))
        if len(rows):
            return str(SpectrumKey(LRS, int(keys.spec_id[rows[-1]])))
    return None


def _not_here(session: Session, text: str) -> QueryError:
    space = session.space
    held = " and ".join(f"{len(space.keys(name)):,} {name}" for name in space.modalities)
    return QueryError(
        f"{text} is not in this atlas, which holds {held} spectra.",
        "Check the id's digits, or give a position: the nearest stars are listed.",
    )


def _by_lamost_file(session: Session, text: str) -> Found | None:
    named = _LAMOST_FILE.fullmatch(text.rsplit("/", 1)[-1])
    if named is None or LRS not in session.space.modalities:
        return None
    with session.connection() as connection:
        rows = connection.execute(
            "SELECT spec_id FROM spectra_lamost_lrs WHERE lmjd = ? AND planid = ? AND spid = ? AND fiberid = ? "
            "ORDER BY release DESC LIMIT 1",
            [int(named[1]), named[2], int(named[3]), int(named[4])],
        ).fetchall()
    if not rows:
        raise _not_here(session, text)
    return Found(f"lamost:{rows[0][0]}", "the name of its file")


def position_of(text: str) -> tuple[float, float] | None:
    """ICRS right ascension and declination in degrees that a text spells out; None where it spells none.

    Raises
    ------
    QueryError
        If it looks like a position and lies outside the sky.
    """
    if named := _J_NAME.fullmatch(text):
        return _sexagesimal(named.groups(), text)
    if named := _SEXAGESIMAL.fullmatch(text):
        return _sexagesimal(named.groups(), text)
    if named := _GALACTIC.fullmatch(text):
        longitude, latitude = float(named[1]), float(named[2])
        if not (-360 <= longitude <= 360 and -90 <= latitude <= 90):
            raise _outside(text)
        place = _coordinate(longitude, latitude, "galactic").icrs
        return float(place.ra.deg), float(place.dec.deg)
    if named := _DEGREES.fullmatch(text):
        ra, dec = float(named[1]), float(named[2])
        if not (0 <= ra <= 360 and -90 <= dec <= 90):
            raise _outside(text)
        return ra % 360.0, dec
    return None


def _sexagesimal(parts: tuple[str, ...], text: str) -> tuple[float, float]:
    hours, minutes, seconds = float(parts[0]), float(parts[1]), float(parts[2])
    degrees, arcminutes, arcseconds = float(parts[4]), float(parts[5]), float(parts[6])
    dec = degrees + arcminutes / 60 + arcseconds / 3600
    if hours >= 24 or max(minutes, seconds, arcminutes, arcseconds) >= 60 or dec > 90:
        raise _outside(text)
    return 15 * (hours + minutes / 60 + seconds / 3600), -dec if parts[3] == "-" else dec


def _outside(text: str) -> QueryError:
    return QueryError(f"'{text}' is no position on the sky.", "Write degrees (188.7 12.6) or 12:34:56 +12:34:56.")


def _coordinate(longitude: float, latitude: float, frame: str) -> SkyCoord:
    from astropy.coordinates import SkyCoord

    return SkyCoord(longitude, latitude, unit="deg", frame=frame)


def _by_sesame(session: Session, text: str) -> tuple[float, float]:
    if session.settings.offline or not re.search("[A-Za-z]", text):
        raise QueryError(
            f"'{text}' is neither an id nor a position, and names are not looked up here.",
            "Give gaia:SOURCE_ID, lamost:OBSID or a position such as 188.7 12.6.",
        )
    try:
        return sesame(text)
    except QueryError as error:
        raise QueryError(
            f"'{text}' is neither an id nor a position. {error.message}",
            "Check the spelling, or give a position such as 188.7 12.6.",
        ) from None


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
