"""DESI spectra: ``coadd-*.fits`` and ``spectra-*.fits``, a row a target, arms B, R and Z as one spectrum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ...errors import Reason, SpectrumError
from ...spectrum import Spectrum
from ..containers.fits_bytes import Hdu, number_of, open_fits, text_of
from ..content import Content
from ..registry import Reader, ReadOptions
from ..survey_rows import Refused, good_ivar, join_arms, median_snr, whole

MODALITY = "desi"
FLUX_UNIT = "1e-17 erg s-1 cm-2 Angstrom-1"
_RELEASES = {"fuji": "edr", "guadalupe": "dr1", "iron": "dr1", "loa": "dr2"}
# desispec's fibre mask: 3 RESTRICTED reach and 22-24 BADAMP of one arm leave a spectrum; every other bit does not
HARMLESS_BITS = 1 << 3 | 1 << 22 | 1 << 23 | 1 << 24
ROWS_AT_ONCE = 64
RESOLUTION_EVERY = 25  # pixels; the line spread changes over hundreds of them


def is_desi(content: Content) -> bool:
    """Whether a file is of DESI's layout: the fibre map comes first, then wavelengths by arm."""
    head = content.head
    marks = (b"'desispec", b"'DESI_", b"'FIBERMAP'", b"SPGRP   =", b"_WAVELENGTH'")
    return content.kind == "fits" and b"LAMOST" not in head and any(mark in head for mark in marks)


def read_desi(content: Content, options: ReadOptions) -> Iterator[Spectrum | Refused]:
    """Every row of the file: a spectrum, or why there is none.

    Raises
    ------
    SpectrumError
        `layout_unknown`, where the file holds no arms or no fibre map as long as they are.
    """
    hdus = {hdu.name: hdu for hdu in open_fits(content)}
    arms = [name.removesuffix("_WAVELENGTH") for name in hdus if name.endswith("_WAVELENGTH")]
    arms = [arm for arm in arms if {f"{arm}_FLUX", f"{arm}_IVAR"} <= set(hdus)]
    if not arms:
        raise SpectrumError(
            Reason.LAYOUT_UNKNOWN,
            f"{content.path} is of DESI, but holds no spectra (HDUs {', '.join(list(hdus)[1:7])}).",
            "Give a coadd-*.fits or spectra-*.fits file.",
        )
    images = {
        arm: [
            hdus[f"{arm}_WAVELENGTH"].image(),
            *(np.atleast_2d(hdus[f"{arm}_{name}"].image()) for name in ("FLUX", "IVAR")),
        ]
        for arm in arms
    }
    count = len(images[arms[0]][1])
    fibres = hdus["FIBERMAP"].columns() if "FIBERMAP" in hdus else {}
    if any(len(images[arm][1]) != count for arm in arms) or any(len(values) != count for values in fibres.values()):
        raise SpectrumError(
            Reason.LAYOUT_UNKNOWN,
            f"{content.path}: arms and FIBERMAP differ in their rows.",
            "Get the file again; rows are matched by their order.",
        )
    release = options.release or _release(next(iter(hdus.values())).header)
    for start in range(0, count, ROWS_AT_ONCE):
        rows = slice(start, min(start + ROWS_AT_ONCE, count))
        yield from _rows(content, hdus, arms, images, fibres, rows, release)


