"""Columns of the translations that the laws of residuals give, and what fills them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from specclip_search.atlas.schemas import described

from .double_lined import double_lined
from .matched_filters import LRS_PATTERNS, XP_PATTERNS
from .nuisance_shapes import amplitude, dust_shape, velocity_shape
from .residual_measures import KINDS, SpectrumLaw

PATTERNS = {"lrs": LRS_PATTERNS, "xp": XP_PATTERNS}
UNITS = {"lrs": "Angstrom", "xp": "nm"}
_AGAINST = {
    "free": "against the prediction from the other instrument, dust, velocity and bends left free",
    "own": "against the spectrum that its own vector gives back",
}
SCALARS = ("chi2", "peak", "peak_at")


def law_fields() -> list[pa.Field]:
    """Fields in the order of the table."""
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


def law_values(
    laws: dict[str, SpectrumLaw],
    side: str,
    observed: np.ndarray,
    noise: np.ndarray,
    predicted: np.ndarray,
    given_back: np.ndarray,
) -> dict[str, np.ndarray]:
    """Columns of one instrument's spectra (N, n), by name."""
    from specclip_search.surveys.modality import GAIA_XP, LAMOST_LRS

    values: dict[str, np.ndarray] = {}
    for kind, model in (("free", predicted), ("own", given_back)):
        found = laws[f"{side}.{kind}"].measure(side, kind, observed, noise, model)
        values |= {f"{side}_{kind}_{name}": getattr(found, name).astype(np.float32) for name in (*SCALARS, "patterns")}
    residual = observed - predicted
    if side == "lrs":
        wavelength = np.asarray(LAMOST_LRS.wavelength)
        values["rv"] = amplitude(residual, noise, velocity_shape(predicted, wavelength)).astype(np.float32)
        values["double_lined"] = double_lined(observed, noise, given_back, wavelength).astype(np.float32)
    else:
        shape = dust_shape(predicted, np.asarray(GAIA_XP.wavelength))
        values["reddening"] = amplitude(residual, noise, shape).astype(np.float32)
    return values
