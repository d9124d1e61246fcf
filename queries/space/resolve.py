"""One resolver for what people type: keys, ids, names, coordinates and files, to spectra of the atlas or a file."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specclip_search.atlas.cross_walk import UNKNOWN, cross_walk
from specclip_search.errors import QueryError
from specclip_search.keys import SpectrumKey, parse_int64, parse_key
from specclip_search.opening.regular import shown_text
from specclip_search.readers.gaia_bases import release_of
from specclip_search.surveys import LRS, XP, get_modality

from .lookup import open_lookup

if TYPE_CHECKING:
    import duckdb

    from specclip_search.atlas import Atlas

#: a star further than this from a position is not the one that was meant [arcsec]
MAX_SEPARATION = 30.0
#: names such as J122345.67+123456.7 are cut off, not rounded, and of another epoch [arcsec]
NAME_SEPARATION = 5.0
NEAR_NAMES = 3
#: text columns of catalogues that hold designations
_NAME_COLUMN = re.compile(
    r"(^|_)(name|names|star|object|objname|main_id|designation|desig|identifier|id|ids|hd|hip|kic|"
    r"tic|toi|uid|apogee_id|tmass|twomass)(_|$)"
)
_ID_COLUMN = {"source_id", "obsid", "spec_id"}
_KEY = re.compile(r"([a-z][a-z0-9_]*):([+-]?\d+)(?:@(\S+))?", re.IGNORECASE)
_GAIA = re.compile(r"gaia\s*(e?dr\d|fpr)?[\s:]+(\d{5,19})", re.IGNORECASE)
#: releases that share their ids with another one
_SAME_IDS = {"edr3": "dr3", "fpr": "dr3"}
_EARLIER = ("dr1", "dr2")
_WALKED = ("dr3", "dr4")
_LAMOST = re.compile(r"lamost\s*(?:obsid)?[\s:]+(\d{1,19})(?:@(\S{1,20}))?", re.IGNORECASE)
_GALACTIC = re.compile(r"l\s*=?\s*([-+]?\d+(?:\.\d*)?)\s*[,\s]\s*b\s*=?\s*([-+]?\d+(?:\.\d*)?)", re.IGNORECASE)
_SPEC = re.compile(r"(?:spec|med)-(\d{5})-(.+)_sp(\d{1,2})-(\d{1,3})(?:\.fits(?:\.gz)?)?", re.IGNORECASE)
_J_NAME = re.compile(
    r"(?:[A-Za-z][\w+ ]*?\s*)?J(\d{2})(\d{2})(\d{2}(?:\.\d+)?)\s*([+-])(\d{2})(\d{2})(\d{2}(?:\.\d+)?)"
)
_2MASS = re.compile(r"2M(?:ASS)?\s*J?(\d{2})(\d{2})(\d{4})([+-])(\d{2})(\d{2})(\d{3})")
_DECIMAL = re.compile(r"([+]?\d{1,3}(?:\.\d*)?)\s*(?:deg|d|°)?\s*[,;\s]\s*([+-]?\d{1,2}(?:\.\d*)?)\s*(?:deg|d|°)?")
_FILE_NAME = re.compile(r"\.(fits|csv|ecsv|xml|vot|parquet|avro|txt|dat|zip|gz|fit)(#\d+)?$", re.IGNORECASE)
_PART = r"(\d{1,2})\s*[:hd°\s]\s*(\d{1,2})\s*[:m'\s]\s*(\d{1,2}(?:\.\d*)?)\s*[s\"]?"
_SEXAGESIMAL = re.compile(rf"{_PART}\s*[,;\s]?\s*([+-])\s*{_PART}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a text stands for.

    Attributes
    ----------
    text
        As it was typed.
    kind
        ``key``, ``id``, ``file``, ``position``, or ``name``.
    keys
        Spectra of the star in the atlas, best first; empty for a file.
    releases
        Data release of each key, where known.
    path, row
        Spectrum file, or ``archive!member``, and row within it.
    source_id
        Gaia's id of the star, where known.
    ra, dec
        Position that was asked for, degrees.
    separation
        Distance of the star found from that position [arcsec].
    """

    text: str
    kind: str
    keys: tuple[SpectrumKey, ...] = ()
    releases: tuple[str | None, ...] = ()
    path: Path | None = None
    row: int | None = None
    source_id: int | None = None
    ra: float | None = None
    dec: float | None = None
    separation: float | None = None

    @property
    def file(self) -> str | None:
        """The file as `read_spectrum` takes it, with ``#row``; None if it is no file."""
        if self.path is None:
            return None
        return str(self.path) if self.row is None else f"{self.path}#{self.row}"


