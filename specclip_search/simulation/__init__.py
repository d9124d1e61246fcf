"""Simulated stars with known labels: an emulator of model spectra and a model of the spectrograph.

`Emulator` computes model spectra from labels; `observe_lrs` converts model spectra to raw LAMOST-like
spectra with noise and a matching inverse variance. Names are imported when first used.
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
