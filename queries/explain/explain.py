"""Explain a match of two spectra, or what a list of spectra has in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from specclip_search.errors import QueryError
from specclip_search.surveys import encoder_of, get_modality

from ..space.read_target import read_target
from ..space.resolve import resolve
from ..space.spectra import SpectrumRows, read_spectra, sample_fluxes
from ..space.windows import WindowSet, window_means
from ..views.connection import connect
from .group import LEAST_MEMBERS, SIGNIFICANT, Trait, common_traits
from .match import COLOUR, WindowVerdict, in_words, judge_windows, without_colour

if TYPE_CHECKING:
    import pandas as pd

    from specclip_search.atlas import Atlas
    from specclip_search.keys import SpectrumKey

SAMPLE = 1000
LEAST_SHIFT = 0.3
POPULATION = 20_000
#: columns that describe how a spectrum was taken or found, not the star
_NOT_TRAITS = ("_spec_id", "_err", "_p_below_m2", "_p_below_m3")
_IDS = ("source_id", "spec_id", "gaia_spec_id", "lamost_spec_id", "flag", "flag_xp", "flag_lrs")


def explain_match(atlas: Atlas, first: str, second: str, model: str | None = None, seed: int = 0) -> pd.DataFrame:
    """Windows that make two spectra alike or unlike.

    Spectra of two instruments are compared in the first one's: the second star's own spectrum there, if it has one,
    else the model's translation.

    Parameters
    ----------
    first, second
        Anything that `similar` takes.
    model
        Model that translates; the active one by default.
    seed
        Seed of the sample of ordinary spectra.

    Returns
    -------
    pandas.DataFrame
        A row for each window: window, meaning, first, second, difference (all in robust standard deviations of
        ordinary spectra; of those of the same colour, where spectra keep their shape as XP's do), significance (over
        the noise), verdict. ``.attrs["words"]`` says it in sentences.

    Raises
    ------
    QueryError
        If a target is not found.
    """
    import pandas as pd

    left = read_target(atlas, first)
    right, how = _in_instrument(atlas, left.modality, read_target(atlas, second), model)
    modality = get_modality(encoder_of(left.modality))
    windows = WindowSet.of(modality)
    means, variances = window_means(
        np.concatenate([left.flux, right.flux]), np.concatenate([left.error, right.error]),
        np.zeros(left.flux.shape[1]), windows.members,
    )  # fmt: skip
    plain = windows.plain_means(np.concatenate([left.flux, right.flux]))
    # a translation has no error: its plain mean, and no noise
    means = np.where(np.isfinite(means), means, plain)
    population = windows.plain_means(sample_fluxes(atlas, left.modality, SAMPLE, seed))
    means, population = without_colour(windows.names, means, population)
    names = windows.names if means.shape[1] == len(windows) else (*windows.names, COLOUR)
    variances = np.column_stack([variances, np.zeros((2, len(names) - len(windows)))])
    verdicts = judge_windows(names, means, variances, population)
    notes = {window.name: window.note for window in modality.windows} | {COLOUR: "temperature and dust"}
    frame = pd.DataFrame([_row(v, notes[v.name]) for v in verdicts])
    frame.attrs["words"] = [*([f"{second} is seen as {left.modality} by {how}."] if how else []), *in_words(verdicts)]
    return frame


def _row(v: WindowVerdict, note: str) -> dict[str, Any]:
    return {"window": v.name, "meaning": note, "first": round(v.first, 3), "second": round(v.second, 3),
            "difference": round(v.difference, 3), "significance": round(v.significance, 2), "verdict": v.verdict}


def _in_instrument(atlas: Atlas, modality: str, one: SpectrumRows, model: str | None) -> tuple[SpectrumRows, str]:
    """The spectrum as one of `modality`: itself, the same star's, or its translation; and how it came to be."""
    if encoder_of(one.modality) == encoder_of(modality):
        return one, ""
    star = int(one.source_id[0])
    if star >= 0:
        for key, release in _spectra_of(atlas, star):
            if key.modality == modality:
                return read_spectra(atlas, modality, np.array([key.spec_id]), [release]), "the same star's spectrum"
    from specclip_search.training.model import load_model

    loaded = load_model(atlas.model_folder(atlas.require_model(model)))
    flux = np.asarray(loaded.translate(encoder_of(one.modality), one.flux), np.float64)
    return SpectrumRows(modality, flux, np.full_like(flux, np.inf), one.snr, one.source_id, one.simulated), \
        "the model's translation"


def _spectra_of(atlas: Atlas, star: int) -> list[tuple[SpectrumKey, str | None]]:
    found = resolve(atlas, f"gaia dr3 {star}", files=False)
    return list(zip(found.keys, found.releases, strict=True))


