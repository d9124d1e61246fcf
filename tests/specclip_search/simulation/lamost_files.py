"""Simulated LAMOST spectra as files in the survey's own two layouts, byte for byte reproducible."""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from specclip_search.atlas.files import whole_file
from specclip_search.constants import C_KM_S
from specclip_search.simulation.spectra.spectrograph import LOG_START, LOG_STEP, RawLrs

if TYPE_CHECKING:
    from astropy.io import fits

Layout = Literal["table", "image"]
RELEASE_CARD = "SIMULATED"
COLUMNS = ("FLUX", "IVAR", "WAVELENGTH", "ANDMASK", "ORMASK")


def write_lamost_fits(path: Path, raw: RawLrs, row: int, header: Mapping[str, Any], layout: Layout = "table") -> None:
    """Write one simulated spectrum as the survey would, whole or not at all.

    Parameters
    ----------
    path
        Ends in .fits or .fits.gz.
    header
        Cards of this star; OBSID is needed, RA and DEC (deg) are usual.
    layout
        `table`: binary table COADD, as since DR9. `image`: five rows FLUX, IVAR, WAVELENGTH,
        ANDMASK, ORMASK, as until DR8.
    """
    content = io.BytesIO()
    _units(raw, row, dict(header), layout).writeto(content)
    data = content.getvalue()
    with whole_file(path) as temporary:
        temporary.write_bytes(gzip.compress(data, 6, mtime=0) if path.suffix == ".gz" else data)


def _units(raw: RawLrs, row: int, header: dict[str, Any], layout: Layout) -> fits.HDUList:
    from astropy.io import fits

    rows = np.stack([raw.flux[row], raw.ivar[row], raw.wavelength, raw.andmask[row], raw.ormask[row]]).astype(">f4")
    if layout == "image":
        primary = fits.PrimaryHDU(rows)
        primary.header["EXTEN0"] = "Flux, Inverse, Wavelength, Andmask, Ormask"
        units = fits.HDUList([primary])
    else:
        primary = fits.PrimaryHDU()
        pixels = rows.shape[1]
        columns = [fits.Column(n, f"{pixels}E", array=values[None]) for n, values in zip(COLUMNS, rows, strict=True)]
        units = fits.HDUList([primary, fits.BinTableHDU.from_columns(columns, name="COADD")])
    cards = {
        "DATA_V": RELEASE_CARD,
        "TELESCOP": "LAMOST",
        "AUTHOR": "specclip-search simulation",
        "HELIO": True,
        "VACUUM": True,
        "COEFF0": LOG_START,
        "COEFF1": LOG_STEP,
        "CLASS": "STAR",
        "Z": float(np.float32(raw.rv[row] / C_KM_S)),
        **{f"SNR{band.upper()}": round(float(values[row]), 2) for band, values in raw.snr.items()},
    }
    for name, value in {**cards, **header}.items():
        primary.header[name] = value
    primary.header.add_comment("A simulated spectrum: not an observation.")
    return units
