"""The index measured: build, memory, disk, recall and speed, and other indexes beside it in the same run.

    python tests/benchmarks/index.py --rows 1e6                    the index alone
    python tests/benchmarks/index.py --rows 1e5 --rivals           with FAISS IVF-PQ, hnswlib, usearch, LanceDB
    python tests/benchmarks/index.py --rows 1e7 --memory 8G --keep DIR
    python tests/benchmarks/index.py --rows 1e7 --keep DIR --search   only searches what lies there

A run with --keep that was interrupted goes on where it was. Rivals are searched at the effort that
first reaches recall 0.99, ours at the effort that first reaches the recall that the rival reached;
queries a second are of a batch. Vectors are those of a generator file (`--generator`, default
../shared/tools/vectors.py): two views of each star, 768 numbers, one view indexed, the other asking.
Each measured thing runs in a process of its own, so that its memory is its own. Rivals that are not
installed are left out and named.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))
CHUNK = 50_000
MODEL = "bench"
QUERIES = 1000
EXACT_QUERIES = 200
NOTE_SECONDS = 20.0
WISHED = 0.99


# -- vectors ------------------------------------------------------------------------------------


def make_atlas(folder: Path, rows: int, generator: Path) -> None:
    """Vectors as an atlas: all of view A as gaia_xp, the first chunk of view B as lamost_lrs."""
    from specclip_search.atlas import Atlas
    from specclip_search.atlas.arrays import table_from_columns
    from specclip_search.atlas.schemas import vectors_schema

    spec = importlib.util.spec_from_file_location("generator", generator)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.Gen()
    atlas = Atlas.create(folder)
    schema = vectors_schema(768)
    stages = {"gaia_xp": atlas.vectors(MODEL, "gaia_xp"), "lamost_lrs": atlas.vectors(MODEL, "lamost_lrs")}
    for number, start in enumerate(range(0, rows, CHUNK)):
        if stages["gaia_xp"].part(number) is not None:
            continue
        count = min(CHUNK, rows - start)
        views, _ = made.chunk(number, count, ("A", "B") if number == 0 else ("A",))
        ids = 2**53 + 1 + np.arange(start, start + count, dtype=np.int64)
        for stage, vectors in zip(stages.values(), views, strict=False):
            table = table_from_columns({"spec_id": ids, "source_id": ids, "release": ["dr3"] * count,
                                        "vector": vectors, "norm": np.ones(count, np.float32)}, schema)
            with stage.lock():
                stage.write(number, table, schema=schema, inputs=str(rows), extra={"model_digest": "sha256:bench"})
    atlas.use_model(MODEL)


def load_vectors(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Centred vectors (N, 768) float32 and the queries, for rivals: all get the same, prepared input."""
    from specclip_search.atlas import Atlas
    from specclip_search.indexing.vectors.means import centre, load_mean
    from specclip_search.indexing.vectors.table import VectorTable

    atlas = Atlas(folder)
    out = []
    for modality, most in (("gaia_xp", None), ("lamost_lrs", QUERIES)):
        table = VectorTable(atlas, MODEL, modality)
        mean = load_mean(atlas, MODEL, "gaia_xp" if most is None else "lamost_lrs")
        if mean is None:
            from specclip_search.indexing.vectors.means import ensure_mean

            mean = ensure_mean(atlas, MODEL, modality)
        count = table.rows if most is None else min(most, table.rows)
        matrix = np.empty((count, table.dim), np.float32)
        for first, half in table.batches():
            if first >= count:
                break
            part = centre(half[: count - first].astype(np.float32), mean.vector)
            matrix[first : first + len(part)] = part
        out.append(matrix)
    return out[0], out[1]


# -- measuring ----------------------------------------------------------------------------------


def resident() -> dict[str, float]:
    """Resident bytes of this process: its own and pages of mapped files."""
    values = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(("RssAnon", "RssFile", "VmHWM")):
            values[line.split(":")[0]] = float(line.split()[1]) * 1024
    return values


