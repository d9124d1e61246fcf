"""Candidates for extremely metal-poor stars: one calibrated probability per star, with its evidence.

Scores are stored in the atlas; the list of candidates is built from them.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.files import NotPermitted, text_digest
from specclip_search.errors import QueryError
from specclip_search.progress import Progress
from specclip_search.surveys import LRS, XP
from specclip_search.tables.provenance import stamp

from ..space.space import Space, open_space
from .flags import UNLIKE
from .known_stars import read_known
from .schema import INSTRUMENTS, emp_schema
from .scores import EmpScores, score_stars

if TYPE_CHECKING:
    import pandas as pd

    from specclip_search.atlas import Atlas

REVISION = 3
SHARD_ROWS = 65_536


def rows_table(space: Space, scores: EmpScores, chosen: np.ndarray) -> pa.Table:
    schema = emp_schema()
    stars = scores.stars
    columns: dict[str, Any] = {"source_id": np.ma.masked_less(stars.source_id[chosen], 0)}
    for side, modality in INSTRUMENTS.items():
        row = stars.row[modality][chosen]
        keys = space.keys(modality) if modality in space.modalities else None
        ids = np.full(len(row), -1, dtype=np.int64)
        release = np.full(len(row), None, dtype=object)
        if keys is not None:
            ids[row >= 0] = keys.spec_id[row[row >= 0]]
            release[row >= 0] = keys.release_names(row[row >= 0])
        columns |= {
            f"{side}_spec_id": np.ma.masked_less(ids, 0),
            f"{side}_release": release,
            f"{side}_snr": stars.snr[modality][chosen],
        }
    columns |= {
        "probability": scores.probability[chosen],
        "feh": scores.feh[chosen],
        "feh_err": scores.feh_err[chosen],
        "flags": scores.flags[chosen],
        **{name: values[chosen] for name, values in scores.parts.items()},
    }
    for name in schema.names:
        if pa.types.is_floating(schema.field(name).type):
            columns[name] = np.ma.masked_invalid(np.asarray(columns[name], dtype=np.float64))
    return table_from_columns({name: columns[name] for name in schema.names}, schema)


def store(space: Space, scores: EmpScores, below: float) -> None:
    """Store the score of every star under `results/emp`."""
    stage, schema = space.atlas.results("emp"), emp_schema()
    inputs = text_digest(
        str(REVISION),
        str(below),
        *(space.index(modality).digest for modality in space.modalities),
        *(space.atlas.catalog(name).digest for name in space.atlas.catalogs()),
        *scores.notes,
    )
    with stage.lock(), stage.replaced() as new:
        blocks = [
            np.arange(start, min(start + SHARD_ROWS, len(scores.stars)))
            for start in range(0, len(scores.stars), SHARD_ROWS)
        ]
        for number, rows in enumerate(blocks):
            new.write(
                number,
                rows_table(space, scores, rows),
                schema=schema,
                inputs=inputs,
                extra={"model": space.model, "below": below, "notes": scores.notes},
            )


def top_rows(space: Space, scores: EmpScores, top: int) -> pd.DataFrame:
    from specclip_search.tables.provenance import to_frame

    from ..views.annotate import annotate
    from ..views.connection import connect

    # what is not known to be a star at all comes last, with its flag
    unlike = np.array([UNLIKE in words.split() for words in scores.flags], dtype=bool)
    feh = np.nan_to_num(scores.feh, nan=9.0)
    order = np.lexsort((scores.stars.source_id, feh, -scores.probability, unlike))[:top]
    table = rows_table(space, scores, order)
    on_xp = np.asarray(table["xp_spec_id"].is_valid())
    hits = pa.table(
        {
            "modality": pa.array(np.where(on_xp, XP, LRS), pa.string()),
            "release": pa.array(
                np.where(on_xp, table["xp_release"].to_pylist(), table["lrs_release"].to_pylist()), pa.string()
            ),
            "spec_id": pa.array(
                np.where(
                    on_xp, table["xp_spec_id"].fill_null(0).to_numpy(), table["lrs_spec_id"].fill_null(0).to_numpy()
                ),
                pa.int64(),
            ),
        }
    )
    with connect(space.atlas) as connection:
        extra = annotate(connection, hits)
    table = table.add_column(0, "rank", pa.array(np.arange(1, table.num_rows + 1)))
    for name in extra.column_names:
        if name in (*hits.column_names, "source_id", "snr"):
            continue
        # the catalogue's [Fe/H] is shown next to the estimate, under a different name
        table = table.append_column(f"catalog_{name}" if name in table.column_names else name, extra[name])
    return to_frame(table)


__all__ = ["EmpScores", "emp_candidates", "score_stars"]


def emp_candidates(
    atlas: Atlas,
    below: float = -3.0,
    known: Any = None,
    top: int = 100,
    model: str | None = None,
    *,
    builtin_seeds: bool = True,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Stars most likely to have [Fe/H] < `below`.

    Parameters
    ----------
    below
        Metallicity limit, between -6 and 0.
    known
        The user's own known metal-poor stars: a file or table with `source_id`, or `ra` and `dec`
        in degrees (matched within 3 arcsec), and `feh` where known.
    top
        Number of rows to return.
    model
        Model of the vectors; the active model by default.
    builtin_seeds
        Also use emulated spectra as reference stars.
    progress
        Called with (done, total, note).

    Returns
    -------
    pandas.DataFrame
        rank, source_id, lrs_spec_id, xp_spec_id, probability, feh (combined estimate), feh_err,
        the probabilities by each source alone (`p_...`: the model's estimator of either instrument, the
        XP networks, the neighbours), evidence of each instrument (`lrs_...`, `xp_...`: labelled
        neighbours' median and scatter, linear estimate, similarity to the nearest EMP seed, seeds
        among the neighbours, similarity to the nearest labelled star, label estimates), flags,
        then position and labels. A star's own label is never used as evidence for it. `.attrs` holds
        model, digests, options, seeds and calibration.

    Raises
    ------
    QueryError
        If there are neither labels nor seeds, or an argument is invalid.
    """
    if not -6.0 <= below <= 0.0:
        raise QueryError(f"below must lie between -6 and 0; found {below:g}.", "-3 is extremely, -2 very metal-poor.")
    if top < 1:
        raise QueryError(f"top must be at least 1; found {top}.", "Ask for one row or more.")
    space = open_space(atlas, model)
    known_stars = None if known is None else read_known(atlas, known)
    scores = score_stars(space, below, known_stars, builtin_seeds, progress)
    try:
        store(space, scores, below)
    except NotPermitted as error:
        warnings.warn(f"The scores are not kept: {error.message}", stacklevel=2)
    frame = top_rows(space, scores, top)
    options = {
        "below": below,
        "known": None if known is None else str(known) if not hasattr(known, "columns") else "table",
        "top": top,
        "builtin_seeds": builtin_seeds,
    }
    return stamp(frame, "emp", options, **space.origin(), notes=scores.notes)
