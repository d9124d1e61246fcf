"""Run the fuzzer: ``python tests/hardening/fuzz/run.py --inputs 100000 --seed 1`` prints every fault and a line a form.

Each batch of inputs runs in a process of its own whose memory is bounded; a batch that dies or hangs is a fault of the
input it was at.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.hardening.fuzz.mutations import Splice, apply, mutate
from tests.hardening.fuzz.targets import Seed, packed, seeds

CPU_SECONDS = 10.0
MEMORY = 1 << 30
BATCH = 250


class Hang(BaseException):
    """An input took more processor time than any may."""


@dataclass
class Tally:
    """What became of the inputs of one seed."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: dict[str, tuple[int, list[Splice], str]] = field(default_factory=dict)


def one(seed: Seed, number: int, folder: Path, cpu_seconds: float = CPU_SECONDS) -> tuple[str, list[Splice], str]:
    """Outcome of input `number` of a seed: accepted, refused, or a fault with its place and trace."""
    rng = random.Random(zlib.crc32(seed.name.encode()) ^ (number * 2654435761))
    splices = mutate(seed.data, seed.kind, rng)
    path = folder / "input"
    path.write_bytes(packed(apply(seed.data, splices), rng))
    outcome, trace = attempt(seed, path, cpu_seconds)
    return outcome, splices, trace


def attempt(seed: Seed, path: Path, cpu_seconds: float = CPU_SECONDS) -> tuple[str, str]:
    """Let a seed's target read a file; the kind of fault is the exception and the line that raised it."""
    def ring(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds, 1.0)
    try:
        with warnings.catch_warnings(action="ignore"):
            return seed.run(path), ""
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return (f"{type(error).__name__} at {where} ({str(error)[:80]})",
                "".join(traceback.format_exception(error))[-3000:])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _batch(seed: Seed, first: int, count: int, pipe: Any) -> None:
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, resource.RLIM_INFINITY))
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            pipe.send(("begin", number, None, ""))
            outcome, splices, trace = one(seed, number, Path(folder))
            pipe.send((outcome, number, splices, trace))
    pipe.send(("end", first + count, None, ""))


def batch(seed: Seed, first: int, count: int) -> Tally:
    """Inputs `first` to `first + count` of a seed, in processes of their own: a new one behind each that died."""
    context = multiprocessing.get_context("fork")
    tally, number = Tally(), first
    while number < first + count:
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_batch, args=(seed, number, first + count - number, theirs))
        child.start()
        theirs.close()
        at = number
        while True:
            splices: list[Splice] | None = None
            outcome, trace = "killed after 300 s", ""
            try:
                if ours.poll(300):
                    outcome, at, splices, trace = ours.recv()
                else:
                    child.kill()
            except EOFError:
                outcome = "the process died"
            if outcome == "begin":
                continue
            if outcome == "end":
                number = at
                break
            tally.outcomes[outcome if outcome in ("accepted", "refused") else "fault"] += 1
            if outcome not in ("accepted", "refused"):
                tally.faults.setdefault(outcome, (at, splices or [], trace))
            if splices is None:
                number = at + 1
                break
        child.join()
    return tally


def run(shared: Path, inputs: int, first: int, seconds: float | None, done: set[tuple[str, int]],
        forms: str = "") -> Iterator[tuple[str, int, Tally]]:
    """Fuzz every seed with its share of the inputs, a batch of each in turn; `done` are left out."""
    found = [seed for seed in seeds(shared) if seed.name.startswith(forms)]
    share = max(1, inputs // len(found))
    stop = None if seconds is None else time.monotonic() + seconds
    for start in range(first, first + share, BATCH):
        for seed in found:
            if stop is not None and time.monotonic() > stop:
                return
            if (seed.name, start) not in done:
                yield seed.name, start, batch(seed, start, min(BATCH, first + share - start))


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="inputs in all")
    parser.add_argument("--seed", type=int, default=0, help="number of the first input of each form")
    parser.add_argument("--forms", default="", help="only forms whose name begins with this")
    parser.add_argument("--seconds", type=float, help="stop after about so many seconds")
    parser.add_argument("--keep", type=Path, help="append every batch to this file, and skip those that it holds")
    options = parser.parse_args()
    shared = Path(os.environ.get("SPECCLIP_TEST_DATA", Path(__file__).resolve().parents[3].parent / "shared" / "data"))
    if not shared.is_dir():
        print(f"the real files that seeds are made of are not at {shared} (set SPECCLIP_TEST_DATA)")  # noqa: T201
        return 2
    kept = options.keep.read_text(encoding="utf-8").splitlines() if options.keep and options.keep.exists() else []
    done = {(one["form"], one["first"]) for one in map(json.loads, kept)}
    forms: dict[str, Counter[str]] = {}
    kinds: set[tuple[str, str]] = set()
    for name, first, tally in run(shared, options.inputs, options.seed, options.seconds, done, options.forms):
        counts = forms.setdefault(name, Counter())
        counts.update(tally.outcomes)
        for fault, (number, splices, trace) in tally.faults.items():
            if (name, fault) not in kinds:
                kinds.add((name, fault))
                print(f"FAULT {name}: {fault}; input {number}: {splices!r:.300}\n{trace}", flush=True)  # noqa: T201
        if options.keep:
            line = {"form": name, "first": first, "outcomes": tally.outcomes, "faults": [*tally.faults]}
            with open(options.keep, "a", encoding="utf-8") as keep:
                keep.write(json.dumps(line) + "\n")
        if name == next(iter(forms)):
            print(f"{sum(map(Counter.total, forms.values())):,} inputs", flush=True)  # noqa: T201
    for name, counts in forms.items():
        print(f"{name}: " + ", ".join(f"{n:,} {what}" for what, n in sorted(counts.items())))  # noqa: T201
    return 1 if kinds else 0


if __name__ == "__main__":
    sys.exit(main())
