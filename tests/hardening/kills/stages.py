"""What is killed: every stage of an atlas, from the state before it, and the readers that are asked in between."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from specclip_search.atlas import Atlas
from specclip_search.errors import SpecclipError
from specclip_search.surveys import LRS, XP
from tests.queries.toy_survey import FIRST_SOURCE, LinearModel, make_survey, write_spectra, write_vectors

STARS, SHARDS = 300, 3
ATLAS, OUT = "atlas", "out"
RECIPE = "PCA16,IVF4,PQ8"
TOY = LinearModel()


@dataclass(frozen=True)
class Step:
    """A run that leads from one state of an atlas to the next.

    Attributes
    ----------
    run
        Does it in a folder that holds `ATLAS` and may be given `OUT`; run again, it finishes what was begun.
    before
        Name of the step whose end this one begins with; empty for none.
    victims
        Which processes are ended; see `killer.Victim`.
    killed
        Whether the kill test kills it; the others only prepare a state.
    real
        Whether it reads real spectra.
    often
        How often it is killed, relative to the others: less where worker processes must start first.
    """

    name: str
    run: Callable[[Path, Path], None]
    before: str = ""
    victims: tuple[str, ...] = ("process",)
    killed: bool = True
    real: bool = False
    often: int = 4


def small_shards() -> None:
    """Let a small atlas have several shards of everything, as a survey has; a map is laid out without UMAP's minute."""
    from specclip_search.catalogs import ingest as catalogs
    from specclip_search.queries.emp import candidates
    from specclip_search.queries.maps import layout
    from specclip_search.queries.maps import map as maps

    catalogs.CHUNK_ROWS, candidates.SHARD_ROWS, maps.SHARD_ROWS = 100, 128, 128
    layout._umap = lambda reduced, seed: np.roll(reduced[:, :2], seed, axis=1)


def survey(folder: Path, _: Path) -> None:
    make_survey(folder / ATLAS, stars=STARS, shards=SHARDS, wrong=4, emission=4)


def more_spectra(folder: Path, _: Path) -> None:
    """Forty stars more in a shard of their own, as a later release brings them."""
    other = make_survey(folder / "other", stars=40, seed=2, shards=1, labelled=False)
    for modality in (LRS, XP):
        rows = other.atlas.spectra(modality).read()
        flux, error = (np.stack(rows[name].to_numpy()) for name in ("flux", "error"))
        ids = rows["spec_id"].to_numpy() + (1000 if modality == LRS else 1000 * 128)
        source = rows["source_id"].to_numpy() + 1000 * 128
        write_spectra(Atlas(folder / ATLAS), modality, ids, source, flux, error, rows["snr"].to_numpy(), first=SHARDS)
    shutil.rmtree(folder / "other")


def files_of(shared: Path, layout: str, count: int) -> list[Path]:
    return sorted((shared / "lamost" / layout).glob("*.fits.gz"))[:count]


def ingest_lrs(workers: int, count: int = 12) -> Callable[[Path, Path], None]:
    def run(folder: Path, shared: Path) -> None:
        from specclip_search.ingest import ingest_lamost

        files = [*files_of(shared, "matrix", count), *files_of(shared, "table", 4)]
        ingest_lamost(Atlas.create(folder / ATLAS), files, workers=workers, shard_size=4)

    return run


def ingest_xp(folder: Path, shared: Path) -> None:
    from specclip_search.ingest import ingest_gaia_xp

    names = ("XP_SAMPLED_RAW_dr3int6.csv", "XP_SAMPLED_RAW_dr3int6.fits")
    files = [shared / "gaia_xp" / "sampled" / name for name in names]
    ingest_gaia_xp(Atlas.create(folder / ATLAS), files, workers=1, shard_size=1)


