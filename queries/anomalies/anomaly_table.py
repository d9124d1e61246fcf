"""Scores of all pairs as stored under `results/anomalies`."""

from __future__ import annotations

import pyarrow as pa

from specclip_search.atlas.schemas import described

from .global_quantities import GLOBAL_NAMES
from .local_quantities import LOCAL_NAMES

DESCRIPTIONS = {
    "lrs_error": "LRS spectrum predicted from XP against the observed one (log chi2)",
    "xp_error": "XP spectrum predicted from LRS against the observed one (log chi2)",
    "lrs_window": "largest residual of a spectral window of LRS",
    "xp_window": "largest residual of a spectral window of XP",
    "lrs_isolation": "distance to the k-th LRS neighbour",
    "xp_isolation": "distance to the k-th XP neighbour",
    "mutual": "distance between the star's own two vectors",
    "disagreement": "distance between a star and the partners of its other spectrum's neighbours",
    "lrs_free": "LRS against its prediction from XP, velocity and bends left free (log chi2)",
    "lrs_own": "LRS against what its own vector gives back (log chi2)",
    "xp_free": "XP against its prediction from LRS, dust and bends left free (log chi2)",
    "xp_own": "XP against what its own vector gives back (log chi2)",
    "lrs_free_peak": "strongest narrow feature of LRS that XP does not predict",
    "lrs_own_peak": "strongest narrow feature of LRS that its own vector does not give back",
    "xp_free_peak": "strongest narrow feature of XP that LRS does not predict",
    "xp_own_peak": "strongest narrow feature of XP that its own vector does not give back",
    "emission": "hydrogen lines above the prediction",
    "s_process": "Sr II and Ba II below the prediction",
    "alpha": "Mg b and Ca I below the prediction",
    "carbon": "CH, C2 and CN bands below the prediction",
    "helium": "helium lines below the prediction",
    "double_lined": "a second, moved set of lines",
    "color": "raw LRS flux against XP in broad bands: the shapes that dust and temperature change",
    "calibration": "raw LRS flux against XP in broad bands: all of them (log chi2)",
    "join": "a step at 5900 Angstrom between LRS's blue and red arm",
    "lrs_rarity": "how sparsely the LRS space is populated around the star, whatever its neighbours are",
    "match": "how little the two spectra look like one star's",
    "labels": "disagreement of the labels estimated from both spectra",
    "identity": "all that tells two stars apart, added up as it is worth",
}


def anomalies_schema() -> pa.Schema:
    """Columns of `results/anomalies`, one row a pair."""
    f32 = pa.float32()
    keys = [
        described("lrs_spec_id", pa.int64(), "LAMOST obsid", ucd="meta.id;meta.main"),
        described("lrs_release", pa.string(), "data release of the LRS spectrum"),
        described("xp_spec_id", pa.int64(), "Gaia XP spectrum of the same star", ucd="meta.id"),
        described("xp_release", pa.string(), "data release of the XP spectrum"),
        described("source_id", pa.int64(), "Gaia source_id of the star", ucd="meta.id"),
        described(
            "score",
            pa.float64(),
            "anomaly score: root of the weighted sum of fourth powers of -log10 p of the z columns; high is odd",
        ),
        described(
            "p_value",
            pa.float64(),
            "chance that a normal star scores as high, by ranks among reference stars",
            ucd="stat.probability",
        ),
        described(
            "q_value",
            pa.float64(),
            "false-discovery rate of the list that ends here (Benjamini-Hochberg)",
            ucd="stat.probability",
        ),
    ]
    errors = [
        described(
            "lrs_chi2",
            f32,
            "LRS predicted from XP: mean squared residual over noise^2 + model error^2",
            ucd="stat.fit.chi2",
        ),
        described(
            "xp_chi2",
            f32,
            "XP predicted from LRS: mean squared residual over noise^2 + model error^2",
            ucd="stat.fit.chi2",
        ),
        described("lrs_l1", f32, "LRS predicted from XP: mean absolute residual", "continuum-normalised flux"),
        described("xp_l1", f32, "XP predicted from LRS: mean absolute residual", "flux over flux at 550 nm"),
        described("lrs_mse", f32, "LRS predicted from XP: mean squared residual", "(continuum-normalised flux)^2"),
        described("xp_mse", f32, "XP predicted from LRS: mean squared residual", "(flux over flux at 550 nm)^2"),
        described("lrs_snr", f32, "S/N of the LRS spectrum", ucd="stat.snr"),
        described("xp_snr", f32, "S/N of the XP spectrum", ucd="stat.snr"),
        described("similarity", f32, "cosine of the star's own two vectors, centred"),
    ]
    z = [
        described(f"z_{name}", f32, f"{DESCRIPTIONS[name]}: robust z against {whom}", "sigma")
        for names, whom in ((LOCAL_NAMES, "the star's own neighbours"), (GLOBAL_NAMES, "stars of like S/N and colour"))
        for name in names
    ]
    words = [
        described(
            "kind", pa.string(), "likely kind: astrophysical, instrumental or wrong_match; empty where p >= 0.01"
        ),
        described("reason", pa.string(), "why, in words; empty where p >= 0.01"),
    ]
    return pa.schema([*keys, *errors, *z, *words])
