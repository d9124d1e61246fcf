"""A survey of simulated stars in both instruments, written to the atlas's normal stages, with known truth."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ...atlas.arrays import column_to_matrix
from ...atlas.files import text_digest
from ...catalogs.ingest import ingest_catalog_table
from ...errors import AtlasError
from ...ingest.rows import simulated_spectra
from ...progress import Progress
from ...stages.accounts import IngestReport
from ...stages.run import Made, Shard, run_stage, tagged_numbers
from ...surveys import GAIA_XP, LAMOST_LRS, PAIR, Modality
from ..spectra.gaia_xp import correction_digest
from ..spectra.labels import LABEL_NAMES, SimulationError
from ..spectra.reddening import fit_reddening
from .oddities import ASTROPHYSICAL, ODDITIES, REPLACED
from .pairs import StarLabels, read_labels
from .population import POPULATIONS, Bases, Population, draw_population
from .rates import Rates
from .spectra import XpNoise, lrs_spectra, xp_spectra

if TYPE_CHECKING:
    from ...atlas import Atlas
    from ..spectra.emulator import Emulator

TRUTH, TRUTH_LRS = "truth", "truth_lrs"
REVISION = "survey 4"
SHARD_STARS = 2048
POPULATIONS_HELD = 512
"""Shards of stars kept in memory between the two instruments, about a million stars."""
MAX_BASES = 60_000
FEWEST_REAL_STARS = 20
DEFAULT_G = 13.0


def simulate_survey(
    atlas: Atlas,
    stars: int,
    *,
    seed: int = 0,
    rates: Rates | None = None,
    catalogue: str = "apogee",
    progress: Progress | None = None,
) -> IngestReport:
    """Write `stars` simulated stars with an XP spectrum and one to three LAMOST spectra each, and their truth.

    The labels are stored in the catalogue `truth` as `true_teff` and so on, so that no search uses them
    as labels; `truth_lrs` describes each LAMOST spectrum. The same atlas, number and seed give the
    same bytes; an interrupted run is resumed at the next shard.

    Parameters
    ----------
    stars
        Number of stars; ids are above every Gaia id, in the split of the real star that a star is made from.
    rates
        Fractions of metal-poor and anomalous stars.
    catalogue
        Labels, by `source_id`, of the real XP stars that the simulated ones are made from.

    Returns
    -------
    IngestReport
        Counts of the spectra of both instruments.

    Raises
    ------
    SimulationError
        If a number or rate is invalid, or the atlas has too few labelled real XP stars.
    AtlasError
        If the catalogue `truth` holds something else.
    """
    from ..spectra.emulator import Emulator

    if stars < 1:
        raise SimulationError(f"A survey needs at least one star; found {stars}.", "Try --stars 10000.")
    rates = (rates or Rates()).checked()
    emulator = Emulator.load()
    bases, digest = _bases(atlas, emulator, read_labels(atlas.catalog(catalogue)))
    _require_own_truth(atlas)
    noise = XpNoise.measure(bases)
    made_by = (REVISION, emulator.digest, correction_digest())
    inputs = text_digest(*made_by, digest, atlas.catalog(catalogue).digest, str(seed), str(stars), repr(rates))
    starts = range(0, stars, SHARD_STARS)

    @lru_cache(maxsize=POPULATIONS_HELD)
    def population(start: int) -> Population:
        return draw_population(emulator, bases, np.arange(start, min(start + SHARD_STARS, stars)), seed, rates)

    def make(modality: Modality, start: int) -> Made:
        drawn = population(start)
        spectra = (
            lrs_spectra(emulator, bases, drawn, seed)
            if modality is LAMOST_LRS
            else xp_spectra(emulator, bases, noise, drawn, seed)
        )
        return simulated_spectra(modality, spectra, {"survey": start})

    report = IngestReport()
    for turn, modality in enumerate(PAIR):
        stage = atlas.spectra(modality.name)
        with stage.lock():
            numbers = tagged_numbers(stage, "survey", starts)
            shards = [
                Shard(
                    numbers[start],
                    text_digest(inputs, modality.name, str(start)),
                    min(SHARD_STARS, stars - start),
                    start,
                )
                for start in starts
            ]
            run_stage(
                stage,
                shards,
                partial(make, modality),
                rejected=atlas.rejected(modality.name),
                owns=lambda part: "survey" in part.extra,
                progress=progress,
                note=modality.name,
                done=turn * stars,
                total=len(PAIR) * stars,
            ).report(report)
    populations = [population(start) for start in starts]
    truths = {TRUTH: [_truth(bases, drawn) for drawn in populations], TRUTH_LRS: [_truth_lrs(s) for s in populations]}
    for name, tables in truths.items():
        ingest_catalog_table(atlas, name, pa.concat_tables(tables), source=REVISION)
    return report


def _bases(atlas: Atlas, emulator: Emulator, labels: StarLabels) -> tuple[Bases, str]:
    """Real labelled XP stars in order of [Fe/H], and a digest of their inputs."""
    stage = atlas.spectra(GAIA_XP.name)
    own = {p.number for p in stage.parts() if "survey" in p.extra or "metal_poor" in p.extra}
    g_mag = _Magnitudes(atlas)
    pieces: list[tuple[np.ndarray, ...]] = []
    for part, batch in stage.iter_batches(["source_id", "simulated", "flux", "error"]):
        if part.number in own or sum(len(p[0]) for p in pieces) >= MAX_BASES:
            continue
        key = batch["source_id"].fill_null(-1).to_numpy()
        wanted = emulator.snap(labels.lookup(key))
        known = np.flatnonzero(np.isfinite(wanted).all(axis=1))
        covered = known[emulator.covers(wanted[known])]
        real = np.flatnonzero(~batch["simulated"].to_numpy(zero_copy_only=False))
        rows = np.intersect1d(covered, real)
        flux, error = column_to_matrix(batch["flux"])[rows], column_to_matrix(batch["error"])[rows]
        ebv = fit_reddening(emulator, wanted[rows], flux)
        pieces.append((key[rows], wanted[rows], ebv, g_mag.lookup(key[rows]), flux, error))
    count = sum(len(p[0]) for p in pieces)
    if count < FEWEST_REAL_STARS:
        raise SimulationError(
            f"A survey is made from real labelled Gaia XP stars, {FEWEST_REAL_STARS} at least; this atlas has {count}.",
            "Ingest some first, for example with `specclip-search ingest library`.",
        )
    columns = [np.concatenate(column) for column in zip(*pieces, strict=True)]
    order = np.lexsort((columns[0], columns[1][:, 2]))
    digest = text_digest(*(p.digest for p in stage.parts() if p.number not in own))
    return Bases(*(column[order] for column in columns)), digest


class _Magnitudes:
    """G of stars from the first catalogue that has it."""

    def __init__(self, atlas: Atlas) -> None:
        self.ids, self.values = np.empty(0, np.int64), np.empty(0)
        for name in atlas.catalogs():
            stage = atlas.catalog(name)
            table = stage.read()
            if {"source_id", "phot_g_mean_mag"} <= set(table.column_names):
                table = table.select(["source_id", "phot_g_mean_mag"]).drop_null()
                self.ids, first = np.unique(table["source_id"].to_numpy(), return_index=True)
                self.values = table["phot_g_mean_mag"].to_numpy().astype(np.float64)[first]
                return

    def lookup(self, source_id: np.ndarray) -> np.ndarray:
        if not len(self.ids):
            return np.full(len(source_id), DEFAULT_G)
        place = np.minimum(np.searchsorted(self.ids, source_id), len(self.ids) - 1)
        value = np.where(self.ids[place] == source_id, self.values[place], DEFAULT_G)
        return np.where(np.isfinite(value), value, DEFAULT_G)


def _require_own_truth(atlas: Atlas) -> None:
    if TRUTH in atlas.catalogs() and "true_feh" not in atlas.catalog(TRUTH).read().column_names:
        raise AtlasError(
            f"The catalogue '{TRUTH}' must be a simulated survey's; this atlas has another of that name.",
            "Simulate the survey in an atlas without `simulate --metal-poor` stars.",
        )


def _truth(bases: Bases, stars: Population) -> pa.Table:
    """One row per star."""
    columns: dict[str, Any] = {"source_id": stars.source_id, "base_source_id": bases.ids[stars.base]}
    unlabelled = np.isin(stars.oddity, REPLACED)
    columns |= {
        f"true_{name}": np.ma.masked_array(stars.labels[:, i], unlabelled) for i, name in enumerate(LABEL_NAMES)
    }
    columns |= {
        "true_rv": stars.rv,
        "ebv": bases.ebv[stars.base],
        "phot_g_mean_mag": stars.g_mag,
        "ra": stars.ra,
        "dec": stars.dec,
        "pmra": stars.pmra,
        "pmdec": stars.pmdec,
        "population": np.array(POPULATIONS, dtype=object)[stars.kind],
        "oddity": stars.oddity,
        "oddity_kind": [ODDITIES.get(name, "") for name in stars.oddity],
        "visits": stars.visits,
    }
    return pa.table({name: _column(values) for name, values in columns.items()})


def _column(values: Any) -> pa.Array:
    return pa.array(values.data, mask=values.mask) if isinstance(values, np.ma.MaskedArray) else pa.array(values)


def _truth_lrs(stars: Population) -> pa.Table:
    """One row per LAMOST spectrum; instrumental anomalies and wrong matches affect only the first visit."""
    star = np.repeat(np.arange(len(stars)), stars.visits)
    visit = np.arange(len(star)) - np.repeat(np.cumsum(stars.visits) - stars.visits, stars.visits)
    lasting = np.array([ODDITIES.get(name) == ASTROPHYSICAL for name in stars.oddity], dtype=bool)[star]
    return pa.table(
        {
            "obsid": pa.array(stars.source_id[star] + visit),
            "source_id": pa.array(stars.source_id[star]),
            "true_snrg": pa.array(stars.snr[star, visit]),
            "oddity_seen": pa.array(np.where(lasting | (visit == 0), stars.oddity[star], ""), pa.string()),
        }
    )