@dataclass(frozen=True, slots=True)
class _Hit:
    modality: str
    spec_id: int
    release: str | None
    source_id: int | None
    snr: float


def resolve(
    atlas: Atlas,
    text: str | os.PathLike[str] | SpectrumKey,
    *,
    network: bool | None = None,
    online: Callable[[str], tuple[float, float]] | None = None,
    files: bool = True,
) -> Resolved:
    """Find what a text stands for.

    Tried in this order: an existing file (``path``, ``path#row``, ``zip!member``), a key (``lamost:101001@dr7``),
    ``Gaia DR3 ...``, a bare Gaia id or obsid, a LAMOST file's name, ``J122345.67+123456.7``, decimal or
    sexagesimal coordinates, a name in one of the atlas's catalogues, and, where the network may be used, a name
    that CDS Sesame knows.

    Parameters
    ----------
    network
        Whether names that the atlas does not know may be asked for over the network; by default as `names_online`
        says, which is not.
    online
        What to ask then: a name to (ra, dec) in degrees; `sesame` by default.
    files
        Whether a text may name a file. If not, the file system is not looked at.

    Raises
    ------
    QueryError
        If nothing is found, with the nearest star or the nearest names; if an id is of several surveys; if it is
        of Gaia DR2, whose ids may name other stars in DR3.

    Examples
    --------
    >>> from specclip_search import Atlas, resolve
    >>> found = resolve(Atlas("demo-atlas"), "Gaia DR3 1624605949904837888")
    >>> [str(key) for key in found.keys]
    ['gaia:1624605949904837888']
    """
    if isinstance(text, SpectrumKey):
        return _of_key(atlas, str(text), text, None)
    if isinstance(text, os.PathLike):
        found = _file(os.fspath(text))
        if found is None:
            raise _no_file(os.fspath(text))
        return found
    words = text.strip()
    if not words:
        raise QueryError("Nothing was named.", "Name a spectrum, for example lamost:101001, a star or a position.")
    found = _file(words) if files else None
    if found is not None:
        return found
    for step in (_key, _gaia, _bare_id):
        found = step(atlas, words)
        if found is not None:
            return found
    found = _lamost_name(atlas, words)
    if found is not None:
        return found
    position = parse_position(words)
    if position is not None:
        limit = NAME_SEPARATION if _J_NAME.fullmatch(words) or _2MASS.fullmatch(words) else MAX_SEPARATION
        return _nearest(atlas, words, *position, "position", limit)
    return _name(atlas, words, _online.get() if network is None else network, online, files)


_online: ContextVar[bool] = ContextVar("names_online", default=False)


@contextmanager
def names_online() -> Iterator[None]:
    """Let names that an atlas does not know be asked for over the network, wherever `resolve` is called in the body.

    Examples
    --------
    >>> with names_online():                                            # doctest: +SKIP
    ...     similar(atlas, "HD 122563")
    """
    token = _online.set(True)
    try:
        yield
    finally:
        _online.reset(token)


# -- keys and ids ---------------------------------------------------------------------------------------------------


def _key(atlas: Atlas, text: str) -> Resolved | None:
    if spelt := _LAMOST.fullmatch(text):
        return _of_key(atlas, text, SpectrumKey(LRS, parse_int64(spelt[1], "the obsid")), spelt[2])
    found = _KEY.fullmatch(text)
    if found is None or re.match(r"gaia\s*e?dr", text, re.IGNORECASE):
        return None
    return _of_key(atlas, text, parse_key(f"{found[1]}:{found[2]}"), found[3])


