"""Calibration stars of the EMP search for one instrument: labelled stars, known stars of the user, built-in seeds."""

from __future__ import annotations

import numpy as np

from specclip_search.errors import QueryError
from specclip_search.keys import ACCEPTANCE_SPLIT, split_of
from specclip_search.simulation.samples.metal_poor import FIRST_SIMULATED_ID

from ..space.space import Space
from ..views.labels import row_labels
from .evidence import InstrumentEvidence, instrument_evidence
from .flags import HOT_TEFF
from .known_stars import KnownStars
from .seeds import Seeds, emulator_seeds

# if no star of the atlas is known to be below, the most metal-poor known ones serve as seeds
FEWEST_SEEDS = 20
# hot stars without [Fe/H] in any catalogue are labelled as ordinary ones: weak lines alone prove nothing
HOT_FEH = 0.0
LABELS = ("teff", "logg", "feh", "alpha_fe", "alpha_m", "c_fe")


def taught_evidence(
    space: Space, modality: str, below: float, known: KnownStars | None, builtin_seeds: bool, notes: list[str],
    only: np.ndarray | None = None,
) -> tuple[InstrumentEvidence, np.ndarray]:
    """Evidence from one instrument's spectra, and their [Fe/H] from catalogues; for the stars `only`, if given."""
    keys = space.keys(modality)
    source_id = np.asarray(keys.source_id)
    found = row_labels(space.atlas, keys, modality, LABELS)
    nothing = np.full(len(keys), np.nan)
    labels = {name: found.get(name, nothing.copy()) for name in LABELS}
    # acceptance stars are searched, but their labels are never used; simulated stars count only as built-in seeds
    may_teach = ~((source_id >= 0) & (split_of(source_id) == ACCEPTANCE_SPLIT)) & (source_id < FIRST_SIMULATED_ID)
    own = np.where(may_teach, labels["feh"], np.nan)
    contrast = may_teach & ~np.isfinite(own) & (labels["teff"] > HOT_TEFF)
    labels["feh"] = np.where(contrast, HOT_FEH, labels["feh"])
    usable = may_teach & np.isfinite(labels["feh"])
    is_seed = usable & (labels["feh"] < below)
    if known is not None:
        is_seed |= _add_known(labels, usable, source_id, known, below)
    if is_seed.sum() < FEWEST_SEEDS and usable.any():
        poorest = np.sort(labels["feh"][usable])[min(FEWEST_SEEDS, int(usable.sum())) - 1]
        notes.append(
            f"{modality}: {int(is_seed.sum())} known stars below [Fe/H] = {below:g}; "
            f"those up to {poorest:.2f} serve as seeds"
        )
        is_seed |= usable & (labels["feh"] <= poorest)
    extra = Seeds.none(space.index(modality).dim)
    if builtin_seeds:
        extra = emulator_seeds(space, modality, {name: np.where(usable, labels[name], np.nan) for name in LABELS})
        notes.append(f"{modality}: {len(extra)} built-in model stars")
    if not usable.any() and len(extra) == 0:
        raise QueryError(
            f"No {modality} star of this atlas has [Fe/H], and there are no other seeds.",
            "Ingest a catalogue with feh, give --known FILE, or allow built-in seeds.",
        )
    rows = None if only is None else np.flatnonzero(np.isin(source_id, only))
    return instrument_evidence(space, modality, labels, usable, is_seed, extra, below, rows), own


def _add_known(
    labels: dict[str, np.ndarray], usable: np.ndarray, source_id: np.ndarray, known: KnownStars, below: float
) -> np.ndarray:
    """Assign labels to the user's known stars; return their rows."""
    place = np.minimum(np.searchsorted(known.source_id, source_id), max(len(known.source_id) - 1, 0))
    here = (known.source_id[place] == source_id) if len(known.source_id) else np.zeros(len(source_id), dtype=bool)
    feh = np.where(np.isfinite(known.feh), known.feh, below)
    labels["feh"][here] = feh[place[here]]
    labels["c_fe"][here] = known.c_fe[place[here]]
    usable |= here
    return here
