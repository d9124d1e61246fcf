"""How well odd real stars are found among ordinary real ones, beside plain ways to find them.

Odd are stars of a list with XP spectra in the atlas, hot subdwarfs and mean spectra of the earliest and latest types,
and LAMOST spectra whose header says so. Each of the list is also compared with the ordinary stars most like it in
brightness and colour (`specclip_search.queries.statistics.local_density.matched_percentile`): a star must not be called
odd because stars of its brightness or colour are rare.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from specclip_search.atlas.arrays import column_to_matrix
from specclip_search.errors import MissingExtra, QueryError
from specclip_search.spectrum import Spectrum
from specclip_search.surveys import LRS, XP

from ..anomalies.one_instrument import WithinScores, score_within
from ..space.neighbours import nearest_rows
from ..space.spectra import read_columns
from ..statistics.local_density import matched_percentile
from ..views.labels import star_labels
from .measures import Measured, share

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

    from ..space.space import Space

TREES, SAMPLE = 200, 512
K = 32
TOP = 0.01
WIDTHS = (0.5, 0.1)
"""G and BP-RP, in mag, that count as one unit of difference between a star and its controls."""
SNR_WIDTHS = (0.05,)
"""log10 S/N, likewise."""
SUBDWARFS = 30
EVERY_TEMPLATE = 2
FIRST_EXTRA_ID = 6_917_529_027_641_082_752
"""In the acceptance split, as are the 127 that follow: nothing is learned from these spectra."""
EXTRA_RELEASE = "evaluate"
OURS = "this package"
NO_STAR = "GALAXY, QSO or Unknown"
LRS_CLASSES = (
    (re.compile(r"^(d|g|s)?M\d"), "M stars"),
    (re.compile(r"^(D[ABOQZC]|WD)"), "white dwarfs"),
    (re.compile(r"^(C|Carbon)"), "carbon stars"),
    (re.compile(r"(Em|e)$"), "emission"),
)
"""What a subclass in a LAMOST header must look like for the spectrum to count as odd, and as what."""


def isolation_forest(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """(N,) score of Liu, Ting & Zhou 2008 of (N, dim) vectors, high where few cuts isolate a star.

    Raises
    ------
    MissingExtra
        If scikit-learn is not installed.
    """
    try:
        from sklearn.ensemble import IsolationForest
    except ImportError as error:
        raise MissingExtra("scikit-learn", "rivals", "The isolation forest") from error
    forest = IsolationForest(n_estimators=TREES, max_samples=min(SAMPLE, len(vectors)), random_state=seed, n_jobs=1)
    return -np.asarray(forest.fit(vectors).score_samples(vectors))


def all_scores(space: Space, modality: str, seed: int) -> tuple[WithinScores, dict[str, np.ndarray]]:
    """(N,) scores of every spectrum of an instrument by method, high where odd; without scikit-learn no forest."""
    found = score_within(space, modality, K)
    rows = np.arange(len(found.score))
    neighbour, similarity = nearest_rows(space, modality, rows, K)
    last = np.maximum((neighbour >= 0).sum(axis=1) - 1, 0)
    scores = {
        OURS: found.score,
        "local density alone": found.z[:, found.names.index("density")],
        f"distance to neighbour {K}": -similarity[rows, last],
        "reconstruction error": found.measured.chi2.astype(np.float64),
    }
    with suppress(MissingExtra):
        scores["isolation forest"] = isolation_forest(space.index(modality).vectors(rows), seed)
    return found, scores


def _recalls(scores: Mapping[str, np.ndarray], name: str, odd: np.ndarray, ordinary: np.ndarray) -> Iterator[Measured]:
    """Share of odd rows that score as high as the highest 1 % of ordinary ones."""
    for method, score in scores.items():
        limit = np.quantile(score[ordinary], 1.0 - TOP)
        yield share(f"recall above 99 % of ordinary spectra, {method}", name, score[odd] > limit)


def _percentiles(
    scores: Mapping[str, np.ndarray], name: str, odd: np.ndarray, of: np.ndarray, like: np.ndarray,
    widths: tuple[float, ...], alike: str,
) -> Iterator[Measured]:  # fmt: skip
    """Mean share of the 50 ordinary rows most like each odd row that score lower; `of` are those that are averaged."""
    place = np.flatnonzero(np.isin(odd, of))
    for method, score in scores.items():
        values = matched_percentile(score, odd, like, widths)[place]
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        middle = float(values.mean())
        low, high = (float(np.clip(middle + sign * 1.96 * error, 0, 1)) for sign in (-1, 1))
        yield Measured(f"mean percentile among 50 ordinary spectra alike in {alike}, {method}", name, middle, low,
                       high, len(values))


# -- Gaia XP ----------------------------------------------------------------------------------------------------------


def extra_xp(folder: Path, error: np.ndarray, seed: int) -> tuple[list[Spectrum], np.ndarray]:
    """XP spectra that the atlas does not hold, and what each is.

    Parameters
    ----------
    folder
        Holds `hot_subdwarfs.npz` and `xp_mean_templates_B0V_L1V.npz`; either may be absent.
    error
        (343,) relative error to assume where the file gives none.
    """
    spectra: list[Spectrum] = []
    kinds: list[str] = []
    meta = {"release": EXTRA_RELEASE, "source": "evaluate --real"}

    def add(wave: np.ndarray, flux: np.ndarray, sigma: np.ndarray, kind: str) -> None:
        with np.errstate(divide="ignore"):
            ivar = np.where((sigma > 0) & np.isfinite(sigma), sigma**-2.0, 0.0)
        number = FIRST_EXTRA_ID + len(spectra)
        spectra.append(Spectrum(wave, flux, ivar, XP, number, dict(meta, source_id=number)))
        kinds.append(kind)

    path = folder / "hot_subdwarfs.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as archive:
            flux, wave = archive["flux"].astype(np.float64), archive["wave_nm"]
        for row in np.random.default_rng(seed).permutation(len(flux))[:SUBDWARFS]:
            add(wave, flux[row], error * np.abs(flux[row]), "hot subdwarfs")
    path = folder / "xp_mean_templates_B0V_L1V.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as archive:
            flux, sigma, wave = (archive[name].astype(np.float64) for name in ("flux", "flux_error", "wave_nm"))
            types = archive["sptype"].astype(str)
        for row in range(0, len(flux), EVERY_TEMPLATE):
            if types[row][0] in "OBML":
                add(wave, flux[row], sigma[row], "mean spectra of types B" if types[row][0] in "OB" else
                    "mean spectra of types M and L")
    return spectra, np.array(kinds, dtype=object)


def relative_error(space: Space) -> np.ndarray:
    """(343,) median error over flux of the XP spectra in the atlas's first shard."""
    part = space.atlas.spectra(XP).parts()[0]
    table = pq.read_table(part.path, columns=["flux", "error"])
    flux, error = (column_to_matrix(table[name]).astype(np.float64) for name in ("flux", "error"))
    return np.asarray(np.median(error / np.maximum(np.abs(flux), 1e-6), axis=0))


