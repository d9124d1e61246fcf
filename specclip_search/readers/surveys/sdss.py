"""SDSS, BOSS and SDSS-V optical spectra: ``spec-*.fits`` lite and full, and the ``spSpec`` images to DR7."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from ...constants import C_KM_S
from ...errors import Reason, SpectrumError
from ...spectrum import Spectrum
from ..containers.fits_bytes import Hdu, number_of, open_fits, text_of
from ..content import Content
from ..registry import Reader, ReadOptions
from ..survey_rows import Refused, good_ivar, ivar_of_error, median_snr, signed64, whole

MODALITY = "sdss"
FLUX_UNIT = "1e-17 erg s-1 cm-2 Angstrom-1"
LOG_STEP = 1e-4
# SPPIXMASK, https://www.sdss.org/dr17/algorithms/bitmasks: NOPLUG, BADTRACE, BADFLAT, BADARC, FULLREJECT, NOSKY,
# NODATA, COMBINEREJ and REDMONSTER; bright sky, cross-talk and single rejected exposures leave a measurement
UNUSABLE_BITS = 0b1111 | 1 << 18 | 1 << 22 | 1 << 24 | 1 << 25 | 1 << 28
SPSPEC_RESOLUTION = 1850.0  # York et al. 2000, AJ 120, 1579: 1850 to 2200; these files do not say it
_EXPOSURE = re.compile(r"([BR])(\d)-(\d{4,})")


def is_sdss(content: Content) -> bool:
    """Whether a file is an optical SDSS spectrum, by its primary header."""
    head = content.head
    optical = b"SDSS 2.5-M" in head or b"LCO Du Pont" in head or b"BOSSVER" in head
    return content.kind == "fits" and optical and (b"PLATEID" in head or b"FIELDID" in head or b"CONFID" in head)


def read_sdss(content: Content, options: ReadOptions) -> Iterator[Spectrum | Refused]:
    """The combined spectrum, then, where asked for, one a single exposure.

    Raises
    ------
    SpectrumError
        `layout_unknown`, where the file holds no spectrum.
    """
    hdus = open_fits(content)
    if len(hdus[0].shape) == 2:
        yield _spspec(content, hdus, options)
        return
    if len(hdus) < 2 or not hdus[1].is_table or not {"FLUX", "LOGLAM", "IVAR"} <= set(hdus[1].columns()):
        raise SpectrumError(
            Reason.LAYOUT_UNKNOWN,
            f"{content.path} is of SDSS, but holds no spectrum.",
            "Expected spec-*.fits with columns flux, loglam and ivar, or an spSpec image.",
        )
    about = _about(hdus)
    meta = _meta(hdus[0].header, about, options, content)
    key = _spec_id(hdus[0].header, about)
    if str(about.get("OBJTYPE", "")).upper() == "SKY":
        yield Refused(str(content.path), key, meta["release"], Reason.SKY_FIBRE, "the fibre looked at empty sky")
        return
    epoch = about.get("MJD") if _is_sdss5(about) else None
    yield _spectrum(hdus[1], dict(meta), key, whole(epoch))
    if options.epochs:
        yield from _exposures(hdus, meta, key)


def _spectrum(hdu: Hdu, meta: dict[str, Any], key: int | None, epoch: int | None) -> Spectrum:
    columns = hdu.columns()
    flux = np.asarray(columns["FLUX"], np.float64)
    mask = columns.get("AND_MASK", columns.get("MASK"))
    bad = None if mask is None else (np.asarray(mask, np.int64) & UNUSABLE_BITS) != 0
    ivar = good_ivar(flux, columns["IVAR"], bad)
    meta["snr"] = meta.get("snr") or median_snr(flux, ivar)
    resolution = _resolution(columns.get("WDISP"))
    wavelength = np.power(10.0, np.asarray(columns["LOGLAM"], np.float64))
    order = slice(None) if wavelength[0] < wavelength[-1] else slice(None, None, -1)
    return Spectrum(
        wavelength[order],
        flux[order],
        ivar[order],
        MODALITY,
        key,
        meta,
        epoch,
        "barycentric",
        None if resolution is None else resolution[order],
    )


def _resolution(dispersion: np.ndarray | None) -> np.ndarray | None:
    """(P,) resolving power from the line spread's sigma in pixels of 1e-4 dex; 0 becomes NaN."""
    if dispersion is None:
        return None
    sigma = np.asarray(dispersion, np.float64)
    with np.errstate(divide="ignore"):
        power = 1.0 / (np.sqrt(8.0 * np.log(2.0)) * sigma * LOG_STEP * np.log(10.0))
    return np.where(sigma > 0, power, np.nan)


