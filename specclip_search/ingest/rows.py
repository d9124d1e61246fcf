"""Prepared spectra as rows of the atlas: kept rows, rejected rows, and the shards that hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..atlas.arrays import table_from_columns
from ..atlas.schemas import REJECTED, SPEC_ID, described
from ..opening.regular import shown_text
from ..stages.run import Made
from ..surveys.batch import prepare_batch

if TYPE_CHECKING:
    from ..preparation.prepared import Prepared
    from ..readers.survey_rows import Waiting
    from ..spectrum import Spectrum
    from ..surveys import Modality

#: rows of `waiting/<modality>`: solutions that can be calibrated when their bases are installed
WAITING = pa.schema(
    [
        SPEC_ID,
        described("release", pa.string(), "data release of the solution"),
        described("source", pa.string(), "file the solution was read from, with #row inside a table"),
        described("ra", pa.float64(), "right ascension, ICRS", "deg", "pos.eq.ra;meta.main"),
        described("dec", pa.float64(), "declination, ICRS", "deg", "pos.eq.dec;meta.main"),
        *(
            described(f"{band}_{name}", kind, f"{band.upper()} {text}")
            for band in ("bp", "rp")
            for name, kind, text in (
                ("basis_function_id", pa.int64(), "basis, where the file gives it"),
                ("coefficients", pa.list_(pa.float64()), "coefficients"),
                ("coefficient_errors", pa.list_(pa.float64()), "errors of the coefficients"),
                ("coefficient_correlations", pa.list_(pa.float32()), "correlations below the diagonal, row by row"),
            )
        ),
    ]
)

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


def waiting_table(rows: Sequence[Waiting]) -> pa.Table:
    """Rows of `waiting/<modality>`."""
    columns: dict[str, Any] = {name: [row.kept.get(name) for row in rows] for name in WAITING.names}
    columns["spec_id"] = [row.spec_id for row in rows]
    columns["release"] = [row.release for row in rows]
    columns["source"] = [shown_text(row.source) for row in rows]
    return table_from_columns(columns, WAITING)


def made_spectra(
    kept: pa.Table,
    rejected: pa.Table,
    extra: dict[str, Any] | None = None,
    unmade: Counter[str] | None = None,
    waiting: int = 0,
) -> Made:
    """A shard of spectra for `specclip_search.stages.run.run_stage`, with its accounts in the sidecar's `extra`.

    Parameters
    ----------
    kept, rejected
        Rows of `spectra/<modality>` and of `rejected/<modality>`.
    unmade
        Stars without a spectrum, by reason; they count as read and rejected.
    waiting
        Number of rows in `waiting/<modality>`; they count as read and neither kept nor rejected.
    """
    reasons = (unmade or Counter()) + Counter(rejected["reason"].to_pylist())
    read = kept.num_rows + reasons.total() + waiting
    accounts: dict[str, Any] = {"read": read, "kept": kept.num_rows, "rejected": dict(reasons)}
    if waiting:
        accounts["waiting"] = waiting
    return Made(kept, kept.schema, {**(extra or {}), "accounts": accounts}, rejected=rejected)


def simulated_spectra(
    modality: Modality,
    spectra: Sequence[Spectrum],
    extra: dict[str, Any] | None = None,
    unmade: Counter[str] | None = None,
) -> Made:
    """A shard of simulated spectra, prepared as real ones are; see `made_spectra`."""
    prepared = prepare_batch(modality, spectra)
    kept = spectra_table(modality, spectra, prepared, simulated=True)
    return made_spectra(kept, rejected_table(spectra, prepared), extra, unmade)
