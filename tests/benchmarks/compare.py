"""Time of `compare` over large catalogues: ``python tests/benchmarks/compare.py --stars 10000000 --catalogues 5``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from specclip_search import Atlas
from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.queries.compare.compare import compare
from tests.queries.small_atlas import fill

FIRST = 10**18


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stars", type=int, default=200_000)
    parser.add_argument("--catalogues", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        atlas = Atlas.create(Path(folder) / "atlas")
        fill(atlas)
        rng = np.random.default_rng(0)
        truth = rng.normal(-0.4, 0.4, given.stars)
        names = [f"survey{i}" for i in range(given.catalogues)]
        for i, name in enumerate(names):
            feh = truth + 0.05 * i + 0.05 * rng.standard_normal(given.stars)
            ids = FIRST + 7 * rng.permutation(given.stars)
            order = (ids - FIRST) // 7
            table = pa.table({"source_id": ids, "feh": feh[order], "feh_err": np.full(given.stars, 0.05)})
            ingest_catalog_table(atlas, name, table)
        start, cpu = time.perf_counter(), time.process_time()
        found = compare(atlas, ["feh"], names, "survey0")
        print(found[["source", "n", "offset", "offset_err", "scatter"]].to_string(index=False))
        print(f"{given.stars:,} stars in {given.catalogues} catalogues: {time.perf_counter() - start:.1f} s, "
              f"{time.process_time() - cpu:.1f} CPU s")


if __name__ == "__main__":
    sys.exit(main())
