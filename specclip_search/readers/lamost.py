"""LAMOST low-resolution spectra: both layouts, every release."""

from __future__ import annotations

import re
import warnings
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import Reason, SpectrumError
from ..keys import INT64_MAX
from ..opening.fits_headers import check_fits
from ..opening.guard import reading
from ..opening.regular import shown_path
from ..spectrum import Spectrum
from ..surveys import LRS
from .content import HEAD_BYTES, Content, kind_of
from .lamost_bytes import OtherLayout, RawLamost, from_columns, from_image, parse, read_bytes
from .wavelengths import air_to_vacuum

# bits of ANDMASK that mark a pixel without a measurement (bad CCD, bad profile, no sky, no data); bright
# sky and a shifted centre are set on usable pixels too
UNUSABLE_BITS = 0b100111
_NAME = re.compile(r"spec-(?P<lmjd>\d+)-(?P<planid>.+)_sp(?P<spid>\d+)-(?P<fiberid>\d+)")
BEIJING_DAYS = 8.0 / 24.0
_MJD_ZERO = datetime(1858, 11, 17)
_NULLS = (-9999.0, -999.0, 99.0)


def read_lamost(path: Path, release: str | None = None, data: bytes | None = None) -> Spectrum:
    """Read one LAMOST LRS file.

    Parameters
    ----------
    path
        FITS file, gzipped or not.
    release
        Data release to record if the header does not give it.
    data
        The file's decompressed bytes, where it is a member of an archive.

    Returns
    -------
    Spectrum
        Vacuum Angstrom, flux as in the file; `ivar` is 0 for pixels without a measurement.

    Raises
    ------
    SpectrumError
        If it cannot be read, is not in a LAMOST layout, or its obsid is not a whole number.
    """
    observed = observe_lamost(path, release, data)
    observed.wavelength, observed.flux, observed.ivar = (
        values.astype(np.float64) for values in (observed.wavelength, observed.flux, observed.ivar))
    return observed


def observe_lamost(path: Path, release: str | None = None, data: bytes | None = None) -> Spectrum:
    """`read_lamost` with the arrays in the file's precision, which needs half the memory."""
    with reading(path, "a LAMOST spectrum"):
        return _observe(path, release, data)


def _observe(path: Path, release: str | None, data: bytes | None) -> Spectrum:
    raw = read_raw(path, data)
    wavelength = raw.wavelength
    if raw.header.get("VACUUM") is False:
        wavelength = air_to_vacuum(wavelength.astype(np.float64))
    return Spectrum(wavelength, raw.flux, usable_ivar(raw), LRS, spec_id(raw, path), meta(raw, path, release))


def read_raw(path: Path, data: bytes | None = None) -> RawLamost:
    """A file's arrays and header, read by `lamost_bytes` if possible, else by astropy."""
    data = read_bytes(path) if data is None else data
    try:
        return parse(data)
    except OtherLayout:
        kind = kind_of(path, data[:HEAD_BYTES])
        if kind != "fits":
            raise SpectrumError(Reason.LAYOUT_UNKNOWN, f"{path} is {kind.upper()}; a FITS file was expected.",
                                "LAMOST delivers its spectra as .fits or .fits.gz.") from None
        return read_with_astropy(path, data)


def read_with_astropy(path: Path, data: bytes) -> RawLamost:
    """The same result as `lamost_bytes`, for any file that astropy can open."""
    from astropy.io import fits

    check_fits(BytesIO(data), shown_path(path))
    try:
        with warnings.catch_warnings(action="ignore"), fits.open(BytesIO(data), memmap=False) as hdus:
            header = {card.keyword: _plain(card.value) for card in hdus[0].header.cards if card.keyword}
            if hdus[0].data is not None and hdus[0].data.ndim == 2 and len(hdus[0].data) >= 3:
                return from_image(hdus[0].data, header)
            table = next((hdu for hdu in hdus[1:] if hdu.is_image is False and hdu.data is not None), None)
            if table is None or not len(table.data):
                raise OtherLayout("no image of 5 rows and no table")
            arrays = {name.upper(): np.atleast_1d(table.data[name][0]) for name in table.columns.names}
            return from_columns(arrays, header)
    except OtherLayout as error:
        raise SpectrumError(
            Reason.LAYOUT_UNKNOWN, f"{path} is FITS, but not in a LAMOST low-resolution layout: {error}.",
            "Expected an image of 5 rows, or a table with FLUX, IVAR and WAVELENGTH.") from None
    except SpectrumError:
        raise
    except Exception as error:  # astropy raises many kinds on damaged files
        raise SpectrumError(Reason.UNREADABLE, f"{path} is damaged or truncated ({_short(error)}).",
                            "Download it again.") from None


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) else None


