"""Compare labels of catalogues and of this atlas over the stars that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from specclip_search.errors import QueryError

from ..views.connection import connect
from ..views.label_sources import catalogues
from .diagnoses import diagnose
from .offsets import Offsets, Pair, compare_pairs, odd_ones_out, solve_offsets
from .sources import COMPARED, Source, aligned_sql, label_sources, unit_of

if TYPE_CHECKING:
    import pandas as pd

    from specclip_search.atlas import Atlas

    from ..views.connection import AtlasConnection

SHOWN = ("offsets", "pairs", "stars")
BINS = 5
STAR_SIGMAS = 5.0


@dataclass(frozen=True, slots=True)
class Aligned:
    """One label of several sources for the same stars.

    Attributes
    ----------
    label
        Its name.
    sources
        Names of the S sources.
    source_id
        (N,) int64.
    values, errors
        (N, S) float64, NaN where there is none.
    by
        (N,) float64 value of the column that is binned by; NaN where unknown, None if nothing is.
    alpha_fe
        (N,) median [alpha/Fe] of the atlas's sources for these stars; None if there is none.
    told
        Source -> what must be said wherever it is shown, such as that its spectra are simulated.
    """

    label: str
    sources: tuple[str, ...]
    source_id: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    by: np.ndarray | None = None
    alpha_fe: np.ndarray | None = None
    told: Mapping[str, str] = field(default_factory=dict)


def compare(
    atlas: Atlas,
    labels: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
    reference: str | None = None,
    by: str | None = None,
    show: str = "offsets",
) -> pd.DataFrame:
    """Labels of all sources over the stars they share: offsets solved together, pairs, or the stars that disagree.

    Sources are the atlas's catalogues (by the pipeline that their columns name, such as ``gaia.gspphot``) and the
    labels estimated from its own spectra (``xp``, ``lrs``).

    Parameters
    ----------
    labels
        Some of teff, logg, feh, alpha_fe, c_fe, rv; by default all that two sources have.
    sources
        Names of sources; by default all.
    reference
        Source whose offset is 0; by default the one with the most stars among those with quoted errors.
    by
        SQL expression on the view `stars`; the tables `offsets` and `pairs` are repeated in five bins of it.
    show
        ``offsets``: one row a label and source, with offset, own scatter and pull. ``pairs``: one row for two sources.
        ``stars``: stars of which one source disagrees with the others by more than 5 sigma, worst first.

    Returns
    -------
    pandas.DataFrame
        Column `note` says in words what a disagreement looks like: [M/H] given as [Fe/H], air wavelengths read as
        vacuum, another unit.

    Raises
    ------
    QueryError
        If a label, source or `show` is unknown, or fewer than two sources have a label.
    """
    if show not in SHOWN:
        raise QueryError(f"show must be one of {', '.join(SHOWN)}; found '{show}'.", "Choose one of these.")
    available = label_sources(atlas)
    chosen = chosen_sources(available, sources)
    wanted = wanted_labels(chosen, labels)
    if reference is not None and reference not in {source.name for source in chosen}:
        raise QueryError(
            f"The reference '{reference}' is not among the sources compared: {', '.join(s.name for s in chosen)}.",
            "Name one of these.",
        )
    rows: list[dict[str, Any]] = []
    with connect(atlas) as connection:
        told_of = _simulated(connection, chosen)
        for label in wanted:
            aligned = align(atlas, connection, chosen, label, by if show != "stars" else None)
            aligned = replace(aligned, told=told_of)
            for told, part in _bins(aligned, by):
                rows += _TABLES[show](part, reference, told)
    return _frame(rows, show, by)


def align(atlas: Atlas, connection: AtlasConnection, sources: Sequence[Source], label: str, by: str | None) -> Aligned:
    """Values of one label of all sources that have it, for stars of at least two."""
    having = [source for source in sources if label in source.columns]
    links = _links(atlas)
    connection.prepare("SELECT * FROM stars")
    table = connection.rows(aligned_sql(having, label, links, by))
    count = len(having)
    values, errors = (
        np.stack([table[f"{letter}{i}"].to_numpy() for i in range(count)], axis=1).astype(np.float64) for letter in "ve"
    )
    source_id = table["source_id"].to_numpy()
    binned = None if by is None else table["by_value"].to_numpy().astype(np.float64)
    alpha = _alpha(connection, sources, links, source_id) if label == "feh" else None
    return Aligned(label, tuple(s.name for s in having), source_id, values, errors, binned, alpha)


def _simulated(connection: AtlasConnection, sources: Sequence[Source]) -> dict[str, str]:
    """What must be said of sources whose spectra were simulated: a comparison with their own labels is no test."""
    told = {}
    own = [source.name for source in sources if source.relation == "stars"]
    if own:
        connection.prepare("SELECT * FROM stars")
        have = {field.name for field in connection.views.all["stars"].fields()}
        for name in own:
            if f"simulated_{name}" in have:
                table = connection.rows(f"SELECT avg(simulated_{name}::INTEGER) AS share FROM stars")
                share = table["share"][0].as_py()
                if share:
                    told[name] = f"{share:.0%} of the {name} spectra are simulated"
    return told


def _links(atlas: Atlas) -> str | None:
    """A relation obsid -> source_id over the atlas's catalogues that know both."""
    parts = [one.links() for one in catalogues(atlas) if {"obsid", "source_id"} <= one.columns]
    if not parts:
        return None
    union = " UNION ALL ".join(f"SELECT * FROM {part}" for part in parts)
    return (f"(SELECT obsid, min(source_id) AS source_id FROM ({union}) GROUP BY obsid "
            "HAVING min(source_id) = max(source_id))")


