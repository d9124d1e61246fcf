"""Columns of the atlas's own tables; units and descriptions are stored in the Parquet field metadata."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa


def described(name: str, kind: pa.DataType, description: str, unit: str = "", ucd: str = "") -> pa.Field:
    """An Arrow field with unit and description as metadata; exports and DESCRIBE read them back."""
    metadata = {"description": description}
    if unit:
        metadata["unit"] = unit
    if ucd:
        metadata["ucd"] = ucd
    return pa.field(name, kind, metadata=metadata)


def said_of(field: pa.Field) -> dict[str, str]:
    """Unit, description and UCD of a column, those that it has; bytes that are no text are shown as such."""
    said = (field.metadata or {}).items()
    return {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in said}


ENCODING = b"encoding"
"""Metadata of a field that names the Parquet encoding of its values."""

SPEC_ID = described(
    "spec_id", pa.int64(), "key of the spectrum: LAMOST obsid or Gaia source_id", ucd="meta.id;meta.main"
)
SOURCE_ID = described("source_id", pa.int64(), "Gaia source_id of the star; null where unknown", ucd="meta.id")
RELEASE = described("release", pa.string(), "data release the spectrum comes from")
EPOCH = described(
    "epoch", pa.int64(), "number of the visit or exposure; null for a combined spectrum", ucd="meta.id"
)

_COMMON = [
    SPEC_ID,
    SOURCE_ID,
    RELEASE,
    described("source", pa.string(), "file the spectrum was read from, with #row inside a table"),
    described("simulated", pa.bool_(), "true where the spectrum is simulated, not observed"),
    described("ra", pa.float64(), "right ascension, ICRS", "deg", "pos.eq.ra;meta.main"),
    described("dec", pa.float64(), "declination, ICRS", "deg", "pos.eq.dec;meta.main"),
    described("snr", pa.float32(), "signal to noise a pixel: LRS g band, XP median", ucd="stat.snr"),
]

_QUALITY = [
    described("good_fraction", pa.float32(), "fraction of good pixels in the model's window", ucd="meta.code.qual"),
    described("n_repaired", pa.int16(), "masked pixels in the window that were interpolated over", ucd="meta.number"),
    described(
        "n_clipped", pa.int16(), "pixels in the window without positive continuum (LRS) or flux (XP)", ucd="meta.number"
    ),
]

REJECTED = pa.schema(
    [
        described("source", pa.string(), "file, with #row inside a table"),
        described("spec_id", pa.int64(), "key of the spectrum, where it could be read", ucd="meta.id;meta.main"),
        RELEASE,
        described("reason", pa.string(), "reason code", ucd="meta.code.error"),
        described("message", pa.string(), "what was expected and what was found"),
    ]
)


def spectra_schema(columns: Iterable[pa.Field], size: int) -> pa.Schema:
    """Columns of a `spectra` stage: common ones, an instrument's own `columns`, and `size` grid points."""
    flux = described("flux", pa.list_(pa.float32(), size), "the model's input on the modality's grid")
    error = described(
        "error", pa.list_(pa.float16(), size), "1 sigma of flux, same units; inf where a pixel says nothing"
    )
    return pa.schema([*_COMMON, *columns, *_QUALITY, flux, error])


def observed_schema(has_epochs: bool) -> pa.Schema:
    """Columns of `observed/<modality>`: spectra as delivered, over their full range.

    Pixel i of a segment is at `first + step * i`, or at 10 to that power where `logarithmic`. The array `wavelength`
    is null unless the spectrum is not sampled at equal steps.
    """
    segment = pa.struct([("first", pa.float64()), ("step", pa.float64()), ("pixels", pa.int32())])
    return pa.schema(
        [
            SPEC_ID,
            RELEASE,
            *([EPOCH] if has_epochs else []),
            described("source", pa.string(), "file the spectrum was read from, with #row inside a table"),
            described("frame", pa.string(), "barycentric, rest or observed: what the wavelengths are relative to"),
            described("time", pa.float64(), "middle of the observation, modified Julian date", "d", "time.epoch"),
            described("time_scale", pa.string(), "time scale of `time`, for example MJD_UTC"),
            described("flux_unit", pa.string(), "unit of flux * scale; null where the survey gives none"),
            described("scale", pa.float64(), "a power of ten; the delivered flux is flux * scale"),
            described("logarithmic", pa.bool_(), "whether the segments are steps in log10 of the wavelength"),
            described("segments", pa.list_(segment), "pixels at equal steps, vacuum; null where `wavelength` is given"),
            _packed("wavelength", pa.float64(), "wavelengths in vacuum; null where `segments` are given"),
            _packed("flux", pa.float32(), "flux as delivered over scale; rounded by at most 1/8 of its error"),
            _packed("ivar", pa.float32(), "inverse variance of flux, to 1.6 %; 0 for a pixel without a measurement"),
        ]
    )


def _packed(name: str, kind: pa.DataType, description: str) -> pa.Field:
    """A list of numbers whose bytes are stored place by place: rounded numbers compress well so."""
    field = described(name, pa.list_(kind), description)
    return field.with_metadata({**field.metadata, ENCODING: b"BYTE_STREAM_SPLIT"})


def vectors_schema(dim: int, has_epochs: bool = False) -> pa.Schema:
    """Columns of `vectors/<model>/<modality>` for vectors of `dim` numbers."""
    return pa.schema(
        [
            SPEC_ID,
            SOURCE_ID,
            RELEASE,
            *([EPOCH] if has_epochs else []),
            described("vector", pa.list_(pa.float16(), dim), "shared vector of unit length"),
            described("norm", pa.float32(), "length of the vector before it was made unit"),
        ]
    )


_ESTIMATED = {
    "teff": ("effective temperature", "K", "phys.temperature.effective"),
    "logg": ("surface gravity, log10(cm s-2)", "dex", "phys.gravity"),
    "feh": ("[Fe/H]", "dex", "phys.abund.Fe"),
    "alpha_fe": ("[alpha/Fe]", "dex", "phys.abund"),
    "c_fe": ("[C/Fe]", "dex", "phys.abund"),
    "rv": ("radial velocity; null where the instrument shows none", "km/s", "spect.dopplerVeloc.opt"),
}


def estimates_schema() -> pa.Schema:
    """Columns of `estimates/<model>/<modality>`: labels estimated from shared vectors."""
    fields = [SPEC_ID, SOURCE_ID, RELEASE]
    for name, (text, unit, ucd) in _ESTIMATED.items():
        fields.append(described(name, pa.float32(), f"{text}, estimated from the vector", unit, ucd))
        fields.append(described(f"{name}_err", pa.float32(), f"1 sigma error of {name}", unit, f"stat.error;{ucd}"))
    fields += [
        described(
            "flag",
            pa.int32(),
            "0 is good; bits: 1 far from the training stars, 2 a value out of their range, 4 S/N below theirs, "
            "8 S/N unknown, 16 c_fe extrapolated to high [Fe/H], 32 errors half as wide as the training sample, "
            "64 hotter than any star of known [Fe/H], 128 spectrum unlike those of all training stars (LRS)",
            ucd="meta.code.qual",
        ),
        described("distance", pa.float32(), "from the training stars; 1 is typical of them", ucd="meta.code.qual"),
    ]
    return pa.schema(
        [
            *fields,
            described("feh_p_below_m2", pa.float32(), "probability of [Fe/H] below -2", ucd="stat.probability"),
            described("feh_p_below_m3", pa.float32(), "probability of [Fe/H] below -3", ucd="stat.probability"),
        ]
    )
