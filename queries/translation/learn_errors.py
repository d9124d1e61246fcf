"""Learn the model error from validation stars; it is stored next to the translations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from specclip_search.atlas.files import text_digest
from specclip_search.errors import QueryError
from specclip_search.surveys import XP

from ..space.pairs import flux_store, read_block, star_color
from ..statistics.learning_stars import learning_rows
from .learned_errors import LearnedErrors, load_errors, save_errors
from .model_error import learn_model_error
from .residual_measures import CROSS, SELF
from .residual_measures import learn as learn_spectrum_model
from .schema import REVISION
from .shard import Task, predict

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas, Part

MIN_VALIDATION_STARS = 150
MAX_LEARNING_STARS = 6000
Plan = dict[int, tuple["Part", np.ndarray, str]]


def learned_errors(atlas: Atlas, task: Task, plan: Plan, folder: Any) -> LearnedErrors:
    """The learned model errors: from disk if still valid, else learned now."""
    origin = text_digest(task.model.digest, str(REVISION), ",".join(task.lrs_windows.names + task.xp_windows.names))
    chosen, split = _learning_stars(task, plan)
    count = sum(len(rows) for rows in chosen.values())
    kept = load_errors(folder)
    # a growing survey keeps its errors unless it has many more stars to learn them from
    if (
        kept is not None
        and kept.origin == origin
        and (count <= 2 * kept.stars or kept.stars >= MAX_LEARNING_STARS // 2)
        and kept.split in (split, "validation")
    ):
        return kept
    errors = _learn(atlas, task, plan, chosen, split, origin, folder)
    save_errors(folder, errors)
    return errors


def _learning_stars(task: Task, plan: Plan) -> tuple[dict[int, np.ndarray], str]:
    """Rows of each shard to learn from: validation stars, else all but acceptance stars, up to a maximum."""
    numbers, rows, ids = [], [], []
    for part_number, (_, position, _) in plan.items():
        paired = np.flatnonzero(position >= 0)
        numbers.append(np.full(len(paired), part_number))
        rows.append(paired)
        ids.append(task.keys.source_id[position[paired]])
    number, row, source_id = np.concatenate(numbers), np.concatenate(rows), np.concatenate(ids)
    chosen, label = learning_rows(source_id, MIN_VALIDATION_STARS, MAX_LEARNING_STARS)
    if len(chosen) == 0:
        raise QueryError(
            "Every paired star belongs to the acceptance split, from which nothing may be learned.",
            "Ingest more stars: the model error is learned from the others.",
        )
    return {int(n): row[chosen[number[chosen] == n]] for n in np.unique(number[chosen])}, label


def _learn(
    atlas: Atlas, task: Task, plan: Plan, chosen: dict[int, np.ndarray], split: str, origin: str, folder: Any
) -> LearnedErrors:
    wanted = np.concatenate([plan[number][1][rows] for number, rows in chosen.items()])
    pieces = []
    with flux_store(atlas, XP, task.keys, wanted, folder) as store:
        for number, rows in chosen.items():
            part, position, _ = plan[number]
            block = read_block(part, task.links)
            xp_flux, xp_error, xp_snr = store.take(position[rows])
            predicted = predict(task.model, block.flux[rows], xp_flux)
            pieces.append(
                (block.flux[rows], block.error[rows], xp_flux, xp_error, block.snr[rows], xp_snr, *predicted)
            )
    arrays = [np.concatenate(piece) for piece in zip(*pieces, strict=True)]
    good = np.isfinite(arrays[6]).all(axis=1) & np.isfinite(arrays[7]).all(axis=1)
    lrs, lrs_noise, xp, xp_noise, lrs_snr, xp_snr, to_xp, to_lrs, self_lrs, self_xp = (array[good] for array in arrays)
    color = star_color(xp, task.xp_wavelength)
    return LearnedErrors(
        learn_model_error(lrs - to_lrs, lrs_noise, color, xp_snr, task.lrs_windows),
        learn_model_error(xp - to_xp, xp_noise, color, lrs_snr, task.xp_windows),
        origin,
        int(good.sum()),
        split,
        {
            f"lrs.{CROSS}": learn_spectrum_model("lrs", CROSS, lrs, lrs_noise, to_lrs),
            f"lrs.{SELF}": learn_spectrum_model("lrs", SELF, lrs, lrs_noise, self_lrs),
            f"xp.{CROSS}": learn_spectrum_model("xp", CROSS, xp, xp_noise, to_xp),
            f"xp.{SELF}": learn_spectrum_model("xp", SELF, xp, xp_noise, self_xp),
        },
    )