def _of_key(atlas: Atlas, text: str, key: SpectrumKey, release: str | None) -> Resolved:
    hits = _hits(atlas, "spec_id", key.spec_id, [key.modality])
    chosen = [hit for hit in hits if release is None or hit.release == release]
    if not chosen:
        have = sorted({hit.release for hit in hits if hit.release is not None})
        if have:
            raise QueryError(
                f"{text} is not in this atlas: {key} is here in release {', '.join(have)}.",
                f"Write {key}@{have[0]}, or leave @release out for the newest.",
            )
        raise QueryError(f"{text} is not in this atlas.", _near_ids(atlas, key.spec_id, [key.modality]))
    return _resolved(text, "key", chosen)


def _gaia(atlas: Atlas, text: str) -> Resolved | None:
    found = _GAIA.fullmatch(text)
    if found is None:
        return None
    release, number = (found[1] or "dr3").lower(), parse_int64(found[2], "the Gaia id")
    own = _SAME_IDS.get(release, release)
    hits = [] if own in _EARLIER else _star_hits(atlas, number)
    # spectra of other surveys are linked to ids of the release that their catalogue has, which is not known
    same = [hit for hit in hits if hit.modality != XP or _ids_of(hit.release) in (None, own)]
    if any(hit.modality == XP for hit in same) or (same and same == hits):
        return _resolved(text, "id", same, number)
    for other in _WALKED:
        partner = int(cross_walk(atlas, own, other).of(np.array([number]))[0]) if other != own else UNKNOWN
        if partner != UNKNOWN:
            walked = [hit for hit in _star_hits(atlas, partner) if _ids_of(hit.release) in (None, other)
                      or hit.modality != XP]
            if walked:
                return _resolved(text, "id", walked, partner)
    if own in _EARLIER:
        raise QueryError(
            f"{text} is an id of Gaia {release.upper()}; the atlas holds ids of DR3 and later, and the same "
            "digits may name another star there.",
            f"Give the star's position, or ingest the Gaia archive's table {own}_neighbourhood as a catalogue.",
        )
    if hits:
        has = ", ".join(sorted({str(hit.release) for hit in hits if hit.modality == XP}))
        raise QueryError(
            f"{text} is not in this atlas: it has the same digits in release {has}, where they may name another star.",
            "Ingest the cross-walk of the releases as a catalogue, for example gaiadr4.dr3_neighbourhood, or write "
            f"Gaia {has.upper()} {number}.",
        )
    raise QueryError(f"{text} is not in this atlas.", _near_ids(atlas, number, [XP]))


def _ids_of(release: str | None) -> str | None:
    """The release whose ids a release's spectra have; None where it is no release of Gaia."""
    known = release_of(release)
    return None if known is None else _SAME_IDS.get(known, known)


def _bare_id(atlas: Atlas, text: str) -> Resolved | None:
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 20):
        return None
    number = parse_int64(text, "the id")
    by_spectrum = _hits(atlas, "spec_id", number, atlas.modalities())
    by_star = _star_hits(atlas, number)
    modalities = sorted({hit.modality for hit in by_spectrum})
    stars = {hit.source_id for hit in by_spectrum} - {None}
    if len(modalities) > 1 and stars != {number}:
        keys = " or ".join(str(SpectrumKey(modality, number)) for modality in modalities)
        raise QueryError(f"{text} is an id in {len(modalities)} surveys of this atlas.", f"Say which: {keys}.")
    hits = [*by_spectrum, *(hit for hit in by_star if hit not in by_spectrum)]
    if not hits:
        raise QueryError(
            f"{text} is not in this atlas: it is neither an obsid nor a Gaia id here.",
            _near_ids(atlas, number, atlas.modalities()),
        )
    return _resolved(text, "id", hits, number if by_star else None)


