"""What building an index needs and gave, as lines and rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from specclip_search.indexing.build.build import BuildReport
    from specclip_search.indexing.build.costs import Estimate
    from specclip_search.indexing.search.recipe import Recipe


_DONE = {
    "built": "built",
    "grown": "brought up to date without learning anew",
    "current": "current already, nothing was done",
}


def size_text(count: float) -> str:
    """`1.5 GB` and the like."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} GB"


def need_lines(modality: str, recipe: Recipe, needs: Estimate) -> list[str]:
    """What a build will need, before it begins."""
    from specclip_search.indexing.search.faiss_library import default_threads

    threads = default_threads()
    return [
        f"{modality}: {recipe}; will need about {size_text(needs.build_memory)} of memory, "
        f"{size_text(needs.build_disk)} of disk ({size_text(needs.disk)} afterwards), {needs.cpu_seconds:,.0f} CPU s: "
        f"{_duration(needs.cpu_seconds / threads)} on {threads} idle {'core' if threads == 1 else 'cores'}"
    ]


def _duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def build_lines(report: BuildReport) -> list[str]:
    """What was done: built, grown by new shards, or found current; what the index is; and why it was learnt anew."""
    lines = [
        f"{report.modality}: {_DONE[report.action]}; {report.recipe}, {report.rows:,} vectors, "
        f"{size_text(report.disk)} on disk, {report.seconds['total']:.1f} s ({report.cpu_seconds:.1f} CPU s), "
        f"peak memory {size_text(report.peak_memory)}"
    ]
    if report.explained_variance is not None:
        lines.append(
            f"  PCA keeps {report.explained_variance:.2%} of the variance; nprobe {report.nprobe}, "
            f"re-rank depth {report.rerank:g} k"
        )
    if report.drift is not None:
        lines.append(f"  {'' if report.action == 'grown' else 'learnt anew: '}{report.drift}")
    if report.anew:
        lines.append(f"  made anew: {report.anew}")
    if not report.recall_reached:
        lines.append(
            "  the recall wished for was NOT reached with any setting, see the measured values: "
            "a recipe with more PQ bytes has more, --recipe flat is exact"
        )
    lines += [
        f"  own star first / in the first ten, of {gain.pairs:,} asked from {gain.modality}: "
        f"{gain.with_centring[0]:.3f} / {gain.with_centring[1]:.3f} centred, "
        f"{gain.without[0]:.3f} / {gain.without[1]:.3f} not centred"
        for gain in report.centring
    ]
    return lines


def wish_lines(report: BuildReport, info: Mapping[str, Any], wished: float) -> list[str]:
    """A word where the index is current but its search was set for another recall."""
    before = info["search"].get("wished_recall", wished)
    if report.action != "current" or before == wished:
        return []
    return [f"  its search is set for recall {before:g}; `index tune --recall {wished:g}` sets it for {wished:g}"]


def recall_table(reports: Sequence[BuildReport]) -> pa.Table:
    """Measured recall by instrument and kind of query."""
    return rows_table(
        [
            {
                "index": report.modality,
                "queries": r.group,
                "recall_at_10": r.at_10,
                "recall_at_100": r.at_100,
                "n": r.queries,
            }
            for report in reports
            for r in report.recall
        ]
    )


def rows_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Plain records as a table."""
    import pyarrow as pa

    return pa.Table.from_pylist([dict(row) for row in rows])
