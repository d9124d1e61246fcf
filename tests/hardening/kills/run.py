"""Kill every stage of an atlas at random places: ``python tests/hardening/kills/run.py --kills 1000 --seed 1``.

A run that is killed and started again must end with the bytes of an undisturbed one, and every reader that is asked in
between must answer rightly or say in words what is to be done. Each run is a process of its own, forked from one that
has imported everything.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.hardening.kills.killer import Killer, Victim, end_after
from tests.hardening.kills.stages import STEPS, Said, Step, answers, digests, imported, small_shards, wrong

PATIENCE_S, LEAVING_S = 600.0, 60.0


@dataclass(frozen=True)
class Kill:
    """Where a run is ended: at a number of operations on files, or after a share of its processor time."""

    victim: Victim
    at: int = 0
    share: float = 0.0

    def __str__(self) -> str:
        return f"{self.victim} at operation {self.at}" if self.at else f"process after {self.share:.3f} of its work"


@dataclass(frozen=True)
class Undisturbed:
    """What a step does when nothing happens to it."""

    operations: int
    cpu_seconds: float
    said: dict[str, Said]
    bytes: dict[str, str]


def in_child(work: Callable[[], Any]) -> tuple[int, Any]:
    """Run `work` in a forked process group; its wait status, and what it returned or its trace."""
    result = tempfile.NamedTemporaryFile(delete=False)  # noqa: SIM115 - the child writes it
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        warnings.simplefilter("ignore")
        status = 1
        try:
            content = work()
            status = 0
        except BaseException:
            content = traceback.format_exc()
        with open(result.name, "wb") as handle:
            pickle.dump(content, handle)
        os._exit(status)
    until = time.monotonic() + PATIENCE_S
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.005)
    # whatever the run has started must go with it
    until = time.monotonic() + LEAVING_S
    while _group(child) and time.monotonic() < until:
        time.sleep(0.05)
    left = _group(child)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    data = Path(result.name).read_bytes()
    os.unlink(result.name)
    content = pickle.loads(data) if data else None
    if left:
        return -1, f"{len(left)} processes stayed behind"
    return status, content


def _group(leader: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader and fields[0] not in "ZX":
            found.append(int(stat.parent.name))
    return found


class Kills:
    """The states between the steps, in a folder, and the kills that start from them.

    Some files name the paths of their inputs: every run is made in the one folder `work`.
    """

    def __init__(self, folder: Path, shared: Path) -> None:
        self.folder, self.shared, self.work = folder, shared, folder / "work"
        self.known: dict[str, Undisturbed] = {"": Undisturbed(0, 0.0, {}, {})}
        self.kept("").mkdir()
        small_shards()
        imported()

    def kept(self, step: str) -> Path:
        """Folder of the state after a step."""
        return self.folder / (re.sub(r"\W+", "_", step) or "begin")

    def begin(self, step: Step) -> None:
        """Lay the state before a step in the working folder."""
        self.undisturbed(step.before)
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.kept(step.before), self.work)

    def undisturbed(self, name: str) -> Undisturbed:
        """The step made without a kill, once."""
        if name not in self.known:
            step = STEPS[name]
            self.begin(step)

            def work() -> tuple[int, float]:
                killer = Killer([self.work])
                killer.arm()
                began = time.process_time()
                step.run(self.work, self.shared)
                return killer.count, time.process_time() - began

            status, counted = in_child(work)
            if status:
                raise SystemExit(f"{name} fails undisturbed ({status}):\n{counted}")
            status, said = in_child(lambda: answers(self.work))
            if status:
                raise SystemExit(f"readers after {name} ({status}):\n{said}")
            self.known[name] = Undisturbed(*counted, said, digests(self.work))
            self.work.rename(self.kept(name))
        return self.known[name]

    def kill(self, step: Step, kills: Sequence[Kill], seed: int) -> list[str]:
        """End a run at each of some places, ask the readers after each, run it to its end; what is wrong."""
        after = self.undisturbed(step.name)
        before = self.undisturbed(step.before).said
        self.begin(step)
        for one in kills:
            status, content = in_child(lambda one=one: self._run(step, one, seed))
            if status and not os.WIFSIGNALED(status):
                return [f"killed: {content}"]
            status, said = in_child(lambda: answers(self.work))
            if status:
                return [f"readers: {said}"]
            if found := wrong(before, said, after.said):
                return found
        status, content = in_child(lambda: self._run(step, None, seed))
        if status:
            return [f"run again: {content}"]
        now = digests(self.work)
        return [f"{name} {'differs' if name in now and name in after.bytes else 'is new' if name in now else 'is gone'}"
                for name in sorted({*now, *after.bytes}) if now.get(name) != after.bytes.get(name)]

    def _run(self, step: Step, kill: Kill | None, seed: int) -> None:
        if kill is not None and kill.at:
            Killer([self.work], kill.at, kill.victim, seed).arm()
        elif kill is not None:
            end_after(kill.share * self.known[step.name].cpu_seconds)
        step.run(self.work, self.shared)

    def draw(self, step: Step, rng: random.Random) -> list[Kill]:
        """Where a run is ended: most often once, at times twice."""
        found = self.undisturbed(step.name)
        kills = []
        for _ in range(rng.choice((1, 1, 1, 2))):
            victim = rng.choice(step.victims)
            if rng.random() < 0.75 or victim == "worker":
                kills.append(Kill(victim, rng.randint(1, max(found.operations, 1))))
            else:
                kills.append(Kill("process", share=rng.random()))
        return kills


def run(
    folder: Path, shared: Path, steps: Sequence[Step], count: int, first: int
) -> Iterator[tuple[int, Step, list[Kill], list[str]]]:
    """`count` kills, the steps in turn; each is made from its number alone."""
    kills = Kills(folder, shared)
    steps = [step for turn in range(4) for step in steps if step.often > turn or len(steps) == 1]
    for number in range(first, first + count):
        step = steps[number % len(steps)]
        places = kills.draw(step, random.Random(number))
        yield number, step, places, kills.kill(step, places, number)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="number of the first kill")
    parser.add_argument("--steps", default="", help="words that the steps' names begin with, separated by commas")
    parser.add_argument("--seconds", type=float, help="stop after about so many seconds")
    parser.add_argument("--folder", type=Path, help="work here; a temporary folder by default")
    options = parser.parse_args()
    shared = Path(os.environ.get("SPECCLIP_TEST_DATA", Path(__file__).resolve().parents[3].parent / "shared" / "data"))
    wanted = tuple(options.steps.split(",")) if options.steps else ("",)
    steps = [step for step in STEPS.values() if step.killed and step.name.startswith(wanted)
             and (shared.is_dir() or not step.real)]
    counts: dict[str, Counter[str]] = {}
    stop = time.monotonic() + options.seconds if options.seconds else None
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        for number, step, places, found in run(Path(folder), shared, steps, options.kills, options.seed):
            counts.setdefault(step.name, Counter())["fault" if found else "survived"] += 1
            if found:
                print(f"FAULT {number} {step.name}, {', '.join(map(str, places))}:")  # noqa: T201
                print("   " + "\n   ".join(found[:8]), flush=True)  # noqa: T201
            if (number - options.seed) % 50 == 49:
                print(f"{number - options.seed + 1:,} kills", flush=True)  # noqa: T201
            if stop is not None and time.monotonic() > stop:
                break
    for name, count in counts.items():
        print(f"{name}: " + ", ".join(f"{n:,} {what}" for what, n in sorted(count.items())))  # noqa: T201
    total = sum(counts.values(), Counter[str]())
    print(f"{total.total():,} kills, {total['fault']:,} faults")  # noqa: T201
    return 1 if total["fault"] else 0


if __name__ == "__main__":
    sys.exit(main())
