"""Evaluation of labels and searches on real spectra: what a folder of LAMOST, MILES and XP spectra says of a model.

The folder is laid out as the data's own README describes; docs/real_spectra.md names the files and their columns.
Labels are judged on plates and stars that taught no weight (`specclip_search.training.real_spectra.spectra`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specclip_search.errors import QueryError
from specclip_search.progress import Progress
from specclip_search.readers.registry import read_spectrum
from specclip_search.spectrum import Spectrum
from specclip_search.surveys import LRS, XP
from specclip_search.tables.provenance import stamp
from specclip_search.training.real_spectra.spectra import read_real

from ..space.space import open_space
from .measures import Measured
from .real_lrs import PAIRS_FILE, flag_figures, label_figures, neighbour_figures, pair_figures
from .real_odd import EXTRA_RELEASE, extra_xp, lrs_figures, lrs_kind, read_known_odd, relative_error, xp_figures
from .scratch import scratch_space

if TYPE_CHECKING:
    import pandas as pd

    from specclip_search.atlas import Atlas

LAMOST_FILES = Path("lamost") / "dr5_mixed"
KNOWN_ODD = Path("xp_real") / "known_odd_given.csv"
FEWEST_SPECTRA = 200
"""Fewest LAMOST spectra among which odd ones are looked for."""


def evaluate_real(
    atlas: Atlas, folder: Path, model: str | None = None, *, seed: int = 0, progress: Progress | None = None
) -> pd.DataFrame:
    """Figures of merit from real spectra, one row each.

    Parameters
    ----------
    atlas
        Holds real XP stars with labels, embedded and indexed; they are searched, and are the ordinary stars.
    folder
        Holds `lamost_real/` and `libraries/miles.npz`; `pairs/`, `xp_real/` and `lamost/` are used if there.
    model
        Model of the vectors; the active model by default.
    seed
        Random seed of the resampling and of the choice of subdwarfs.
    progress
        Called with (done, total, note).

    Returns
    -------
    pandas.DataFrame
        metric, class, value, low, high (95 %), n; see `docs/real_spectra.md`.

    Raises
    ------
    QueryError
        If the atlas has no XP vectors, or the folder is not laid out as described.
    CheckpointError
        If a file of labelled spectra is missing.
    """
    import pandas as pd

    space = open_space(atlas, model)
    space.require(XP)
    if not folder.is_dir():
        raise QueryError(
            f"A folder of real spectra was expected at {folder}; there is none.",
            "Give the folder that holds lamost_real/ and libraries/: evaluate --real DIR",
        )
    real = read_real(folder)
    loaded = space.loaded_model()
    steps: list[tuple[str, Callable[[], Iterator[Measured]]]] = [
        ("labels", lambda: label_figures(loaded, real, seed)),
        ("neighbours", lambda: neighbour_figures(loaded, real, space, seed)),
        ("flags", lambda: flag_figures(loaded, real)),
    ]
    if (folder / PAIRS_FILE).is_file():
        steps.append(("pairs", lambda: pair_figures(loaded, folder / PAIRS_FILE, space)))
    with tempfile.TemporaryDirectory(prefix="specclip-evaluate-") as scratch:
        steps.append(("odd LRS", lambda: _odd_lrs(folder, Path(scratch), loaded, seed)))
        if (folder / KNOWN_ODD).is_file():
            steps.append(("odd XP", lambda: _odd_xp(folder, Path(scratch), atlas, model, loaded, seed)))
        measured: list[Measured] = []
        for done, (note, step) in enumerate(steps):
            if progress is not None:
                progress(done, len(steps), note)
            measured += step()
    frame = pd.DataFrame([figure.row() for figure in measured])
    frame["n"] = frame["n"].astype(np.int64)
    return stamp(frame, "evaluate", {"real": str(folder), "seed": seed}, **space.origin())


def _odd_xp(
    folder: Path, scratch: Path, atlas: Atlas, model: str | None, loaded: Any, seed: int
) -> Iterator[Measured]:
    own = open_space(atlas, model)
    spectra, kinds = extra_xp((folder / KNOWN_ODD).parent, relative_error(own), seed)
    known = read_known_odd(folder / KNOWN_ODD)
    space, _ = scratch_space(scratch / "xp", XP, spectra, loaded, beside=own)
    yield from xp_figures(space, known, kinds, seed, atlas)


def _odd_lrs(folder: Path, scratch: Path, loaded: Any, seed: int) -> Iterator[Measured]:
    spectra, kinds = lamost_spectra(folder)
    if len(spectra) >= FEWEST_SPECTRA:
        space, _ = scratch_space(scratch / "lrs", LRS, spectra, loaded)
        yield from lrs_figures(space, kinds, seed)


def lamost_spectra(folder: Path) -> tuple[list[Spectrum], dict[int, str]]:
    """All LAMOST spectra of a data folder, and what each is by the id it is given here (see `lrs_kind`)."""
    import pandas as pd

    source = folder / "lamost_real"
    table = pd.read_csv(source / "labels.csv")
    with np.load(source / "spectra.npz", allow_pickle=False) as archive:
        flux, ivar, mask = (archive[name] for name in ("flux", "ivar", "mask"))
        wave = 10.0 ** (float(archive["loglam0"]) + float(archive["dloglam"]) * np.arange(flux.shape[1]))
    spectra, kinds = [], {}
    for row in range(len(flux)):
        number = row + 1
        # one split a star; a DR1 spectrum may have no obsid
        meta = {"release": EXTRA_RELEASE, "source_id": 128 * int(table["star_group"][row]) + 1,
                "snrg": float(table["snrg"][row])}
        weight = np.where(mask[row] & 1, 0.0, ivar[row]).astype(np.float64)
        spectra.append(Spectrum(wave, flux[row].astype(np.float64), weight, LRS, number, meta))
        kinds[number] = lrs_kind(str(table["cls"][row]), str(table["subclass"][row]))
    for path in sorted((folder / LAMOST_FILES).glob("*.fits*")) if (folder / LAMOST_FILES).is_dir() else ():
        one, number = read_spectrum(path), len(spectra) + 1
        kinds[number] = lrs_kind(one.meta.get("object_class"), one.meta.get("subclass"))
        meta = {"release": EXTRA_RELEASE, "source_id": 2**40 + 128 * number, "snrg": one.meta.get("snrg")}
        spectra.append(Spectrum(one.wavelength, one.flux, one.ivar, LRS, number, meta))
    return spectra, kinds