def timed(searches: Callable[[int], object], count: int) -> dict[str, float]:
    """Milliseconds of single searches, warm: wall time, and CPU time, which a busy machine disturbs less."""
    for number in range(min(20, count)):
        searches(number)
    taken = []
    before = time.process_time()
    for number in range(count):
        started = time.perf_counter()
        searches(number)
        taken.append(time.perf_counter() - started)
    return {"p50_ms": float(np.median(taken) * 1e3), "p95_ms": float(np.quantile(taken, 0.95) * 1e3),
            "cpu_ms": (time.process_time() - before) / count * 1e3}


def build_ours(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    from specclip_search.atlas import Atlas
    from specclip_search.indexing import build_index

    told = [0.0]

    def note(done: int, total: int | None, step: str = "") -> None:
        if time.monotonic() - told[0] > NOTE_SECONDS:
            told[0] = time.monotonic()
            print(f"   {step} {done:,}", file=sys.stderr, flush=True)

    report = build_index(Atlas(folder), MODEL, "gaia_xp", memory=options.memory, recipe=options.recipe, progress=note)
    return {"report": str(report), "seconds": report.seconds, "cpu": report.cpu_seconds,
            "cpu_steps": report.cpu_steps, "two-core estimate": report.cpu_seconds / 2, "disk": report.disk,
            "peak": report.peak_memory, "estimated_cpu": report.estimate.cpu_seconds,
            "estimated_memory": report.estimate.build_memory, "resident": resident()}


def search_ours(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    from specclip_search.atlas import Atlas
    from specclip_search.indexing import VectorIndex
    from specclip_search.indexing.vectors.table import VectorTable

    atlas = Atlas(folder)
    few = np.arange(min(QUERIES, VectorTable(atlas, MODEL, "lamost_lrs").rows))
    queries = VectorTable(atlas, MODEL, "lamost_lrs").read_rows(few)
    import faiss  # noqa: F401 - its import is not the index's opening

    before = resident()
    started = time.perf_counter()
    index = VectorIndex.open(atlas, MODEL, "gaia_xp")
    opened = time.perf_counter() - started
    index.search(queries[:1], 10, query_modality="lamost_lrs")
    first = time.perf_counter() - started
    after = resident()
    result: dict[str, Any] = {"open_s": opened, "first_answer_s": first, "rows": index.rows,
                              "bytes_a_vector": (after["RssAnon"] - before["RssAnon"]) / index.rows}
    started = time.perf_counter()
    truth = index.search(queries[:EXACT_QUERIES], 100, query_modality="lamost_lrs", exact=True).rows
    result["exact_ms"] = (time.perf_counter() - started) / EXACT_QUERIES * 1e3
    for k in (10, 100):
        result[f"single k={k}"] = timed(
            lambda n, k=k: index.search(queries[n % len(queries)], k, query_modality="lamost_lrs"), 500)
        started, cpu = time.perf_counter(), time.process_time()
        found = index.search(queries, k, query_modality="lamost_lrs").rows
        result[f"batch k={k} q/s"] = len(queries) / (time.perf_counter() - started)
        result[f"batch k={k} cpu_ms"] = (time.process_time() - cpu) / len(queries) * 1e3
        result[f"recall@{k}"] = recall(found[:EXACT_QUERIES], truth[:, :k])
    for share in (0.1, 0.01, 0.001):
        rows = np.random.default_rng(1).random(index.rows) < share
        chosen = index.search(queries[:EXACT_QUERIES], 10, query_modality="lamost_lrs", rows=rows)
        exact = index.search(queries[:EXACT_QUERIES], 10, query_modality="lamost_lrs", rows=rows, exact=True)
        single = timed(lambda n, rows=rows: index.search(queries[n], 10, query_modality="lamost_lrs", rows=rows), 20)
        agrees = recall(chosen.rows, exact.rows)
        result[f"filter {share:.1%}"] = single | {"strategy": chosen.strategy, "agrees": agrees}
    result["ladder"] = {str(k): ladder(index, queries[:EXACT_QUERIES], truth[:, :k], k) for k in (10, 100)}
    np.save(folder / "truth.npy", truth)
    result["resident"] = resident()
    return result


def search_on_gpu(folder: Path) -> dict[str, Any]:
    """Exact search of vectors that lie on the GPU, against the speed at which it reads its own memory."""
    import torch

    from specclip_search.atlas import Atlas
    from specclip_search.indexing import VectorIndex
    from specclip_search.indexing.vectors.table import VectorTable

    if not torch.cuda.is_available():
        return {"skipped": "torch finds no GPU"}
    atlas = Atlas(folder)
    index = VectorIndex.open(atlas, MODEL, "gaia_xp", device="auto")
    few = np.arange(min(QUERIES, VectorTable(atlas, MODEL, "lamost_lrs").rows))
    queries = VectorTable(atlas, MODEL, "lamost_lrs").read_rows(few)
    block = torch.ones(1 << 30, dtype=torch.float16, device="cuda")
    result: dict[str, Any] = {"device": torch.cuda.get_device_name(), "engine": index.engine.name}
    limit = 2 * len(block) / device_seconds(block.max)
    del block
    result["reads GB/s"] = limit / 1e9
    for size in (1, 16, 128, len(queries)):
        asked = queries[:size]
        taken = device_seconds(lambda q=asked: index.search(q, 100, query_modality="lamost_lrs", exact=True))
        share = 2 * index.rows * index.dim / taken / limit
        result[f"exact, {size} queries"] = {"seconds": taken, "q/s": size / taken, "of the memory's speed": share}
    found = index.search(queries[:EXACT_QUERIES], 100, query_modality="lamost_lrs").rows
    truth = index.search(queries[:EXACT_QUERIES], 100, query_modality="lamost_lrs", exact=True).rows
    lists = device_seconds(lambda: index.search(queries, 100, query_modality="lamost_lrs"))
    return result | {"lists": {"q/s": len(queries) / lists, "recall@100": recall(found, truth)}}


def device_seconds(work: Callable[[], object]) -> float:
    """Median wall seconds of five runs after one, each waited for."""
    import torch

    taken = []
    for _ in range(6):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken[1:]))


