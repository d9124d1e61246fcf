"""A smooth correction of emulated Gaia XP spectra, learned from what real ones systematically show.

    python -m specclip_search.simulation.spectra.xp_correction --atlas ATLAS --output xp_correction.npz

It is learned from training stars with APOGEE labels and E(B-V) below 0.5 alone; `compare_real` tells
what it does for validation stars. It moves spectra from labels to labels, see `xp.moved_xp`.
"""

from __future__ import annotations

import argparse
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np

from ...atlas.files import text_digest, whole_file
from .labels import FloatArray
from .smooth_residual import fit_smooth, smooth_terms

MAX_EBV = 0.5
FILE = "data/xp_correction.npz"


@lru_cache(maxsize=1)
def _coefficients() -> FloatArray:
    with resources.files(__package__).joinpath(FILE).open("rb") as handle, np.load(handle) as stored:
        return np.asarray(stored["coefficients"], dtype=np.float64)


def xp_correction(labels: FloatArray) -> FloatArray:
    """(N, 343) factor by which real XP spectra exceed `xp.model_xp` at these labels (N, 5), its level left free."""
    return np.exp(smooth_terms(labels) @ _coefficients())


def correction_digest() -> str:
    """Text that changes with the correction."""
    return text_digest("xp correction", _coefficients().astype(np.float32).tobytes().hex())


def main(argv: list[str] | None = None) -> None:
    """Command line of this module."""
    from specclip_search.training.emulator.compare_xp import read_real_xp

    from ...atlas import Atlas
    from .emulator import Emulator

    parser = argparse.ArgumentParser(description="Learn the correction of emulated XP spectra.")
    parser.add_argument("--atlas", type=Path, required=True, help="atlas with real XP spectra and their labels")
    parser.add_argument("--catalog", default="apogee", help="catalogue with the labels")
    parser.add_argument("--output", type=Path, required=True, help="npz file to write")
    options = parser.parse_args(argv)
    stars = read_real_xp(Emulator.load(), Atlas(options.atlas), options.catalog, splits=range(8))
    clear = stars.ebv < MAX_EBV
    coefficients = fit_smooth(stars.labels[clear], stars.residual()[clear])
    with whole_file(options.output) as beside, open(beside, "wb") as handle:
        np.savez(handle, coefficients=coefficients.astype(np.float32))


if __name__ == "__main__":
    main()
