"""APOGEE spectra: ``apStar``, ``apVisit``, ``aspcapStar``, and SDSS-V's ``mwmStar`` and ``mwmVisit``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ...errors import Reason, SpectrumError
from ...spectrum import Spectrum
from ..containers.fits_bytes import Hdu, number_of, open_fits, text_of
from ..content import Content
from ..registry import Reader, ReadOptions
from ..survey_rows import Refused, good_ivar, ivar_of_error, median_snr, whole

MODALITY = "apogee"
OPTICAL = "sdss"
RESOLUTION = 22500.0  # Wilson et al. 2019, PASP 131, 055001
BOSS_RESOLUTION = 1800.0  # Smee et al. 2013, AJ 146, 32, as far as a file without its line spread can say
FLUX_UNIT = "1e-17 erg s-1 cm-2 Angstrom-1"
# APOGEE_PIXMASK: BADPIX, CRPIX, SATPIX, UNFIXABLE, BADDARK, BADFLAT, BADERR, NOSKY, NOT_ENOUGH_PSF; ghosts,
# persistence and strong sky or telluric lines leave a measurement whose error says how good it is
UNUSABLE_BITS = 0b11111111 | 1 << 14
LARGEST_ERROR = 1e9  # 1e10 is the pipeline's error of a pixel without a measurement
JD_OF_MJD = 2400000.5
_NAME_2MASS = re.compile(r"(?:2M|AP)?(\d{8})([+-])(\d{7})")
_RELEASE = re.compile(r"-(dr\d+|r\d+)-", re.IGNORECASE)


def is_apogee(content: Content) -> bool:
    """Whether a file is one of APOGEE's, by its primary header."""
    head = content.head
    if content.kind != "fits" or b"BOSSVER" in head:
        return False
    return (
        b"APOGEE" in head
        or b"V_ASTRA" in head
        or b"V_APRED" in head
        or b"apogee" in head
        or (b"NWAVE   =" in head and b"LOG-LINEAR" in head)
    )


def read_apogee(content: Content, options: ReadOptions) -> Iterator[Spectrum | Refused]:
    """The combined spectrum, then, where asked for, one a visit.

    A ``mwmStar`` file holds spectra of BOSS (modality ``sdss``) beside APOGEE's; `options.modality` picks one.

    Raises
    ------
    SpectrumError
        `layout_unknown`, where the file holds no spectrum of a known layout.
    """
    hdus = open_fits(content)
    if hdus[0].header.get("V_ASTRA") is not None:
        found = list(_mwm(content, hdus, options))
    elif len(hdus) > 4 and len(hdus[1].shape) == 2 and hdus[1].shape[0] == 3 and hdus[4].shape == hdus[1].shape:
        found = [_visit(content, hdus, options)]
    elif len(hdus) > 3 and not hdus[1].is_table and hdus[1].shape and _axis(hdus) is not None:
        found = list(_log_linear(content, hdus, options))
    else:
        raise SpectrumError(
            Reason.LAYOUT_UNKNOWN,
            f"{content.path} is of APOGEE, but of no layout that is known.",
            "Give an apStar, apVisit, aspcapStar or mwmStar file.",
        )
    if not found:
        raise SpectrumError(
            Reason.LAYOUT_UNKNOWN,
            f"{content.path} holds no spectrum" + (f" of {options.modality}." if options.modality else "."),
            f"It may be given with --as {OPTICAL} or --as {MODALITY}.",
        )
    yield from found


def key_of(name: str | None) -> int | None:
    """An APOGEE_ID such as ``2M17335483-2753043`` as an int64, here 1733548312753043.

    Its digits are those of right ascension (HHMMSSss), 0 or 1 for a declination that is positive or negative, and
    those of the declination (DDMMSSs). None for other names.
    """
    found = _NAME_2MASS.fullmatch(name or "")
    return int(f"{found[1]}{int(found[2] == '-')}{found[3]}") if found else None


def _axis(hdus: list[Hdu]) -> tuple[float, float, float] | None:
    for hdu in (hdus[1], hdus[0]):
        values = [number_of(hdu.header.get(name)) for name in ("CRVAL1", "CDELT1")]
        if None not in values and values[1]:
            return float(values[0] or 0), float(values[1] or 0), number_of(hdu.header.get("CRPIX1")) or 1.0
    return None


