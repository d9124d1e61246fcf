"""One shard of translation errors: both directions for every pair, measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.links import StarLinks
from specclip_search.preparation.bands import known_band_levels
from specclip_search.stages.run import Made
from specclip_search.surveys import GAIA_XP, LAMOST_LRS, LRS, XP

from ..space.pairs import FluxStore, SpectraBlock, StarKeys, read_block, star_color
from ..space.windows import WindowSet
from .learned_errors import LearnedErrors
from .model_error import measure
from .schema import residual_columns, translations_schema

if TYPE_CHECKING:
    from specclip_search.atlas import Part

BATCH_ROWS = 1024
NM_TO_ANGSTROM = 10.0
XP_ANGSTROM = NM_TO_ANGSTROM * np.asarray(GAIA_XP.wavelength)


@dataclass(frozen=True, slots=True)
class Task:
    """Data needed to translate one shard."""

    model: Any
    keys: StarKeys
    links: StarLinks
    lrs_windows: WindowSet
    xp_windows: WindowSet
    xp_wavelength: np.ndarray


def task_of(model: Any, keys: StarKeys, links: StarLinks) -> Task:
    """A task with the windows of the instruments."""
    return Task(model, keys, links, WindowSet.of(LAMOST_LRS), WindowSet.of(GAIA_XP), np.asarray(GAIA_XP.wavelength))


def predict(model: Any, lrs: np.ndarray, xp: np.ndarray) -> tuple[np.ndarray, ...]:
    """XP spectra predicted from LRS, LRS predicted from XP, and the reconstructions of both."""
    lrs, xp = lrs.astype(np.float32), xp.astype(np.float32)
    if hasattr(model, "translate_and_reconstruct"):
        (to_xp, self_lrs), (to_lrs, self_xp) = (
            model.translate_and_reconstruct(LRS, lrs), model.translate_and_reconstruct(XP, xp)
        )  # fmt: skip
        results = to_xp, to_lrs, self_lrs, self_xp
    else:
        # a model from elsewhere, which only has the two
        results = (
            model.translate(LRS, lrs), model.translate(XP, xp), model.reconstruct(LRS, lrs), model.reconstruct(XP, xp)
        )  # fmt: skip
    return tuple(np.asarray(result, dtype=np.float64) for result in results)


def make_shard(task: Task, errors: LearnedErrors, part: Part, position: np.ndarray, store: FluxStore) -> Made:
    """The translation errors of one shard of LAMOST spectra, with its account."""
    schema = translations_schema(task.lrs_windows, task.xp_windows)
    block = read_block(part, task.links)
    tables = list(_shard(task, errors, block, position, store, schema))
    kept = sum(table.num_rows for table in tables)
    account = {
        "model": task.model.name,
        "model_digest": task.model.digest,
        "model_error": errors.digest,
        "read": part.rows,
        "without_star": int((~block.known).sum()),
        "without_partner": int((block.known & (position < 0)).sum()),
        "rejected": int((position >= 0).sum()) - kept,
    }
    return Made(tables or [schema.empty_table()], schema, account, account | {"paired": kept})


def _shard(
    task: Task, errors: LearnedErrors, block: SpectraBlock, position: np.ndarray, store: FluxStore, schema: pa.Schema
) -> Iterator[pa.Table]:
    paired = np.flatnonzero(position >= 0)
    for start in range(0, len(paired), BATCH_ROWS):
        rows = paired[start : start + BATCH_ROWS]
        xp_flux, xp_error, xp_snr = store.take(position[rows])
        lrs_flux, lrs_error = block.flux[rows], block.error[rows]
        to_xp, to_lrs, self_lrs, self_xp = predict(task.model, lrs_flux, xp_flux)
        color = star_color(xp_flux, task.xp_wavelength)
        lrs = measure(lrs_flux, lrs_error, to_lrs, errors.to_lrs, errors.to_lrs.cells(color, xp_snr), task.lrs_windows)
        xp = measure(
            xp_flux, xp_error, to_xp, errors.to_xp, errors.to_xp.cells(color, block.snr[rows]), task.xp_windows
        )
        keys = {
            "lrs_spec_id": block.spec_id[rows],
            "lrs_release": block.release[rows],
            "xp_spec_id": task.keys.spec_id[position[rows]],
            "xp_release": task.keys.release[position[rows]],
            "source_id": block.source_id[rows],
            "lrs_snr": block.snr[rows],
            "xp_snr": xp_snr,
            "xp_color": color.astype(np.float32),
        }
        values = {
            f"{side}_{name}": getattr(result, name)
            for side, result in (("lrs", lrs), ("xp", xp))
            for name in ("chi2", "l1", "mse", "pixels", "window_sigma")
        }
        values["lrs_sed"], values["xp_sed"] = block.sed[rows], known_band_levels(XP_ANGSTROM, xp_flux, xp_error)
        values |= residual_columns(errors.residual_models, "lrs", lrs_flux, lrs_error, to_lrs, self_lrs)
        values |= residual_columns(errors.residual_models, "xp", xp_flux, xp_error, to_xp, self_xp)
        # a non-finite prediction is a failure of the model and counted as rejected
        finite = np.isfinite(lrs.chi2) & np.isfinite(xp.chi2)
        yield table_from_columns(keys | values, schema).filter(pa.array(finite))