def read_known_odd(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """source_id and kind of a list of known odd stars.

    Raises
    ------
    QueryError
        If a column is missing or a source_id is no integer.
    """
    import pandas as pd

    table = pd.read_csv(path, dtype={"source_id": str})
    missing = {"source_id", "kind"} - set(table.columns)
    if missing:
        raise QueryError(
            f"{path} must have the columns source_id and kind; it has {', '.join(map(str, table.columns))}.",
            "Name the columns so.",
        )
    try:
        ids = np.array([int(text) for text in table["source_id"]], dtype=np.int64)
    except (ValueError, OverflowError, TypeError) as error:
        raise QueryError(
            f"Every source_id of {path} must be a 64-bit integer; {error}.", "Write it with all its digits."
        ) from error
    return ids, table["kind"].astype(str).to_numpy(dtype=object)


def xp_figures(
    space: Space, known: tuple[np.ndarray, np.ndarray], extra: np.ndarray, seed: int, catalogues: Atlas
) -> Iterator[Measured]:
    """Known odd stars with real XP spectra among the others of `space`.

    Parameters
    ----------
    known
        source_id and kind of stars known to be odd.
    extra
        Kind of each of the spectra from `FIRST_EXTRA_ID` on, in order.
    catalogues
        The atlas whose catalogues have magnitudes of the stars.
    """
    _, scores = all_scores(space, XP, seed)
    star = np.asarray(space.keys(XP).source_id)
    rows = {int(number): row for row, number in enumerate(star)}
    there = np.array([int(number) in rows for number in known[0]], dtype=bool)
    odd = np.array([rows[int(number)] for number in known[0][there]], dtype=np.int64)
    kind = known[1][there]
    ordinary = star < FIRST_EXTRA_ID
    ordinary[odd] = False
    yield share("known odd stars in the atlas", "all", there)
    if len(odd):
        labels = star_labels(catalogues, star, ["phot_g_mean_mag", "phot_bp_mean_mag", "phot_rp_mean_mag"])
        yield from _recalls(scores, "known odd stars", odd, ordinary)
        for name in np.unique(kind.astype(str)):
            yield from _recalls({OURS: scores[OURS]}, name, odd[kind == name], ordinary)
        if len(labels) == 3:
            g, bp, rp = labels.values()
            like = np.column_stack([g, bp - rp])
            like[star >= FIRST_EXTRA_ID] = np.nan
            use = odd[np.isfinite(like[odd]).all(axis=1)]
            if len(use):
                yield from _percentiles(scores, "known odd stars", use, use, like, WIDTHS, "G and BP-RP")
    for name in dict.fromkeys(extra.tolist()):
        ids = [FIRST_EXTRA_ID + i for i in np.flatnonzero(extra == name).tolist()]
        own = np.array([rows[star] for star in ids if star in rows])
        if len(own):
            yield from _recalls(scores, name, own, ordinary)


# -- LAMOST LRS -------------------------------------------------------------------------------------------------------


def lrs_kind(object_class: str | None, subclass: str | None) -> str:
    """What a LAMOST header says a spectrum is: a kind of `LRS_CLASSES`, `NO_STAR`, or empty for ordinary stars."""
    if object_class and object_class.upper() not in ("STAR", ""):
        return NO_STAR
    return next((name for pattern, name in LRS_CLASSES if pattern.search(subclass or "")), "")


def lrs_figures(space: Space, kinds: Mapping[int, str], seed: int) -> Iterator[Measured]:
    """Real LRS that are odd by their header, among the ordinary ones of `space`.

    Parameters
    ----------
    kinds
        What each spectrum is, by spec_id; empty for an ordinary star.
    """
    _, scores = all_scores(space, LRS, seed)
    keys = space.keys(LRS)
    kind = np.array([kinds.get(int(number), "") for number in np.asarray(keys.spec_id)], dtype=object)
    snr = read_columns(space, LRS, np.arange(len(kind)), ("snr",))["snr"]
    like = np.log10(np.maximum(np.nan_to_num(snr), 0.1))[:, None]
    odd = np.flatnonzero(kind != "")
    for name in dict.fromkeys(kind[odd].tolist()):
        own = np.flatnonzero(kind == name)
        yield from _recalls(scores, f"LAMOST {name}", own, kind == "")
        yield from _percentiles(scores, f"LAMOST {name}", odd, own, like, SNR_WIDTHS, "S/N")