def _resolved(text: str, kind: str, hits: Sequence[_Hit], source_id: int | None = None, **more: Any) -> Resolved:
    from specclip_search.keys import release_order

    # the newest release of a spectrum is meant; of different spectra, the order that they were found in
    newest: dict[tuple[str, int], _Hit] = {}
    for hit in hits:
        name = hit.modality, hit.spec_id
        if name not in newest or release_order(hit.release or "") > release_order(newest[name].release or ""):
            newest[name] = hit
    ordered = list(newest.values())
    star = source_id if source_id is not None else next((hit.source_id for hit in ordered if hit.source_id), None)
    return Resolved(
        text,
        kind,
        tuple(SpectrumKey(hit.modality, hit.spec_id) for hit in ordered),
        tuple(hit.release for hit in ordered),
        source_id=star,
        **more,
    )


def _files(atlas: Atlas, modality: str) -> list[str]:
    return [str(part.path) for part in atlas.spectra(modality).parts()]


def _hits(atlas: Atlas, column: str, number: int, modalities: Sequence[str]) -> list[_Hit]:
    """Spectra whose `column` is `number`, by instrument, the best signal to noise first."""
    found = []
    for modality in modalities:
        files = _files(atlas, modality) if modality in atlas.modalities() else []
        if not files:
            continue
        lookup = open_lookup(atlas, f"spectra_{modality}", files, column)
        _, rows = lookup.find(np.array([number], dtype=np.int64))
        if len(rows):
            table = lookup.take(rows, ["spec_id", "release", "source_id", "snr"]).to_pylist()
            found += sorted(
                (_Hit(modality, row["spec_id"], row["release"], row["source_id"], row["snr"] or 0.0) for row in table),
                key=lambda hit: -hit.snr,
            )
    return found


def _star_hits(atlas: Atlas, number: int) -> list[_Hit]:
    """Spectra of a Gaia star, those that catalogues link to it, too."""
    from specclip_search.atlas.links import star_links

    found = _hits(atlas, "source_id", number, atlas.modalities())
    for modality in atlas.modalities():
        links = star_links(atlas, get_modality(modality).link_column)
        for spec_id in links.spec_id[links.source_id == number].tolist() if len(links) else ():
            found += [hit for hit in _hits(atlas, "spec_id", spec_id, [modality]) if hit not in found]
    return found


def _near_ids(atlas: Atlas, number: int, modalities: Sequence[str]) -> str:
    """A hint with the ids next to one that is not there: a digit is easily mistyped."""
    told = []
    for modality in modalities:
        files = _files(atlas, modality) if modality in atlas.modalities() else []
        ids = open_lookup(atlas, f"spectra_{modality}", files, "spec_id").ids if files else np.empty(0, np.int64)
        if len(ids):
            place = int(np.clip(np.searchsorted(ids, number), 0, len(ids) - 1))
            near = min((int(ids[at]) for at in {max(place - 1, 0), place}), key=lambda one: abs(one - number))
            told.append(str(SpectrumKey(modality, near)))
    return f"The nearest ids here are {', '.join(told)}; check the digits." if told else "Ingest its spectrum first."


# -- files ----------------------------------------------------------------------------------------------------------


def _file(text: str) -> Resolved | None:
    """A file that exists: plain, with ``#row``, or a member of an archive."""
    path, row = text, None
    if not os.path.lexists(text):
        bare, mark, digits = text.rpartition("#")
        if mark and digits.isdigit():
            path, row = bare, int(digits)
    archive = path.partition("!")[0] if not os.path.lexists(path) else path
    if not os.path.isfile(archive):
        return None
    return Resolved(text, "file", path=Path(path), row=row)


def _no_file(text: str) -> QueryError:
    folder, name = os.path.split(text.partition("!")[0].rpartition("#")[0] or text)
    near: list[str] = []
    if os.path.isdir(folder or "."):
        with os.scandir(folder or ".") as entries:
            names = [entry.name for _, entry in zip(range(10_000), entries, strict=False)]
        near = difflib.get_close_matches(name, names, NEAR_NAMES)
    return QueryError(
        f"There is no spectrum file {text}.",
        f"The nearest names there are {', '.join(near)}." if near else "Check the path.",
    )


