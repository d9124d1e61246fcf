"""Spectra a CPU-second: the small model beside the published one, and its parts beside each other.

Run: python tests/benchmarks/model.py [--threads 1]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from specclip_search.training.checkpoints.folder import build_module, new_card
from specclip_search.training.model import Model


def rate(function: Callable[[], object], count: int, repeats: int = 3) -> float:
    """Best of several runs, spectra a second of processor time."""
    function()
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        function()
        best = min(best, time.process_time() - started)
    return count / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--published", action="store_true", help="measure the published 'pr' too (0.7 GB)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    inputs = {"lamost_lrs": 1 + 0.1 * rng.standard_normal((512, 1462)),
              "gaia_xp": 1 + 0.1 * rng.standard_normal((512, 343))}
    speeds: dict[str, float] = {}
    for kind, size in (("mini", 512), *((("pr", 16),) if options.published else ())):
        card = new_card(kind, kind)
        model = Model(card, build_module(card), device="cpu")
        for modality, x in inputs.items():
            speeds[f"{kind} embed {modality}"] = rate(lambda m=model, n=modality, x=x[:size]: m.embed(n, x), size)
            speeds[f"{kind} translate {modality}"] = rate(
                lambda m=model, n=modality, x=x[:size]: m.translate(n, x), size)
    base = speeds["mini embed lamost_lrs"]
    print(f"{'operation':34} {'spectra/CPU-s':>14} {'ratio to mini embed lamost_lrs':>32}")
    for name, speed in speeds.items():
        print(f"{name:34} {speed:14.0f} {speed / base:32.3f}")


if __name__ == "__main__":
    main()
