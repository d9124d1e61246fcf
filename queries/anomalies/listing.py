"""The list of anomalies shown to the user, from the scores stored under `results/anomalies`.

Selects the top rows, groups visits of a star and applies verdicts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from specclip_search.atlas.schemas import described
from specclip_search.surveys import LRS, XP

from ..space.spectra import read_columns
from ..statistics.learned_shift import STRENGTH, learned_shift, odd_patterns
from ..views.parquet import take_rows
from ..views.star_estimates import UNLIKE, unlike_training
from .global_quantities import GLOBAL_NAMES
from .local_quantities import LOCAL_NAMES, NAMES
from .pair_table import vector_rows
from .verdicts import Verdicts

if TYPE_CHECKING:
    from ..space.space import Space

FIRST = ["lrs_spec_id", "xp_spec_id", "source_id", "score", "p_value", "q_value", "kind", "reason"]
# verdicts can raise a pair from at most this far down the list
LEARNING_POOL = 5000
ODD_P = 0.01


def listed(space: Space, top: int, group: bool, verdicts: Verdicts | None, by: str = "score") -> pa.Table:
    """The `top` rows by the column `by`, with ranks, visits, verdicts, position and labels."""
    from ..views.annotate import annotate
    from ..views.connection import connect

    judged = verdicts is not None and len(verdicts) > 0
    table = best_rows(space, max(top, LEARNING_POOL) if judged else top, group, by)
    rows = {
        side: vector_rows(space.keys(modality), table[f"{side}_spec_id"], table[f"{side}_release"])
        for side, modality in (("lrs", LRS), ("xp", XP))
    }
    table = _with_verdicts(space, table, rows, verdicts) if judged and verdicts is not None else table
    order = np.argsort(-_moved_score(table, by), kind="stable")[:top]
    table, rows = table.take(pa.array(order)), {side: row[order] for side, row in rows.items()}
    hits = pa.table(
        {
            "modality": pa.array([LRS] * len(order), pa.string()),
            "release": table["lrs_release"],
            "spec_id": table["lrs_spec_id"],
        }
    )
    with connect(space.atlas) as connection:
        extra = annotate(connection, hits)
    table = table.add_column(0, "rank", pa.array(np.arange(1, len(order) + 1)))
    for side, modality in (("lrs", LRS), ("xp", XP)):
        flag = read_columns(space, modality, rows[side], ("simulated",))["simulated"]
        table = table.append_column(f"{side}_simulated", pa.array(np.nan_to_num(flag).astype(bool)))
    for name in extra.column_names:
        if name not in (*hits.column_names, *table.column_names, "snr", "simulated"):
            table = table.append_column(name, extra[name])
    unlike = unlike_training(space.atlas, space.model, LRS, hits)
    if unlike is not None:
        table = table.append_column(UNLIKE, unlike)
    return table


def best_rows(space: Space, top: int, group: bool, by: str = "score") -> pa.Table:
    """The `top` stored rows by score or another column; ties in order of the ids.

    With `group`, one row per star, with `n_visits` (its pairs) and `n_odd_visits` (those of p < 0.01).
    """
    stage = space.atlas.results("anomalies")
    if not stage.exists:
        raise stage.missing()
    keys = stage.read(["source_id", by, "p_value", "lrs_spec_id", "lrs_release"])
    by_score = pc.sort_indices(
        keys, [(by, "descending"), ("lrs_spec_id", "ascending"), ("lrs_release", "ascending")]
    )
    order = by_score.to_numpy()
    star = keys["source_id"].to_numpy()
    _, inverse, visits = np.unique(star, return_inverse=True, return_counts=True)
    odd = np.bincount(inverse, weights=keys["p_value"].to_numpy() < ODD_P).astype(np.int64)
    if group:
        _, first = np.unique(inverse[order], return_index=True)
        order = order[np.sort(first)]
    chosen = order[:top]
    table = take_rows(stage, chosen)
    for name, values in (("n_visits", visits), ("n_odd_visits", odd)):
        table = table.append_column(name, pa.array(values[inverse[chosen]], pa.int64()))
    return table.select([*FIRST, *(name for name in table.column_names if name not in FIRST)])


def _moved_score(table: pa.Table, by: str) -> np.ndarray:
    score = table[by].to_numpy()
    return score * np.exp(STRENGTH * table["learned"].to_numpy()) if "learned" in table.column_names else score


def _with_verdicts(space: Space, table: pa.Table, rows: dict[str, np.ndarray], verdicts: Verdicts) -> pa.Table:
    """Append `verdict` (null if none was given) and `learned`, the shift of each row by verdicts."""
    vectors = np.concatenate(
        [space.index(LRS).vectors(rows["lrs"]), space.index(XP).vectors(rows["xp"])], axis=1
    ) / np.sqrt(2)
    patterns = odd_patterns(np.column_stack([table[f"z_{name}"].to_numpy() for name in NAMES]))
    given = dict(
        zip(
            zip(verdicts.lrs_spec_id.tolist(), verdicts.xp_spec_id.tolist(), strict=True),
            verdicts.verdict.tolist(),
            strict=True,
        )
    )
    words = [
        given.get(pair) for pair in zip(table["lrs_spec_id"].to_pylist(), table["xp_spec_id"].to_pylist(), strict=True)
    ]
    judged = np.array([i for i, word in enumerate(words) if word is not None], dtype=np.int64)
    value = Verdicts(judged, judged, np.array([words[i] for i in judged], dtype=object)).value
    shift = learned_shift(vectors.astype(np.float64), patterns, judged, value)
    return table.append_column("verdict", pa.array(words, pa.string())).append_column("learned", pa.array(shift))


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
    """Columns of `results/anomalies`, one row per pair."""
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
