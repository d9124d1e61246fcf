"""LAMOST medium-resolution spectra: ``med-*.fits``, blue and red arm, combined and single exposures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...errors import Reason, SpectrumError
from ...spectrum import Spectrum
from .. import lamost
from ..containers.fits_bytes import Hdu, number_of, open_fits
from ..content import Content
from ..lamost_bytes import RawLamost
from ..registry import Reader, ReadOptions
from ..survey_rows import Refused, good_ivar, join_arms, median_snr
from ..wavelengths import air_to_vacuum

MODALITY = "lamost_mrs"
RESOLUTION = 7500.0  # Liu et al. 2020, arXiv:2005.07210
_NAME = re.compile(r"med-(?P<lmjd>\d+)-(?P<planid>.+)_sp(?P<spid>\d+)-(?P<fiberid>\d+)")
_EXPOSURE = re.compile(r"([BR])-(\d{6,10})")


def is_lamost_mrs(content: Content) -> bool:
    """Whether a file is of LAMOST's medium-resolution survey."""
    head = content.head
    return content.kind == "fits" and b"LAMOST" in head and (b"= 'med-" in head or b"COMBIN_B=" in head)


def read_lamost_mrs(content: Content, options: ReadOptions) -> Iterator[Spectrum | Refused]:
    """The combined spectrum of both arms, then, where asked for, one a single exposure.

    Raises
    ------
    SpectrumError
        `layout_unknown`, where no arm is found.
    """
    hdus = open_fits(content)
    header = hdus[0].header
    raw = RawLamost(np.empty(0), np.empty(0), np.empty(0), None, header)
    key = lamost.spec_id(raw, content.path)
    meta = _meta(raw, content, options)
    combined = [hdu for hdu in hdus if hdu.name in ("COADD_B", "COADD_R")]
    exposures: dict[int, list[Hdu]] = {}
    for hdu in hdus:
        named = _EXPOSURE.fullmatch(hdu.name)
        if named:
            exposures.setdefault(int(named[2]), []).append(hdu)
    if not combined and not exposures:
        raise SpectrumError(
            Reason.LAYOUT_UNKNOWN,
            f"{content.path} is of LAMOST's medium-resolution survey, but has "
            "neither COADD_B nor COADD_R nor single exposures.",
            "Get the file again.",
        )
    if str(header.get("FIBERTYP", "")).strip().lower() == "sky":
        yield Refused(str(content.path), key, meta["release"], Reason.SKY_FIBRE, "the fibre looked at empty sky")
        return
    if combined:
        yield _spectrum(combined, header, dict(meta), key, None)
    if options.epochs or not combined:
        for minute, parts in sorted(exposures.items()):
            exposure = number_of(parts[0].header.get("EXPTIME")) or 0.0
            days = minute / 1440.0 + exposure / 2 / 86400.0 - lamost.BEIJING_DAYS
            yield _spectrum(parts, header, {**meta, "time": days, "time_scale": "MJD_UTC"}, key, minute)


def _spectrum(arms: list[Hdu], header: Any, meta: dict[str, Any], key: int | None, epoch: int | None) -> Spectrum:
    parts = []
    for hdu in sorted(arms, key=lambda one: one.name):
        arm = _arm(hdu, header)
        meta[f"snr_{'b' if '_B' in hdu.name or hdu.name.startswith('B-') else 'r'}"] = number_of(hdu.header.get("SNR"))
        parts.append(arm)
    wavelength, flux, ivar = (np.squeeze(values, 0) if values.ndim == 2 else values for values in join_arms(parts))
    meta["snr"] = median_snr(flux, ivar)
    frame = "observed" if header.get("HELIO") is False else "barycentric"
    return Spectrum(wavelength, flux, ivar, MODALITY, key, meta, epoch, frame, RESOLUTION)


def _arm(hdu: Hdu, header: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wavelength, flux and ivar of one arm; a table of a row a pixel, or of one row of vectors (from DR9)."""
    columns = {name: np.atleast_1d(np.squeeze(values)) for name, values in hdu.columns().items()}
    if not {"FLUX", "IVAR"} <= set(columns) or not {"LOGLAM", "WAVELENGTH"} & set(columns):
        raise SpectrumError(
            Reason.LAYOUT_UNKNOWN,
            f"HDU {hdu.name} has columns {', '.join(columns)}.",
            "Expected FLUX, IVAR and LOGLAM or WAVELENGTH.",
        )
    wavelength = (
        np.asarray(columns["WAVELENGTH"], np.float64)
        if "WAVELENGTH" in columns
        else np.power(10.0, np.asarray(columns["LOGLAM"], np.float64))
    )
    if header.get("VACUUM") is False:
        wavelength = air_to_vacuum(wavelength)
    # ANDMASK and PIXMASK say that no exposure measured the pixel; ORMASK that one of several did not
    mask = columns.get("ANDMASK", columns.get("PIXMASK"))
    bad = None if mask is None else (np.asarray(mask, np.int64) & lamost.UNUSABLE_BITS) != 0
    flux = np.asarray(columns["FLUX"], np.float64)
    up = slice(None, None, -1 if wavelength[0] > wavelength[-1] else 1)  # red exposures are stored downwards
    return wavelength[up], flux[up], good_ivar(flux, columns["IVAR"], bad)[up]


def _meta(raw: RawLamost, content: Content, options: ReadOptions) -> dict[str, Any]:
    meta = lamost.meta(raw, content.path, options.release)
    named = _NAME.search(content.path.name)
    for name in ("lmjd", "spid", "fiberid") if named else ():
        meta[name] = meta[name] if meta[name] is not None else int(named[name]) if named else None
    return {
        **meta,
        "source": str(content.path),
        "instrument": "LAMOST MRS",
        "medium": "air" if raw.header.get("VACUUM") is False else "vacuum",
        "flux_unit": "relative",
    }


READER = Reader("lamost_mrs", "LAMOST medium-resolution spectra (med-*.fits)", is_lamost_mrs, read_lamost_mrs)
