"""Units, descriptions and UCDs of columns by name, for the output of every command.

Columns that already have such metadata, as those read from an atlas do, are unchanged. UCDs are from
the IVOA's list (UCD1+ controlled vocabulary 1.5).
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from ..atlas.schemas import said_of

if TYPE_CHECKING:
    import pyarrow as pa

# name -> (description, unit, ucd) of columns that occur only in search results
_RESULTS = {
    "modality": ("instrument of the spectrum", "", "instr"),
    "rank": ("place in the list, from 1", "", "meta.number"),
    "similarity": ("cosine of the two vectors, from -1 to 1; 1 is alike", "", "stat.correlation"),
    "label_source": ("catalogue that the first of teff, logg and feh comes from", "", "meta.ref"),
    "target": ("what was searched with", "", "meta.id"),
    "nearest_target": ("the target that this spectrum is most like", "", "meta.id"),
    "other_spec_id": ("the same star's spectrum in the other instrument", "", "meta.id"),
    "n_visits": ("number of scored pairs of the star", "", "meta.number"),
    "n_odd_visits": ("number of these with p < 0.01", "", "meta.number"),
    "verdict": ("a user's verdict: interesting, artifact or normal", "", "meta.note"),
    "score": ("score; high is odd", "", "stat.value"),
    "p_value": ("chance of a value as extreme or more", "", "stat.probability"),
    "q_value": ("false-discovery rate of the list that ends here", "", "stat.probability"),
    "probability": ("probability of what was asked for", "", "stat.probability"),
    "kind": ("likely kind", "", "meta.code.class"),
    "reason": ("why, in words", "", "meta.note"),
    "separation_arcsec": ("angle between the two positions", "arcsec", "pos.angDistance"),
    "candidates": ("right rows within the radius of the left row; above 1 is ambiguous", "", "meta.number"),
    "wavelength": ("wavelength; LRS in Angstrom in vacuum, XP in nm", "", "em.wl"),
    "flux": ("flux as the model sees it: LRS over continuum, XP over flux at 550 nm", "", "phot.flux.density"),
    "lrs_spec_id": ("LAMOST obsid", "", "meta.id"),
    "xp_spec_id": ("Gaia XP spectrum", "", "meta.id"),
    "lrs_simulated": ("true where the LRS spectrum is simulated", "", "meta.code"),
    "xp_simulated": ("true where the XP spectrum is simulated", "", "meta.code"),
}
_SUFFIX = re.compile(r"(_right|_left|_lrs|_xp|_estimated|_true)$")
_PREFIX = re.compile(r"^(lrs|xp|estimated|true|median)_")
_VISIT_SNR = re.compile(r"snr_?[ugriz]?")


def meaning_of(name: str) -> dict[str, str]:
    """`description`, `unit` and `ucd` of a column by its name, as far as known.

    A name with a prefix or suffix (`teff_xp`, `lrs_snr`, `ra_right`) has the meaning of the plain name.
    `meta.main` is removed from identifiers that are not the table's first key.
    """
    known = _known()
    if name in known:
        return dict(known[name])
    bare = _PREFIX.sub("", _SUFFIX.sub("", name))
    if bare not in known and _VISIT_SNR.fullmatch(bare):
        bare = "snr"
    said = dict(known.get(bare, {}))
    if "ucd" in said:
        said["ucd"] = said["ucd"].removesuffix(";meta.main")
    return said


def all_known() -> dict[str, dict[str, str]]:
    """`meaning_of` of every name that has one of its own."""
    return {name: meaning_of(name) for name in _known()}


def with_known(table: pa.Table) -> pa.Table:
    """The table with known metadata added to columns that have none."""
    import pyarrow as pa

    fields = [_field(field) for field in table.schema]
    seen: set[str] = set()
    for i, field in enumerate(fields):
        ucd = (field.metadata or {}).get(b"ucd", b"").decode("utf-8", "replace")
        if not ucd.endswith(";meta.main"):
            continue
        if ucd in seen:  # one main identifier and one main position per table
            fields[i] = field.with_metadata(
                {**field.metadata, b"ucd": ucd.removesuffix(";meta.main").encode()}
            )
        seen.add(ucd)
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields, metadata=table.schema.metadata))


def _field(field: pa.Field) -> pa.Field:
    import pyarrow as pa

    if field.metadata and b"description" in field.metadata:
        return field
    said = meaning_of(field.name)
    if not (pa.types.is_integer(field.type) or pa.types.is_floating(field.type)):
        said.pop("unit", None)
    # the column's own metadata take precedence
    own = said_of(field)
    return field.with_metadata(said | own) if said else field


@cache
def _known() -> dict[str, dict[str, str]]:
    from ..labels import KNOWN
    from ..surveys import MODALITIES

    known = {name: _said(*what) for name, what in _RESULTS.items()}
    for modality in MODALITIES.values():
        for field in modality.schema:
            if field.name not in known and field.name not in ("source", "error"):
                known[field.name] = said_of(field)
    known |= {name: _said(label.description, label.unit, label.ucd) for name, label in KNOWN.items()}
    return known


def _said(description: str, unit: str, ucd: str) -> dict[str, str]:
    return {key: text for key, text in (("description", description), ("unit", unit), ("ucd", ucd)) if text}
