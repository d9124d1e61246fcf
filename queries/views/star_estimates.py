"""Labels estimated from a star's own spectra, as columns of the view `stars`: `teff_xp`, `feh_lrs`, ..."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from specclip_search.atlas.schemas import described, said_of
from specclip_search.surveys import PAIR
from specclip_search.training.networks.label_scale import UNLIKE_TRAINING

from ..space.lookup import open_lookup
from .parquet import fields_of, read_parquet_sql

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas

UNLIKE = described(
    "object_unlike_training", pa.bool_(), "the LRS spectrum is unlike those of all training stars: it may not be a star"
)

# instrument -> its suffix, and the columns of `stars` with the key of its best spectrum
_SIDES = {
    modality.name: (modality.short, f"{modality.prefix}_spec_id", f"{modality.prefix}_release")
    for modality in reversed(PAIR)
}
_LABELS = ("teff", "logg", "feh", "alpha_fe", "c_fe", "rv")
_MORE = {"flag": "flag_{0}", "feh_p_below_m2": "feh_{0}_p_below_m2", "feh_p_below_m3": "feh_{0}_p_below_m3"}


@dataclass(frozen=True, slots=True)
class Estimates:
    """Label estimates of one instrument's spectra.

    Attributes
    ----------
    modality
        The instrument.
    files
        Parquet files of the estimates.
    columns
        Column of the estimates -> its field in `stars`.
    """

    modality: str
    files: tuple[str, ...]
    columns: Mapping[str, pa.Field]

    def join(self, alias: str) -> str:
        """LEFT JOIN of the best spectrum's estimates to the rows `k` of stars."""
        _, spec_id, release = _SIDES[self.modality]
        chosen = ", ".join(["spec_id", "release", *self.columns])
        return (
            f"LEFT JOIN (SELECT {chosen} FROM {read_parquet_sql(self.files)}) {alias} "
            f"ON {alias}.spec_id = k.{spec_id} AND {alias}.release = k.{release}"
        )


def star_estimates(atlas: Atlas, model: str | None, modalities: Sequence[str]) -> list[Estimates]:
    """Estimates of the active model's vectors, of each instrument that has any."""
    found = []
    for modality in modalities if model is not None else ():
        files = atlas.estimates(modality, model).paths()
        if files and modality in _SIDES:
            have = {field.name: field for field in fields_of(files[0])}
            found.append(Estimates(modality, tuple(files), _columns(_SIDES[modality][0], have)))
    return found


def unlike_training(atlas: Atlas, model: str, modality: str, hits: pa.Table) -> pa.Array | None:
    """(N,) bool: the flag `object_unlike_training` of the estimates of spectra; None if the atlas has no estimates.

    Parameters
    ----------
    hits
        Rows with spec_id and release of one instrument's spectra; null for those without an estimate.
    """
    files = atlas.estimates(modality, model).paths()
    if not files:
        return None
    lookup = open_lookup(atlas, f"estimates-{model}-{modality}", files, "spec_id")
    query, row = lookup.find(hits["spec_id"].fill_null(-1).to_numpy())
    found = lookup.take(row, ["release", "flag"])
    same = pc.equal(found["release"].combine_chunks(), hits["release"].take(pa.array(query)).combine_chunks())
    use = same.fill_null(False).to_numpy(zero_copy_only=False)
    flagged, known = np.zeros(hits.num_rows, dtype=bool), np.zeros(hits.num_rows, dtype=bool)
    flagged[query[use]] = (found["flag"].to_numpy()[use] & UNLIKE_TRAINING) > 0
    known[query[use]] = True
    return pa.array(flagged, mask=~known)


def _columns(side: str, have: Mapping[str, pa.Field]) -> dict[str, pa.Field]:
    """Fields of `stars` by the column of the estimates; XP spectra are too coarse for velocities."""
    names = {}
    for label in _LABELS:
        if label != "rv" or side == "lrs":
            names[label] = f"{label}_{side}"
            names[f"{label}_err"] = f"{label}_{side}_err"
    names |= {column: name.format(side) for column, name in _MORE.items()}
    return {column: _renamed(have[column], name, side) for column, name in names.items() if column in have}


def _renamed(field: pa.Field, name: str, side: str) -> pa.Field:
    said = said_of(field)
    text = f"{said.get('description', field.name)}; {side.upper()} spectrum"
    return described(name, field.type, text, said.get("unit", ""), said.get("ucd", "").removesuffix(";meta.main"))