def catalogue(seed: int, rows: int) -> Callable[[Path, Path], None]:
    def run(folder: Path, _: Path) -> None:
        from specclip_search.catalogs.ingest import ingest_catalog

        rng = np.random.default_rng(seed)
        lines = ["source_id,ra,dec,teff,feh"]
        for i in range(rows):
            lines.append(f"{FIRST_SOURCE + 128 * i},{180 + i / 1000},{10 + i / 1000},"
                         f"{rng.integers(4000, 7000)},{-rng.random():.3f}")
        file = folder / "gaia_stars.csv"
        file.write_text("\n".join([*lines, ""]), encoding="utf-8")
        os.utime(file, ns=(seed, seed))
        ingest_catalog(Atlas.create(folder / ATLAS), "gaia_stars", file)

    return run


def weights(folder: Path, change: float) -> Path:
    """A model folder beside the atlas: the shipped one, or one of its name with other weights."""
    from specclip_search.training.checkpoints.folder import WEIGHTS, load_card, load_tensors, save_model
    from specclip_search.training.checkpoints.shipped import find_model

    shipped = find_model("mini")
    if not change:
        return shipped
    made = folder.parent / "weights"
    if not (made / "model.toml").exists():
        state = load_tensors(shipped / WEIGHTS)
        save_model(made, load_card(shipped), {key: value + change for key, value in state.items()}, {})
    return made


def embed(change: float = 0.0) -> Callable[[Path, Path], None]:
    def run(folder: Path, _: Path) -> None:
        from specclip_search.indexing.vectors.embed import embed as embed_all
        from specclip_search.training.model import load_model

        embed_all(Atlas(folder / ATLAS), load_model(weights(folder, change), device="cpu"))

    return run


def estimate(folder: Path, _: Path) -> None:
    from specclip_search.indexing.vectors.estimate import estimate as estimate_all
    from specclip_search.training.model import load_model

    estimate_all(Atlas(folder / ATLAS), load_model("mini", device="cpu"))


def toy_vectors(folder: Path, _: Path) -> None:
    write_vectors(Atlas(folder / ATLAS), TOY)


def index(recipe: str | None) -> Callable[[Path, Path], None]:
    def run(folder: Path, _: Path) -> None:
        from specclip_search.indexing.build.build import build_index

        atlas = Atlas(folder / ATLAS)
        for modality in (LRS, XP):
            build_index(atlas, modality=modality, recipe=recipe, device="cpu", threads=1)

    return run


def translate(folder: Path, _: Path) -> None:
    from specclip_search.queries.translation.translate import translate as translate_all

    translate_all(Atlas(folder / ATLAS), TOY)


def anomalies(k: int) -> Callable[[Path, Path], None]:
    def run(folder: Path, _: Path) -> None:
        from specclip_search.queries.anomalies.anomalies import anomalies as score

        score(Atlas(folder / ATLAS), top=5, k=k)

    return run


def emp(below: float) -> Callable[[Path, Path], None]:
    def run(folder: Path, _: Path) -> None:
        from specclip_search.queries.emp.candidates import emp_candidates

        emp_candidates(Atlas(folder / ATLAS), below, top=5, builtin_seeds=False)

    return run


def make_map(seed: int) -> Callable[[Path, Path], None]:
    def run(folder: Path, _: Path) -> None:
        from specclip_search.queries.maps.map import make_map as lay_out

        lay_out(Atlas(folder / ATLAS), sample=100, seed=seed)

    return run


def link(radius: float) -> Callable[[Path, Path], None]:
    def run(folder: Path, _: Path) -> None:
        from specclip_search.queries.sky.link import link_stars

        link_stars(Atlas(folder / ATLAS), radius_arcsec=radius)

    return run


def observed(folder: Path, shared: Path) -> None:
    """Real LAMOST spectra without a star, and a catalogue of stars at their places to link them to."""
    ingest_lrs(1)(folder, shared)
    atlas = Atlas(folder / ATLAS)
    rows = atlas.spectra(LRS).read(["ra", "dec"]).to_pylist()
    count = len(rows)
    flux = np.tile(1 + np.linspace(0, 0.1, 343), (count, 1))
    write_spectra(atlas, XP, FIRST_SOURCE + 128 * np.arange(count), FIRST_SOURCE + 128 * np.arange(count), flux,
                  flux / 100, np.full(count, 50.0))
    import pyarrow as pa

    stage = atlas.spectra(XP)
    table = stage.read()
    for name in ("ra", "dec"):
        values = pa.array([row[name] for row in rows], table.schema.field(name).type)
        table = table.set_column(table.schema.names.index(name), table.schema.field(name), values)
    with stage.lock():
        stage.write(0, table, schema=table.schema, inputs="placed")


