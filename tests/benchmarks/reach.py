"""What the shared vector knows: labels, translation and retrieval, on real stars that no training saw.

Run: python tests/benchmarks/reach.py ATLAS --shared DIR [--model mini] [--split 9] [--json FILE]

ATLAS holds the library of real XP stars, their simulated LAMOST spectra and the catalogue `apogee`
(`ingest library --stars all`, `simulate`); DIR holds `libraries/miles.npz` and `lamost/`. Split 9 are
the acceptance stars, judged once; split 8 the validation stars. Every sigma is 1.4826 times the
median absolute deviation; every bias is the median.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from specclip_search import LAMOST_LRS, Atlas, load_model, read_spectrum
from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.keys import split_of
from specclip_search.readers.wavelengths import air_to_vacuum
from specclip_search.surveys.batch import prepare_batch
from specclip_search.training.emulator.compare_lamost import MILES_FWHM_A, RESOLUTION, broadened
from specclip_search.training.model import Model

XP, LRS = "gaia_xp", "lamost_lrs"
LABELS = ("teff", "logg", "feh", "alpha_fe")
PUBLISHED_MSE = 3.15e-3
FAINT_MSE = 1e-3  # stars whose noise alone is a third of the published error tell nothing of a translation


def spread(values: np.ndarray) -> tuple[float, float, int]:
    """Robust sigma, median and number of the finite values."""
    values = values[np.isfinite(values)]
    middle = float(np.median(values)) if len(values) else float("nan")
    return float(1.4826 * np.median(np.abs(values - middle))) if len(values) else float("nan"), middle, len(values)


def real_rows(atlas: Atlas, modality: str, columns: list[str], split: int, real_xp: bool) -> dict[str, np.ndarray]:
    """Columns of the spectra of a split's real stars (their simulated LAMOST spectra included)."""
    stars = pq.read_table([part.path for part in atlas.catalog("apogee").parts()], columns=["source_id"])
    known = np.unique(stars["source_id"].to_numpy())
    parts: dict[str, list[np.ndarray]] = {name: [] for name in columns}
    for _, batch in atlas.spectra(modality).iter_batches([*columns, "simulated"]):
        ids = batch["source_id"].fill_null(-1).to_numpy()
        keep = np.isin(ids, known) & (split_of(ids) == split)
        if real_xp:
            keep &= ~batch["simulated"].to_numpy(zero_copy_only=False)
        for name in columns:
            array = batch[name]
            whole = column_to_matrix(array) if name in ("flux", "error") else array.to_numpy(zero_copy_only=False)
            parts[name].append(whole[keep])
    return {name: np.concatenate(values) for name, values in parts.items()}


def xp_labels(atlas: Atlas, model: Model, split: int, tell: Callable[..., None]) -> None:
    """Estimates from XP against APOGEE's labels."""
    stars = real_rows(atlas, XP, ["source_id", "snr", "flux"], split, True)
    names = ["source_id", "teff", "logg", "feh", "alpha_m"]
    table = pq.read_table([part.path for part in atlas.catalog("apogee").parts()], columns=names).to_pandas()
    truth = table.drop_duplicates("source_id").set_index("source_id").reindex(stars["source_id"])
    found = model.estimate(XP, stars["flux"], stars["snr"].astype(float))
    poor = truth["feh"].to_numpy() < -1.5
    for name, column in zip(LABELS, names[1:], strict=True):
        tell(f"XP {name}", *spread(found[name] - truth[column].to_numpy()))
    tell("XP feh below -1.5", *spread((found["feh"] - truth["feh"].to_numpy())[poor]))


