"""Pairs of one star: a real Gaia XP spectrum and a LAMOST spectrum simulated at the star's labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from ...atlas.arrays import column_to_matrix
from ...atlas.files import text_digest
from ...errors import AtlasError
from ...ingest.rows import simulated_spectra
from ...progress import Progress
from ...stages.accounts import IngestReport
from ...stages.run import Made, Shard, run_stage, tagged_numbers
from ...surveys import LAMOST_LRS, LRS, XP
from ..spectra.observe import observe_stars
from ..spectra.reddening import fit_reddening

if TYPE_CHECKING:
    from ...atlas import Atlas, Part, Stage
    from ..spectra.emulator import Emulator

NO_LABELS, OUTSIDE, ALREADY_SIMULATED = "no_labels", "labels_outside_emulator", "xp_is_simulated"


@dataclass(frozen=True, slots=True)
class StarLabels:
    """Labels of stars sorted by `source_id`, with NaN for missing values; see `lookup`."""

    source_id: np.ndarray
    labels: np.ndarray

    def lookup(self, source_id: np.ndarray) -> np.ndarray:
        """(N, 5) labels of the requested stars, NaN for unknown stars."""
        place = np.clip(np.searchsorted(self.source_id, source_id), 0, max(len(self.source_id) - 1, 0))
        known = self.source_id[place] == source_id
        return np.where(known[:, None], self.labels[place], np.nan)


def read_labels(stage: Stage) -> StarLabels:
    """Labels of a catalogue keyed by `source_id`; [alpha/M] is used for [alpha/Fe], missing [C/Fe] is 0.

    Raises
    ------
    AtlasError
        If the catalogue has no `source_id`, `teff`, `logg` or `feh`.
    """
    parts = stage.parts()
    if not parts:
        raise stage.missing()
    names = pq.read_schema(parts[0].path).names
    lacking = [n for n in ("source_id", "teff", "logg", "feh") if n not in names]
    if lacking:
        raise AtlasError(
            f"The {stage.label} lacks {', '.join(lacking)}; labels need source_id, teff, logg and feh.",
            "Give another catalogue with --catalog.",
        )
    alpha = next((n for n in ("alpha_fe", "alpha_m") if n in names), None)
    columns = [
        "source_id",
        "teff",
        "logg",
        "feh",
        alpha,
        "c_fe" if "c_fe" in names else None,
    ]
    table = stage.read([c for c in columns if c is not None])
    table = table.filter(table["source_id"].is_valid())

    def values(name: str | None, default: float) -> np.ndarray:
        if name is None:
            return np.full(len(table), default)
        column = table[name].cast("float64").fill_null(float("nan")).to_numpy()
        return column if np.isnan(default) else np.where(np.isnan(column), default, column)

    ids = table["source_id"].to_numpy()
    labels = np.stack(
        [
            values("teff", np.nan),
            values("logg", np.nan),
            values("feh", np.nan),
            values(alpha, 0.0),
            values(columns[5], 0.0),
        ],
        axis=1,
    )
    first = np.unique(ids, return_index=True)[1]
    return StarLabels(ids[first], labels[first])


def simulate_pairs(
    atlas: Atlas,
    *,
    catalogue: str = "apogee",
    seed: int = 0,
    progress: Progress | None = None,
) -> IngestReport:
    """Give every labelled Gaia XP star of the atlas a simulated LAMOST spectrum.

    Each shard of `spectra/gaia_xp` gets one shard of `spectra/lamost_lrs`, marked `simulated`,
    whose `spec_id` is the star's `source_id`. A star without labels, or with labels outside the
    emulator's range, gets no LAMOST spectrum and is counted by reason. The simulated light has the
    reddening of the star's XP spectrum, see `fit_reddening`.

    Parameters
    ----------
    catalogue
        Catalogue of the atlas with the labels by `source_id`.
    seed
        Random seed; the result does not depend on how the stars are divided into shards.
    """
    from ..spectra.emulator import Emulator

    emulator = Emulator.load()
    labels = read_labels(atlas.catalog(catalogue))
    source, target = atlas.spectra(XP), atlas.spectra(LRS)
    parts = source.parts()
    if not parts:
        raise source.missing()
    origin = atlas.catalog(catalogue).digest, emulator.digest, str(seed)
    with target.lock():
        numbers = tagged_numbers(target, "simulated_from", [part.number for part in parts])
        shards = [
            Shard(numbers[part.number], text_digest("simulated lrs 4", part.digest, *origin), part.rows, part)
            for part in parts
        ]
        run = run_stage(
            target,
            shards,
            lambda part: _simulate_part(part, labels, emulator, seed),
            rejected=atlas.rejected(LRS),
            owns=lambda _: False,
            progress=progress,
        )
    return run.report(IngestReport())


def _simulate_part(part: Part, labels: StarLabels, emulator: Emulator, seed: int) -> Made:
    """The LRS shard of one XP shard."""
    stars = pq.ParquetFile(part.path).read(columns=["spec_id", "source_id", "simulated", "ra", "dec", "flux"])
    ids = stars["source_id"].to_numpy()
    wanted = labels.lookup(ids)
    reasons = _reasons(emulator, wanted, stars["simulated"].to_numpy())
    snapped = emulator.snap(wanted)
    chosen = np.flatnonzero(reasons == "")
    ebv = fit_reddening(emulator, snapped[chosen], column_to_matrix(stars["flux"])[chosen])
    position = {name: stars[name].to_numpy()[chosen] for name in ("ra", "dec")}
    return simulated_spectra(
        LAMOST_LRS,
        observe_stars(emulator, snapped[chosen], ids[chosen], ebv, seed, **position),
        {"simulated_from": part.number},
        Counter(reasons[reasons != ""].tolist()),
    )


def _reasons(emulator: Emulator, labels: np.ndarray, simulated: np.ndarray) -> np.ndarray:
    """Reason why a star gets no LAMOST spectrum, (N,) text; empty if it gets one."""
    known = np.isfinite(labels).all(axis=1)
    covered = np.zeros(len(labels), dtype=bool)
    covered[known] = emulator.covers(emulator.snap(labels[known]))
    return np.where(simulated, ALREADY_SIMULATED, np.where(~known, NO_LABELS, np.where(~covered, OUTSIDE, "")))
