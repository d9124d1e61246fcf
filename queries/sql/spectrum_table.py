"""One spectrum as a table with one row per pixel, for files and other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from specclip_search.atlas.schemas import described
from specclip_search.surveys import get_modality, units_of

from ..space.observed import observed_spectrum
from ..space.read_target import read_target

if TYPE_CHECKING:
    from specclip_search.atlas import Atlas


def spectrum_table(atlas: Atlas, target: str | Path, **stated: str | None) -> pa.Table:
    """Wavelength, flux and error of a key (`lamost:101001`, `@release` after it) or of a spectrum's file.

    Parameters
    ----------
    stated
        `unit`, `medium`, `modality`, where the file does not say them.

    Returns
    -------
    pa.Table
        `wavelength` (Angstrom or nm, vacuum), `flux` as the model sees it, `error` (1 sigma; null if
        a pixel has no information). The table's metadata has modality, target and, if known, source_id.

    Raises
    ------
    QueryError, SpectrumError
        As of `specclip_search.queries.space.read_target.read_target`.
    """
    rows = read_target(atlas, target, stated)
    modality = get_modality(rows.modality)
    said = get_modality(rows.modality).flux_label.replace(" / ", " over ")
    schema = pa.schema(
        [
            described("wavelength", pa.float64(), "wavelength in vacuum", modality.unit, "em.wl;meta.main"),
            described("flux", pa.float32(), said, ucd="phot.flux.density;meta.main"),
            described("error", pa.float32(), f"1 sigma error of the {said}", ucd="stat.error;phot.flux.density"),
        ],
        metadata={
            "target": str(target),
            "modality": rows.modality,
            **({"source_id": str(int(rows.source_id[0]))} if rows.source_id[0] >= 0 else {}),
        },
    )
    error = rows.error[0].astype(np.float32)
    columns = [
        pa.array(np.asarray(modality.wavelength, np.float64)),
        pa.array(rows.flux[0].astype(np.float32)),
        pa.array(error, mask=~np.isfinite(error)),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def observed_table(atlas: Atlas, target: str | Path, *, epoch: int | None = None) -> pa.Table:
    """Wavelength, flux and error of a spectrum as observed; see `specclip_search.observed_spectrum`.

    Returns
    -------
    pa.Table
        `wavelength` (Angstrom or nm, vacuum), `flux` in the survey's unit, `error` (1 sigma; null where a pixel was
        not measured). The table's metadata has modality, target and frame.
    """
    spectrum = observed_spectrum(atlas, target, epoch=epoch)
    axis, unit = units_of(spectrum)
    said = "flux as observed"
    schema = pa.schema(
        [
            described("wavelength", pa.float64(), "wavelength in vacuum", axis, "em.wl;meta.main"),
            described("flux", pa.float64(), said, unit, "phot.flux.density;meta.main"),
            described("error", pa.float64(), f"1 sigma error of the {said}", unit, "stat.error;phot.flux.density"),
        ],
        metadata={"target": str(target), "modality": spectrum.modality, "frame": spectrum.frame},
    )
    measured = spectrum.ivar > 0
    error = np.where(measured, spectrum.ivar, 1.0) ** -0.5
    arrays = [pa.array(spectrum.wavelength), pa.array(spectrum.flux), pa.array(error, mask=~measured)]
    return pa.Table.from_arrays(arrays, schema=schema)


def ssa_meta(table: pa.Table) -> dict[str, str]:
    """Properties of a spectrum with the names of the Simple Spectral Access protocol, for SAMP messages."""
    said = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    unit = table.schema.field("wavelength").metadata[b"unit"].decode()
    target = f"Gaia DR3 {said['source_id']}" if "source_id" in said else said["target"]
    return {
        "Target.Name": target,
        "DataID.Title": f"{said['target']} ({said['modality']})",
        "vox:Spectrum_axes": "wavelength flux",
        "vox:Spectrum_units": f"{unit} ",
        "Char.SpectralAxis.unit": unit,
    }
