"""An atlas of many pairs made from one of few, for time and memory of ranking at survey size.

    python tests/benchmarks/tiled.py ATLAS FOLDER --copies 20     make it, index it, rank it, say what that took

ATLAS is a simulated survey that has been embedded, estimated and translated. Its simulated pairs are
repeated under new ids (a star keeps its split), their vectors moved by a little seeded noise, and all
that ranking reads is written: vectors, indexes, translations, estimates, and spectra without fluxes.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import column_to_matrix, matrix_to_column
from specclip_search.keys import split_of

LRS, XP = "lamost_lrs", "gaia_xp"
NOISE = 0.05
MODEL = "mini"
KEYS = {"spec_id", "source_id", "lrs_spec_id", "xp_spec_id"}


class Renumbered:
    """New ids of the copies: as many stars a copy as there are, each with its old split."""

    def __init__(self, stars: np.ndarray) -> None:
        self.stars = np.unique(stars)
        self.split = split_of(self.stars)

    def star(self, source_id: np.ndarray, copy: int) -> np.ndarray:
        row = np.searchsorted(self.stars, source_id)
        number = copy * len(self.stars) + row + 1
        return np.asarray((number * 10 + self.split[row]) * 128, dtype=np.int64)

    def table(self, table: pa.Table, copy: int) -> pa.Table:
        """The table with ids of a copy; an LRS id is its star's and the visit's number."""
        stars = table["source_id"].to_numpy()
        new = self.star(stars, copy)
        for name in KEYS & set(table.column_names):
            shifted = new + (table[name].to_numpy() - stars)
            table = table.set_column(table.column_names.index(name), table.schema.field(name), pa.array(shifted))
        return table


def make(source: Atlas, folder: Path, copies: int, seed: int = 0) -> Atlas:
    """Write the tiled atlas."""
    target = Atlas.create(folder)
    pairs = source.translations(MODEL).read()
    renumbered = Renumbered(pairs["source_id"].to_numpy())
    rng = np.random.default_rng(seed)
    for modality, key in ((LRS, "lrs_spec_id"), (XP, "xp_spec_id")):
        vectors = source.vectors(MODEL, modality).read()
        chosen = pa.array(np.isin(vectors["spec_id"].to_numpy(), pairs[key].to_numpy()))
        vectors, estimates = vectors.filter(chosen), source.estimates(modality, MODEL).read().filter(chosen)
        light = [field.name for field in pq.read_schema(source.spectra(modality).parts()[0].path)
                 if not pa.types.is_fixed_size_list(field.type)]  # fmt: skip
        spectra = source.spectra(modality).read(light).filter(chosen)
        said = dict(source.vectors(MODEL, modality).parts()[0].extra)
        matrix = column_to_matrix(vectors["vector"].combine_chunks()).astype(np.float32)
        for copy in range(copies):
            moved = matrix + rng.normal(0, NOISE / np.sqrt(matrix.shape[1]), matrix.shape).astype(np.float32)
            moved /= np.linalg.norm(moved, axis=1, keepdims=True)
            place = vectors.column_names.index("vector")
            column = matrix_to_column(moved.astype(np.float16))
            own = vectors.set_column(place, vectors.schema.field("vector"), column)
            for stage, table, extra in (
                (target.spectra(modality), spectra, {}),
                (target.vectors(MODEL, modality), own, said),
                (target.estimates(modality, MODEL), estimates, {}),
            ):
                write(stage, copy, renumbered.table(table, copy), extra)
    for copy in range(copies):
        write(target.translations(MODEL), copy, renumbered.table(pairs, copy), {})
    target.use_model(MODEL)
    return target


def write(stage: object, number: int, table: pa.Table, extra: dict[str, object]) -> None:
    with stage.lock():  # type: ignore[attr-defined]
        stage.write(number, table, schema=table.schema, inputs=f"copy {number}", extra=extra)  # type: ignore[attr-defined]


def timed(label: str, call: Callable[[], object]) -> tuple[object, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    spent = time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wall = time.perf_counter() - wall
    print(f"{label}: {wall:.0f} s, {spent:.0f} s of processor, {peak:,.0f} MiB at most", flush=True)
    return result, spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("atlas", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--rank", action="store_true", help="only rank what stands in FOLDER")
    options = parser.parse_args()
    from specclip_search.indexing import build_index
    from specclip_search.queries.anomalies.anomalies import score
    from specclip_search.queries.space.space import Space

    if not options.rank:
        timed("made", lambda: make(Atlas(options.atlas), options.folder, options.copies))
        for modality in (LRS, XP):
            timed(f"{modality} index", lambda m=modality: build_index(Atlas(options.folder), modality=m))
        print("rank with --rank, in a process of its own, for memory that is the ranking's")
        return
    space = Space(Atlas(options.folder), MODEL)
    found, spent = timed("ranked", lambda: score(space))
    pairs = len(found[0])  # type: ignore[index]
    print(f"{pairs:,} pairs: {1e3 * spent / pairs:.2f} ms of processor a pair; 10 million in proportion "
          f"{1e7 * spent / pairs / 3600:.1f} h of one core")  # fmt: skip


if __name__ == "__main__":
    main()