def verdicts(folder: Path, _: Path) -> None:
    from specclip_search.queries.anomalies.verdicts import record

    atlas = Atlas(folder / ATLAS)
    for number, word in enumerate(("interesting", "artifact", "normal")):
        record(atlas, "anomalies", (101_001 + number, FIRST_SOURCE + 128 * number), word, now=number)


def hats(folder: Path, _: Path) -> None:
    from specclip_search.queries.sql.export import export_table

    shutil.rmtree(folder / OUT, ignore_errors=True)
    export_table(Atlas(folder / ATLAS), "SELECT source_id, ra, dec, snr FROM spectra_gaia_xp", folder / OUT, "hats",
                 max_rows=100)


def parquet(folder: Path, _: Path) -> None:
    from specclip_search.queries.sql.export import export_table

    (folder / OUT).mkdir(exist_ok=True)
    export_table(Atlas(folder / ATLAS), "spectra_gaia_xp", folder / OUT / "stars.parquet")


def in_place(folder: Path, _: Path) -> None:
    """What must not be done: it proves that the test can fail."""
    Atlas.create(folder / ATLAS)
    for row in range(5):
        with open(folder / ATLAS / "rows.txt", "a", encoding="utf-8") as handle:
            handle.write(f"{row}\n")


STEPS = {step.name: step for step in (
    Step("ingest lamost", ingest_lrs(1), real=True),
    Step("ingest lamost, more files", ingest_lrs(1, 20), "ingest lamost", real=True),
    Step("ingest lamost, 2 processes", ingest_lrs(2), victims=("process", "group", "worker"), real=True, often=1),
    Step("ingest xp", ingest_xp, real=True),
    Step("catalogue", catalogue(1, 250)),
    Step("catalogue replaced", catalogue(2, 350), "catalogue"),
    Step("survey", survey, killed=False),
    Step("embed", embed(), "survey"),
    Step("embed, other weights", embed(1e-3), "embed"),
    Step("estimate", estimate, "embed"),
    Step("vectors", toy_vectors, "survey", killed=False),
    Step("index", index(None), "vectors"),
    Step("ivfpq", index(RECIPE), "vectors"),
    Step("ivfpq for flat", index(RECIPE), "index"),
    Step("more spectra", more_spectra, "ivfpq", killed=False),
    Step("more vectors", toy_vectors, "more spectra", killed=False),
    Step("ivfpq growth", index(RECIPE), "more vectors"),
    Step("translate", translate, "index"),
    Step("anomalies", anomalies(16), "translate"),
    Step("anomalies again", anomalies(24), "anomalies"),
    Step("verdicts", verdicts, "anomalies"),
    Step("emp", emp(-1.0), "index"),
    Step("emp again", emp(-2.0), "emp"),
    Step("map", make_map(0), "index"),
    Step("map again", make_map(1), "map"),
    Step("observed", observed, killed=False),
    Step("link", link(2.0), "observed", real=True),
    Step("link again", link(1.0), "link", real=True),
    Step("export hats", hats, "survey"),
    Step("export parquet", parquet, "survey"),
    Step("in place", in_place, often=0),
)}


# -- what must be equal ---------------------------------------------------------------------------

# locks, and what only says how long a build took
_PASSING = {".lock", ".writer", ".manifest.lock"}


def digests(folder: Path) -> dict[str, str]:
    """Digest of every file that matters below a folder, by its path."""
    found = {}
    for path in sorted(path for name in (ATLAS, OUT) for path in (folder / name).rglob("*")):
        if path.is_file() and path.name not in _PASSING:
            found[str(path.relative_to(folder))] = hashlib.sha256(_content(path)).hexdigest()
        elif path.is_dir() and path.name.startswith("."):
            found[str(path.relative_to(folder))] = "a folder that should be gone"
    return found


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    if path.name == "index.toml":
        import tomllib

        content = tomllib.loads(data.decode())
        return json.dumps({name: value for name, value in content.items() if name not in ("build", "check")},
                          sort_keys=True).encode()
    return data


