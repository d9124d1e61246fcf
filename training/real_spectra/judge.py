"""How well a model's LRS side serves real spectra: labels, neighbours across instruments, own pairs.

Judged are held-out plates and MILES stars, simulated pairs of the validation split (as simulated, and
corrected to look real), made metal-poor stars, and two real pairs. Sigma is 1.4826 times the median
absolute deviation, bias the median, both of estimate minus catalogue.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from specclip_search.keys import VALIDATION_SPLIT, split_of
from specclip_search.simulation.samples.metal_poor import FIRST_SIMULATED_ID
from specclip_search.surveys import LAMOST_LRS, LRS, XP
from specclip_search.surveys.batch import prepare_arrays

from ..estimators.metrics import robust_sigma
from ..fit.pairs import ArrayPairs
from ..networks.aligned import AlignedModel
from ..networks.label_scale import LABELS, TEFF_UNIT
from ..networks.mini import CENTRE, WIDTH
from .fit import AdaptData, unit_vectors
from .spectra import LAMOST, MASK_BIT

NEIGHBOURS = 20
SCALE = np.array([100.0, 0.2, 0.12])
LabelReader = Callable[[np.ndarray], np.ndarray]


def guide_labels(module: AlignedModel, vectors: np.ndarray) -> np.ndarray:
    """(N, 6) labels by the model's own LRS label guide."""
    with torch.inference_mode():
        mean, _ = module.lamost_lrs_labels(torch.from_numpy(vectors))  # type: ignore[operator]
    centre, width = (np.array([table[name] for name in LABELS]) for table in (CENTRE, WIDTH))
    values = mean.double().numpy() * width + centre
    values[:, 0] = TEFF_UNIT * np.exp(values[:, 0])
    return values


def _spread(residual: np.ndarray) -> list[float]:
    kept = residual[np.isfinite(residual)]
    return [round(robust_sigma(kept), 4), round(float(np.median(kept)), 4)] if len(kept) else [np.nan, np.nan]


def judge(module: AlignedModel, source: ArrayPairs, data: AdaptData, folder: Path | None = None,
          labels_of: LabelReader | None = None) -> dict[str, Any]:
    """Figures of a module; `labels_of` turns LRS vectors into labels (N, 6), by the label guide unless given."""
    labels_of = labels_of or (lambda vectors: guide_labels(module, vectors))
    real = data.real
    use = np.flatnonzero(real.held & real.labelled)
    vectors = unit_vectors(module, LRS, real.inputs[use])
    found, truth, snr = labels_of(vectors), real.labels[use], real.snr[use]
    xp_ids = np.full(len(data.xp), -1, np.int64)
    xp_ids[source.rows[XP]] = source.source_id
    xp_ids[source.alone_rows[XP][0]] = source.alone_rows[XP][1]
    open_xp = (xp_ids >= 0) & (xp_ids < FIRST_SIMULATED_ID) & (split_of(xp_ids) <= VALIDATION_SPLIT)
    library = np.flatnonzero(open_xp & np.isfinite(data.xp_labels[:, :3]).all(axis=1))
    near = nearest_labels(vectors, data.xp_vectors[library], data.xp_labels[library, :3])
    lamost, teff = real.origin[use] == LAMOST, truth[:, 0]
    result: dict[str, Any] = {}
    groups = {"lamost": lamost & (teff > 4000) & (teff < 7000) & (snr > 20),
              "lamost_hot": lamost & (teff > 7000) & (teff < 8500) & (snr > 20),
              "lamost_poor": lamost & (truth[:, 2] < -1.5),
              "miles": ~lamost & (teff > 4000) & (teff < 7800)}
    for group, rows in groups.items():
        one: dict[str, Any] = {"n": int(rows.sum())}
        for i, name in enumerate(LABELS[:3]):
            one[name] = _spread((found - truth)[rows, i])
        one["rv"] = _spread((found - truth)[rows, 5])
        middle = np.median(near[rows], axis=1) - truth[rows, :3]
        one["near_teff"], one["near_logg"], one["near_feh"] = (_spread(middle[:, i]) for i in range(3))
        apart = np.sqrt((((near[rows] - truth[rows, None, :3]) / SCALE) ** 2).sum(-1))
        one["nei"] = round(float(np.median(apart)), 3)
        result[group] = one
    result["simulated"] = judge_pairs(module, source, data, corrected=False)
    result["corrected"] = judge_pairs(module, source, data, corrected=True)
    result["made"] = judge_made(source, data, module, labels_of)
    if folder is not None:
        result["real_pairs"] = judge_real_pairs(module, folder / "pairs" / "real_pairs_lrs_xp.npz",
                                                data.xp_vectors[open_xp])
    return result


