"""Spectra that no atlas holds, as a temporary atlas: prepared, embedded and indexed like any others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from specclip_search.atlas import Atlas
from specclip_search.errors import QueryError
from specclip_search.indexing.build.build import build_index
from specclip_search.indexing.vectors.embed import Embedder, embed
from specclip_search.ingest.rows import rejected_table, spectra_table
from specclip_search.surveys import get_modality
from specclip_search.surveys.batch import prepare_batch

from ..space.space import Space, open_space

if TYPE_CHECKING:
    from specclip_search.spectrum import Spectrum

BLOCK_ROWS = 2048


def scratch_space(
    folder: Path, modality: str, spectra: Sequence[Spectrum], model: Embedder, beside: Space | None = None
) -> tuple[Space, dict[str, int]]:
    """The space of some spectra of one instrument, and how many were rejected for each reason.

    Parameters
    ----------
    folder
        Where the temporary atlas is made; must not exist.
    spectra
        Each with a `spec_id` and a `release`, unlike those of any other.
    beside
        An atlas's space whose spectra of the instrument are copied, and come first.

    Raises
    ------
    QueryError
        If no spectrum can be prepared.
    """
    atlas, reasons, number = Atlas.create(folder), dict[str, int](), 0
    stage, survey = atlas.spectra(modality), get_modality(modality)
    with stage.lock():
        for part in beside.atlas.spectra(modality).parts() if beside is not None else ():
            table = pq.read_table(part.path)
            stage.write(number, table, schema=table.schema, inputs=part.digest)
            number += 1
        for start in range(0, len(spectra), BLOCK_ROWS):
            block = list(spectra[start : start + BLOCK_ROWS])
            prepared = prepare_batch(survey, block)
            for reason in rejected_table(block, prepared)["reason"].to_pylist():
                reasons[reason] = reasons.get(reason, 0) + 1
            kept: pa.Table = spectra_table(survey, block, prepared)
            if kept.num_rows:
                stage.write(number, kept, schema=kept.schema, inputs=f"scratch {start}")
                number += 1
    if number == 0:
        raise QueryError(
            f"Spectra of {modality} were expected; none of {len(spectra)} can be prepared "
            f"({', '.join(sorted(reasons)) or 'no rows'}).",
            "Copy the data folder again.",
        )
    embed(atlas, model, [modality])
    build_index(atlas, model.name, modality)
    return open_space(atlas, model.name), reasons