def ladder(index: Any, queries: np.ndarray, truth: np.ndarray, k: int) -> list[dict[str, float]]:
    """Recall and speed of a batch from the least effort to the most."""
    steps = []
    for nprobe, rerank in ((4, 1.5), (8, 1.5), (8, 3.0), (16, 3.0), (32, 3.0), (64, 4.0), (128, 8.0)):
        found, speed = batch(
            lambda p=nprobe, r=rerank: index.search(queries, k, query_modality="lamost_lrs", nprobe=p, rerank=r).rows)
        steps.append({"nprobe": nprobe, "rerank": rerank, "recall": recall(found, truth)} | speed)
    return steps


def batch(search: Callable[[], np.ndarray]) -> tuple[np.ndarray, dict[str, float]]:
    """What a batch of EXACT_QUERIES finds when it is asked a second time, its queries a second and CPU time of one."""
    search()
    started, cpu = time.perf_counter(), time.process_time()
    found = search()
    taken, used = time.perf_counter() - started, time.process_time() - cpu
    return found, {"q/s": len(found) / taken, "cpu_ms": used / len(found) * 1e3}


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([np.isin(t[t >= 0], f).mean() for f, t in zip(found, truth, strict=True)]))


# -- rivals -------------------------------------------------------------------------------------


Rival = tuple[Callable[[np.ndarray, int, float], np.ndarray], list[float]]
"""search(queries, k, effort) -> rows, and the efforts to try, smallest first."""


def rival(folder: Path, make: Callable[[np.ndarray, Path], Rival]) -> dict[str, Any]:
    """Build another index on the same vectors and search it at the effort that first reaches recall 0.99."""
    vectors, queries = load_vectors(folder)
    truth = np.load(folder / "truth.npy")
    rows = len(vectors)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        before, started, cpu = resident(), time.perf_counter(), time.process_time()
        search, efforts = make(vectors, Path(scratch))
        result: dict[str, Any] = {"build_s": time.perf_counter() - started, "build_cpu": time.process_time() - cpu,
                                  "peak": resident()["VmHWM"]}
        del vectors
        result["disk"] = sum(p.stat().st_size for p in Path(scratch).rglob("*") if p.is_file())
        for k in (10, 100):
            for effort in efforts:
                found, speed = batch(lambda k=k, e=effort: search(queries[:EXACT_QUERIES], k, e))
                reached = recall(found, truth[:, :k])
                if reached >= WISHED:
                    break
            result[f"k={k}"] = {"effort": effort, "recall": reached} | speed
            result[f"k={k}"] |= timed(lambda n, k=k, e=effort: search(queries[n : n + 1], k, e), 100) | speed
        used = resident()["RssAnon"] - before["RssAnon"] + rows * 768 * 4
        result["bytes_a_vector"] = max(used, 0) / rows
    return result