def nearest_labels(vectors: np.ndarray, library: np.ndarray, labels: np.ndarray, count: int = NEIGHBOURS) -> np.ndarray:
    """(N, count, 3) labels of the stars of a library (M, dim) nearest by cosine."""
    parts = []
    for start in range(0, len(vectors), 256):
        cosine = vectors[start : start + 256] @ library.T
        parts.append(labels[np.argpartition(-cosine, count, axis=1)[:, :count]])
    return np.concatenate(parts)


def judge_pairs(module: AlignedModel, source: ArrayPairs, data: AdaptData, corrected: bool) -> dict[str, float]:
    """Own XP of validation stars found from their simulated LRS of S/N above 30, among these stars."""
    rows = np.flatnonzero((split_of(source.source_id) == VALIDATION_SPLIT) & (source.source_id < FIRST_SIMULATED_ID))
    xp_rows, lrs_rows = source.rows[XP][rows], source.rows[LRS][rows]
    snr = np.median(data.lrs[lrs_rows] / np.asarray(data.lrs_error[lrs_rows], np.float32), axis=1)
    bright = snr > 30
    xp_rows, lrs_rows = xp_rows[bright], lrs_rows[bright]
    flux = np.asarray(data.lrs[lrs_rows], np.float32)
    if corrected:
        flux = (flux + data.correction.at(data.lrs_labels[lrs_rows])).astype(np.float32)
    vectors, partners = unit_vectors(module, LRS, flux), data.xp_vectors[xp_rows]
    cosine = vectors @ partners.T
    own = np.diag(cosine)
    rank = (cosine > own[:, None]).sum(axis=1)
    back = (cosine > own[None, :]).sum(axis=0)
    with torch.inference_mode():
        predicted = module.translate(LRS, torch.from_numpy(flux)).numpy()
    squared = ((predicted - np.asarray(data.xp[xp_rows], np.float32)) ** 2).mean(axis=1)
    return {"n": len(own), "r1": round(float((rank < 1).mean()), 4), "r10": round(float((rank < 10).mean()), 4),
            "r10_back": round(float((back < 10).mean()), 4), "cosine": round(float(np.median(own)), 4),
            "lrs_to_xp": round(float(np.median(squared)), 5)}


def judge_made(source: ArrayPairs, data: AdaptData, module: AlignedModel, labels_of: LabelReader) -> dict[str, Any]:
    """[Fe/H] of made validation stars below -2."""
    ids = source.source_id
    rows = source.rows[LRS][(split_of(ids) == VALIDATION_SPLIT) & (ids >= FIRST_SIMULATED_ID)]
    rows = rows[data.lrs_labels[rows, 2] < -2.0]
    found = labels_of(unit_vectors(module, LRS, data.lrs[rows]))
    return {"n": len(rows), "feh": _spread(found[:, 2] - data.lrs_labels[rows, 2])}


def judge_real_pairs(module: AlignedModel, path: Path, library: np.ndarray) -> dict[str, Any]:
    """Place of the own XP of stars with a real LRS and a real XP among `library` (M, dim), and the cosines."""
    from specclip_search.surveys import GAIA_XP

    with np.load(path, allow_pickle=False) as archive:
        wave = 10.0 ** (float(archive["loglam0"]) + float(archive["dloglam"]) * np.arange(archive["lrs_flux"].shape[1]))
        ivar = np.where(archive["lrs_mask"] & MASK_BIT, 0.0, archive["lrs_ivar"])
        lrs = prepare_arrays(LAMOST_LRS, wave, archive["lrs_flux"], ivar).flux
        xp = GAIA_XP.prepare(archive["xp_wave_nm"], archive["xp_flux"]).astype(np.float32)
    a, b = unit_vectors(module, LRS, lrs), unit_vectors(module, XP, xp)
    own = (a * b).sum(axis=1)
    places = ((a @ library.T) > own[:, None]).sum(axis=1) + 1
    return {"places": places.tolist(), "cosine": own.round(3).tolist(), "among": len(library)}
