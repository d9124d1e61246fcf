"""What manifests and checksums cost: opening, searching and SQL with the checks on and off, in turns, in CPU time.

    python tests/benchmarks/checks.py [--atlas demo-atlas] [--repeats 40] [--shards 10000]

"Open" forgets what the process knows of the atlas's files, as a new process does; that the files were found intact
before is remembered in the cache folder. Without ``--atlas`` a demo atlas of 300 stars is built in a temporary folder.
The many shards are one result of made-up rows.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa

from specclip_search.atlas import Atlas, Stage, integrity, manifest, stage
from specclip_search.atlas.integrity import forget
from specclip_search.atlas.manifest import Manifest, committed_numbers, counted, write_manifest
from specclip_search.indexing.search import index, store
from specclip_search.indexing.vectors import index_folder
from specclip_search.queries.similar.similar import similar
from specclip_search.queries.space import lookup

ROWS_A_SHARD = 10


@contextmanager
def unchecked() -> Iterator[None]:
    """Neither manifests nor digests nor the checksums of the store are looked at."""
    with ExitStack() as stack:
        for change in (
            patch.object(stage, "listed", lambda folder: (committed_numbers(folder), [], None)),
            patch.object(Manifest, "agrees", lambda *_: True),
            patch.object(integrity, "_found_intact", lambda *_: True),
            patch.object(store.VectorStore, "_compare", lambda *_: None),
            patch.object(index, "check_index_files", lambda *_: None),
            patch.object(index_folder, "check_index_files", lambda *_: None),
        ):
            stack.enter_context(change)
        yield


def as_a_new_process() -> None:
    """Forget what the process has found out about files; the cache folder stays."""
    forget()
    stage._looks.clear()
    for kept in (manifest._parsed, index_folder._parsed, index_folder._checked_manifest, lookup._kept, lookup._opened):
        kept.cache_clear()


def processor_ms(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return (time.process_time() - start) * 1e3


def compare(label: str, call: Callable[[], object], repeats: int, before: Callable[[], object] | None = None) -> float:
    """Print and return how much longer a call takes with the checks: the median of the differences of the turns."""
    times: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(repeats + 2):
        for checked in (True, False) if turn % 2 else (False, True):
            with ExitStack() as stack:
                if not checked:
                    stack.enter_context(unchecked())
                if before is not None:
                    before()
                gc.collect()
                took = processor_ms(call)
            if turn >= 2:
                times[checked].append(took)
    off = statistics.median(times[False])
    more = statistics.median(a - b for a, b in zip(times[True], times[False], strict=True))
    print(f"{label:58s} {off:9.2f} ms without, {more:+8.3f} ms with checks: {100 * more / off:+6.2f} %", flush=True)
    return more / off


def many_shards(folder: Path, shards: int) -> Stage:
    """A result of many small shards, written without syncing each."""
    atlas = Atlas.create(folder)
    result = atlas.results("many")
    table = pa.table({"source_id": pa.array(range(ROWS_A_SHARD), pa.int64()), "score": pa.array([0.5] * ROWS_A_SHARD)})
    with result.lock():
        first = result.write(0, table, schema=table.schema, inputs="made up")
    sidecar = first.file.with_suffix(".json")
    for number in range(1, shards):
        shutil.copyfile(first.file, result.parquet_path(number))
        shutil.copyfile(sidecar, result.parquet_path(number).with_suffix(".json"))
    stage._looks.clear()
    (result.folder / manifest.MANIFEST).unlink()
    write_manifest(result.folder, counted(result.parts()))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atlas", type=Path)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--shards", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = f"{temporary}/cache"
        path = options.atlas
        if path is None:
            path = Path(temporary) / "demo"
            command = ["-m", "specclip_search", "demo", "--stars", "300", "--atlas", str(path)]
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
        one_atlas(path, options.repeats)
        shards_of_one_stage(Path(temporary) / "many", options.shards, options.repeats)


def one_atlas(path: Path, repeats: int) -> None:
    atlas = Atlas(path)
    key = atlas.sql("SELECT min(spec_id) FROM spectra_gaia_xp").fetchall()[0][0]  # type: ignore[union-attr]
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print(f"{path.name}: {size / 1e6:.0f} MB")
    forget([folder for folder in path.rglob("*") if folder.is_dir()])
    took = processor_ms(lambda: similar(Atlas(path), f"gaia:{key}"))
    print(f"first search, which reads for their digests what it uses: {took:.1f} ms")
    count = "SELECT count(*), avg(feh) FROM stars"
    asked: dict[str, Callable[[], object]] = {
        "open and search": lambda: similar(Atlas(path), f"gaia:{key}"),
        "open and SQL": lambda: Atlas(path).sql(count).fetchall(),  # type: ignore[union-attr]
    }
    for label, ask in asked.items():
        ask()
        compare(label, ask, repeats, as_a_new_process)
    compare("search again", lambda: similar(atlas, f"gaia:{key}"), 4 * repeats)
    with atlas.session() as session:
        compare("search again, in a session", lambda: session.similar(f"gaia:{key}"), 4 * repeats)


def shards_of_one_stage(folder: Path, shards: int, repeats: int) -> None:
    result = many_shards(folder, shards)
    atlas = Atlas(folder)
    print(f"{shards:,} shards; manifest of {json.dumps((result.folder / manifest.MANIFEST).stat().st_size)} bytes; "
          f"first digests {processor_ms(lambda: atlas.sql('SELECT count(*) FROM many').fetchall()):.0f} ms "  # type: ignore[union-attr]
          "with the first statement")
    compare("list the shards, new process", lambda: result.paths(), repeats, as_a_new_process)
    compare("digest of the stage, new process", lambda: result.digest, repeats, as_a_new_process)
    result.parts()
    compare("list the shards and their digest, again", lambda: (result.paths(), result.digest), repeats)
    ask = lambda: Atlas(folder).sql("SELECT count(*), sum(score) FROM many").fetchall()  # noqa: E731
    compare("open and SQL", ask, max(repeats // 8, 5), as_a_new_process)
    compare("SQL again", ask, max(repeats // 8, 5))


if __name__ == "__main__":
    main()