# -- readers ---------------------------------------------------------------------------------------

# what a run replaces as a whole is read as it was or as it will be, never in part
WHOLE = ("map", "emp", "anomalies", "gaia_stars", "links", "truth")
# made of several stages: what one of them lacks is null there
JOINED = ("stars", "spectra")


@dataclass(frozen=True)
class Said:
    """What a reader says: rows as text, or an error in words."""

    rows: tuple[str, ...] = ()
    error: str = ""


def answers(folder: Path) -> dict[str, Said]:
    """What every reader says of an atlas; anything but rows and our own errors is raised."""
    if not (folder / ATLAS / "atlas.toml").exists():
        return {}
    found = {}
    for name, ask in _readers(folder / ATLAS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found[name] = Said(tuple(sorted(ask())))
            except SpecclipError as error:
                found[name] = _in_words(error)
    return found


def _in_words(error: SpecclipError) -> Said:
    whole = bool(error.message and error.hint)
    return Said(error=f"{error.message} {error.hint}") if whole else Said(("",))


def _readers(path: Path) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    yield "doctor", lambda: _doctor(path)
    yield "tables", lambda: [row[0] for row in _sql(path, "SHOW TABLES")]
    try:
        views = [row[0] for row in _sql(path, "SHOW TABLES")]
    except SpecclipError:
        views = ["stars", "spectra", "map", "emp", "anomalies"]
    for view in views:
        yield f"sql {view}", lambda view=view: [row[0] for row in _sql(path, f'SELECT md5(t::VARCHAR) FROM "{view}" t')]
    for key in (f"gaia:{FIRST_SOURCE + 5 * 128}", "lamost:101020"):
        yield f"similar {key}", lambda key=key: _similar(path, key)


def _sql(path: Path, statement: str) -> list[tuple[Any, ...]]:
    from specclip_search.queries.sql.ask import run

    rows = run(Atlas(path), statement)
    assert rows is not None
    return rows.fetchall()


def _similar(path: Path, key: str) -> list[str]:
    from specclip_search.queries.similar.similar import similar as near

    columns = ["rank", "spec_id", "similarity"]
    return [near(Atlas(path), key, 5, within=XP)[columns].to_csv(float_format="%.3f")]


def _doctor(path: Path) -> list[str]:
    from specclip_search.cli.doctor import examine_atlas

    examine_atlas(path, deep=True)
    return []


def wrong(before: dict[str, Said], between: dict[str, Said], after: dict[str, Said]) -> list[str]:
    """What readers said in between that is neither right nor a refusal."""
    found = []
    for name, said in between.items():
        if said.error:
            continue
        if said.rows == ("",):
            found.append(f"{name}: an error without words")
            continue
        if name in ("doctor", "tables"):
            continue
        old, new = before.get(name, Said()).rows, after.get(name, Said()).rows
        view = name.partition(" ")[2]
        if view in JOINED:
            good = len(said.rows) <= max(len(old), len(new))
        elif view in WHOLE or name.startswith("similar"):
            good = said.rows in (old, new)
        else:
            good = set(said.rows) <= {*old, *new}
        if not good:
            found.append(f"{name}: {len(said.rows)} rows, not those of before ({len(old)}) or after ({len(new)})")
    return found


def imported() -> None:
    """Import what the steps use, once for all processes that are forked."""
    import pandas  # noqa: F401

    import specclip_search.cli.doctor
    import specclip_search.indexing.build.build
    import specclip_search.indexing.vectors.estimate
    import specclip_search.ingest.library
    import specclip_search.queries.emp.candidates
    import specclip_search.queries.report.report
    import specclip_search.queries.sky.link
    import specclip_search.queries.sql.ask
    import specclip_search.queries.sql.export
    import specclip_search.queries.translation.translate  # noqa: F401
    from specclip_search.indexing.search.faiss_library import load_faiss

    load_faiss()
