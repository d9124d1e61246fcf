"""Columns of the views `spectra` and `stars`, with units and meanings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from specclip_search.atlas.schemas import described

from .label_sources import Catalogue, label_fields
from .star_estimates import Estimates

_POSITION = [
    described(
        "ra",
        pa.float64(),
        "right ascension, ICRS; the spectrum's own, else a catalogue's",
        "deg",
        "pos.eq.ra;meta.main",
    ),
    described(
        "dec", pa.float64(), "declination, ICRS; the spectrum's own, else a catalogue's", "deg", "pos.eq.dec;meta.main"
    ),
]
_LABEL_SOURCE = described("label_source", pa.string(), "catalogue that the first of teff, logg and feh comes from")
_SPECTRUM_FIELDS = [
    described("modality", pa.string(), "instrument of the spectrum"),
    described("release", pa.string(), "data release the spectrum comes from"),
    described("spec_id", pa.int64(), "key of the spectrum: LAMOST obsid or Gaia source_id", ucd="meta.id;meta.main"),
    described("source_id", pa.int64(), "Gaia source_id of the star; null where unknown", ucd="meta.id"),
    *_POSITION,
    described("snr", pa.float32(), "signal to noise a pixel: LRS g band, XP median", ucd="stat.snr"),
    described("simulated", pa.bool_(), "true where the spectrum is simulated, not observed"),
]
STAR_FIELDS = [
    described("source_id", pa.int64(), "Gaia source_id of the star; null where unknown", ucd="meta.id;meta.main"),
    described("gaia_spec_id", pa.int64(), "its Gaia XP spectrum; null where there is none", ucd="meta.id"),
    described(
        "lamost_spec_id", pa.int64(), "its best LAMOST spectrum: observed before simulated, then by S/N", ucd="meta.id"
    ),
    described("lamost_release", pa.string(), "data release of the best LAMOST spectrum"),
    described("n_lamost", pa.int64(), "number of its LAMOST spectra", ucd="meta.number"),
    *_POSITION,
    described("snr_lrs", pa.float32(), "signal to noise of the best LAMOST spectrum, g band", ucd="stat.snr"),
    described("snr_xp", pa.float32(), "signal to noise of the XP spectrum, median", ucd="stat.snr"),
    described("simulated_lrs", pa.bool_(), "true where the best LAMOST spectrum is simulated"),
    described("simulated_xp", pa.bool_(), "true where the XP spectrum is simulated"),
]


@dataclass(frozen=True)
class Scores:
    """A result with a score for each star, and the names its columns get in `stars`."""

    files: tuple[str, ...]
    columns: Mapping[str, pa.Field]


def spectra_fields(sources: Sequence[Catalogue]) -> list[pa.Field]:
    """Columns of `spectra`."""
    labels = label_fields(sources)
    return [*_SPECTRUM_FIELDS, *labels, *([_LABEL_SOURCE] if labels else [])]


def star_fields(
    sources: Sequence[Catalogue], scores: Sequence[Scores], estimates: Sequence[Estimates] = ()
) -> list[pa.Field]:
    """Columns of `stars`."""
    labels = label_fields(sources)
    return [
        *STAR_FIELDS,
        *labels,
        *([_LABEL_SOURCE] if labels else []),
        *(field for estimate in estimates for field in estimate.columns.values()),
        *(field for score in scores for field in score.columns.values()),
    ]