def explain_group(atlas: Atlas, targets: Sequence[str], model: str | None = None, seed: int = 0) -> pd.DataFrame:
    """What the stars of a list have in common that other stars of the atlas do not.

    Parameters
    ----------
    targets
        Keys or whatever else stands for spectra of the atlas, at least five.
    seed
        Seed of the sample of other stars.

    Returns
    -------
    pandas.DataFrame
        A row for each numeric column of `stars` and each spectral window: trait, kind, number of members and others,
        medians, shift in robust standard deviations, narrowness, p of the Mann-Whitney test, and q, corrected for
        their number. Most significant first; ``.attrs["words"]`` says it in sentences.

    Raises
    ------
    QueryError
        If fewer than five spectra of the atlas are named.
    """
    import pandas as pd

    keys = [resolve(atlas, text).keys for text in targets]
    spectra = list(dict.fromkeys(found[0] for found in keys if found))
    if len(spectra) < LEAST_MEMBERS:
        raise QueryError(
            f"A group needs {LEAST_MEMBERS} spectra of the atlas; found {len(spectra)}.",
            "Name more, for example by a file with a key on each line: specclip-search explain @LIST.",
        )
    rows = [_trait_row(trait, "column") for trait in _column_traits(atlas, spectra, seed)]
    for modality in sorted({key.modality for key in spectra}):
        rows += [_trait_row(trait, f"window of {modality}") for trait in _window_traits(atlas, modality, spectra, seed)]
    rows.sort(key=lambda row: (row["q"], -abs(row["shift"])))
    frame = pd.DataFrame(rows, columns=list(_trait_row(Trait("", 0, 0, 0, 0, 0, 0, 1, 1), "")))
    frame.attrs["words"] = _group_words(rows)
    return frame


def _trait_row(trait: Trait, kind: str) -> dict[str, Any]:
    return {"trait": trait.name, "kind": kind, "members": trait.members, "others": trait.others,
            "median": trait.median, "usual": trait.usual, "shift": round(trait.shift, 3),
            "narrowness": round(trait.narrowness, 3), "p": trait.p, "q": trait.q}


def _column_traits(atlas: Atlas, spectra: Sequence[SpectrumKey], seed: int) -> list[Trait]:
    """Numeric columns of `stars`, sky coordinates as galactic ones."""
    with connect(atlas) as connection:
        connection.prepare("SELECT * FROM stars")
        fields = connection.views.all["stars"].fields()
        numeric = [f.name for f in fields if str(f.type) in ("double", "float", "int64", "int32", "bool")]
        names = [name for name in numeric if name not in _IDS and not name.endswith(_NOT_TRAITS)]
        ids = ", ".join(str(key.spec_id) for key in spectra)
        chosen = ", ".join(f'("{name}")::DOUBLE AS "{name}"' for name in names)
        ids_of = [name for name in ("gaia_spec_id", "lamost_spec_id") if name in {f.name for f in fields}]
        inside = " OR ".join(f"{name} IN ({ids})" for name in ids_of)
        members = connection.rows(f"SELECT {chosen} FROM stars WHERE {inside}")
        others = connection.rows(
            f"SELECT {chosen} FROM (SELECT * FROM stars WHERE NOT coalesce({inside}, false)) "
            f"USING SAMPLE reservoir({POPULATION} ROWS) REPEATABLE ({seed})"
        )
    sides = [{name: table[name].to_numpy(zero_copy_only=False) for name in names} for table in (members, others)]
    for side in sides:
        if {"ra", "dec"} <= side.keys():
            side |= _galactic(side.pop("ra"), side.pop("dec"))
    return common_traits(*sides)


def _galactic(ra: np.ndarray, dec: np.ndarray) -> dict[str, np.ndarray]:
    import astropy.units as u
    from astropy.coordinates import SkyCoord

    known = np.isfinite(ra) & np.isfinite(dec)
    sky = SkyCoord(np.where(known, ra, 0.0) * u.deg, np.where(known, dec, 0.0) * u.deg).galactic
    b = np.where(known, sky.b.deg, np.nan)
    return {"galactic latitude b": b, "distance from the plane |b|": np.abs(b)}


def _window_traits(atlas: Atlas, modality: str, spectra: Sequence[SpectrumKey], seed: int) -> list[Trait]:
    windows = WindowSet.of(get_modality(encoder_of(modality)))
    own = read_spectra(atlas, modality, np.array([k.spec_id for k in spectra if k.modality == modality], np.int64))
    near = windows.plain_means(own.flux[own.found])
    rest = windows.plain_means(sample_fluxes(atlas, modality, SAMPLE, seed))
    near, rest = without_colour(windows.names, near, rest)
    names = (*windows.names, COLOUR)[: near.shape[1]]
    return common_traits(*({name: side[:, i] for i, name in enumerate(names)} for side in (near, rest)))


def _group_words(rows: Sequence[dict[str, Any]], most: int = 6) -> list[str]:
    lines = []
    certain = [row for row in rows if float(row["q"]) < SIGNIFICANT and abs(float(row["shift"])) > LEAST_SHIFT]
    for row in sorted(certain, key=lambda row: -abs(float(row["shift"])))[:most]:
        more = "higher" if float(row["shift"]) > 0 else "lower"
        lines.append(
            f"{row['trait']} is {more}: {row['median']:.4g} against {row['usual']:.4g} "
            f"({abs(float(row['shift'])):.1f} sigma, q = {row['q']:.1g})"
        )
    return lines or ["Nothing distinguishes these stars from others beyond chance."]