def _exposures(hdus: list[Hdu], meta: dict[str, Any], key: int | None) -> Iterator[Spectrum]:
    """One spectrum an exposure: the blue and the red camera's, cut at the middle of their overlap."""
    groups: dict[int, list[Hdu]] = {}
    for hdu in hdus[2:]:
        if not hdu.is_table or not {"FLUX", "LOGLAM", "IVAR"} <= set(hdu.columns()):
            continue
        named = _EXPOSURE.match(hdu.name)
        digits = named[3] if named else re.sub(r"\D", "", hdu.name)[:18]
        groups.setdefault(int(digits or 0), []).append(hdu)
    for number, parts in sorted(groups.items()):
        arms = [_spectrum(part, {**meta, "snr": None}, key, number) for part in parts]
        arms.sort(key=lambda one: float(one.wavelength[0]))
        one = arms[0] if len(arms) == 1 else _cut_and_join(arms)
        header = parts[0].header
        begin, end = number_of(header.get("TAI-BEG")), number_of(header.get("TAI-END"))
        if begin and end:
            one.meta |= {"time": (begin + end) / 2 / 86400.0, "time_scale": "MJD_TAI"}
        one.meta["snr"] = median_snr(one.flux, one.ivar)
        yield one


def _cut_and_join(arms: list[Spectrum]) -> Spectrum:
    """Arms sampled differently, each as far as the middle of its overlap with the next."""
    cuts = [-np.inf, *((a.wavelength[-1] + b.wavelength[0]) / 2 for a, b in pairwise(arms)), np.inf]
    kept = [
        (low <= arm.wavelength) & (arm.wavelength < high)
        for arm, low, high in zip(arms, cuts[:-1], cuts[1:], strict=True)
    ]
    wavelength, flux, ivar = (
        np.concatenate([np.asarray(getattr(arm, name))[keep] for arm, keep in zip(arms, kept, strict=True)])
        for name in ("wavelength", "flux", "ivar")
    )
    power = [
        np.broadcast_to(np.nan if arm.resolution is None else arm.resolution, keep.shape)[keep]
        for arm, keep in zip(arms, kept, strict=True)
    ]
    first = arms[0]
    return Spectrum(
        wavelength, flux, ivar, MODALITY, first.spec_id, first.meta, first.epoch, first.frame, np.concatenate(power)
    )


