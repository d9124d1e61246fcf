"""`specclip-search index build | info | check | tune | neighbours`"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import AtlasOption, FormatOption, ModelOption, OutputOption, SeedOption, open_atlas
from ..progress import progress_bar
from ..reports import say

if TYPE_CHECKING:
    import pyarrow as pa

    from specclip_search.indexing.build.build import BuildReport
    from specclip_search.indexing.build.costs import Estimate
    from specclip_search.indexing.search.recipe import Recipe

    from ...atlas import Atlas

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Build, inspect, check or tune the vector index; find every spectrum's neighbours.",
)

WithinOption = Annotated[
    str | None,
    typer.Option("--within", metavar="MODALITY", help="Only this instrument; by default all with vectors."),
]


@app.command("build")
def build(
    atlas: AtlasOption,
    model: ModelOption = None,
    within: WithinOption = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", metavar="RECIPE", help="auto, flat, ivfpq, or e.g. PCA128,IVF4096,PQ64.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="SIZE", help="Maximum memory to use, e.g. 4G.")
    ] = None,
    recall: Annotated[float, typer.Option("--recall", min=0.01, max=1.0, help="Target recall of the search.")] = 0.99,
    seed: SeedOption = 0,
    device: Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")] = "auto",
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", help="Rebuild from scratch even if the index is up to date, for example if it is damaged."
        ),
    ] = False,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Build the index of each instrument's vectors; the old index is used until the new one is complete.

    Reports the required memory, disk and time first, and the recall measured against exact search at the end.

    Example: specclip-search index build --atlas my-atlas
    """
    from specclip_search.indexing import build_index, index_info, plan_build

    from ...tables import write_rows

    target = open_atlas(atlas)
    reports = []
    for modality in _modalities(target, model, within):
        chosen, needs = plan_build(target, model, modality, memory=memory, recipe=recipe)
        say(*need_lines(modality, chosen, needs))
        with progress_bar(f"index {modality}", "vectors") as progress:
            report = build_index(
                target,
                model,
                modality,
                memory=memory,
                recipe=recipe,
                seed=seed,
                wished_recall=recall,
                fresh=fresh,
                device=device,
                progress=progress,
            )
        say(*build_lines(report), *wish_lines(report, index_info(target, model, modality), recall))
        reports.append(report)
    measured = recall_table(reports)
    if measured.num_rows:
        write_rows(measured, format, output)