def faiss_ivfpq(vectors: np.ndarray, scratch: Path) -> Rival:
    """FAISS's own factory with codes of the same size, without what we add."""
    import faiss

    nlist = 2 ** int(np.ceil(np.log2(4 * np.sqrt(len(vectors)))))
    index = faiss.index_factory(768, f"IVF{min(nlist, len(vectors) // 39)},PQ64np", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[np.random.default_rng(0).permutation(len(vectors))[: 48 * index.nlist]])
    index.add(vectors)
    faiss.write_index(index, str(scratch / "index"))

    def search(queries: np.ndarray, k: int, effort: float) -> np.ndarray:
        index.nprobe = int(effort)
        return index.search(queries, k)[1]

    return search, [8, 32, 128]


def hnswlib_graph(vectors: np.ndarray, scratch: Path) -> Rival:
    import hnswlib

    index = hnswlib.Index("ip", 768)
    index.init_index(len(vectors), ef_construction=100, M=16, random_seed=0)
    index.set_num_threads(threads())
    index.add_items(vectors)
    index.save_index(str(scratch / "index"))

    def search(queries: np.ndarray, k: int, effort: float) -> np.ndarray:
        index.set_ef(max(int(effort), k))
        return index.knn_query(queries, k)[0].astype(np.int64)

    return search, [32, 64, 128, 256, 512]


def usearch_graph(vectors: np.ndarray, scratch: Path) -> Rival:
    from usearch.index import Index

    index = Index(ndim=768, metric="ip", dtype="bf16", connectivity=16, expansion_add=100)
    index.add(np.arange(len(vectors)), vectors, threads=threads())
    index.save(str(scratch / "index"))

    def search(queries: np.ndarray, k: int, effort: float) -> np.ndarray:
        index.expansion_search = max(int(effort), k)
        keys = np.asarray(index.search(queries, k, threads=threads()).keys, np.int64)
        return keys.reshape(len(queries), -1)

    return search, [32, 64, 128, 256, 512]


