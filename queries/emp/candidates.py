"""Candidates for extremely metal-poor stars: one calibrated probability per star, with its evidence.

Scores are stored in the atlas; the list of candidates is built from them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.files import NotPermitted, file_digest, text_digest
from specclip_search.errors import AtlasError, QueryError
from specclip_search.progress import Progress
from specclip_search.surveys import LRS, XP
from specclip_search.tables.provenance import stamped, to_frame

from ..space.space import Space, open_space
from .schema import INSTRUMENTS, UNLIKE, emp_schema

if TYPE_CHECKING:
    import pandas as pd

    from specclip_search.atlas import Atlas

    from .known_stars import KnownStars
    from .scores import EmpScores

# increase when a formula of the evidence, of its combination or of the flags changes: stored scores are then
# computed again
REVISION = 5
SHARD_ROWS = 65_536
# a model's weights, whose digest its vectors' sidecars hold already
MODEL_WEIGHTS = "weights.safetensors"


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


def store(space: Space, scores: EmpScores, below: float, inputs: str = "") -> None:
    """Store the score of every star under `results/emp`; `inputs` is the digest of what they were made from."""
    stage, schema = space.atlas.results("emp"), emp_schema()
    extra = {"model": space.model, "below": below, "notes": scores.notes}
    with stage.lock(), stage.replaced() as new:
        for number, start in enumerate(range(0, len(scores.stars), SHARD_ROWS)):
            rows = np.arange(start, min(start + SHARD_ROWS, len(scores.stars)))
            new.write(number, rows_table(space, scores, rows), schema=schema, inputs=inputs, extra=extra)


def _inputs(space: Space, below: float, known: KnownStars | None, builtin_seeds: bool) -> str:
    """Digest of everything the scores depend on."""
    listed = "" if known is None else repr(
        (known.source_id.tolist(), known.feh.tolist(), known.c_fe.tolist(), known.listed, known.by, known.notes)
    )
    return text_digest(
        str(REVISION),
        repr(float(below)),
        listed,
        str(builtin_seeds),
        space.model_digest(),
        *(f"{name}:{space.index(name).digest}:{space.index(name).how}" for name in space.modalities),
        *(f"{name}:{space.atlas.spectra(name).digest}" for name in space.modalities),
        *(f"{name}:{space.atlas.catalog(name).digest}" for name in space.atlas.catalogs()),
        *(f"{name}:{digest}" for name, digest in _learned_digests(space)),
    )


def _learned_digests(space: Space) -> Iterator[tuple[str, str]]:
    """Digests of all that was learned: what lies beside the model's weights, and what is shipped."""
    own = space.atlas.model_folder(space.model)
    shipped = files("specclip_search.training").joinpath("weights")
    folders = [own, files(__package__).joinpath("weights"),
               files("specclip_search.training.xp_metallicity").joinpath("weights"),
               *(shipped.iterdir() if shipped.is_dir() else ())]
    for folder in folders:
        for file in sorted(folder.iterdir(), key=lambda one: one.name) if folder.is_dir() else ():
            if file.is_file() and file.name != MODEL_WEIGHTS:
                yield f"{folder.name}/{file.name}", file_digest(Path(str(file)))


def _read_known(atlas: Atlas, known: Any) -> KnownStars:
    from .known_stars import read_known

    return read_known(atlas, known)


def _kept_notes(space: Space, inputs: str) -> list[str] | None:
    """Notes beside the stored scores, where these are made from `inputs`; None where they are not."""
    try:
        parts = space.atlas.results("emp").parts()
    except AtlasError:
        # shards are missing or damaged: they are made again
        return None
    current = bool(parts) and all(part.inputs == inputs for part in parts)
    return list(parts[0].extra["notes"]) if current else None


def top_rows(space: Space, scores: EmpScores | None, top: int) -> pa.Table:
    """The best candidates, from `scores` or, by default, from those that are stored."""
    from ..views.annotate import annotate
    from ..views.connection import connect
    from ..views.parquet import take_rows

    stage = space.atlas.results("emp")
    if scores is None:
        everyone = stage.read(["source_id", "probability", "feh", "flags"])
    else:
        everyone = rows_table(space, scores, np.arange(len(scores.stars)))
    # what is not known to be a star at all comes last, with its flag
    unlike = np.asarray(pc.match_substring(everyone["flags"], UNLIKE))
    feh = np.nan_to_num(everyone["feh"].to_numpy().astype(np.float64), nan=9.0)
    source_id = everyone["source_id"].fill_null(-1).to_numpy()
    order = np.lexsort((source_id, feh, -everyone["probability"].to_numpy(), unlike))[:top]
    table = take_rows(stage, order) if scores is None else everyone.take(pa.array(order))
    on_xp = np.asarray(table["xp_spec_id"].is_valid())
    xp_id, lrs_id = (table[f"{side}_spec_id"].fill_null(0).to_numpy() for side in ("xp", "lrs"))
    xp_release, lrs_release = (table[f"{side}_release"].to_pylist() for side in ("xp", "lrs"))
    hits = pa.table(
        {
            "modality": pa.array(np.where(on_xp, XP, LRS), pa.string()),
            "release": pa.array(np.where(on_xp, xp_release, lrs_release), pa.string()),
            "spec_id": pa.array(np.where(on_xp, xp_id, lrs_id), pa.int64()),
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
    return table


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

    Scores of all stars are computed once and stored under `results/emp`. They are computed again when `below`,
    `known`, the vectors, indexes, catalogues, estimators or the code's formulas have changed.

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
    return to_frame(
        emp_table(atlas, below, known, top, model, builtin_seeds=builtin_seeds, progress=progress)
    )


def emp_table(
    atlas: Atlas,
    below: float = -3.0,
    known: Any = None,
    top: int = 100,
    model: str | None = None,
    *,
    builtin_seeds: bool = True,
    progress: Progress | None = None,
) -> pa.Table:
    """As `emp_candidates`, as an Arrow table with the provenance in its metadata: nothing of pandas is loaded."""
    if not -6.0 <= below <= 0.0:
        raise QueryError(f"below must lie between -6 and 0; found {below:g}.", "-3 is extremely, -2 very metal-poor.")
    if top < 1:
        raise QueryError(f"top must be at least 1; found {top}.", "Ask for one row or more.")
    space = open_space(atlas, model)
    known_stars = None if known is None else _read_known(atlas, known)
    inputs = _inputs(space, below, known_stars, builtin_seeds)
    scores, notes = None, _kept_notes(space, inputs)
    if notes is None:
        from .scores import score_stars

        scores = score_stars(space, below, known_stars, builtin_seeds, progress)
        notes = scores.notes
        try:
            store(space, scores, below, inputs)
            scores = None
        except NotPermitted as error:
            warnings.warn(f"The scores are not kept: {error.message}", stacklevel=2)
    table = top_rows(space, scores, top)
    options = {
        "below": below,
        "known": None if known is None else str(known) if not hasattr(known, "columns") else "table",
        "top": top,
        "builtin_seeds": builtin_seeds,
    }
    return stamped(table, "emp", options, **space.origin(), notes=notes)