@app.command("info")
def info(
    atlas: AtlasOption,
    model: ModelOption = None,
    within: WithinOption = None,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Show the type and inputs of each index, and the recall measured when it was built.

    Example: specclip-search index info --atlas my-atlas
    """
    from specclip_search.indexing import index_info

    from ...tables import write_rows
    from ..reports import setting_rows

    target = open_atlas(atlas)
    rows = [
        {"index": modality} | row
        for modality in _modalities(target, model, within)
        for row in setting_rows(index_info(target, model, modality))
    ]
    write_rows(rows_table(rows), format, output)


@app.command("check")
def check(
    atlas: AtlasOption,
    model: ModelOption = None,
    within: WithinOption = None,
    full: Annotated[bool, typer.Option("--full", help="Re-read every shard and compare all vectors.")] = False,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Verify digests, the keys of all vectors, and the recall. Exit code 1 if there is a problem.

    Example: specclip-search index check --atlas my-atlas
    """
    from specclip_search.indexing import check_index

    from ...tables import write_rows

    target = open_atlas(atlas)
    checks = [check_index(target, model, modality, full=full) for modality in _modalities(target, model, within)]
    rows = [
        {"index": one.modality, "status": finding.status, "subject": finding.subject, "finding": finding.finding}
        for one in checks
        for finding in one.findings
    ]
    write_rows(rows_table(rows), format, output)
    if not all(one.ok for one in checks):
        raise typer.Exit(1)


@app.command("tune")
def tune(
    atlas: AtlasOption,
    model: ModelOption = None,
    within: WithinOption = None,
    recall: Annotated[float, typer.Option("--recall", min=0.01, max=1.0, help="Recall@10 and @100 to reach.")] = 0.99,
    seed: SeedOption = 0,
) -> None:
    """Find the fastest search settings that reach a recall, and store them in the index.

    Example: specclip-search index tune --recall 0.99 --within gaia_xp --atlas my-atlas
    """
    from specclip_search.indexing import tune_index

    target = open_atlas(atlas)
    for modality in _modalities(target, model, within):
        report = tune_index(target, model, modality, recall=recall, seed=seed)
        say(
            f"{modality}: nprobe {report.before[0]} -> {report.after[0]}, re-rank depth {report.before[1]:g} k -> "
            f"{report.after[1]:g} k; recall {recall} {'reached' if report.reached else 'NOT reached'}"
        )
        for measured in report.recall:
            say(
                f"  {measured.group}: recall@10 {measured.at_10:.4f}, @100 {measured.at_100:.4f} "
                f"({measured.queries:,} queries)"
            )


@app.command("neighbours")
def neighbours(
    atlas: AtlasOption,
    model: ModelOption = None,
    within: WithinOption = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Neighbours of each spectrum.")] = 32,
    device: Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Find the k nearest neighbours of every spectrum and store them as the view `neighbours` in SQL.

    A resumed run makes only the missing shards.

    Example: specclip-search index neighbours -k 32 --within gaia_xp --atlas my-atlas
    """
    from specclip_search.indexing import neighbours as find

    target = open_atlas(atlas)
    for modality in _modalities(target, model, within):
        with progress_bar(f"neighbours {modality}", "vectors") as progress:
            report = find(target, model, modality, k, device=device, progress=progress)
        say(f"{modality}: {report}")


def _modalities(atlas: Atlas, model: str | None, within: str | None) -> list[str]:
    """The requested instrument, or all that have vectors; raises an error if there is none."""
    from ...surveys import MODALITIES, get_modality

    name = atlas.require_model(model)
    if within is not None:
        return [get_modality(within).name]
    found = [m for m in MODALITIES if atlas.vectors(name, m).exists]
    if not found:
        raise atlas.vectors(name, next(iter(MODALITIES))).missing()
    return found


_DONE = {
    "built": "built",
    "grown": "updated without retraining",
    "current": "up to date, nothing was done",
}


def size_text(count: float) -> str:
    """`1.5 GB` and the like."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} GB"


def need_lines(modality: str, recipe: Recipe, needs: Estimate) -> list[str]:
    """The estimated requirements of a build, before it begins."""
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
    """Report of a build: the action (built, grown or up to date), the index, and why it was retrained."""
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
        lines.append(f"  {'' if report.action == 'grown' else 'retrained: '}{report.drift}")
    if report.anew:
        lines.append(f"  rebuilt: {report.anew}")
    if not report.recall_reached:
        lines.append(
            "  the requested recall was NOT reached with any setting, see the measured values: "
            "a recipe with more PQ bytes has a higher recall, --recipe flat is exact"
        )
    lines += [
        f"  own star first / in the first ten, of {gain.pairs:,} queries from {gain.modality}: "
        f"{gain.with_centring[0]:.3f} / {gain.with_centring[1]:.3f} centred, "
        f"{gain.without[0]:.3f} / {gain.without[1]:.3f} not centred"
        for gain in report.centring
    ]
    return lines


def wish_lines(report: BuildReport, info: Mapping[str, Any], wished: float) -> list[str]:
    """A note if the index is up to date but its search was tuned for another recall."""
    before = info["search"].get("wished_recall", wished)
    if report.action != "current" or before == wished:
        return []
    return [f"  its search is tuned for recall {before:g}; `index tune --recall {wished:g}` tunes it for {wished:g}"]


def recall_table(reports: Sequence[BuildReport]) -> pa.Table:
    """Measured recall by instrument and group of queries."""
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
