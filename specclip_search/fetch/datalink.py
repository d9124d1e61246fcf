"""XP spectra from the Gaia archive's DataLink: every id that was asked for comes, or is named."""

from __future__ import annotations

import os
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..atlas.files import whole_file
from ..catalogs.formats import open_catalog
from ..errors import FetchError, QueryError, SpecclipError, SpectrumError
from ..ingest.spectra import xp_contents
from ..progress import Progress
from ..readers.gaia_tables import source_ids
from .archive import DATALINK, GAIA, MOST_IDS, Archive, known_release
from .ledger import FetchReport, chunks, different, ids_digest, open_ledger, read_ids
from .patience import Patience, Transient

CHUNK = 2000
_NOTHING = "the archive sent nothing for it, asked twice"


def fetch_gaia_xp(
    folder: str | os.PathLike[str],
    *,
    ids: Sequence[int] | str | os.PathLike[str] | None = None,
    cone: tuple[float, float, float] | None = None,
    sql: str | None = None,
    release: str = "dr3",
    product: str = "continuous",
    form: str = "csv",
    archive: str = GAIA,
    credentials: Path | None = None,
    chunk: int = CHUNK,
    patience: Patience | None = None,
    progress: Progress | None = None,
) -> FetchReport:
    """Download XP spectra of stars into a folder that `ingest_gaia_xp` takes.

    Ids go to the archive in chunks. What came is compared with what was asked for, because DataLink leaves ids
    without a word out; these are asked for once more, and those that do not come then are named in ``missing.txt``.
    A chunk is whole or not there; a run that was killed continues with the first chunk that is not.

    Parameters
    ----------
    folder
        A new folder, or that of the same download before.
    ids
        Gaia ids of the release, or a file of them.
    cone
        Right ascension, declination and radius, degrees: all stars of `gaia_source` inside.
    sql
        ADQL with a column `source_id`.
    release
        ``dr3`` or ``dr4``.
    product
        ``continuous`` (coefficients) or, of DR3, ``sampled``.
    form
        ``csv``, ``ecsv``, ``fits`` or ``votable``.
    archive
        Address of the server.
    credentials
        File with a user's name and password in two lines.
    chunk
        Ids a request, at most 5,000.
    patience
        How often and how long is asked.
    progress
        Called with (ids done, ids in all, note).

    Raises
    ------
    QueryError
        If the request is not valid, or the folder holds another one.
    FetchError
        If the archive refuses, or does not answer; what came is kept.
    """
    known = known_release(release)
    name, products, structure = DATALINK[known]
    if product not in products:
        raise QueryError(f"Gaia {known.upper()} has no product '{product}'.", f"Choose one of {', '.join(products)}.")
    if form not in ("csv", "ecsv", "fits", "votable"):
        raise QueryError(f"'{form}' is no format of DataLink.", "Choose csv, ecsv, fits or votable.")
    if [ids is None, cone is None, sql is None].count(False) != 1:
        raise QueryError("Expected one of ids, a cone and a query.", "Give --ids FILE, --cone RA,DEC,RADIUS or --sql.")
    patient = patience or Patience()
    list(chunks([], chunk, MOST_IDS))
    given, repeated = different(read_ids(ids, "source_id") if isinstance(ids, str | os.PathLike) else ids or [])
    adql = sql or (None if cone is None else cone_query(cone, known))
    request: dict[str, Any] = {
        "what": "gaia-xp", "archive": archive, "release": known, "product": products[product], "format": form,
        "chunk": chunk, "of": adql or ids_digest(given),
    }
    with open_ledger(folder, request) as ledger:
        server = Archive(archive, seconds=patient.timeout, credentials=credentials)
        asked = ledger.asked()
        if asked is None:
            asked = given if adql is None else _found(server, adql, ledger.folder, patient)
            ledger.set_asked(asked)
        requests = 0
        for number, part in chunks(asked, chunk, MOST_IDS):
            if number in ledger.done:
                continue
            files: dict[str, int] = {}
            wanted, here = part, set[int]()
            for attempt in ("", "-again"):
                target = ledger.folder / f"{products[product]}-gaia_{known}-{number}{attempt}.zip"
                came = _download(server, wanted, (name, products[product], structure, form), target, patient)
                requests += 1
                if came:
                    files[target.name] = target.stat().st_size
                here |= came & set(part)
                wanted = [one for one in part if one not in here]
                if not wanted:
                    break
            ledger.add(number, files=files, asked=len(part), missing=wanted)
            if progress is not None:
                progress(min(int(number) * chunk, len(asked)), len(asked), f"{len(files)} files")
        missing = {one: _NOTHING for entry in ledger.done.values() for one in entry["missing"]}
        got = sum(entry["asked"] - len(entry["missing"]) for entry in ledger.done.values())
        return ledger.report(asked, got, missing, repeated, requests)


