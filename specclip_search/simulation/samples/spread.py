"""LAMOST spectra of stars spread evenly over the label range of the models, without Gaia XP spectra.

Most stars of a survey lie on a few sequences; a model trained only on them confuses unusual stars with
common ones. These stars fill the gaps: hot stars, subgiants, all metallicities at all temperatures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ...atlas.files import text_digest
from ...catalogs.ingest import ingest_catalog_table
from ...ingest.rows import simulated_spectra
from ...keys import split_of
from ...progress import Progress
from ...stages.accounts import IngestReport
from ...stages.run import Made, Shard, run_stage, tagged_numbers
from ...surveys import LAMOST_LRS
from ..spectra.labels import DISTANCE_SCALE, LABEL_NAMES, FloatArray, SimulationError
from ..spectra.observe import observe_stars
from .metal_poor import FIRST_SIMULATED_ID

if TYPE_CHECKING:
    from ...atlas import Atlas
    from ..spectra.emulator import Emulator

REVISION = "spread 1"
TRUTH = "truth_spread"
SHARD_STARS = 4096
FIRST_NUMBER = 10**12  # above the numbers of any simulated survey
POOR_FEH, POOR_SHARE = -1.2, 0.25
JITTER = 0.5  # in label steps: stars lie between the computed ones
MEAN_EBV = 0.15
MAX_EBV = 1.5
SPLITS = 9  # all but the acceptance split


def draw_labels(emulator: Emulator, count: int, rng: np.random.Generator) -> FloatArray:
    """(N, 5) covered labels: those of computed stars, moved by half a label step; a quarter below [Fe/H] = -1.2."""
    nodes = emulator.coverage.nodes
    nodes = nodes[emulator.covers(nodes)]  # some computed stars lie just outside the limits
    poor = nodes[:, 2] < POOR_FEH
    weight = np.where(poor, POOR_SHARE / poor.sum(), (1 - POOR_SHARE) / (~poor).sum())
    labels = nodes[rng.choice(len(nodes), count, p=weight)].copy()
    moved = labels.copy()
    step = rng.normal(0.0, JITTER, labels.shape) * DISTANCE_SCALE
    moved[:, 0] *= np.exp(step[:, 0])
    moved[:, 1:] += step[:, 1:]
    moved = np.clip(moved, emulator.coverage.low, emulator.coverage.high)
    covered = emulator.covers(moved)
    labels[covered] = moved[covered]
    return np.asarray(labels, dtype=np.float64)


def spread_ids(count: int) -> np.ndarray:
    """(N,) int64 ids above every Gaia id, cycling through the splits 0 to 8."""
    number = np.arange(count, dtype=np.int64)
    offset = (number % SPLITS - split_of(FIRST_SIMULATED_ID)) % 10
    return FIRST_SIMULATED_ID + (((FIRST_NUMBER + number) * 10 + offset) << 7)


def simulate_spread(
    atlas: Atlas, count: int, *, seed: int = 0, progress: Progress | None = None
) -> IngestReport:
    """Write simulated LAMOST spectra of `count` stars, and their labels as the catalogue `truth_spread`.

    Parameters
    ----------
    seed
        The same seed and count give the same bytes.

    Raises
    ------
    SimulationError
        If `count` is smaller than 1.
    """
    from ..spectra.emulator import Emulator

    if count < 1:
        raise SimulationError(f"The number of spread stars must be at least 1; found {count}.", "Try --spread 20000.")
    emulator = Emulator.load()
    rng = np.random.default_rng([seed, count, 7])
    ids, labels = spread_ids(count), draw_labels(emulator, count, rng)
    ebv = np.minimum(rng.exponential(MEAN_EBV, count), MAX_EBV)
    _write_truth(atlas, ids, labels, ebv)
    inputs = text_digest(REVISION, emulator.digest, str(seed), str(count))
    stage, starts = atlas.spectra(LAMOST_LRS.name), range(0, count, SHARD_STARS)

    def make(start: int) -> Made:
        rows = slice(start, min(start + SHARD_STARS, count))
        spectra = observe_stars(emulator, labels[rows], ids[rows], ebv[rows], seed)
        return simulated_spectra(LAMOST_LRS, spectra, {"spread": start})

    with stage.lock():
        numbers = tagged_numbers(stage, "spread", starts)
        shards = [
            Shard(numbers[start], text_digest(inputs, str(start)), min(SHARD_STARS, count - start), start)
            for start in starts
        ]
        run = run_stage(
            stage,
            shards,
            make,
            rejected=atlas.rejected(LAMOST_LRS.name),
            owns=lambda part: "spread" in part.extra,
            progress=progress,
        )
    return run.report(IngestReport())


def _write_truth(atlas: Atlas, ids: np.ndarray, labels: FloatArray, ebv: FloatArray) -> None:
    columns = {"source_id": pa.array(ids), "base_source_id": pa.array(ids)}
    columns |= {name: pa.array(labels[:, i]) for i, name in enumerate(LABEL_NAMES)}
    ingest_catalog_table(atlas, TRUTH, pa.table(columns | {"ebv": pa.array(ebv)}), source="simulation")