# -- positions ------------------------------------------------------------------------------------------------------


def parse_position(text: str) -> tuple[float, float] | None:
    """Right ascension and declination [deg] of coordinates, or of a name made of them; None for other text.

    Understood are ``J122345.67+123456.7`` with any catalogue before it, ``2M12234567+1234567``, two decimal numbers
    in degrees, hours and degrees with minutes and seconds, split by colons, blanks or letters, and ``l=120 b=-30``.

    Raises
    ------
    QueryError
        If the numbers are out of range.
    """
    text = text.strip()
    if galactic := _GALACTIC.fullmatch(text):
        return _from_galactic(float(galactic[1]), float(galactic[2]), text)
    found = _J_NAME.fullmatch(text) or _SEXAGESIMAL.fullmatch(text)
    if found is None and (short := _2MASS.fullmatch(text)):
        parts = [
            short[1],
            short[2],
            f"{short[3][:2]}.{short[3][2:]}",
            short[4],
            short[5],
            short[6],
            f"{short[7][:2]}.{short[7][2:]}",
        ]
    elif found is not None:
        parts = list(found.groups())
    else:
        decimal = _DECIMAL.fullmatch(text)
        return None if decimal is None else _checked(float(decimal[1]), float(decimal[2]), text)
    hours, minutes, seconds = (float(part) for part in parts[:3])
    degrees, arcmin, arcsec = (float(part) for part in parts[4:7])
    if minutes >= 60 or seconds >= 60 or arcmin >= 60 or arcsec >= 60:
        raise QueryError(f"'{text}' has minutes or seconds of 60 or more.", "Write hh:mm:ss.s +dd:mm:ss.s.")
    dec = degrees + arcmin / 60 + arcsec / 3600
    return _checked(15.0 * (hours + minutes / 60 + seconds / 3600), -dec if parts[3] == "-" else dec, text)


def _from_galactic(longitude: float, latitude: float, text: str) -> tuple[float, float]:
    if not (-360 <= longitude <= 360 and -90 <= latitude <= 90):
        raise QueryError(
            f"'{text}' is no position: galactic longitude is -360 to 360 and latitude -90 to 90 degrees.",
            "Write l=120.5 b=-30.2.",
        )
    from astropy.coordinates import SkyCoord

    place = SkyCoord(longitude, latitude, unit="deg", frame="galactic").icrs
    return float(place.ra.deg), float(place.dec.deg)


def _checked(ra: float, dec: float, text: str) -> tuple[float, float]:
    if not 0 <= ra < 360 or abs(dec) > 90:
        raise QueryError(
            f"'{text}' is no position: right ascension is 0 to 360 and declination -90 to 90 degrees; "
            f"found {ra:g} and {dec:g}.",
            "Write 185.9403 +12.5824, or 12:23:45.67 +12:34:56.7.",
        )
    return ra, dec


def _nearest(atlas: Atlas, text: str, ra: float, dec: float, kind: str, limit: float) -> Resolved:
    """The star nearest to a position, with all its spectra."""
    found = _nearest_row(atlas, ra, dec)
    if found is None:
        raise QueryError(f"{text}: no spectrum of this atlas has a position.", "Give a key such as lamost:101001.")
    modality, spec_id, source_id, distance = found
    key = SpectrumKey(modality, spec_id)
    if distance > limit:
        raise QueryError(
            f"{text}: no star of this atlas lies within {limit:g} arcsec of {ra:.5f} {dec:+.5f}.",
            f"The nearest is {key}, {_angle(distance)} away.",
        )
    hits = _hits(atlas, "spec_id", spec_id, [modality])
    hits += [hit for hit in (_star_hits(atlas, source_id) if source_id is not None else []) if hit not in hits]
    return _resolved(text, kind, hits, source_id, ra=ra, dec=dec, separation=distance)


