"""Learn the smooth correction of emulated Gaia XP spectra from systematic differences to real ones.

    python -m specclip_search.training.emulator.xp_correction --atlas ATLAS --output xp_correction.npz

It is learned only from training stars with APOGEE labels and E(B-V) below 0.5; `compare_xp` measures
its effect on validation stars. It is used to move spectra between labels, see `moved_xp`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from specclip_search.atlas import Atlas
from specclip_search.atlas.files import whole_file
from specclip_search.simulation.spectra.emulator import Emulator
from specclip_search.simulation.spectra.gaia_xp import fit_smooth

from .compare_xp import MAX_EBV, read_real_xp


def main(argv: list[str] | None = None) -> None:
    """Command line of this module."""
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