def miles_inputs(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Model inputs of MILES stars between 4000 and 7800 K, and teff, logg, feh."""
    from scipy.interpolate import CubicSpline

    with np.load(path, allow_pickle=False) as archive:
        wave, flux = air_to_vacuum(archive["wave_air"].astype(float)), archive["flux"].astype(float)
        labels = np.stack([archive[name].astype(float) for name in LABELS[:3]], axis=1)
    use = np.isfinite(labels).all(axis=1) & np.isfinite(flux).all(axis=1)
    use &= (labels[:, 0] > 4000) & (labels[:, 0] < 7800)
    grid = np.arange(wave[0] + 1.0, wave[-1] - 1.0, 0.5)
    target = np.maximum(MILES_FWHM_A, grid / RESOLUTION)
    seen = broadened(grid, CubicSpline(wave, flux[use], axis=1)(grid), np.full_like(grid, MILES_FWHM_A), target)
    return LAMOST_LRS.prepare(grid, seen), labels[use]


def lamost_inputs(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Model inputs, labels (teff, logg, feh, rv) and S/N of labelled real LAMOST spectra."""
    with open(folder / "labels.csv", encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    spectra = [read_spectrum(folder / "table" / f"{row['obsid']}.fits.gz") for row in rows]
    labels = np.array([[float(row[name]) for name in ("teff", "logg", "feh", "rv")] for row in rows])
    return prepare_batch(LAMOST_LRS, spectra).flux, labels, np.array([float(s.meta["snrg"]) for s in spectra])


def lrs_labels(model: Model, shared: Path, tell: Callable[..., None]) -> None:
    """Estimates from real LRS-like spectra: MILES, and LAMOST itself."""
    inputs, labels = miles_inputs(shared / "libraries" / "miles.npz")
    found = model.estimate(LRS, inputs, np.full(len(inputs), 100.0))
    for i, name in enumerate(LABELS[:3]):
        tell(f"LRS {name}, MILES", *spread(found[name] - labels[:, i]))
    inputs, labels, snr = lamost_inputs(shared / "lamost")
    found = model.estimate(LRS, inputs, snr)
    for i, name in enumerate((*LABELS[:3], "rv")):
        tell(f"LRS {name}, LAMOST", *spread(found[name] - labels[:, i]))


def pairs(atlas: Atlas, model: Model, split: int, tell: Callable[..., None]) -> None:
    """Translation from simulated LRS to the star's real XP, and finding that XP again."""
    xp = real_rows(atlas, XP, ["source_id", "flux", "error"], split, True)
    lrs = real_rows(atlas, LRS, ["source_id", "snrg", "flux"], split, False)
    _, first, second = np.intersect1d(xp["source_id"], lrs["source_id"], return_indices=True)
    flux, error, snr = xp["flux"][first], xp["error"][first].astype(float), lrs["snrg"][second]
    residual = model.translate(LRS, lrs["flux"][second]) - flux
    mse, noise = (residual**2).mean(axis=1), (error**2).mean(axis=1)
    bright = noise < FAINT_MSE
    tell(f"LRS to XP, MSE (published {PUBLISHED_MSE:g}): median star", float(np.median(mse)), 0.0, len(mse))
    tell("LRS to XP, MSE: mean of stars with noise below 1e-3", float(mse[bright].mean()), 0.0, int(bright.sum()))
    own = np.flatnonzero(snr > 30)[:2000]
    a, b = model.embed(XP, flux[own]), model.embed(LRS, lrs["flux"][second][own])
    cosine = b @ a.T
    rank = (cosine > np.diag(cosine)[:, None]).sum(axis=1)
    tell("own XP found from LRS, S/N > 30: R@1", float((rank < 1).mean()), 0.0, len(own))
    tell("own XP found from LRS, S/N > 30: R@10", float((rank < 10).mean()), 0.0, len(own))


def repeats(model: Model, shared: Path, tell: Callable[..., None]) -> None:
    """Visits of one real LAMOST star among each other's ten nearest."""
    with open(shared / "lamost" / "repeat_visits.csv", encoding="utf-8", newline="") as handle:
        group = {row["file"]: row["same_star_group"] for row in csv.DictReader(handle)}
    files = sorted((shared / "lamost").rglob("*.fits.gz"))
    spectra = [read_spectrum(path) for path in files]
    prepared = prepare_batch(LAMOST_LRS, spectra)
    keep = np.flatnonzero(prepared.keep)
    vectors = model.embed(LRS, prepared.flux[keep])
    names = np.array([group.get(files[i].name, "") for i in keep])
    obsid = np.array([spectra[i].spec_id for i in keep])
    cosine = vectors @ vectors.T
    cosine[obsid[:, None] == obsid[None, :]] = -2.0  # the same exposure in two layouts is no second visit
    nearest = np.argsort(-cosine, axis=1)[:, :10]
    same = (names[:, None] == names[None, :]) & (names != "")[:, None] & (obsid[:, None] != obsid[None, :])
    hits = [same[i, nearest[i]].sum() / min(same[i].sum(), 10) for i in np.flatnonzero(same.any(axis=1))]
    tell("repeated LAMOST visits among the ten nearest", float(np.mean(hits)), 0.0, len(hits))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("atlas", type=Path)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="mini")
    parser.add_argument("--split", type=int, choices=(8, 9), default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, object]] = []

    def tell(what: str, value: float, bias: float, count: int) -> None:
        rows.append({"metric": what, "value": value, "bias": bias, "n": count})
        print(f"{what:60s} {value:10.4f}   bias {bias:+9.4f}   n {count}", flush=True)

    atlas, model = Atlas(options.atlas), load_model(options.model)
    print(f"model {model.name} {model.digest[:19]}, split {options.split}")
    xp_labels(atlas, model, options.split, tell)
    lrs_labels(model, options.shared, tell)
    pairs(atlas, model, options.split, tell)
    repeats(model, options.shared, tell)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