def _alpha(connection: AtlasConnection, sources: Sequence[Source], links: str | None, source_id: np.ndarray,
           ) -> np.ndarray | None:
    having = [source for source in sources if "alpha_fe" in source.columns]
    if not having:
        return None
    union = " UNION ALL ".join(f"({source.rows('alpha_fe', links)})" for source in having)
    table = connection.rows(f"SELECT source_id, median(value) AS value FROM ({union}) GROUP BY source_id ORDER BY 1")
    known = table["source_id"].to_numpy()
    place = np.minimum(np.searchsorted(known, source_id), max(len(known) - 1, 0))
    if len(known) == 0:
        return None
    return np.where(known[place] == source_id, table["value"].to_numpy()[place], np.nan)


def chosen_sources(available: Sequence[Source], names: Sequence[str] | None) -> list[Source]:
    known = {source.name: source for source in available}
    if names is None:
        return list(available)
    for name in names:
        if name not in known:
            raise QueryError(
                f"There is no source of labels '{name}' in this atlas; it has {', '.join(known) or 'none'}.",
                "Name some of these, or ingest the catalogue: specclip-search ingest catalog FILE --name NAME",
            )
    return [known[name] for name in dict.fromkeys(names)]


def wanted_labels(sources: Sequence[Source], labels: Sequence[str] | None) -> list[str]:
    count = {label: sum(label in source.columns for source in sources) for label in COMPARED}
    shared = [label for label, number in count.items() if number >= 2]
    if labels is None:
        if not shared:
            raise QueryError(
                f"Nothing can be compared: {len(sources)} source(s) of labels, and no label that two of them have.",
                "Ingest a catalogue with labels: specclip-search ingest catalog FILE",
            )
        return shared
    for label in labels:
        if label not in COMPARED:
            raise QueryError(
                f"'{label}' cannot be compared; the labels are {', '.join(COMPARED)}.", "Name one of these."
            )
        if count[label] < 2:
            raise QueryError(
                f"{label} is known from {count[label]} of the sources {', '.join(s.name for s in sources)}; two are "
                "needed.",
                "Add a source that has it, or compare another label.",
            )
    return list(labels)


def _bins(aligned: Aligned, by: str | None) -> list[tuple[dict[str, Any], Aligned]]:
    """The whole, then five parts of equal numbers of stars by the column asked for."""
    result: list[tuple[dict[str, Any], Aligned]] = [({}, aligned)]
    if by is None or aligned.by is None:
        return result
    known = np.isfinite(aligned.by)
    if not known.any():
        return result
    edges = np.unique(np.quantile(aligned.by[known], np.linspace(0.0, 1.0, BINS + 1)))
    for number, (low, high) in enumerate(pairwise(edges)):
        last = number == len(edges) - 2
        rows = known & (aligned.by >= low) & ((aligned.by <= high) if last else (aligned.by < high))
        alpha = None if aligned.alpha_fe is None else aligned.alpha_fe[rows]
        part = replace(aligned, source_id=aligned.source_id[rows], values=aligned.values[rows],
                       errors=aligned.errors[rows], by=None, alpha_fe=alpha)
        result.append(({"by_low": float(low), "by_high": float(high)}, part))
    return result


def _reference(aligned: Aligned, asked: str | None) -> int:
    if asked is not None and asked in aligned.sources:
        return aligned.sources.index(asked)
    quoted = np.isfinite(aligned.errors).sum(axis=0)
    shared = np.isfinite(aligned.values).sum(axis=0)
    return int(np.lexsort((-shared, -(quoted > 0).astype(int)))[0])


def _solved(aligned: Aligned, asked: str | None) -> tuple[list[Pair], Offsets, int]:
    pairs = compare_pairs(aligned.values, aligned.errors)
    reference = _reference(aligned, asked)
    return pairs, solve_offsets(pairs, len(aligned.sources), reference), reference


