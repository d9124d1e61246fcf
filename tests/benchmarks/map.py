"""How long a map takes, and how true it is: python tests/benchmarks/map.py [--rows 100000] [--sample 20000].

Vectors lie on a curved 10-dimensional surface in 768 dimensions. Fidelity: of the ten nearest in
the space, the share among the nearest 1 % in the map, for points that UMAP laid out, for points
that were placed by their neighbours, and expected by chance.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from specclip_search.queries.maps.layout import lay_out

DIM, HIDDEN = 768, 10


def reader(seed: int):  # type: ignore[no-untyped-def]
    """Vectors by row, made when asked for: they are never all in memory."""
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(HIDDEN, 256)) / np.sqrt(HIDDEN)
    phase, second = rng.uniform(0, 6.3, 256), rng.normal(size=(256, DIM)) / 16

    def read(rows: np.ndarray) -> np.ndarray:
        # a row's hidden parameters follow from its number alone
        counter = (rows[:, None] * HIDDEN + np.arange(HIDDEN)).astype(np.uint64)
        counter = (counter + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        counter ^= counter >> np.uint64(29)
        counter *= np.uint64(0xBF58476D1CE4E5B9)
        uniform = ((counter ^ (counter >> np.uint64(32))) >> np.uint64(11)) / 2.0**53
        vectors = np.cos((6 * uniform - 3) @ first + phase) @ second
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    return read


def fidelity(read, position: np.ndarray, chosen: np.ndarray, among: np.ndarray) -> float:  # type: ignore[no-untyped-def]
    """Share of the ten nearest in the space that are among the nearest 1 % in the map."""
    space, plane = read(among), position[among]
    most = max(len(among) // 100, 10)
    shares = []
    for row, vector in zip(chosen, read(chosen), strict=True):
        near = np.argsort(-(space @ vector), kind="stable")[:11]
        near = near[among[near] != row][:10]
        apart = np.linalg.norm(plane - position[row], axis=1)
        shares.append((apart[near] <= np.partition(apart, most)[most]).mean())
    return float(np.mean(shares))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--sample", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    read = reader(asked.seed)
    made = [0.0]

    def timed(rows: np.ndarray) -> np.ndarray:
        started = time.process_time()
        vectors = read(rows)
        made[0] += time.process_time() - started
        return vectors

    lay_out(read, 200, 100, asked.seed)  # imports and compiles
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, wall = time.process_time(), time.perf_counter()
    layout = lay_out(timed, asked.rows, asked.sample, asked.seed)
    total, seconds = time.process_time() - cpu - made[0], time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{asked.rows:,} vectors, {asked.sample:,} laid out: {total:.1f} CPU s, making vectors left out")
    print(f"  {seconds:.1f} s in all; peak memory {peak / 1024:,.0f} MiB, {before / 1024:,.0f} MiB before")
    rng = np.random.default_rng(1)
    among = np.sort(rng.choice(asked.rows, min(asked.rows, 20_000), replace=False))
    rest = np.setdiff1d(among, layout.sampled)
    for name, rows in (("laid out", np.intersect1d(among, layout.sampled)), ("placed", rest)):
        if len(rows):
            chosen = rng.choice(rows, min(300, len(rows)), replace=False)
            share = fidelity(read, layout.position, chosen, among)
            print(f"  nearest ten within the nearest 1 % of the map, {name}: {share:.3f} (chance 0.010)")


if __name__ == "__main__":
    main()