def _log_linear(content: Content, hdus: list[Hdu], options: ReadOptions) -> Iterator[Spectrum]:
    """apStar and aspcapStar: vacuum, at rest, rows of 8575 pixels: combined first, then visits."""
    axis = _axis(hdus)
    assert axis is not None
    flux, error = (np.atleast_2d(np.asarray(hdus[number].image(), np.float64)) for number in (1, 2))
    wavelength = np.power(10.0, axis[0] + axis[1] * (np.arange(flux.shape[1]) + 1 - axis[2]))
    aspcap = hdus[0].header.get("NVISITS") is None
    bad = np.asarray(error) > LARGEST_ERROR
    if not aspcap and hdus[3].shape == hdus[1].shape:  # aspcapStar's third image is the best fit
        bad |= (np.atleast_2d(hdus[3].image()).astype(np.int64) & UNUSABLE_BITS) != 0
    bad |= flux == 0
    header = hdus[0].header
    about = _first_row(hdus)
    name = text_of(header.get("OBJID")) or text_of(header.get("OBJ")) or text_of(about.get("APOGEE_ID"))
    meta = _meta(content, header, about, name, options)
    meta |= {
        "rv": number_of(header.get("VHELIO", about.get("VHELIO_AVG"))),
        "rv_err": number_of(header.get("VERR", about.get("VERR"))),
        "normalised": aspcap,
    }
    key = key_of(name) if key_of(name) is not None else whole(header.get("SDSS_ID"))
    visits = whole(header.get("NVISITS")) or 0
    # rows 0 and 1 of an apStar are combinations by two weightings; a file of one visit has both, too
    first_visit = 2 if len(flux) >= 2 else 1
    for row in [0, *(range(first_visit, len(flux)) if options.epochs else ())]:
        visit = row - first_visit + 1 if row else 0
        ivar = ivar_of_error(flux[row], error[row], bad[row])
        own = dict(meta)
        epoch = None
        if visit:
            jd = number_of(header.get(f"JD{visit}"))
            fibre = whole(header.get(f"FIBER{visit}"))
            epoch = whole(int(jd * 1440)) if jd else visit
            own |= {
                "snr": number_of(header.get(f"SNRVIS{visit}")),
                "rv": number_of(header.get(f"VHELIO{visit}")),
                "rv_err": number_of(header.get(f"VERR{visit}")),
                "fiberid": fibre,
                "time": jd - JD_OF_MJD if jd else None,
                "time_scale": "MJD_UTC" if jd else None,
            }
        own["snr"] = own.get("snr") or median_snr(flux[row], ivar)
        own["nvisits"] = visits or None
        yield Spectrum(wavelength, flux[row], ivar, MODALITY, key, own, epoch, "rest", RESOLUTION)


def _visit(content: Content, hdus: list[Hdu], options: ReadOptions) -> Spectrum:
    """apVisit: three chips from red to blue, vacuum, in the observatory's frame."""
    header = hdus[0].header
    about = _first_row(hdus)
    chips = [np.asarray(hdus[number].image()) for number in (1, 2, 3, 4)]
    wavelength = np.asarray(chips[3], np.float64).ravel()
    order = np.argsort(wavelength, kind="stable")
    order = order[np.diff(wavelength[order], prepend=-np.inf) > 0]
    flux, error = (np.asarray(values, np.float64).ravel()[order] for values in chips[:2])
    bad = (np.asarray(chips[2]).ravel()[order].astype(np.int64) & UNUSABLE_BITS) != 0
    ivar = ivar_of_error(flux, error, bad | (error > LARGEST_ERROR) | (flux == 0))
    name = text_of(header.get("OBJID")) or text_of(about.get("APOGEE_ID"))
    jd = number_of(header.get("JD-MID")) or number_of(header.get("JD"))
    correction = number_of(header.get("BC"))
    meta = _meta(content, header, about, name, options)
    meta |= {
        "rv": number_of(header.get("VHELIO")),
        "rv_err": number_of(header.get("VRADERR")),
        "barycentric_correction": correction,
        "snr": number_of(header.get("SNR")) or median_snr(flux, ivar),
        "time": jd - JD_OF_MJD if jd else None,
        "time_scale": "MJD_UTC" if jd else None,
    }
    epoch = int(jd * 1440) if jd else whole(header.get("MJD5"))
    return Spectrum(wavelength[order], flux, ivar, MODALITY, key_of(name), meta, epoch, "observed", RESOLUTION)