def _offset_rows(aligned: Aligned, asked: str | None, told: dict[str, Any]) -> list[dict[str, Any]]:
    pairs, offsets, reference = _solved(aligned, asked)
    odd = odd_ones_out(aligned.values, offsets)
    judged = np.count_nonzero(odd.source >= 0)
    causes = [(pair, _note(aligned, pair)) for pair in pairs]
    rows = []
    for s, name in enumerate(aligned.sources):
        notes = [note for pair, note in causes if s in (pair.a, pair.b)]
        told_note = [note for note in notes if note.startswith(name) or f"of {name} " in note]
        told_note += [aligned.told[name]] if name in aligned.told else []
        apart = np.count_nonzero((odd.source == s) & (odd.sigmas > STAR_SIGMAS))
        own = apart / judged if judged else float("nan")
        pulls = [pair.pull for pair in pairs if s in (pair.a, pair.b) and np.isfinite(pair.pull)]
        rows.append({
            **told, "label": aligned.label, "source": name, "n": int(np.isfinite(aligned.values[:, s]).sum()),
            "offset": offsets.offset[s], "offset_err": offsets.error[s], "scatter": offsets.scatter[s],
            "pull": float(np.median(pulls)) if pulls else float("nan"), "odd_one_out": own,
            "unit": unit_of(aligned.label), "reference": aligned.sources[reference],
            "note": "; ".join(dict.fromkeys(told_note)),
        })
    return rows


def _pair_rows(aligned: Aligned, asked: str | None, told: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            **told, "label": aligned.label, "source_a": aligned.sources[pair.a], "source_b": aligned.sources[pair.b],
            "n": pair.n, "bias": pair.bias, "bias_err": pair.bias_err, "sigma": pair.sigma, "outliers": pair.outliers,
            "pull": pair.pull, "correlation": pair.correlation, "unit": unit_of(aligned.label),
            "note": "; ".join(filter(None, [_note(aligned, pair), *(aligned.told.get(aligned.sources[s], "")
                                                                    for s in (pair.a, pair.b))])),
        }
        for pair in compare_pairs(aligned.values, aligned.errors)
    ]


def _note(aligned: Aligned, pair: Pair) -> str:
    difference = aligned.values[:, pair.a] - aligned.values[:, pair.b]
    names = aligned.sources[pair.a], aligned.sources[pair.b]
    return diagnose(aligned.label, pair, names, difference, aligned.alpha_fe)


def _star_rows(aligned: Aligned, asked: str | None, told: dict[str, Any]) -> list[dict[str, Any]]:
    _, offsets, _ = _solved(aligned, asked)
    odd = odd_ones_out(aligned.values, offsets)
    apart = np.flatnonzero((odd.source >= 0) & (odd.sigmas > STAR_SIGMAS))
    rows = []
    for i in apart[np.argsort(-odd.sigmas[apart], kind="stable")].tolist():
        values = ", ".join(f"{name} {value:.4g}" for name, value in zip(aligned.sources, aligned.values[i], strict=True)
                           if np.isfinite(value))
        rows.append({
            "source_id": int(aligned.source_id[i]), "label": aligned.label,
            "odd_source": aligned.sources[int(odd.source[i])], "deviation": odd.deviation[i], "sigmas": odd.sigmas[i],
            "unit": unit_of(aligned.label), "values": values,
        })
    return rows


_TABLES = {"offsets": _offset_rows, "pairs": _pair_rows, "stars": _star_rows}
_COLUMNS = {
    "offsets": ("label", "source", "n", "offset", "offset_err", "scatter", "pull", "odd_one_out", "unit", "reference",
                "note"),
    "pairs": ("label", "source_a", "source_b", "n", "bias", "bias_err", "sigma", "outliers", "pull", "correlation",
              "unit", "note"),
    "stars": ("source_id", "label", "odd_source", "deviation", "sigmas", "unit", "values"),
}  # fmt: skip


def _frame(rows: list[dict[str, Any]], show: str, by: str | None) -> pd.DataFrame:
    import pandas as pd

    bins = ["by_low", "by_high"] if by is not None and show != "stars" else []
    frame = pd.DataFrame(rows, columns=[*_COLUMNS[show][:1], *bins, *_COLUMNS[show][1:]])
    coarse = frame["label"].isin(("teff", "rv"))
    for name in ("offset", "offset_err", "scatter", "bias", "bias_err", "sigma", "deviation"):
        if name in frame:
            frame[name] = frame[name].round(2).where(coarse, frame[name].round(5))
    if show == "stars":
        frame = frame.sort_values("sigmas", ascending=False, kind="stable", ignore_index=True)
    return frame