class _Row(dict[str, Any]):
    """One row of a table, its values read when asked for."""

    def __init__(self, columns: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self._columns = columns

    def get(self, name: str, default: Any = None) -> Any:
        if name not in self._columns or self._columns[name].ndim != 1:
            return default
        value = self._columns[name][0]
        return text_of(value) if isinstance(value, bytes) else value

    def __contains__(self, name: object) -> bool:
        return name in self._columns


def _about(hdus: list[Hdu]) -> dict[str, Any]:
    """The file's row of the survey's table of spectra (SPECOBJ, SPALL), by column in capitals."""
    for hdu in hdus[2:4]:
        if hdu.is_table and hdu.header.get("NAXIS2") == 1:
            return _Row(hdu.columns())
    return {}


def _is_sdss5(about: dict[str, Any]) -> bool:
    return (whole(about.get("CATALOGID")) is not None and about.get("SPECOBJID") is None) or "SDSS_ID" in about


def _meta(header: Any, about: dict[str, Any], options: ReadOptions, content: Content) -> dict[str, Any]:
    run2d = text_of(about.get("RUN2D")) or text_of(header.get("RUN2D"))
    ra, dec = (
        next((number for name in names if (number := number_of(about.get(name))) is not None), None)
        for names in (("PLUG_RA", "RACAT", "RA"), ("PLUG_DEC", "DECCAT", "DEC"))
    )
    redshift, kind = number_of(about.get("Z")), text_of(about.get("CLASS"))
    return {
        "release": options.release or run2d,
        "source_id": None,
        "source": str(content.path),
        "instrument": "BOSS" if header.get("BOSSVER") is not None or _is_sdss5(about) else "SDSS",
        "ra": ra if ra is not None else number_of(header.get("PLUG_RA")),
        "dec": dec if dec is not None else number_of(header.get("PLUG_DEC")),
        "snr": number_of(about.get("SN_MEDIAN_ALL")),
        "z": redshift,
        "rv": redshift * C_KM_S if redshift is not None and kind == "STAR" else None,
        "object_class": kind,
        "subclass": text_of(about.get("SUBCLASS")),
        "zwarning": whole(about.get("ZWARNING")),
        "plate": whole(about.get("PLATE", about.get("FIELD", header.get("PLATEID")))),
        "mjd": whole(about.get("MJD", header.get("MJD"))),
        "fiberid": whole(about.get("FIBERID", header.get("FIBERID"))),
        "medium": "air" if header.get("VACUUM") is False else "vacuum",
        "flux_unit": FLUX_UNIT,
    }


def _spec_id(header: Any, about: dict[str, Any]) -> int | None:
    """The survey's id as int64: SPECOBJID to SDSS-IV (computed where the file lacks it), CATALOGID in SDSS-V."""
    if _is_sdss5(about):
        return whole(about.get("CATALOGID"))
    given = about.get("SPECOBJID")
    digits = str(given).strip() if given is not None else ""
    if digits.isdigit() and int(digits) < 2**64:
        return signed64(int(digits))
    found = [
        whole(about.get(name, header.get(other)))
        for name, other in (("PLATE", "PLATEID"), ("FIBERID", "FIBERID"), ("MJD", "MJD"))
    ]
    return _computed_id(found, text_of(about.get("RUN2D")) or text_of(header.get("RUN2D")) or "")


def _computed_id(parts: list[int | None], run2d: str) -> int | None:
    """The id of plate, fibre and MJD; None where one is not known."""
    plate, fiber, mjd = parts
    return None if plate is None or fiber is None or mjd is None else spec_obj_id(plate, fiber, mjd, run2d)


def spec_obj_id(plate: int, fiber: int, mjd: int, run2d: str) -> int | None:
    """SDSS's specObjID as the int64 of its bits; plates from 8192 on have negative ones.

    Parameters
    ----------
    run2d
        Version of the reduction: ``26``, ``103``, ``104`` (SDSS-I/II) or ``v5_10_0``.

    Notes
    -----
    Bits: plate 50-63, fibre 38-49, MJD - 50000 24-37, run2d 10-23 (SDSS DR8 data model, specObj).
    """
    version = re.fullmatch(r"v(\d+)_(\d+)_(\d+)", run2d)
    number = int(run2d) if run2d.isdigit() else None
    if version:
        number = (int(version[1]) - 5) * 10000 + int(version[2]) * 100 + int(version[3])
    parts = ((plate, 14, 50), (fiber, 12, 38), (mjd - 50000, 14, 24), (number, 14, 10))
    if any(value is None or not 0 <= value < 1 << bits for value, bits, _ in parts):
        return None
    return signed64(sum(int(value or 0) << shift for value, _, shift in parts))


def _spspec(content: Content, hdus: list[Hdu], options: ReadOptions) -> Spectrum:
    """SDSS-I/II to DR7: image rows are flux, continuum-subtracted flux, error, mask."""
    header, image = hdus[0].header, hdus[0].image()
    start, step = number_of(header.get("COEFF0")), number_of(header.get("COEFF1"))
    if start is None or step is None or len(image) < 4:
        raise SpectrumError(
            Reason.LAYOUT_UNKNOWN,
            f"{content.path} is an SDSS image of {len(image)} rows without COEFF0 and COEFF1.",
            "Expected an spSpec file with rows flux, -, error, mask.",
        )
    flux = np.asarray(image[0], np.float64)
    ivar = ivar_of_error(flux, image[2], (np.asarray(image[3], np.int64) & UNUSABLE_BITS) != 0)
    meta = _meta(
        header, {"RA": header.get("RAOBJ"), "DEC": header.get("DECOBJ"), "Z": header.get("Z")}, options, content
    )
    meta |= {"instrument": "SDSS", "release": options.release or "dr7", "snr": median_snr(flux, ivar)}
    key = _computed_id([whole(header.get(name)) for name in ("PLATEID", "FIBERID", "MJD")], "26")
    wavelength = np.power(10.0, start + step * np.arange(len(flux)))
    return Spectrum(wavelength, flux, ivar, MODALITY, key, meta, None, "barycentric", SPSPEC_RESOLUTION)


READER = Reader("sdss", "SDSS, BOSS and SDSS-V optical spectra (spec-*.fits, spSpec-*.fit)", is_sdss, read_sdss)