def _angle(arcsec: float) -> str:
    return (
        f"{arcsec:.1f} arcsec"
        if arcsec < 120
        else f"{arcsec / 60:.1f} arcmin"
        if arcsec < 7200
        else f"{arcsec / 3600:.1f} deg"
    )


def _nearest_row(atlas: Atlas, ra: float, dec: float) -> tuple[str, int, int | None, float] | None:
    best = None
    for modality in atlas.modalities():
        files = _files(atlas, modality)
        if not files:
            continue
        # a band of declination first: shards hold its range, so that most of ten million rows are never read
        for half in (0.02, 1.0, 180.0):
            row = (
                _connection()
                .execute(
                    "SELECT spec_id, source_id, 2 * degrees(asin(least(1, sqrt(pow(sin(radians(dec - $dec) / 2), 2) "
                    "+ cos(radians(dec)) * cos(radians($dec)) * pow(sin(radians(ra - $ra) / 2), 2))))) * 3600 AS away "
                    "FROM read_parquet($files, union_by_name = true) WHERE dec BETWEEN $dec - $half AND $dec + $half "
                    "AND ra IS NOT NULL ORDER BY away, snr DESC NULLS LAST LIMIT 1",
                    {"files": files, "ra": ra, "dec": dec, "half": half},
                )
                .fetchone()
            )
            if row is not None and (row[2] <= half * 3600 or half == 180.0):
                if best is None or row[2] < best[3]:
                    best = (modality, int(row[0]), None if row[1] is None else int(row[1]), float(row[2]))
                break
    return best


def _connection() -> duckdb.DuckDBPyConnection:
    import duckdb

    return duckdb.connect(":memory:")


# -- names ----------------------------------------------------------------------------------------------------------


def _lamost_name(atlas: Atlas, text: str) -> Resolved | None:
    """``spec-55859-F5902_sp01-001``: local day, plate, spectrograph and fibre."""
    found = _SPEC.fullmatch(text.rpartition("/")[2])
    if found is None:
        return None
    for modality in atlas.modalities():
        names = _columns(_files(atlas, modality))
        if not {"lmjd", "planid", "spid", "fiberid"} <= names:
            continue
        rows = (
            _connection()
            .execute(
                "SELECT spec_id, release, source_id, snr FROM read_parquet($files, union_by_name = true) "
                "WHERE lmjd = $day AND lower(planid) = lower($plan) AND spid = $spid AND fiberid = $fibre "
                "ORDER BY snr DESC NULLS LAST",
                {
                    "files": _files(atlas, modality),
                    "day": int(found[1]),
                    "plan": found[2],
                    "spid": int(found[3]),
                    "fibre": int(found[4]),
                },
            )
            .fetchall()
        )
        if rows:
            return _resolved(text, "name", [_Hit(modality, row[0], row[1], row[2], row[3] or 0.0) for row in rows])
    raise QueryError(
        f"{text} is not in this atlas: no spectrum of day {found[1]}, plate {found[2]}, spectrograph "
        f"{int(found[3])}, fibre {int(found[4])}.",
        "Ingest the file, or search with the file itself.",
    )


def _columns(files: Sequence[str]) -> set[str]:
    import pyarrow.parquet as pq

    return set(pq.read_schema(files[0]).names) if files else set()


def _name(
    atlas: Atlas, text: str, network: bool, online: Callable[[str], tuple[float, float]] | None, files: bool
) -> Resolved:
    near: list[tuple[float, str]] = []
    for name in atlas.catalogs():
        found = _in_catalog(atlas, name, text, near)
        if found is not None:
            return found
    answer = ""
    if network:
        try:
            ra, dec = (online or sesame)(text)
        except QueryError as error:
            answer = f" {error.message}"
        else:
            return _nearest(atlas, text, ra, dec, "name", MAX_SEPARATION)
    if files and ("/" in text or _FILE_NAME.search(text)):
        raise _no_file(text)
    names = list(dict.fromkeys(name for _, name in sorted(near, reverse=True)))[:NEAR_NAMES]
    told = f"The nearest names here are {', '.join(names)}." if names else "The atlas has no catalogue with names."
    raise QueryError(f"'{text}' is no key, file, position or name that this atlas knows.{answer}", told)


