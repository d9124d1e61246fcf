"""Labels estimated from the spectra found, beside what catalogues say of their stars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from specclip_search.atlas.schemas import described

from ..space.lookup import open_lookup
from ..views.parquet import committed_files, fields_of

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

COLUMNS = ("teff", "logg", "feh", "feh_err")
SUFFIX = "_estimated"


def with_estimates(atlas: Atlas, model: str, hits: pa.Table) -> pa.Table:
    """Hits with `teff_estimated`, `logg_estimated`, `feh_estimated` and `feh_err_estimated`.

    Parameters
    ----------
    model
        Whose estimates, of the vectors that were searched.
    hits
        Rows with modality, spec_id and release.

    Returns
    -------
    pa.Table
        The same rows; the columns are null where a spectrum has no estimate, and absent where the
        atlas has none at all.
    """
    values: dict[str, np.ndarray] = {name: np.full(hits.num_rows, np.nan, np.float32) for name in COLUMNS}
    fields: dict[str, pa.Field] = {}
    for modality in pc.unique(hits["modality"]).to_pylist():
        files = committed_files(atlas.estimates(modality, model).folder)
        if not files:
            continue
        fields |= {field.name: field for field in fields_of(files[0]) if field.name in COLUMNS}
        mine = np.flatnonzero(pc.equal(hits["modality"], modality).to_numpy(zero_copy_only=False))
        lookup = open_lookup(atlas, f"estimates-{model}-{modality}", files, "spec_id")
        query, row = lookup.find(hits["spec_id"].to_numpy()[mine])
        found = lookup.take(row, ["release", *COLUMNS])
        place = mine[query]
        asked = hits["release"].take(pa.array(place)).combine_chunks()
        same = pc.equal(found["release"].combine_chunks(), asked).fill_null(False).to_numpy(zero_copy_only=False)
        for name in COLUMNS:
            values[name][place[same]] = found[name].to_numpy()[same]
    for name, field in fields.items():
        said = {key.decode(): text.decode() for key, text in field.metadata.items()}
        wanted = described(name + SUFFIX, pa.float32(), said["description"], said.get("unit", ""), said.get("ucd", ""))
        hits = hits.append_column(wanted, pa.array(values[name], from_pandas=True))
    return hits
