"""Columns of `results/emp`, one row per star."""

from __future__ import annotations

import pyarrow as pa

from specclip_search.atlas.schemas import described
from specclip_search.surveys import PAIR

INSTRUMENTS = {modality.short: modality.name for modality in PAIR}
INSTRUMENT_COLUMNS = {
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

# the flag of what may be no star at all
UNLIKE = "object_unlike_training"
FEH_UCD = "phys.abund.Fe"
ESTIMATES = {
    f"{side}_est_{name}": (f"{side.upper()}: {text} by the model's estimator", unit, ucd)
    for side in INSTRUMENTS
    for name, (text, unit, ucd) in {
        "feh": ("[Fe/H]", "dex", FEH_UCD),
        "feh_err": ("1 sigma error of [Fe/H]", "dex", f"stat.error;{FEH_UCD}"),
        "teff": ("Teff", "K", "phys.temperature.effective"),
        "teff_err": ("1 sigma error of Teff", "K", "stat.error;phys.temperature.effective"),
        "c_fe": ("[C/Fe]", "dex", "phys.abund"),
        "c_fe_err": ("1 sigma error of [C/Fe]", "dex", "stat.error;phys.abund"),
    }.items()
} | {
    "xp_net_feh": ("XP: [Fe/H] by networks on the flux", "dex", FEH_UCD),
    "xp_net_feh_err": ("XP: 1 sigma error of [Fe/H] by networks on the flux", "dex", f"stat.error;{FEH_UCD}"),
    "xp_net_c_fe": ("XP: [C/Fe] by networks on the flux; of metal-poor stars only", "dex", "phys.abund"),
    "xp_net_c_fe_err": ("XP: 1 sigma error of [C/Fe] by networks on the flux", "dex", "stat.error;phys.abund"),
    "near_feh": ("[Fe/H] by neighbours, seeds and linear estimates of all instruments", "dex", FEH_UCD),
    "near_feh_err": ("1 sigma error of near_feh", "dex", f"stat.error;{FEH_UCD}"),
}  # fmt: skip
PROBABILITIES = {
    "p_lrs_estimator": "probability by the LRS estimator alone",
    "p_xp_estimator": "probability by the XP estimator alone",
    "p_xp_network": "probability by the networks and trees on XP flux alone",
    "p_neighbours": "probability by neighbours, seeds and linear estimates alone",
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
    fields += [described(name, f32, text, ucd="stat.probability") for name, text in PROBABILITIES.items()]
    fields += [described(name, f32, text, unit, ucd) for name, (text, unit, ucd) in ESTIMATES.items()]
    fields += [
        described(f"{side}_{name}", f32, f"{side.upper()}: {text}", unit, ucd)
        for side in INSTRUMENTS
        for name, (text, unit, ucd) in INSTRUMENT_COLUMNS.items()
    ]
    return pa.schema(fields)
