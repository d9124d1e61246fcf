"""Prepared spectra as rows of the atlas: kept rows, rejected rows, and the shards that hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..atlas.arrays import table_from_columns
from ..atlas.schemas import REJECTED
from ..surveys.batch import prepare_batch

if TYPE_CHECKING:
    from ..atlas import Atlas, Part, Stage
    from ..preparation.prepared import Prepared
    from ..spectrum import Spectrum
    from ..surveys import Modality

_MEASURED = ("good_fraction", "n_repaired", "n_clipped", "scale", "sed")


def spectra_table(
    modality: Modality, spectra: Sequence[Spectrum], prepared: Prepared, *, simulated: bool = False
) -> pa.Table:
    """Rows of `spectra/<modality>` for the kept spectra, in order.

    `meta` of a spectrum fills the columns of the same names; missing values are null. `snr` is the
    g-band value of LAMOST's header if there is one, else the median of flux over error.
    """
    schema = modality.schema
    keep = prepared.keep
    chosen = [spectrum for spectrum, kept in zip(spectra, keep, strict=True) if kept]
    columns: dict[str, Any] = {
        "spec_id": [s.spec_id for s in chosen],
        "simulated": [simulated] * len(chosen),
        "flux": prepared.flux[keep],
        "error": prepared.error[keep],
    }
    columns.update({name: getattr(prepared, name)[keep] for name in _MEASURED if name in schema.names})
    measured = prepared.snr[keep]
    columns["snr"] = [_snr(s, float(m)) for s, m in zip(chosen, measured, strict=True)]
    for field in schema:
        if field.name not in columns:
            columns[field.name] = pa.array([s.meta.get(field.name) for s in chosen], type=field.type)
    return table_from_columns(columns, schema)


def _snr(spectrum: Spectrum, measured: float) -> float | None:
    """The survey's value if there is one, else ours; null instead of NaN (NaN is missing from statistics)."""
    given = spectrum.meta.get("snrg")
    value = measured if given is None else float(given)
    return value if np.isfinite(value) else None


def rejected_table(spectra: Sequence[Spectrum], prepared: Prepared) -> pa.Table:
    """Rows of `rejected/<modality>` for the rejected spectra."""
    places = np.flatnonzero(~prepared.keep)
    return pa.Table.from_pylist(
        [
            {
                "source": spectra[i].meta.get("source", ""),
                "spec_id": spectra[i].spec_id,
                "release": spectra[i].meta.get("release"),
                "reason": str(prepared.reasons[i]),
                "message": prepared.messages[i],
            }
            for i in places.tolist()
        ],
        schema=REJECTED,
    )


def write_part(
    stage: Stage,
    rejected_stage: Stage,
    number: int,
    kept: pa.Table,
    rejected: pa.Table,
    *,
    inputs: str,
    extra: dict[str, Any] | None = None,
    unmade: Counter[str] | None = None,
) -> Part:
    """Write the rejected rows, then the kept rows; the second sidecar commits both.

    The counts (`read`, `kept`, `rejected` by reason) are stored in the sidecar's `extra`. `unmade` adds
    to them, by reason, objects without a spectrum.
    """
    reasons = (unmade or Counter()) + Counter(rejected["reason"].to_pylist())
    accounts = {"read": kept.num_rows + reasons.total(), "kept": kept.num_rows, "rejected": dict(reasons)}
    if rejected.num_rows or rejected_stage.part(number) is not None:
        with rejected_stage.lock():
            rejected_stage.write(number, rejected, schema=REJECTED, inputs=inputs)
    return stage.write(number, kept, schema=kept.schema, inputs=inputs, extra={**(extra or {}), "accounts": accounts})


def write_simulated(
    atlas: Atlas,
    modality: Modality,
    number: int,
    spectra: Sequence[Spectrum],
    *,
    inputs: str,
    extra: dict[str, Any] | None = None,
    unmade: Counter[str] | None = None,
) -> dict[str, Any]:
    """Write simulated spectra as one shard, prepared and rejected in the same way as real ones.

    Parameters
    ----------
    unmade
        Number of stars without a simulated spectrum, by reason; they count as read and rejected.

    Returns
    -------
    dict
        The shard's counts: `read`, `kept`, `rejected` by reason.
    """
    prepared = prepare_batch(modality, spectra)
    kept = spectra_table(modality, spectra, prepared, simulated=True)
    part = write_part(
        atlas.spectra(modality.name),
        atlas.rejected(modality.name),
        number,
        kept,
        rejected_table(spectra, prepared),
        inputs=inputs,
        extra=extra,
        unmade=unmade,
    )
    return dict(part.extra["accounts"])
