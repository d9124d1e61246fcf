"""Run the fuzzer: ``python tests/hardening/fuzz/run.py --inputs 100000 --seed 1`` prints a line a form and every fault.

Each batch of inputs runs in a process of its own whose memory is bounded; a batch that dies or hangs is a fault of the
input it was at.
"""

from __future__ import annotations

import argparse
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


def _batch(shared: str, name: str, first: int, count: int, pipe: Any) -> None:
    import resource

    seed = next(seed for seed in seeds(Path(shared)) if seed.name == name)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, resource.RLIM_INFINITY))
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            pipe.send(("begin", number, None, ""))
            outcome, splices, trace = one(seed, number, Path(folder))
            pipe.send((outcome, number, splices, trace))
    pipe.send(("end", first + count, None, ""))


def run(shared: Path, inputs: int, first: int, seconds: float | None) -> Iterator[tuple[str, Tally]]:
    """Fuzz every seed with its share of the inputs."""
    context = multiprocessing.get_context("fork")
    names = [seed.name for seed in seeds(shared)]
    share = max(1, inputs // len(names))
    stop = None if seconds is None else time.monotonic() + seconds
    for turn, name in enumerate(names):
        tally, number = Tally(), first
        deadline = None if stop is None else time.monotonic() + (stop - time.monotonic()) / (len(names) - turn)
        while number < first + share and (deadline is None or time.monotonic() < deadline):
            ours, theirs = context.Pipe(duplex=False)
            count = min(BATCH, first + share - number)
            child = context.Process(target=_batch, args=(str(shared), name, number, count, theirs))
            child.start()
            theirs.close()
            at = number
            while True:
                try:
                    if not ours.poll(300):
                        child.kill()
                        outcome: str = "killed after 300 s"
                        splices: list[Splice] | None = None
                        trace = ""
                    else:
                        outcome, at, splices, trace = ours.recv()
                except EOFError:
                    outcome, splices, trace = "the process died", None, ""
                if outcome == "begin":
                    continue
                if outcome == "end":
                    number = at
                    break
                tally.outcomes[outcome.partition(" ")[0] if outcome in ("accepted", "refused") else "fault"] += 1
                if outcome not in ("accepted", "refused"):
                    tally.faults.setdefault(outcome, (at, splices or [], trace))
                if splices is None:
                    number = at + 1
                    break
            child.join()
        yield name, tally


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="inputs in all")
    parser.add_argument("--seed", type=int, default=0, help="number of the first input of each form")
    parser.add_argument("--seconds", type=float, help="stop after about so many seconds")
    parser.add_argument("--traces", action="store_true", help="print where each fault comes from")
    options = parser.parse_args()
    shared = Path(os.environ.get("SPECCLIP_TEST_DATA", Path(__file__).resolve().parents[3].parent / "shared" / "data"))
    if not shared.is_dir():
        print(f"the real files that seeds are made of are not at {shared} (set SPECCLIP_TEST_DATA)")  # noqa: T201
        return 2
    faults = 0
    for name, tally in run(shared, options.inputs, options.seed, options.seconds):
        counts = ", ".join(f"{count:,} {what}" for what, count in sorted(tally.outcomes.items()))
        print(f"{name}: {counts}", flush=True)  # noqa: T201
        for fault, (number, splices, trace) in tally.faults.items():
            faults += 1
            print(f"   {fault}; input {number}: {splices!r:.300}", flush=True)  # noqa: T201
            if options.traces:
                print(trace)  # noqa: T201
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
