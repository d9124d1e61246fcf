"""Observed spectra as rows of the atlas: flux and inverse variance as delivered, rounded to what their errors allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from ..atlas.files import text_digest
from ..atlas.schemas import observed_schema
from ..spectrum import Spectrum
from ..surveys import Modality

# increase when the same spectrum would give another row
REVISION = 1
ROWS_AT_ONCE = 64
MOST_SEGMENTS = 4
# relative difference between a wavelength and its equal steps: 0.1 km/s; float32 wavelengths are rounded to 0.02 km/s
SAME_WAVELENGTH = 3e-7
LEAST_BITS, BITS_BEYOND_NOISE, BITS_WITHOUT_ERROR, IVAR_BITS = 8, 2, 10, 5
_PRECISION = 23


def observed_inputs(spectra_inputs: str) -> str:
    """Digest of the inputs of a shard of observed spectra, from that of the shard of spectra of the same number."""
    return text_digest(f"observed {REVISION}", spectra_inputs)


def observed_table(modality: Modality, spectra: Sequence[Spectrum]) -> pa.Table:
    """Rows of `observed/<modality>`, in order.

    Parameters
    ----------
    spectra
        Spectra as delivered, or degraded ones that have theirs in `observed`.
    """
    schema = observed_schema(modality.has_epochs)
    rows = [_row(spectrum) for spectrum in spectra]
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in schema.names if name in _row_names(rows)}
    for name in ("flux", "ivar"):
        columns[name] = _lists([row[name] for row in rows], schema.field(name).type)
    return pa.Table.from_arrays(
        [value if isinstance(value := columns[f.name], pa.Array) else pa.array(value, type=f.type) for f in schema],
        schema=schema,
    )


def _row_names(rows: list[dict[str, Any]]) -> set[str]:
    return set(rows[0]) if rows else set(observed_schema(True).names)


def batches(table: pa.Table) -> Iterator[pa.Table]:
    """A table in pieces, each of which becomes a row group: one spectrum is read without its whole shard."""
    for start in range(0, table.num_rows, ROWS_AT_ONCE):
        # in one chunk, because the bytes of a row group depend on its chunks
        yield table.slice(start, ROWS_AT_ONCE).combine_chunks()


def _row(spectrum: Spectrum) -> dict[str, Any]:
    one = spectrum.observed or spectrum
    scale = _scale(one.flux)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        flux = np.asarray(one.flux / scale if scale != 1.0 else one.flux, np.float32)
        ivar = np.array(one.ivar * scale**2 if scale != 1.0 else one.ivar, np.float32)
        # false for NaN, too
        usable = (ivar > 0) & (ivar < np.inf) & (np.abs(flux) < np.inf)
    ivar[~usable] = 0.0
    logarithmic, segments = _segments(np.ascontiguousarray(one.wavelength, np.float64).tobytes())
    return {
        "spec_id": spectrum.spec_id,
        "release": spectrum.meta.get("release"),
        "epoch": one.epoch,
        "source": spectrum.meta.get("source"),
        "frame": one.frame,
        "time": one.meta.get("time"),
        "time_scale": one.meta.get("time_scale"),
        "flux_unit": one.meta.get("flux_unit"),
        "scale": scale,
        "logarithmic": logarithmic,
        "segments": segments,
        "wavelength": None if segments is not None else np.asarray(one.wavelength, np.float64),
        "flux": round_flux(flux, ivar),
        "ivar": _rounded(ivar, np.uint32(_PRECISION - IVAR_BITS)),
    }


def _scale(flux: np.ndarray) -> float:
    """1, or a power of ten where float32 could not hold the inverse variance, as of XP in W m-2 nm-1."""
    some = np.abs(flux[:: 1 + len(flux) // 256])
    some = some[np.isfinite(some) & (some > 0)]
    level = float(np.median(some)) if len(some) else 1.0
    return 1.0 if 1e-6 < level < 1e8 else float(10.0 ** np.floor(np.log10(level)))


def round_flux(flux: np.ndarray, ivar: np.ndarray) -> np.ndarray:
    """Flux rounded to the bits that its error leaves meaningful.

    The mantissa keeps 2 bits more than log2 of the signal to noise, and at least 8: the rounding error is below 1/8
    of the flux's own error and below 0.2 % of the flux. Pixels without an error keep 10 bits (Kloewer et al. 2021,
    Nat. Comput. Sci. 1, 713, round binary mantissas in this way).

    Parameters
    ----------
    flux, ivar
        (P,) float32; ivar 0 where there is no measurement.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        square = np.asarray(flux * flux * ivar, np.float32)
    # the exponent of a float is its power of two, and that of the square twice that of the signal to noise
    power = (((square.view(np.uint32) >> 23) & 0xFF).astype(np.int32) - 125) >> 1
    bits = np.clip(power + BITS_BEYOND_NOISE, LEAST_BITS, _PRECISION)
    bits[~(ivar > 0)] = BITS_WITHOUT_ERROR
    return _rounded(flux, (_PRECISION - bits).astype(np.uint32))


def _rounded(values: np.ndarray, dropped: np.ndarray | np.uint32) -> np.ndarray:
    """(P,) float32 with so many of the last bits rounded to zero; what is not finite is kept."""
    one = np.uint32(1)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    cut = one << dropped
    # `cut` is a power of two, so that -cut has ones down to its bit
    rounded = ((bits + (cut >> one)) & (~cut + one)).view(np.float32)
    if not np.isfinite(rounded.sum(dtype=np.float64)):
        rounded = np.where(np.isfinite(rounded) & np.isfinite(values), rounded, values)
    return rounded


def _lists(rows: list[np.ndarray], kind: pa.DataType) -> pa.Array:
    ends = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int32)
    flat = np.concatenate(rows) if rows else np.empty(0, np.float32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(flat), type=kind)


@lru_cache(maxsize=64)
def _segments(wavelength: bytes) -> tuple[bool, list[dict[str, float]] | None]:
    """Whether steps are logarithmic, and a few segments of equal steps; None where there are none."""
    grid = np.frombuffer(wavelength, np.float64)
    if len(grid) < 2 or not np.isfinite(grid).all() or grid[0] <= 0:
        return False, None
    for logarithmic in (False, True):
        places = np.log10(grid) if logarithmic else grid
        step = np.diff(places)
        # a pixel that is missing changes the step by a multiple, rounding by little
        ends = np.flatnonzero(np.abs(step - np.median(step)) > 0.5 * np.median(step)) + 1
        if len(ends) >= MOST_SEGMENTS:
            continue
        edges = [0, *ends.tolist(), len(grid)]
        segments = [_segment(places[a:b]) for a, b in pairwise(edges)]
        if np.abs(wavelengths(logarithmic, segments) / grid - 1).max() < SAME_WAVELENGTH:
            return logarithmic, segments
    return False, None


def _segment(places: np.ndarray) -> dict[str, float]:
    step = (places[-1] - places[0]) / max(len(places) - 1, 1)
    return {"first": float(places[0]), "step": float(step), "pixels": len(places)}


def wavelengths(logarithmic: bool, segments: Sequence[dict[str, float]]) -> np.ndarray:
    """(P,) float64 wavelengths of segments of equal steps."""
    places = np.concatenate([one["first"] + one["step"] * np.arange(one["pixels"]) for one in segments])
    return np.power(10.0, places) if logarithmic else places
