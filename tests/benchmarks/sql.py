"""SQL over a large atlas: opening, lookup against join, conditions, cosine, searches, sky match against astropy.

Each ratio is measured side by side in one run. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.schemas import spectra_schema, vectors_schema
from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.surveys import get_modality

FIRST = 2**61
HITS = 100
HIDDEN = 24


def best(call: Callable[[], object], repeats: int = 5) -> tuple[float, float]:
    """Least wall and process time of some calls, in seconds."""
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return min(walls), min(cpus)


def line(label: str, measured: tuple[float, float], against: tuple[float, float] | None = None) -> None:
    ratio = f"   {against[1] / measured[1]:6.1f} x in processor time" if against else ""
    print(f"{label:64s} {measured[0] * 1e3:9.1f} ms  processor {measured[1] * 1e3:9.1f} ms{ratio}", flush=True)


def make_atlas(folder: Path, rows: int, vectors: int, dim: int) -> Atlas:
    """Spectra in shards of 2048 with a flux of 4 pixels, a catalogue of 20 columns in random order, vectors."""
    atlas = Atlas.create(folder)
    rng = np.random.default_rng(0)
    schema = spectra_schema(get_modality("gaia_xp").columns, 4)
    stage = atlas.spectra("gaia_xp")
    with stage.lock():
        for part, start in enumerate(range(0, rows, 2048)):
            ids = FIRST + np.arange(start, min(start + 2048, rows)) * 128
            n = len(ids)
            known = {
                "spec_id": ids,
                "source_id": ids,
                "release": ["dr3"] * n,
                "source": ["made"] * n,
                "simulated": np.zeros(n, bool),
                "ra": rng.uniform(0, 360, n),
                "dec": rng.uniform(-90, 90, n),
                "snr": rng.uniform(5, 200, n),
                "flux": np.ones((n, 4)),
                "error": np.ones((n, 4)),
            }
            columns = {f.name: known.get(f.name, pa.nulls(n, f.type)) for f in schema}
            stage.write(part, table_from_columns(columns, schema), schema=schema, inputs=str(part))
    order = rng.permutation(rows)
    catalogue = {
        "source_id": FIRST + order * 128,
        "teff": rng.uniform(3500, 7500, rows).astype("f4"),
        "feh": rng.uniform(-3, 0.5, rows).astype("f4"),
        **{f"c{i}": rng.random(rows, dtype="f4") for i in range(17)},
    }
    ingest_catalog_table(atlas, "gaia", pa.table(catalogue))
    made = vectors_schema(dim)
    # as stars' vectors, of many numbers and few degrees of freedom: of pure noise no index is fast
    axes = rng.normal(size=(HIDDEN, dim)) * np.geomspace(1, 0.1, HIDDEN)[:, None]
    stage = atlas.vectors("bench", "gaia_xp")
    with stage.lock():
        for part, start in enumerate(range(0, vectors, 16384)):
            n = min(16384, vectors - start)
            block = (rng.normal(size=(n, len(axes))) @ axes + 0.02 * rng.normal(size=(n, dim))).astype("f4")
            block /= np.linalg.norm(block, axis=1, keepdims=True)
            ids = FIRST + np.arange(start, start + n) * 128
            table = {"spec_id": ids, "source_id": ids, "release": ["dr3"] * n, "vector": block, "norm": np.ones(n)}
            said = {"model_digest": "sha256:bench"}
            stage.write(part, table_from_columns(table, made), schema=made, inputs=str(part), extra=said)
    atlas.use_model("bench")
    return atlas


def bench_opening(atlas: Atlas, rows: int) -> None:
    from specclip_search.queries.sql.ask import connect

    def open_and_ask() -> None:
        with connect(atlas) as connection:
            connection.execute("SELECT teff FROM stars LIMIT 0").fetchall()

    line(f"open {rows:,} spectra, make the view stars", best(open_and_ask))


def bench_join(atlas: Atlas, rows: int) -> None:
    from specclip_search.queries.sql.ask import connect

    rng = np.random.default_rng(1)
    with connect(atlas) as connection:

        def ask(statement: str) -> None:
            ids = FIRST + rng.choice(rows, HITS, replace=False) * 128
            connection.duckdb.register("hits", pa.table({"source_id": ids}))
            connection.sql(statement).arrow()

        by_lookup = "SELECT g.* FROM hits, gaia_of(hits.source_id) g WHERE teff < 6000"
        by_join = "SELECT * FROM hits JOIN gaia USING (source_id) WHERE teff < 6000"
        ask(by_lookup)
        joined = best(lambda: ask(by_join))
        line(f"{HITS} stars joined with a catalogue of {rows:,} x 20: hash join", joined)
        line("  the same by lookup (gaia_of)", best(lambda: ask(by_lookup)), joined)


def bench_annotate(atlas: Atlas, rows: int) -> None:
    from specclip_search.queries.sql.ask import connect
    from specclip_search.queries.views.annotate import annotate

    ids = FIRST + np.random.default_rng(2).choice(rows, HITS, replace=False) * 128
    hits = pa.table({"modality": ["gaia_xp"] * HITS, "release": ["dr3"] * HITS, "spec_id": ids})
    with connect(atlas) as connection:
        annotate(connection, hits)
        keys = ", ".join(map(str, ids))
        scanned = best(lambda: connection.sql(f"SELECT * FROM spectra WHERE spec_id IN ({keys})").arrow(), 3)
        line(f"labels of {HITS} hits: scan of the view spectra", scanned)
        line("  the same by lookup (annotate)", best(lambda: annotate(connection, hits)), scanned)


def bench_where(atlas: Atlas) -> None:
    from specclip_search.queries.sql.ask import connect
    from specclip_search.queries.views import kept_columns
    from specclip_search.queries.views.where import where_to_keys

    usual = kept_columns.WORTH_KEEPING
    with connect(atlas) as connection:
        for where in ("snr > 190", "teff > 7000 AND feh < -2.5", "dec < 0"):

            def ask(where: str = where) -> int:
                return where_to_keys(connection, where, "gaia_xp").num_rows

            kept_columns.WORTH_KEEPING = 2**62
            read = best(ask, 2)
            kept_columns.WORTH_KEEPING = usual
            line(f"condition to keys, from shards and catalogues: {where}", read)
            line("  the first time, when its columns are kept", best(ask, 1))
            line(f"  from kept columns; {ask():,} keys", best(ask, 3), read)


def bench_where_rows(atlas: Atlas) -> None:
    """A condition as rows of vectors and their bitmap; give as many --vectors as --rows, of a small --dim."""
    from specclip_search.indexing.search.row_set import RowSet
    from specclip_search.queries.space.space import Space
    from specclip_search.queries.sql.ask import connect
    from specclip_search.queries.views.where import rows_of_keys, where_to_keys, where_to_rows

    space = Space(atlas)
    keys = space.keys("gaia_xp")
    with connect(atlas) as connection:
        for where in ("snr > 190", "teff > 7000 AND feh < -2.5", "dec < 0"):

            def by_key(where: str = where) -> bytes:
                rows = rows_of_keys(keys, where_to_keys(connection, where, "gaia_xp"))
                return RowSet.of(rows, len(keys)).bitmap.tobytes()

            def by_row(where: str = where) -> bytes:
                return RowSet.of(where_to_rows(connection, space, where, "gaia_xp"), len(keys)).bitmap.tobytes()

            slow = best(by_key, 2)
            same = "the same" if by_key() == by_row() else "NOT THE SAME"
            line(f"condition to bitmap of {len(keys):,} vectors by key: {where}", slow)
            line(f"  by kept rows; {same}", best(by_row, 3), slow)


def bench_cosine(atlas: Atlas, vectors: int, dim: int) -> None:
    """The same 100 nearest by SQL, by the index's exact search and by the index; and joined with the catalogue."""
    from specclip_search.indexing import VectorIndex, build_index
    from specclip_search.queries.sql.ask import connect

    statement = (
        f"SELECT v.spec_id, cosine(v.vector, q.vector) AS c FROM vectors_gaia_xp v, "
        f"(SELECT vector FROM vectors_gaia_xp WHERE spec_id = {FIRST}) q ORDER BY c DESC LIMIT {HITS}"
    )
    started = time.perf_counter()
    build_index(atlas, "bench", "gaia_xp")
    built = time.perf_counter() - started
    index = VectorIndex.open(atlas, "bench", "gaia_xp")
    vector = index.raw_vectors(np.array([0]))
    with connect(atlas) as connection:
        slow = best(lambda: connection.sql(statement).arrow(), 2)
        line(f"top {HITS} of {vectors:,} x {dim} by exact cosine in SQL", slow)
        exact = best(lambda: index.search(vector, HITS, query_modality="gaia_xp", exact=True), 3)
        line("  by the exact search of Python", exact, slow)
        line(
            f"  by the index ({index.kind}, built in {built:.0f} s)",
            best(lambda: index.search(vector, HITS, query_modality="gaia_xp")),
            slow,
        )


