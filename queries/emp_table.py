"""Columns of `results/emp`, one row a star."""

from __future__ import annotations

import pyarrow as pa

from specclip_search.atlas.schemas import described

from .pairs import LRS, XP

SIDES = {"lrs": LRS, "xp": XP}
PARTS = {
    "feh": ("weighted median [Fe/H] of the nearest labelled stars and seeds", "dex", "phys.abund.Fe"),
    "feh_sigma": (
        "robust scatter of [Fe/H] of the nearest labelled stars and seeds",
        "dex",
        "stat.stdev;phys.abund.Fe",
    ),
    "linear_feh": ("linear estimate of [Fe/H] from the vector, learned from other stars", "dex", "phys.abund.Fe"),
    "seeded_feh": ("the same with model stars among the teachers, down to -4", "dex", "phys.abund.Fe"),
    "teff": ("weighted median Teff of the nearest labelled stars and seeds", "K", "phys.temperature.effective"),
    "linear_teff": (
        "linear estimate of Teff from the vector, learned from other stars",
        "K",
        "phys.temperature.effective",
    ),
    "c_fe": ("weighted median [C/Fe] of those of them that have one", "dex", "phys.abund"),
    "seed_similarity": ("cosine to the nearest known metal-poor star or seed", "", ""),
    "seeds": ("number of metal-poor seeds among the 32 nearest labelled stars and seeds", "", "meta.number"),
    "nearest": ("cosine to the nearest labelled star or seed", "", ""),
}


def emp_schema() -> pa.Schema:
    """Columns with their units and meaning."""
    f32 = pa.float32()
    fields = [
        described("source_id", pa.int64(), "Gaia source_id of the star; null where unknown", ucd="meta.id;meta.main"),
        described("lrs_spec_id", pa.int64(), "LAMOST obsid of the star's best spectrum", ucd="meta.id"),
        described("xp_spec_id", pa.int64(), "Gaia XP spectrum of the star", ucd="meta.id"),
        described(
            "probability",
            pa.float64(),
            "probability that [Fe/H] lies below the metallicity asked for",
            ucd="stat.probability",
        ),
        described("feh", f32, "[Fe/H] from all evidence together", "dex", "phys.abund.Fe"),
        described("feh_err", f32, "1 sigma error of feh", "dex", "stat.error;phys.abund.Fe"),
        described(
            "flags", pa.string(), "what could mimic a metal-poor star, and carbon_enhanced; words separated by spaces"
        ),
        described("lrs_snr", f32, "S/N of the LRS spectrum", ucd="stat.snr"),
        described("xp_snr", f32, "S/N of the XP spectrum", ucd="stat.snr"),
        described("lrs_release", pa.string(), "data release of the LRS spectrum"),
        described("xp_release", pa.string(), "data release of the XP spectrum"),
    ]
    fields += [
        described(f"{side}_{name}", f32, f"{side.upper()}: {text}", unit, ucd)
        for side in SIDES
        for name, (text, unit, ucd) in PARTS.items()
    ]
    return pa.schema(fields)