def lancedb_ivfpq(vectors: np.ndarray, scratch: Path) -> Rival:
    """Codes of the same size, re-ranked as ours; float32 columns, since it is many times slower with float16."""
    import lancedb
    import pyarrow as pa
    from lancedb.index import IvfPq

    def batches() -> Any:
        for start in range(0, len(vectors), 20_000):
            part = vectors[start : start + 20_000]
            column = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), 768)
            yield pa.record_batch({"row": np.arange(start, start + len(part)), "vector": column})

    schema = pa.schema([("row", pa.int64()), ("vector", pa.list_(pa.float32(), 768))])
    table = lancedb.connect(str(scratch)).create_table("t", data=pa.RecordBatchReader.from_batches(schema, batches()))
    nlist = 2 ** int(np.log2(max(16, len(vectors) / 256)))
    table.create_index("vector", config=IvfPq(distance_type="dot", num_partitions=nlist, num_sub_vectors=64,
                                              max_iterations=10, sample_rate=48))

    def search(queries: np.ndarray, k: int, effort: float) -> np.ndarray:
        found = np.full((len(queries), k), -1, np.int64)
        refine = max(4, 100 // k)
        for number, query in enumerate(queries):
            asked = table.search(query).distance_type("dot").nprobes(int(effort)).refine_factor(refine).limit(k)
            rows = asked.select(["row", "_distance"]).to_arrow().column("row").to_numpy()
            found[number, : len(rows)] = rows
        return found

    return search, [8, 32, 128, 512]


RIVALS = {"FAISS IVF-PQ": faiss_ivfpq, "hnswlib": hnswlib_graph, "usearch bf16": usearch_graph,
          "LanceDB": lancedb_ivfpq}
PACKAGES = {"FAISS IVF-PQ": "faiss", "hnswlib": "hnswlib", "usearch bf16": "usearch", "LanceDB": "lancedb"}


def threads() -> int:
    from specclip_search.indexing.search.faiss_library import default_threads

    return default_threads()


# -- running ------------------------------------------------------------------------------------


def in_own_process(step: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--step", step, "--keep", str(folder), "--rows", str(options.rows)]
    command += ["--memory", options.memory] if options.memory else []
    command += ["--recipe", options.recipe] if options.recipe else []
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False,
                           env=os.environ | {"OMP_WAIT_POLICY": "passive"})
    if ended.returncode:
        return {"failed": f"exit {ended.returncode}"}
    return json.loads(ended.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, default=1e5)
    parser.add_argument("--keep", type=Path, help="folder of the atlas, made if absent and kept")
    parser.add_argument("--memory", default=None)
    parser.add_argument("--recipe", default=None)
    parser.add_argument("--rivals", nargs="*", choices=list(RIVALS), help="which; all if none is named")
    parser.add_argument("--search", action="store_true", help="only search the index in --keep")
    parser.add_argument("--gpu", action="store_true", help="exact search on the GPU too, against its memory's speed")
    parser.add_argument("--generator", type=Path, default=REPOSITORY.parent / "shared" / "tools" / "vectors.py")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(run_step(options)))
        return
    if not options.search and not options.generator.exists():
        print(f"skipped: no generator of vectors at {options.generator} (name one with --generator)")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary) / "atlas"
        if not options.search:
            started = time.perf_counter()
            make_atlas(folder, int(options.rows), options.generator)
            print(f"{int(options.rows):,} vectors of 768 written as an atlas in {time.perf_counter() - started:.0f} s; "
                  f"{threads()} threads")
            built = in_own_process("build", folder, options)
            tell("build", built)
        ours = in_own_process("search", folder, options)
        tell("search", ours)
        if options.gpu:
            tell("GPU", in_own_process("gpu", folder, options))
        for name in () if options.rivals is None else options.rivals or RIVALS:
            if importlib.util.find_spec(PACKAGES[name]) is None:
                print(f"{name}: not installed, left out")
                continue
            found = in_own_process(name, folder, options)
            tell(name, found)
            if "k=10" in found and "ladder" in ours:
                compare(name, ours, found)


def compare(name: str, ours: dict[str, Any], found: dict[str, Any]) -> None:
    """Ours beside a rival, at the least effort that reaches the rival's recall."""
    print(f"   ours against {name}: memory 1/{found['bytes_a_vector'] / ours['bytes_a_vector']:.1f}")
    for k in (10, 100):
        theirs, steps = found[f"k={k}"], ours["ladder"][str(k)]
        step = next((one for one in steps if one["recall"] >= theirs["recall"]), steps[-1])
        print(f"     k={k}: recall {step['recall']:.4f} against {theirs['recall']:.4f}, {step['q/s']:.0f} q/s against "
              f"{theirs['q/s']:.0f}; {theirs['cpu_ms'] / step['cpu_ms']:.2f} x as fast by CPU time", flush=True)


def run_step(options: argparse.Namespace) -> dict[str, Any]:
    if options.step == "build":
        return build_ours(options.keep, options)
    if options.step == "search":
        return search_ours(options.keep, options)
    if options.step == "gpu":
        return search_on_gpu(options.keep)
    return rival(options.keep, RIVALS[options.step])


def tell(title: str, result: dict[str, Any]) -> None:
    print(f"-- {title}")
    for key, value in result.items():
        if key == "ladder":
            for k, steps in value.items():
                for step in steps:
                    print(f"   k={k}: " + ", ".join(f"{name} {number:.4g}" for name, number in step.items()))
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in value.items())
        print(f"   {key}: {value:.4g}" if isinstance(value, float) else f"   {key}: {value}", flush=True)


if __name__ == "__main__":
    main()
