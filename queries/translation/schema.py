"""Columns of the translation errors, and the values of those that come from the residual models.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from specclip_search.atlas.schemas import described
from specclip_search.preparation.bands import BANDS

from ..space.windows import WindowSet
from .double_lined import double_lined
from .matched_filters import LRS_PATTERNS, XP_PATTERNS
from .nuisance_shapes import amplitude, dust_shape, velocity_shape
from .residual_measures import CROSS, KINDS, SELF, SpectrumResidualModel

PATTERNS = {"lrs": LRS_PATTERNS, "xp": XP_PATTERNS}
UNITS = {"lrs": "Angstrom", "xp": "nm"}
_AGAINST = {
    CROSS: "against the prediction from the other instrument, dust, velocity and bends left free",
    SELF: "against the spectrum that its own vector gives back",
}
SCALARS = ("chi2", "peak", "peak_at")


def residual_fields() -> list[pa.Field]:
    """Fields of the residual measures, in the order of the table."""
    f32 = pa.float32()
    columns = []
    for side in ("lrs", "xp"):
        for kind in KINDS:
            text = f"{side.upper()} {_AGAINST[kind]}"
            names = ", ".join(PATTERNS[side])
            entry = described(
                f"{side}_{kind}_patterns", pa.list_(f32, len(PATTERNS[side])), f"{text}: matched filters of {names}",
                "sigma",
            )  # fmt: skip
            columns += [
                described(f"{side}_{kind}_chi2", f32, f"{text}: r C^-1 r a pixel", ucd="stat.fit.chi2"),
                described(f"{side}_{kind}_peak", f32, f"{text}: strongest narrow feature, signed", "sigma",
                          "stat.fit.residual"),
                described(f"{side}_{kind}_peak_at", f32, f"{text}: where that is", UNITS[side], "em.wl"),
                entry.with_metadata({**entry.metadata, b"patterns": names.encode()}),
            ]  # fmt: skip
    columns += [
        described("rv", f32, "velocity shift of LRS against its prediction from XP, first order", "km/s",
                  "spect.dopplerVeloc"),
        described("reddening", f32, "E(B-V) of XP beyond its prediction from LRS, first order", "mag",
                  "phot.color.excess"),
        described("double_lined", f32, "share of LRS lines' scatter that a second, moved copy explains"),
    ]  # fmt: skip
    return columns


def residual_columns(
    models: dict[str, SpectrumResidualModel],
    side: str,
    observed: np.ndarray,
    noise: np.ndarray,
    predicted: np.ndarray,
    reconstructed: np.ndarray,
) -> dict[str, np.ndarray]:
    """Residual measures of one instrument's spectra (N, n), by column name."""
    from specclip_search.surveys import GAIA_XP, LAMOST_LRS

    values: dict[str, np.ndarray] = {}
    for kind, expected in ((CROSS, predicted), (SELF, reconstructed)):
        found = models[f"{side}.{kind}"].measure(side, kind, observed, noise, expected)
        values |= {f"{side}_{kind}_{name}": getattr(found, name).astype(np.float32) for name in (*SCALARS, "patterns")}
    residual = observed - predicted
    if side == "lrs":
        wavelength = np.asarray(LAMOST_LRS.wavelength)
        values["rv"] = amplitude(residual, noise, velocity_shape(predicted, wavelength)).astype(np.float32)
        values["double_lined"] = double_lined(observed, noise, reconstructed, wavelength).astype(np.float32)
    else:
        shape = dust_shape(predicted, np.asarray(GAIA_XP.wavelength))
        values["reddening"] = amplitude(residual, noise, shape).astype(np.float32)
    return values


# increase when a formula or a column changes: existing shards then become stale
REVISION = 4


def translations_schema(lrs_windows: WindowSet, xp_windows: WindowSet) -> pa.Schema:
    """Columns of `translations/<model>`; the windows' names are in the metadata of the list columns."""
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
    return pa.schema([*columns, *residual_fields()])
