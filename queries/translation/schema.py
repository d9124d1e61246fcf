"""Columns of the translation errors."""

from __future__ import annotations

import pyarrow as pa

from specclip_search.atlas.schemas import described
from specclip_search.preparation.bands import BANDS

from ..space.windows import WindowSet
from .law_columns import law_fields

# raise when a formula or a column changes: every shard made before is then stale
REVISION = 3


def translations_schema(lrs_windows: WindowSet, xp_windows: WindowSet) -> pa.Schema:
    """Columns of `translations/<model>`; the windows' names stand in the lists' metadata."""
    f32 = pa.float32()
    columns = [
        described("lrs_spec_id", pa.int64(), "LAMOST obsid", ucd="meta.id;meta.main"),
        described("lrs_release", pa.string(), "data release of the LRS spectrum"),
        described("xp_spec_id", pa.int64(), "Gaia XP spectrum of the same star", ucd="meta.id"),
        described("xp_release", pa.string(), "data release of the XP spectrum"),
        described("source_id", pa.int64(), "Gaia source_id of the star", ucd="meta.id"),
        described("lrs_snr", f32, "S/N of the LRS spectrum, g band", ucd="stat.snr"),
        described("xp_snr", f32, "S/N of the XP spectrum, median", ucd="stat.snr"),
        described("xp_color", f32, "log10 of mean XP flux at 640-680 nm over 440-480 nm", ucd="phot.color"),
    ]
    for side, other, unit in (("lrs", "XP", "continuum-normalised flux"), ("xp", "LRS", "flux over flux at 550 nm")):
        name = f"{side.upper()} spectrum predicted from {other} against the observed one"
        columns += [
            described(
                f"{side}_chi2", f32, f"{name}: mean squared residual over noise^2 + model error^2", ucd="stat.fit.chi2"
            ),
            described(f"{side}_l1", f32, f"{name}: mean absolute residual", unit, "stat.fit.residual"),
            described(f"{side}_mse", f32, f"{name}: mean squared residual", f"({unit})^2", "stat.fit.residual"),
            described(f"{side}_pixels", pa.int16(), f"{name}: informative pixels", ucd="meta.number"),
        ]
    for side, windows in (("lrs", lrs_windows), ("xp", xp_windows)):
        text = "residual of each window in sigma (noise and model error); positive where observed lies above predicted"
        entry = described(f"{side}_window_sigma", pa.list_(f32, len(windows)), text)
        columns.append(entry.with_metadata({**entry.metadata, b"windows": ", ".join(windows.names).encode()}))
    for side, text in (("lrs", "raw LRS"), ("xp", "XP")):
        columns.append(
            described(
                f"{side}_sed",
                pa.list_(f32, BANDS),
                f"ln of the {text} flux's mean in {BANDS} bands from 4000 to 8850 Angstrom, less their mean; "
                "NaN where unknown",
                ucd="phot.flux.density",
            )
        )
    return pa.schema([*columns, *law_fields()])
