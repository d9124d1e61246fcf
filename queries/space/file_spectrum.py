"""A spectrum file as a model takes it: read, and seen as one of the model's instruments where it is of another."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from specclip_search.errors import QueryError

if TYPE_CHECKING:
    from specclip_search.spectrum import Spectrum

STATED = ("unit", "medium", "modality")


def read_for_encoder(
    path: str | os.PathLike[str], encoders: Sequence[str], stated: dict[str, Any] | None = None
) -> tuple[Spectrum, str]:
    """The spectrum of a file, of an instrument in `encoders`.

    Parameters
    ----------
    path
        A file, ``file#row`` or ``archive!member``.
    encoders
        Instruments that the model supports.
    stated
        What the file does not say: `unit`, `medium` and `modality` as for `read_spectrum`, and `resolution`, its
        resolving power. A `modality` in `encoders` is also what a spectrum of another survey is seen as.

    Returns
    -------
    spectrum, survey
        The spectrum, and the name of the survey or instrument that it was read as.

    Raises
    ------
    SpectrumError
        If the file holds no usable spectrum, or it covers too little of the instruments' range.
    QueryError
        If the resolution is not positive.
    """
    from specclip_search.preparation.quality import MIN_GOOD_FRACTION
    from specclip_search.readers import read_spectrum
    from specclip_search.surveys import encoder_of
    from specclip_search.surveys.seen_as import best_seen_as, seen_as

    said = stated or {}
    spectrum = read_spectrum(path, **{name: said.get(name) for name in STATED})
    survey, wanted = spectrum.modality, said.get("modality")
    resolution = said.get("resolution")
    if resolution is not None:
        if not resolution > 0:
            raise QueryError(
                f"A resolution must be a positive number; found {resolution}.",
                "Give lambda over its full width at half maximum, for example --resolution 5000.",
            )
        spectrum = replace(spectrum, resolution=float(resolution))
    if wanted in encoders and wanted != survey:
        return seen_as(spectrum, str(wanted), least_share=MIN_GOOD_FRACTION).spectrum, survey
    if survey in encoders:
        if resolution is None:
            return spectrum, survey
        return seen_as(spectrum, survey, least_share=MIN_GOOD_FRACTION).spectrum, survey
    own = (encoder_of(survey),) if encoder_of(survey) in encoders else tuple(encoders)
    return best_seen_as(spectrum, own, least_share=MIN_GOOD_FRACTION).spectrum, survey
