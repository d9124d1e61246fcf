"""Very metal-poor and carbon-rich stars made from real ones, because real libraries have too few.

Each uses a real star's Gaia XP spectrum, scaled to lower [Fe/H] by the ratio of two model spectra, and
a simulated LAMOST spectrum. Ids are larger than any id that Gaia can assign. The true labels are
stored in the catalogue `truth`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from ...atlas.arrays import column_to_matrix
from ...atlas.files import text_digest
from ...errors import AtlasError
from ...ingest.rows import simulated_spectra
from ...keys import split_of
from ...progress import Progress
from ...spectrum import Spectrum
from ...stages.accounts import IngestReport
from ...stages.run import Made, Shard, run_stage, tagged_numbers
from ...surveys import GAIA_XP, LAMOST_LRS, PAIR, Modality
from ..spectra.gaia_xp import correction_digest, moved_xp
from ..spectra.labels import LABEL_NAMES, FloatArray
from ..spectra.observe import RELEASE, observe_stars
from ..spectra.reddening import fit_reddening
from .pairs import StarLabels, read_labels

if TYPE_CHECKING:
    import pyarrow as pa

    from ...atlas import Atlas
    from ..spectra.emulator import Emulator

# Gaia's ids hold a level-12 HEALPix number (below 12 * 4**12) shifted by 35 bits: no real id is this large
FIRST_SIMULATED_ID = (12 * 4**12) << 35
LOWEST_FEH = -4.0
STEP_FEH = 0.3
BASE_FEH = -0.5
BASE_TEFF = (4200.0, 6900.0)
CARBON_RICH_BELOW_FEH = -1.8
CARBON_RICH_FRACTION = 0.25
MAX_ROUNDS = 50


def suitable_bases(emulator: Emulator, labels: FloatArray) -> np.ndarray:
    """Rows of real stars (labels (N, 5)) whose XP spectra can be scaled to lower metallicity."""
    teff, feh = labels[:, 0], labels[:, 2]
    with np.errstate(invalid="ignore"):
        wanted = (feh < BASE_FEH) & (teff > BASE_TEFF[0]) & (teff < BASE_TEFF[1])
    return np.flatnonzero(wanted & emulator.covers(labels))


def draw_targets(
    emulator: Emulator,
    labels: FloatArray,
    count: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, FloatArray]:
    """Draw base stars and labels of `count` new stars.

    Teff and logg are those of the base, so that the two models differ only in composition.
    [Fe/H] is uniform from -4 to 0.3 below the base's; [alpha/Fe] scatters about 0.33; below
    [Fe/H] = -1.8 a quarter is carbon-rich, [C/Fe] 0.7 to 2.2, the others scatter about 0.1.

    Returns
    -------
    rows : ndarray of int64, (count,)
        Rows of `labels`; a base may be used several times.
    targets : ndarray, (count, 5)

    Raises
    ------
    ValueError
        If no star of `labels` is a suitable base, or nearly no target is covered.
    """
    bases = suitable_bases(emulator, labels)
    if not len(bases):
        raise ValueError("no labelled star is a suitable base")
    rows = np.empty(0, dtype=np.int64)
    targets = np.empty((0, 5))
    for _ in range(MAX_ROUNDS):
        if len(rows) >= count:
            break
        drawn = rng.choice(bases, size=2 * count)
        wished = _wished(labels[drawn], rng)
        possible = emulator.covers(wished)
        rows = np.concatenate([rows, drawn[possible]])
        targets = np.concatenate([targets, wished[possible]])
    if len(rows) < count:
        raise ValueError("almost no star below the bases' metallicity lies within the emulator's range")
    return rows[:count], targets[:count]


def _wished(base: FloatArray, rng: np.random.Generator) -> FloatArray:
    n = len(base)
    feh = rng.uniform(LOWEST_FEH, base[:, 2] - STEP_FEH)
    alpha_fe = np.clip(rng.normal(0.33, 0.08, n), 0.0, 0.45)
    c_fe = np.clip(rng.normal(0.1, 0.2, n), -0.5, 0.5)
    rich = (feh < CARBON_RICH_BELOW_FEH) & (rng.random(n) < CARBON_RICH_FRACTION)
    c_fe = np.where(rich, rng.uniform(0.7, 2.2, n), c_fe)
    return np.stack([base[:, 0], base[:, 1], feh, alpha_fe, c_fe], axis=1)


def simulated_ids(base_ids: np.ndarray) -> np.ndarray:
    """int64 ids above every Gaia id, unique within the call, each in the split of its base star.

    A star made from an acceptance star is an acceptance star too: `split_of` reads bits 7 and up,
    so the sequence number times ten plus the split goes there.
    """
    number = np.arange(len(base_ids), dtype=np.int64)
    offset = (split_of(base_ids) - split_of(FIRST_SIMULATED_ID)) % 10
    return FIRST_SIMULATED_ID + ((number * 10 + offset) << 7)


TRUTH = "truth"
SHARD_STARS = 2048


@dataclass(frozen=True, slots=True)
class _Bases:
    """Real stars whose XP spectra are moved: ids, labels, reddening, input flux and its error."""

    ids: np.ndarray
    labels: FloatArray
    ebv: FloatArray
    flux: FloatArray
    error: FloatArray


def simulate_metal_poor(
    atlas: Atlas,
    count: int,
    *,
    catalogue: str = "apogee",
    seed: int = 0,
    progress: Progress | None = None,
) -> IngestReport:
    """Add `count` stars with [Fe/H] from -4 to 0.3 below that of real ones, in both instruments.

    Their XP spectra are real ones scaled to the new composition by the ratio of two model spectra.
    Both spectra are marked `simulated`; the labels are stored in the catalogue `truth`.

    Raises
    ------
    AtlasError
        If no real star of the atlas is a suitable base, or its `truth` belongs to a simulated survey.
    """
    from ..spectra.emulator import Emulator

    _require_own_truth(atlas)
    emulator = Emulator.load()
    bases = _bases(atlas, emulator, read_labels(atlas.catalog(catalogue)))
    rows, targets = draw_targets(emulator, bases.labels, count, np.random.default_rng([seed, count]))
    ids = simulated_ids(bases.ids[rows])
    _write_truth(atlas, ids, bases.ids[rows], targets, bases.ebv[rows])
    inputs = text_digest(
        "metal-poor 4", atlas.catalog(catalogue).digest, emulator.digest, correction_digest(), str(seed), str(count)
    )
    starts = range(0, count, SHARD_STARS)

    def spectra(modality: Modality, start: int) -> Made:
        part = slice(start, min(start + SHARD_STARS, count))
        made = (
            observe_stars(emulator, targets[part], ids[part], bases.ebv[rows[part]], seed)
            if modality is LAMOST_LRS
            else _moved_spectra(emulator, bases, rows[part], targets[part], ids[part])
        )
        return simulated_spectra(modality, made, {"metal_poor": f"metal-poor {start}"})

    for turn, modality in enumerate(PAIR):
        stage = atlas.spectra(modality.name)
        with stage.lock():
            numbers = tagged_numbers(stage, "metal_poor", [f"metal-poor {start}" for start in starts])
            shards = [
                Shard(numbers[tag], text_digest(inputs, tag), min(SHARD_STARS, count - start), start)
                for start in starts
                if (tag := f"metal-poor {start}")
            ]
            run = run_stage(
                stage,
                shards,
                partial(spectra, modality),
                rejected=atlas.rejected(modality.name),
                owns=lambda _: False,
                progress=progress,
                note=modality.name,
                done=turn * count,
                total=len(PAIR) * count,
            )
    return run.report(IngestReport())


def _bases(atlas: Atlas, emulator: Emulator, labels: StarLabels) -> _Bases:
    """The real XP stars of the atlas that can serve as bases."""
    ids, known, ebv, flux, error = [], [], [], [], []
    columns = ["source_id", "simulated", "flux", "error"]
    for _, batch in atlas.spectra(GAIA_XP.name).iter_batches(columns):
        key = batch["source_id"].to_numpy(zero_copy_only=False)
        wanted = emulator.snap(labels.lookup(key))
        real = ~batch["simulated"].to_numpy(zero_copy_only=False)
        rows = np.intersect1d(suitable_bases(emulator, wanted), np.flatnonzero(real))
        ids.append(key[rows])
        known.append(wanted[rows])
        flux.append(column_to_matrix(batch["flux"])[rows].astype(np.float64))
        ebv.append(fit_reddening(emulator, wanted[rows], flux[-1]))
        error.append(column_to_matrix(batch["error"])[rows].astype(np.float64))
    if not ids or not sum(len(i) for i in ids):
        raise AtlasError(
            "No labelled Gaia XP star of the atlas can serve as a base for very metal-poor ones.",
            "Ingest stars below [Fe/H] = -0.5 first, for example `specclip-search ingest library`.",
        )
    return _Bases(*(np.concatenate(part) for part in (ids, known, ebv, flux, error)))


def _moved_spectra(
    emulator: Emulator, bases: _Bases, rows: np.ndarray, targets: FloatArray, ids: np.ndarray
) -> list[Spectrum]:
    """Scaled XP spectra; errors are scaled with the flux, so that the S/N is that of the base star."""
    flux = bases.flux[rows]
    moved = moved_xp(emulator, flux, bases.labels[rows], targets)
    factor = np.divide(moved, flux, out=np.ones_like(flux), where=flux != 0)
    with np.errstate(divide="ignore"):
        ivar = np.where(np.isfinite(bases.error[rows]), (bases.error[rows] * np.abs(factor)) ** -2.0, 0.0)
    return [
        Spectrum(
            GAIA_XP.wavelength,
            moved[i],
            ivar[i],
            GAIA_XP.name,
            int(key),
            {"source_id": int(key), "release": RELEASE, "source": "simulated"},
        )
        for i, key in enumerate(ids)
    ]


def _require_own_truth(atlas: Atlas) -> None:
    """Raise an error if the truth of a simulated survey would be overwritten."""
    stage = atlas.catalog(TRUTH)
    if stage.exists and "true_feh" in pq.read_schema(stage.parts()[0].path).names:
        raise AtlasError(
            f"The {stage.label} of this atlas belongs to a simulated survey.",
            "Make very metal-poor stars in a separate atlas.",
        )


def _write_truth(atlas: Atlas, ids: np.ndarray, base: np.ndarray, targets: FloatArray, ebv: FloatArray) -> None:
    import pyarrow as pa

    from ...catalogs.ingest import ingest_catalog_table

    columns: dict[str, pa.Array] = {"source_id": pa.array(ids), "base_source_id": pa.array(base)}
    columns |= {name: pa.array(targets[:, i]) for i, name in enumerate(LABEL_NAMES)}
    columns["ebv"] = pa.array(ebv)
    ingest_catalog_table(atlas, TRUTH, pa.table(columns), source="simulation")
