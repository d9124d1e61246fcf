"""A simulated survey from first to last: what each step takes, and how every search scores against the truth.

    python tests/benchmarks/survey.py --stars 50000 --real all --atlas FOLDER --output evaluate.csv
    python tests/benchmarks/survey.py --table evaluate.csv

The commands are the ordinary ones and go on where an earlier run was stopped (what stands costs nothing
then, so time a fresh folder). The second form prints the Markdown table of `docs/survey.md` alone.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLAIN = ("all", "acceptance stars", "S/N 0-20", "S/N >80", "normal")
STEPS = (
    ("ingest", "library", "--stars", "{real}"),
    ("simulate", "--stars", "{stars}", "--seed", "{seed}"),
    ("embed",),
    ("estimate",),
    ("translate",),
    ("index", "build"),
    ("evaluate", "--format", "csv", "--output", "{output}"),
)


def run_step(words: list[str]) -> tuple[float, float, float]:
    """Wall and processor seconds and peak memory [MB] of one command; its report goes to stderr."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", "from specclip_search.cli.main import run; run()", *words])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"specclip-search {' '.join(words)} failed")
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, peak


def measure(options: argparse.Namespace, atlas: Path, output: Path) -> None:
    """Run all steps and print a table of them."""
    print("| step | wall | processor | peak memory |\n|---|---|---|---|")
    for step in STEPS:
        words = [word.format(output=output, **vars(options)) for word in step]
        wall, cpu, peak = run_step([*words, "--atlas", str(atlas)])
        print(f"| {' '.join(step[:2] if step[0] in ('ingest', 'index') else step[:1])} "
              f"| {wall:,.0f} s | {cpu:,.0f} s | {peak:,.0f} MB |", flush=True)  # fmt: skip


def wanted(metric: str, group: str) -> bool:
    """Whether a row belongs into the short table."""
    if metric.startswith("anomaly") and group not in PLAIN:
        by_snr = "S/N" in group and not group.startswith("any oddity")
        return not by_snr and "0.1%" not in metric and "acceptance" not in group
    return group in PLAIN or "[Fe/H]" in metric or "rank" in metric


def table(path: Path) -> None:
    """Print the rows of an evaluation that a reader looks for first, as Markdown."""
    print("| what | class | value | 95 % | n |\n|---|---|---|---|---|")
    with open(path, encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            group, metric = row["class"], row["metric"]
            if not row["value"] or not wanted(metric, group):
                continue
            cells = [f"{float(row[name]):.3g}" if row[name] else "-" for name in ("value", "low", "high")]
            name = metric.replace("|", "\\|")
            print(f"| {name} | {group} | {cells[0]} | {cells[1]} to {cells[2]} | {row['n']} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stars", type=int, default=1000, help="stars of the survey")
    parser.add_argument("--real", default="2000", help="real stars it is made from, or all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--atlas", type=Path, help="folder to make it in; by default one that is removed")
    parser.add_argument("--output", type=Path, help="where evaluate's rows go; by default into the folder")
    parser.add_argument("--table", type=Path, help="only print the table of this file")
    options = parser.parse_args()
    if options.table is not None:
        table(options.table)
        return
    with tempfile.TemporaryDirectory() as scratch:
        atlas = options.atlas or Path(scratch) / "atlas"
        output = options.output or atlas / "evaluate.csv"
        options.__dict__.pop("output")
        measure(options, atlas, output)
        print()
        table(output)


if __name__ == "__main__":
    main()