def _mwm(content: Content, hdus: list[Hdu], options: ReadOptions) -> Iterator[Spectrum]:
    """SDSS-V's Milky Way Mapper products: tables of BOSS (HDU 1, 2) and APOGEE spectra (3, 4), a row a spectrum."""
    header = hdus[0].header
    star = next(
        (whole(header.get(name)) for name in ("GAIA_DR3", "GAIA3_ID", "GAIADR3") if whole(header.get(name))), None
    )
    for number, hdu in enumerate(hdus[1:5], 1):
        columns = hdu.columns() if hdu.is_table else {}
        if not {"FLUX", "IVAR"} <= set(columns) or not len(columns["FLUX"]):
            continue
        instrument = str(hdu.header.get("INSTRMNT", "BOSS" if number < 3 else "APOGEE")).strip().upper()
        modality = MODALITY if instrument.startswith("APOGEE") else OPTICAL
        if options.modality not in (None, modality):
            continue
        combined = "MJD" not in columns
        for row in range(len(columns["FLUX"])):
            about = {
                name: text_of(values[row]) if values.dtype.kind == "S" else values[row]
                for name, values in columns.items()
                if values.ndim == 1
            }
            flux = np.atleast_1d(np.asarray(columns["FLUX"][row], np.float64))
            flags = columns.get("PIXEL_FLAGS")
            bad = None
            if flags is not None and modality == MODALITY:
                bad = (np.asarray(flags[row], np.int64) & UNUSABLE_BITS) != 0
            ivar = good_ivar(flux, np.asarray(columns["IVAR"][row], np.float64), bad)
            mjd = whole(about.get("MJD"))
            meta = {
                "release": options.release or text_of(about.get("RELEASE")) or "sdss5",
                "source_id": whole(about.get("GAIA_DR3_SOURCE_ID")) or star,
                "source": f"{content.path}#{row}",
                "instrument": instrument,
                "ra": number_of(header.get("RA")),
                "dec": number_of(header.get("DEC")),
                "snr": number_of(about.get("SNR")) or median_snr(flux, ivar),
                "rv": number_of(about.get("V_RAD", about.get("XCSAO_V_RAD"))),
                "rv_err": number_of(about.get("E_V_RAD", about.get("XCSAO_E_V_RAD"))),
                "medium": "vacuum",
                "flux_unit": FLUX_UNIT,
                "time": float(mjd) if mjd else None,
                "time_scale": "MJD_TAI" if mjd else None,
            }
            key = whole(about.get("SDSS_ID")) or whole(header.get("SDSS_ID"))
            yield Spectrum(
                _mwm_wavelength(content, hdu, columns, row, len(flux)),
                flux,
                ivar,
                modality,
                key,
                meta,
                None if combined else mjd,
                "rest",
                RESOLUTION if modality == MODALITY else BOSS_RESOLUTION,
            )


def _mwm_wavelength(content: Content, hdu: Hdu, columns: Mapping[str, np.ndarray], row: int, pixels: int) -> np.ndarray:
    if "WAVELENGTH" in columns:
        return np.asarray(columns["WAVELENGTH"][row], np.float64)
    start, step = number_of(hdu.header.get("CRVAL")), number_of(hdu.header.get("CDELT"))
    if start is None or not step:
        raise SpectrumError(
            Reason.LAYOUT_UNKNOWN,
            f"{content.path}: HDU {hdu.name} says no wavelengths.",
            "Expected a column wavelength, or CRVAL and CDELT in its header.",
        )
    return np.power(10.0, start + step * np.arange(pixels))


def _first_row(hdus: list[Hdu]) -> dict[str, Any]:
    for hdu in hdus[4:]:
        if hdu.is_table and "APOGEE_ID" in hdu.columns():
            return {name: values[0] for name, values in hdu.columns().items() if values.ndim == 1 and len(values)}
    return {}


def _meta(
    content: Content, header: Any, about: dict[str, Any], name: str | None, options: ReadOptions
) -> dict[str, Any]:
    named = _RELEASE.search(content.path.name)
    return {
        "release": options.release or (named[1].lower() if named else text_of(header.get("APRED"))),
        "source_id": next(
            (
                whole(about.get(column))
                for column in ("GAIAEDR3_SOURCE_ID", "GAIADR3_SOURCE_ID")
                if (whole(about.get(column)) or 0) > 0
            ),
            None,
        ),
        "source": str(content.path),
        "instrument": "APOGEE",
        "apogee_id": name,
        "ra": number_of(header.get("RA", about.get("RA"))),
        "dec": number_of(header.get("DEC", about.get("DEC"))),
        "snr": number_of(header.get("SNR", about.get("SNR"))),
        "starflag": whole(header.get("STARFLAG", about.get("STARFLAG"))),
        "medium": "vacuum",
        "flux_unit": FLUX_UNIT,
    }


READER = Reader("apogee", "APOGEE spectra (apStar, apVisit, aspcapStar, mwmStar, mwmVisit)", is_apogee, read_apogee)
