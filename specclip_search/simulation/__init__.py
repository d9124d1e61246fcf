"""Stars whose labels are known: an emulator of model spectra and an instrument that observes them.

`Emulator` turns labels into model spectra, `observe_lrs` turns model spectra into raw LAMOST-like
spectra with noise and an honest inverse variance. Names are loaded when first used.
"""

from __future__ import annotations

from ..lazy import lazy_names

_HOMES = {
    "Emulator": ".spectra.emulator",
    "SimulationError": ".spectra.labels",
    "LABEL_NAMES": ".spectra.labels",
    "RawLrs": ".spectra.spectrograph",
    "observe_lrs": ".spectra.spectrograph",
    "band_snr": ".spectra.spectrograph",
    "sample_snr": ".spectra.spectrograph",
}

__all__ = [*_HOMES]

__getattr__ = lazy_names(__name__, _HOMES)