def _in_catalog(atlas: Atlas, catalog: str, text: str, near: list[tuple[float, str]]) -> Resolved | None:
    """The row of a catalogue that has the name, however it is spaced; adds names that are nearly the same."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = [str(part.path) for part in atlas.catalog(catalog).parts()]
    if not files:
        return None
    schema = pq.read_schema(files[0])
    texts = [
        field.name
        for field in schema
        if (pa.types.is_string(field.type) or pa.types.is_large_string(field.type))
        and _NAME_COLUMN.search(field.name.lower())
    ]
    keys = [
        field
        for field in ("source_id", "obsid")
        if field in schema.names and pa.types.is_integer(schema.field(field).type)
    ]
    sky = [field for field in ("ra", "dec") if field in schema.names and pa.types.is_floating(schema.field(field).type)]
    wanted = _plain(text)
    connection = _connection()
    for column in texts:
        quoted = '"' + column.replace('"', '""') + '"'
        plain = f"lower(regexp_replace({quoted}, '[\\s_]+', '', 'g'))"
        picked = ", ".join([quoted, *keys, *sky])
        row = connection.execute(
            f"SELECT {picked} FROM read_parquet($files, union_by_name = true) WHERE {plain} = $name LIMIT 1",
            {"files": files, "name": wanted},
        ).fetchone()
        if row is not None:
            return _from_row(
                atlas,
                text,
                catalog,
                dict(zip(keys, row[1 : 1 + len(keys)], strict=True)),
                row[1 + len(keys) :] if len(sky) == 2 else (),
            )
        near += connection.execute(
            f"SELECT jaro_winkler_similarity({plain}, $name) AS likeness, any_value({quoted}) FROM "
            f"read_parquet($files, union_by_name = true) WHERE {quoted} IS NOT NULL GROUP BY {plain}, likeness "
            f"ORDER BY likeness DESC LIMIT {NEAR_NAMES}",
            {"files": files, "name": wanted},
        ).fetchall()
    return None


def _plain(name: str) -> str:
    return re.sub(r"[\s_]+", "", name).lower()


def _from_row(atlas: Atlas, text: str, catalog: str, ids: dict[str, Any], sky: Sequence[Any]) -> Resolved:
    hits: list[_Hit] = []
    if ids.get("source_id") is not None:
        hits += _star_hits(atlas, int(ids["source_id"]))
    if ids.get("obsid") is not None:
        hits += [hit for hit in _hits(atlas, "spec_id", int(ids["obsid"]), [LRS]) if hit not in hits]
    if hits:
        return _resolved(text, "name", hits, ids.get("source_id"))
    if len(sky) == 2 and None not in sky:
        return _nearest(atlas, text, float(sky[0]), float(sky[1]), "name", MAX_SEPARATION)
    known = ", ".join(f"{name} {value}" for name, value in ids.items() if value is not None)
    raise QueryError(
        f"'{text}' is in catalogue '{catalog}'"
        + (f" ({known})" if known else "")
        + ", but the atlas has no spectrum of it.",
        "Ingest its spectrum first.",
    )


def sesame(name: str) -> tuple[float, float]:
    """ICRS position of a name, degrees, by CDS Sesame (SIMBAD, NED, VizieR).

    Raises
    ------
    QueryError
        If Sesame does not know the name, or cannot be reached.
    """
    from astropy.coordinates.name_resolve import NameResolveError, get_icrs_coordinates

    try:
        found = get_icrs_coordinates(name)
    except (NameResolveError, OSError, ValueError) as error:
        if isinstance(error, NameResolveError) and str(error).startswith("Unable to find"):
            raise QueryError(f"Sesame does not know '{name}' either.", "Check the spelling.") from None
        text = " ".join(shown_text(str(error) or type(error).__name__).split())[-160:]
        raise QueryError(f"Sesame could not be asked for '{name}' ({text}).", "Check the network.") from None
    return float(found.ra.deg), float(found.dec.deg)