def _rows(
    content: Content,
    hdus: dict[str, Hdu],
    arms: list[str],
    images: dict[str, list[np.ndarray]],
    fibres: Mapping[str, np.ndarray],
    rows: slice,
    release: str | None,
) -> Iterator[Spectrum | Refused]:
    parts = []
    for arm in arms:
        wavelength, flux, ivar = images[arm]
        bad = None
        if f"{arm}_MASK" in hdus:
            bad = np.atleast_2d(hdus[f"{arm}_MASK"].image())[rows] != 0
        wavelength = np.asarray(wavelength, np.float64)
        parts.append(
            (
                wavelength,
                flux[rows],
                good_ivar(flux[rows], ivar[rows], bad),
                _sigma(hdus.get(f"{arm}_RESOLUTION"), rows, wavelength),
            )
        )
    wavelength, flux, ivar, sigma = join_arms(parts)
    for place in range(len(flux)):
        number = rows.start + place
        about = {name: values[number] for name, values in fibres.items() if values.ndim == 1}
        source = f"{content.path}#{number}"
        key = whole(about.get("TARGETID"))
        refusal = _refusal(about, key, ivar[place])
        if refusal is not None:
            yield Refused(source, key, release, *refusal)
            continue
        power = wavelength / (np.sqrt(8.0 * np.log(2.0)) * np.where(sigma[place] > 0, sigma[place], np.nan))
        yield Spectrum(
            wavelength,
            flux[place],
            ivar[place],
            MODALITY,
            key,
            _meta(about, release, source, median_snr(flux[place], ivar[place])),
            whole(about.get("EXPID")),
            "barycentric",
            power,
        )


def _refusal(about: dict[str, Any], key: int | None, ivar: np.ndarray) -> tuple[Reason, str] | None:
    if text_of(about.get("OBJTYPE")) == "SKY" or (key is not None and key < 0):
        return Reason.SKY_FIBRE, f"fibre {about.get('FIBER', '?')} looked at empty sky (TARGETID {key})"
    status = whole(about.get("COADD_FIBERSTATUS", about.get("FIBERSTATUS"))) or 0
    if status & ~HARMLESS_BITS:
        return Reason.BAD_FIBRE, f"fibre {about.get('FIBER', '?')} has COADD_FIBERSTATUS {status}; 0 is good"
    if not (ivar > 0).any():
        return Reason.TOO_FEW_GOOD_PIXELS, "no pixel of arms B, R and Z has an inverse variance above zero"
    return None


def _meta(about: dict[str, Any], release: str | None, source: str, snr: float | None) -> dict[str, Any]:
    mjd = number_of(about.get("MJD", about.get("MEAN_MJD")))
    return {
        "release": release,
        "source_id": None,
        "source": source,
        "instrument": "DESI",
        "ra": number_of(about.get("TARGET_RA")),
        "dec": number_of(about.get("TARGET_DEC")),
        "snr": snr,
        "fiberid": whole(about.get("FIBER")),
        "tileid": whole(about.get("TILEID")),
        "night": whole(about.get("NIGHT")),
        "time": mjd,
        "time_scale": "MJD_UTC" if mjd is not None else None,
        "medium": "vacuum",
        "flux_unit": FLUX_UNIT,
    }


def _sigma(hdu: Hdu | None, rows: slice, wavelength: np.ndarray) -> np.ndarray:
    """(N, P) line spread sigma in Angstrom from the band of the resolution matrix; NaN where there is none."""
    count = rows.stop - rows.start
    if hdu is None:
        return np.full((count, len(wavelength)), np.nan)
    band = hdu.image()
    band = (band[None] if band.ndim == 2 else band)[rows]
    at = np.arange(0, len(wavelength), RESOLUTION_EVERY)
    band = np.asarray(band[:, :, at], np.float64)
    offset = np.arange(band.shape[1]) - band.shape[1] // 2
    with np.errstate(invalid="ignore", divide="ignore"):
        total = band.sum(axis=1)
        mean = np.tensordot(band, offset, axes=(1, 0)) / total
        square = np.tensordot(band, offset**2, axes=(1, 0)) / total - mean**2
        sampled = np.sqrt(square) * float(np.median(np.diff(wavelength)))
    return np.array([np.interp(wavelength, wavelength[at], one) for one in sampled])


def _release(header: Any) -> str | None:
    """The production's public release (``dr1``), or its own name where it is not known which that is."""
    production = text_of(header.get("SPECPROD"))
    for number in range(100):
        if production is not None:
            break
        name = header.get(f"DEPNAM{number:02d}")
        if name is None:
            break
        production = text_of(header.get(f"DEPVER{number:02d}")) if text_of(name) == "SPECPROD" else None
    return None if production is None else _RELEASES.get(production.lower(), production.lower())


READER = Reader("desi", "DESI spectra (coadd-*.fits, spectra-*.fits)", is_desi, read_desi)
