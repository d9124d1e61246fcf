"""VOTables are looked at before astropy parses them: no references out of the file, and the server's own words.

A VOTable may point at data elsewhere (``<STREAM href="file:///etc/passwd">``), which astropy would read, and XML may
declare entities that grow without bound or name other files. A table has no need of either.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from xml.parsers import expat

from ..errors import Reason, SpectrumError
from .regular import PathLike, open_bytes, shown_path

MAX_DEPTH = 64
_STATUS = "QUERY_STATUS"


@dataclass(slots=True)
class VOTableFacts:
    """What a VOTable says of itself.

    Attributes
    ----------
    tables
        For each table in the file's order: its name and the names of its columns.
    overflow
        Whether the server says that it cut the result.
    """

    tables: list[tuple[str, list[str]]] = field(default_factory=list)
    overflow: bool = False


def check_votable(path: PathLike, stream: BinaryIO | None = None) -> VOTableFacts:
    """Scan a VOTable with a parser that follows no reference.

    Raises
    ------
    SpectrumError
        If the file is no well-formed XML, refers to data outside of itself, declares entities, or is a server's
        error message, which is passed on.
    """
    scan = _Scan(shown_path(path))
    if stream is None:
        with open_bytes(path) as handle:
            scan.run(handle)
    else:
        scan.run(stream)
    return scan.facts


class _Scan:
    """Handlers of one scan."""

    def __init__(self, where: str) -> None:
        self.where, self.facts = where, VOTableFacts()
        self.depth = 0
        self.error: str | None = None  # words of the server, while they are gathered
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.EntityDeclHandler = self.entity
        self.parser.ExternalEntityRefHandler = self.external
        self.parser.StartDoctypeDeclHandler = self.doctype

    def run(self, stream: BinaryIO) -> None:
        try:
            while data := stream.read(1 << 18):
                self.parser.Parse(data, False)
            self.parser.Parse(b"", True)
        except (expat.ExpatError, ValueError, LookupError) as error:
            raise SpectrumError(Reason.UNREADABLE,
                                f"{self.where} is not readable as a VOTable: damaged or truncated ({error}).",
                                "Download it again.") from None

    def refuse(self, what: str) -> None:
        raise SpectrumError(Reason.UNREADABLE, f"{self.where} {what}; such references are never followed.",
                            "Get the table with its data inside it, for example as FITS, CSV or VOTable TABLEDATA.")

    def doctype(self, name: str, system: str | None, public: str | None, internal: bool) -> None:
        if internal:
            self.refuse("declares its own XML document type")

    def entity(self, name: str, *_: Any) -> None:
        self.refuse(f"declares the XML entity '{name[:40]}'")

    def external(self, *_: Any) -> bool:
        self.refuse("refers to an XML entity outside of the file")
        return False

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise SpectrumError(Reason.UNREADABLE, f"{self.where} nests XML elements {self.depth} deep.",
                                "It is damaged or no VOTable; download it again.")
        name = tag.rpartition(":")[2].upper()
        given = {key.rpartition(":")[2].lower(): value for key, value in attributes.items()}
        if name == "STREAM" and "href" in given:
            self.refuse(f"keeps its data elsewhere, at {given['href'][:100]}")
        elif name == "TABLE":
            self.facts.tables.append((given.get("name") or given.get("id") or "", []))
        elif name == "FIELD" and self.facts.tables:
            self.facts.tables[-1][1].append(given.get("name") or given.get("id") or "")
        elif name == "INFO":
            self.info(given)

    def info(self, given: dict[str, str]) -> None:
        label, value = given.get("name", "").upper(), given.get("value", "")
        if label == _STATUS and value.upper() == "OVERFLOW":
            self.facts.overflow = True
        elif label == _STATUS and value.upper() == "ERROR":
            self.error = ""
            self.parser.CharacterDataHandler = self.words
        elif label == "ERROR":  # before DALI, 2013
            self.error = value
            self.parser.CharacterDataHandler = self.words

    def words(self, text: str) -> None:
        if self.error is not None and len(self.error) < 2000:
            self.error += text

    def end(self, tag: str) -> None:
        self.depth -= 1
        if self.error is not None and tag.rpartition(":")[2].upper() == "INFO":
            said = " ".join(self.error.split())[:400] or "no more than that"
            raise SpectrumError(Reason.UNREADABLE, f"{self.where} is a server's error message: {said}",
                                "Correct the query, or ask again later.")


def safe_votable(path: PathLike, data: bytes | None = None) -> tuple[VOTableFacts, BinaryIO]:
    """`check_votable`, and the file's bytes in memory for the parser that follows."""
    if data is None:
        with open_bytes(path) as handle:
            data = handle.read()
    facts = check_votable(path, io.BytesIO(data))
    return facts, io.BytesIO(data)