def cone_query(cone: tuple[float, float, float], release: str) -> str:
    """ADQL of the ids inside a circle; of DR3 only of stars that have XP spectra.

    Raises
    ------
    QueryError
        If the circle is none.
    """
    ra, dec, radius = cone
    if not (0 <= ra < 360 and -90 <= dec <= 90 and 0 < radius <= 90):
        raise QueryError(
            f"A cone is RA 0 to 360, DEC -90 to 90 and a radius up to 90 degrees; found {ra:g}, {dec:g}, {radius:g}.",
            "For example --cone 56.75,24.12,0.5",
        )
    having = "has_xp_continuous = 'True' AND " if release == "dr3" else ""
    return (
        f"SELECT source_id FROM gaia{release}.gaia_source WHERE {having}"
        f"1 = CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', {ra!r}, {dec!r}, {radius!r}))"
    )


def _found(server: Archive, adql: str, folder: Path, patient: Patience) -> list[int]:
    """Ids that a query gives."""

    def ask() -> list[int]:
        with tempfile.TemporaryDirectory(prefix=".query-", dir=folder) as place:
            target = Path(place) / "result.vot"
            server.query(adql, target)
            try:
                ids, notes = read_ids(target, "source_id"), open_catalog(target).notes
            except QueryError as error:
                raise FetchError(
                    f"The query gave no row with a source_id ({error.message}).",
                    "Try it with TOP 10 in the archive's own form.",
                ) from None
            except SpecclipError as error:
                raise Transient(f"the result came cut or damaged ({error.message[-150:]})") from None
            if any("cut" in note for note in notes):
                raise FetchError(f"The list of ids is not whole: {notes[-1]}.", "Log in (--credentials), or ask less.")
            return ids

    return different(patient.call("The query", ask))[0]


def _download(
    server: Archive, ids: Sequence[int], what: tuple[str, str, str, str], target: Path, patient: Patience
) -> set[int]:
    """Ids that came, in `target`; where none came there is no file."""
    release, product, structure, form = what

    def ask(to: Path) -> set[int]:
        server.datalink(ids, release, product, structure, form, to)
        return ids_inside(to)

    try:
        with whole_file(target) as temporary:
            came = patient.call(f"{target.name}, {len(ids):,} ids", lambda: ask(temporary))
            if not came:
                raise _Empty
    except _Empty:
        return set()
    return came


class _Empty(Exception):
    """Nothing came, and no file is to be left."""


def ids_inside(archive: Path) -> set[int]:
    """The Gaia ids in a zip archive of DataLink's.

    Raises
    ------
    Transient
        If the archive, or a file in it, is not whole.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            damaged = opened.testzip()
            if not opened.namelist():
                return set()
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError):
        size = archive.stat().st_size if archive.exists() else 0
        raise Transient(f"an archive of {size:,} bytes came, which is cut or damaged") from None
    if damaged is not None:
        raise Transient(f"{damaged} came damaged")
    found: Counter[int] = Counter()
    for name, content in xp_contents(os.fspath(archive)):
        try:
            if isinstance(content, SpectrumError):
                raise content
            found.update(source_ids(content))
        except SpectrumError as error:
            member = re.sub(r".*!", "", name)
            raise Transient(f"{member} came damaged ({error.message[:200]})") from None
    return set(found)