def bench_similar(atlas: Atlas, rows: int, vectors: int) -> None:
    """A search in SQL whose hits are joined with the catalogue and filtered."""
    from specclip_search.queries.sql.ask import connect

    rng = np.random.default_rng(4)
    with connect(atlas) as connection:

        def ask(joined: str) -> int:
            key = FIRST + int(rng.integers(vectors)) * 128
            hits = f"similar('gaia:{key}', {HITS}, within := 'gaia_xp') s"
            return connection.sql(f"SELECT s.rank, g.* FROM {hits} {joined} WHERE g.teff < 6000").arrow().num_rows

        lookup, join = ", gaia_of(s.source_id) g", "JOIN gaia g USING (source_id)"
        for each in (lookup, join):
            ask(each)
        joined = best(lambda: ask(join), 3)
        line(f"similar(key, {HITS}) joined with {rows:,} x 20 and filtered: hash join", joined)
        line("  the same by lookup (gaia_of)", best(lambda: ask(lookup), 10), joined)


def bench_sky(few: int, many: int) -> None:
    import astropy.units as u
    from astropy.coordinates import SkyCoord, search_around_sky

    from specclip_search.queries.sky.match import sky_match

    rng = np.random.default_rng(3)
    ra2, dec2 = rng.uniform(0, 360, many), np.degrees(np.arcsin(rng.uniform(-1, 1, many)))
    chosen = rng.choice(many, few, replace=False)
    ra1, dec1 = ra2[chosen] + rng.normal(0, 1e-4, few), dec2[chosen] + rng.normal(0, 1e-4, few)
    first, second = SkyCoord(ra1, dec1, unit="deg"), SkyCoord(ra2, dec2, unit="deg")
    theirs = best(lambda: search_around_sky(first, SkyCoord(second, copy=True), 3 * u.arcsec), 2)
    ours = best(lambda: sky_match(ra1, dec1, ra2, dec2, 3.0), 2)
    found, expected = sky_match(ra1, dec1, ra2, dec2, 3.0), search_around_sky(first, second, 3 * u.arcsec)
    same = set(zip(found.left.tolist(), found.right.tolist(), strict=True)) == set(
        zip(expected[0].tolist(), expected[1].tolist(), strict=True)
    )
    line(f"sky match {few:,} x {many:,} within 3 arcsec: astropy", theirs)
    line(f"  ours; {len(found.left):,} pairs, {'the same' if same else 'NOT THE SAME'}", ours, theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="spectra, and rows of the catalogue")
    parser.add_argument("--vectors", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--folder", type=Path, help="where to make the atlas; by default a folder that is removed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        atlas = make_atlas(options.folder or Path(scratch) / "atlas", options.rows, options.vectors, options.dim)
        print(f"made in {time.perf_counter() - started:.0f} s")
        bench_opening(atlas, options.rows)
        bench_join(atlas, options.rows)
        bench_annotate(atlas, options.rows)
        bench_where(atlas)
        bench_where_rows(atlas)
        bench_cosine(atlas, options.vectors, options.dim)
        bench_similar(atlas, options.rows, min(options.rows, options.vectors))
        bench_sky(min(options.rows, 100_000), options.rows)


if __name__ == "__main__":
    main()
