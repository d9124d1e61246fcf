"""What `ingest gaia-xp` will make of files of a Gaia release, column by column, without writing anything."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..errors import QueryError, SpectrumError
from ..opening.regular import shown_text
from ..readers import gaia_bases, gaia_tables
from ..readers.content import Content
from ..readers.gaia_bases import EPOCHS, product_of, release_named, release_of
from ..readers.gaia_xp import is_gaia_xp, iter_xp
from ..readers.registry import reader_for
from ..readers.surveys import gaia_rvs
from .files import XP_SUFFIXES, find_files, real_path
from .spectra import xp_contents

Status = Literal["read", "renamed", "not needed", "unknown", "missing", "file", "not read", "problem"]

_BOTH_BANDS = (
    "degrees_of_freedom", "n_measurements", "n_rejected_measurements", "chi_squared", "n_relevant_bases",
    "relative_shrinking", "n_transits", "n_contaminated_transits", "n_blended_transits",
)
#: columns of the archive's data models that no spectrum is made from
NOT_NEEDED = frozenset(
    ["solution_id", "designation", "ref_epoch", "phot_g_mean_mag", "random_index", "pos"]
    + [f"{band}_{name}" for band in ("bp", "rp") for name in _BOTH_BANDS]
)
#: columns that the reader of RVS spectra takes
RVS_COLUMNS = frozenset(
    ["source_id", "transit_id", "wavelength", "flux", "flux_error", "ra", "dec", "normalisation_method", "obs_time_rv",
     "combined_transits", "combined_ccds", "deblended_ccds", "obs_time_tcb", "obs_time_bary_corr"]
)
_NEEDED = {
    "XP_CONTINUOUS": ("source_id", "bp_coefficients", "rp_coefficients"),
    "XP_SAMPLED": ("flux", "flux_error"),
}
_MARKS = (
    ({"bp_coefficients", "rp_coefficients"}, "XP_CONTINUOUS"),
    ({"combined_transits", "flux"}, "RVS"),
    ({"transit_id", "flux"}, "RVS_EPOCH"),
    ({"flux", "flux_error"}, "XP_SAMPLED"),
)


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """One line of a rehearsal: a column, or with `column` None a file as a whole.

    Attributes
    ----------
    file
        The first file of this layout.
    product
        DataLink's name of the product in DR3, or empty.
    status
        ``read`` as it is named, ``renamed`` (read under another name), ``not needed``, ``unknown``, ``missing``;
        of files ``file``, ``problem``, or ``not read``, which columns of such files are, too.
    read_as
        Our name of the column.
    note
        Further words.
    """

    file: str
    product: str
    column: str | None
    status: Status
    read_as: str
    note: str


@dataclass
class _Layout:
    """Files that have the same columns."""

    file: str
    product: str
    columns: list[Rehearsed]
    note: str
    status: Status
    files: int = 0
    counts: Counter[str] = field(default_factory=Counter)


def rehearse(paths: Sequence[str | os.PathLike[str]], release: str | None = None) -> list[Rehearsed]:
    """Look at files as `ingest gaia-xp` would read them; files of the same layout are shown once.

    At most 512 rows a file are calibrated. Members of zip and tar archives are looked at one by one.

    Parameters
    ----------
    paths
        Files, folders, or ``@LIST``.
    release
        Release that the files are of, where their names do not say it.

    Raises
    ------
    QueryError
        If there is no such release of Gaia.
    SpecclipError
        If a path does not exist, or a folder holds no such file.
    """
    known = release_of(release)
    if release is not None and known is None:
        raise QueryError(f"'{release}' is no Gaia release.", f"Choose one of {', '.join(EPOCHS)}.")
    layouts: dict[tuple[Any, ...], _Layout] = {}
    for file in find_files(paths, XP_SUFFIXES):
        for name, content in _contents(real_path(file.path)):
            key, layout = _layout(shown_text(name), content, known)
            seen = layouts.setdefault(key, layout)
            seen.files += 1
            if seen is not layout:
                seen.counts.update(layout.counts)
    return [line for layout in layouts.values() for line in (_head(layout), *layout.columns)]


def _contents(path: str) -> Iterator[tuple[str, Content | SpectrumError]]:
    try:
        yield from xp_contents(path)
    except SpectrumError as error:
        yield path, error


def _head(layout: _Layout) -> Rehearsed:
    counted = ", ".join(f"{count:,} {what}" for what, count in layout.counts.items())
    more = f"{layout.files:,} files of this layout" if layout.files > 1 else ""
    note = "; ".join(text for text in (more, f"first rows: {counted}" if counted else "", layout.note) if text)
    return Rehearsed(layout.file, layout.product, None, layout.status, "", note)


def _layout(name: str, content: Content | SpectrumError, release: str | None) -> tuple[tuple[Any, ...], _Layout]:
    if isinstance(content, SpectrumError):
        return _unreadable(name, content)
    try:
        names = gaia_tables.file_names(content)
        ours = gaia_tables.our_names(names)
        is_xp = is_gaia_xp(list(ours.values()), content)
        product = product_of(name) or _product(set(ours.values()))
        note, status, counts = _tried(content, name, product, release) if is_xp else _other(content, product)
        wanted = gaia_tables.WANTED if is_xp else RVS_COLUMNS if status == "file" else frozenset()
        columns = _columns(name, product, ours, wanted)
    except SpectrumError as error:
        return _unreadable(name, error)
    if any(column.status == "missing" for column in columns):
        status = "problem"
    if status == "not read":
        columns = [replace(column, status="not read") for column in columns]
    return (product, content.kind, tuple(names), note), _Layout(name, product, columns, note, status, 0, counts)


def _unreadable(name: str, error: SpectrumError) -> tuple[tuple[Any, ...], _Layout]:
    return (name,), _Layout(name, product_of(name) or "", [], f"cannot be read: {error.message}", "problem")


def _product(have: set[str]) -> str:
    return next((product for marks, product in _MARKS if marks <= have), "")


def _columns(file: str, product: str, ours: dict[str, str], wanted: frozenset[str]) -> list[Rehearsed]:
    lines = []
    for name, our in ours.items():
        status: Status = "unknown"
        if our in wanted:
            status = "read" if name.strip().lower() == our else "renamed"
        elif our in NOT_NEEDED:
            status = "not needed"
        note = "written in capitals" if status == "read" and name != our else ""
        lines.append(Rehearsed(file, product, name, status, our if our in wanted else "", note))
    needed = _NEEDED.get(product, ()) if wanted else ()
    if wanted and "wavelength" not in ours.values() and product == "XP_SAMPLED":
        needed = ("source_id", *needed)
    lines += [Rehearsed(file, product, name, "missing", name, "") for name in needed if name not in ours.values()]
    return lines


def _tried(content: Content, name: str, product: str, release: str | None) -> tuple[str, Status, Counter[str]]:
    """What the first rows give: a note on release and calibration, whether it is a problem, and counts."""
    said = release_named(name.rpartition("/")[2]) or release
    batch = next(iter_xp(content, said), None)
    if batch is None:
        return "it has no row", "problem", Counter()
    counts: Counter[str] = Counter()
    if len(batch.row):
        counts["kept"] = len(batch.row)
    if batch.waiting:
        counts["waiting for basis functions"] = len(batch.waiting)
    refused = [(reason, message) for row, _, reason, message in batch.rejected if row not in batch.waiting]
    counts.update(f"rejected ({reason})" for reason, _ in refused)
    notes = [_names(product)] if product else []
    releases = sorted({*batch.release, *(row["release"] for row in batch.waiting.values())})
    if releases:
        notes.append("solutions of " + ", ".join(f"Gaia {one.upper()}" for one in releases))
    waits = next((message for row, _, _, message in batch.rejected if row in batch.waiting), None)
    if waits:
        notes.append(waits)
    if refused and not len(batch.row) and not batch.waiting:
        notes.append(refused[0][1])
    return "; ".join(notes), "file" if len(batch.row) or batch.waiting else "problem", counts


def _names(product: str) -> str:
    others = gaia_bases.PRODUCTS[product][1:]
    return f"{product}, in DR4 {others[-1]}" if others else product


def _other(content: Content, product: str) -> tuple[str, Status, Counter[str]]:
    """A file that `ingest gaia-xp` does not read: whether anything else of this program does."""
    said = f"{_names(product)}; " if product else ""
    try:
        reader = reader_for(content)
    except SpectrumError:
        return f"{said}in no layout of a spectrum", "not read", Counter()
    if reader.name != gaia_rvs.READER.name:
        return f"{said}no XP spectra", "not read", Counter()
    return f"{said}read as a spectrum file, not by `ingest gaia-xp`", "file", Counter()