def usable_ivar(raw: RawLamost) -> np.ndarray:
    """(P,) inverse variance, zero for pixels that the masks mark as without a measurement."""
    if raw.andmask is None or not raw.andmask.any():
        return raw.ivar
    with np.errstate(invalid="ignore"):
        bits = np.nan_to_num(raw.andmask).astype(np.int64)
    return np.where(bits & UNUSABLE_BITS, 0.0, raw.ivar)


def spec_id(raw: RawLamost, path: Path) -> int | None:
    """The exact obsid; None if the header has none.

    Raises
    ------
    SpectrumError
        `layout_unknown`, if the header's OBSID is not a whole number of 64 bits.
    """
    value = raw.header.get("OBSID")
    if value is None:
        return None
    if isinstance(value, str) and value.strip().isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= INT64_MAX:
        raise SpectrumError(Reason.LAYOUT_UNKNOWN, f"{path}: OBSID must be a whole number; found {value!r}.",
                            "An obsid that was stored as a float cannot be trusted; get the original file.")
    return value


def release_name(value: Any) -> str | None:
    """'LAMOST DR7' to 'dr7', 'LAMOST DR13 Q1' to 'dr13q1'; None if the text contains no release."""
    if not isinstance(value, str):
        return None
    name = "".join(value.lower().replace("lamost", "").split())
    return name if name.startswith("dr") else None


def meta(raw: RawLamost, path: Path, release: str | None = None) -> dict[str, Any]:
    """Header values by column name; None if the survey gives none."""
    header, named = raw.header, _NAME.search(path.name)
    parts: dict[str, str] = named.groupdict() if named else {}
    values: dict[str, Any] = {f"snr{band}": _number(header.get(f"SNR{band.upper()}")) for band in "ugriz"}
    values |= {
        "release": release_name(header.get("DATA_V")) or release,
        "source_id": None,
        "ra": _number(header.get("RA")),
        "dec": _number(header.get("DEC")),
        "snr": values["snrg"],
        "z": _number(header.get("Z")),
        "object_class": _text(header.get("CLASS")),
        "subclass": _text(header.get("SUBCLASS")),
        "lmjd": _whole(header.get("LMJD"), parts.get("lmjd"), 2**31),
        "planid": _text(header.get("PLANID")) or parts.get("planid"),
        "spid": _whole(header.get("SPID"), parts.get("spid"), 2**15),
        "fiberid": _whole(header.get("FIBERID"), parts.get("fiberid"), 2**15),
        "fibermask": _whole(_first(header, "FIB_MASK", "FIBERMAS"), None, 2**15),
        "uid": _text(_first(header, "UID", "GP_ID")),
    }
    values["time"] = _middle(header)
    values["time_scale"] = None if values["time"] is None else "MJD_UTC"
    return values


def _middle(header: dict[str, Any]) -> float | None:
    """Middle of the observation, MJD in UTC: DATE-BEG and DATE-END are local, DATE-OBS is UTC."""
    ends = [_mjd(header.get(name)) for name in ("DATE-BEG", "DATE-END")]
    if ends[0] is not None and ends[1] is not None and ends[0] <= ends[1] < ends[0] + 1:
        return (ends[0] + ends[1]) / 2 - BEIJING_DAYS
    return _mjd(header.get("DATE-OBS"))


def _mjd(value: Any) -> float | None:
    try:
        when = datetime.fromisoformat(str(value).strip()).replace(tzinfo=None)
    except ValueError:
        return None
    return (when - _MJD_ZERO).total_seconds() / 86400.0


def _first(header: dict[str, Any], *keys: str) -> Any:
    return next((header[key] for key in keys if header.get(key) is not None), None)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300 or value in _NULLS:
        return None
    return float(value) if value == value else None


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, bool | float):
        return None
    return str(value).strip() or None


def _whole(value: Any, other: str | None, limit: int) -> int | None:
    for candidate in (value, other):
        if isinstance(candidate, str) and candidate.strip().isdigit():
            candidate = int(candidate)
        if isinstance(candidate, int) and not isinstance(candidate, bool) and 0 <= candidate < limit:
            return candidate
    return None


def is_lamost(content: Content) -> bool:
    """Whether a file is from LAMOST, according to its primary header."""
    named = b"LAMOST" in content.head or (b"OBSID   =" in content.head and b"COEFF0  =" in content.head)
    return content.kind == "fits" and named
