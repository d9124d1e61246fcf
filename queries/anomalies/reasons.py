"""Likely kind of an anomalous pair and the reason in words, with window, sign and sigma."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..space.windows import SAME_FEATURE, family, leading, line_phrase, only_hydrogen
from .local_quantities import LOCAL_NAMES, NAMES

KINDS = ("astrophysical", "instrumental", "wrong_match")
APART = ("disagreement", "mutual", "color", "match", "labels", "identity")
CLEAR_Z = 5.0
APART_Z = 3.0
AGREE_Z = 2.0
# there are about fifty windows: the largest residual of a normal star sometimes reaches 3.3 sigma
LEAST_Z = 3.5


@dataclass(frozen=True, slots=True)
class Evidence:
    """Evidence for one pair from which its reason is written.

    Attributes
    ----------
    parts
        -log10 p of each quantity by name (see `features.NAMES`).
    windows
        Residuals in sigma by instrument (`lrs`, `xp`), in the order of `names`.
    names, centres, units
        Windows' names, middles and units by instrument.
    quality
        Quality measures of the spectra by name, for example `good_fraction`, `lrs_snr`.
    labels
        Median labels of the neighbours in each instrument: name -> (LRS, XP), with their scatter.
    """

    parts: dict[str, float]
    z: dict[str, float]
    windows: dict[str, np.ndarray]
    names: dict[str, tuple[str, ...]]
    centres: dict[str, np.ndarray]
    units: dict[str, str]
    quality: dict[str, float]
    labels: dict[str, tuple[float, float, float]]
    mutual_similarity: float


PATTERN_WORDS = {
    "emission": "hydrogen lines filled in by emission",
    "s_process": "strontium and barium lines stronger than predicted",
    "alpha": "magnesium and calcium lines stronger than predicted",
    "carbon": "carbon bands stronger than predicted",
    "helium": "helium lines stronger than predicted",
    "double_lined": "two sets of lines, moved against each other: a double-lined binary",
}
# a pattern is named if it is this significant and a fair fraction of the most significant quantity
PATTERN_Z, PATTERN_SHARE = 6.0, 0.5
SHAPE_SHARE = 0.7


def explain(evidence: Evidence) -> tuple[str, str]:
    """Likely kind (one of `KINDS`) and the reason in words."""
    if is_wrong_match(evidence):
        return "wrong_match", _wrong_match_words(evidence)
    flags = instrument_flags(evidence)
    words = "; ".join(filter(None, (_pattern_words(evidence), _window_words(evidence))))
    reason = words or _isolation_words(evidence) or _general_words(evidence)
    if flags:
        return "instrumental", f"{'; '.join(flags)}; {reason}"
    return "astrophysical", reason


def is_wrong_match(evidence: Evidence) -> bool:
    """Whether the two spectra belong to different stars, each similar to many others.

    The stars similar to one spectrum have partners unlike the other spectrum, clearly and more
    so than either spectrum is isolated, and *both* translations fail over several kinds of
    windows. A peculiar star fails only when translated from its peculiar spectrum: for an
    emission-line star the LRS spectrum predicted from XP is wrong only in the hydrogen lines.
    """
    z = evidence.z
    apart = max(z[name] for name in APART)
    alone = max(z["lrs_isolation"], z["xp_isolation"])
    return apart >= APART_Z and apart > 1.5 * alone and _broad(evidence, "lrs") and _broad(evidence, "xp")


def _broad(evidence: Evidence, side: str) -> bool:
    """Whether the residual is spread over kinds of windows: a second kind is not far behind the first."""
    peaks: dict[str, float] = {}
    for name, value in zip(evidence.names[side], np.abs(evidence.windows[side]), strict=True):
        peaks[family(name)] = max(peaks.get(family(name), 0.0), float(value))
    ordered = sorted(peaks.values(), reverse=True)
    return len(ordered) > 1 and ordered[0] >= APART_Z and ordered[1] >= max(3.0, 0.3 * ordered[0])


def instrument_flags(evidence: Evidence) -> list[str]:
    """Data problems that may explain the anomaly."""
    quality, flags = evidence.quality, []
    for side, label in (("lrs", "LRS"), ("xp", "XP")):
        good = quality.get(f"{side}_good_fraction", 1.0)
        repaired, clipped = quality.get(f"{side}_n_repaired", 0), quality.get(f"{side}_n_clipped", 0)
        if good < 0.9:
            flags.append(f"only {good:.0%} of {label}'s pixels are good")
        elif repaired > 50:
            flags.append(f"{repaired:.0f} masked pixels in {label} were interpolated over")
        if clipped > 10:
            flags.append(f"{clipped:.0f} pixels of {label} without positive flux or continuum")
    if quality.get("lrs_fibermask", 0) > 0:
        flags.append("LRS fibre is flagged")
    return flags or _shape_flags(evidence) or _calibration_flags(evidence)


def _shape_flags(evidence: Evidence) -> list[str]:
    """Raw LRS flux against XP in broad bands: a bad join of the arms, or a wrong calibration."""
    z, largest = evidence.z, max(evidence.parts.values())
    if z["join"] >= CLEAR_Z and evidence.parts["join"] >= SHAPE_SHARE * largest:
        return [f"LRS's blue and red arm are joined with a step at 5900 A ({z['join']:.0f} sigma against XP)"]
    if z["calibration"] >= CLEAR_Z and evidence.parts["calibration"] >= SHAPE_SHARE * largest:
        return [f"LRS's raw flux is not calibrated as other spectra's ({z['calibration']:.0f} sigma against XP)"]
    return []


def _calibration_flags(evidence: Evidence) -> list[str]:
    """Residuals in the level of one instrument with its lines as predicted: flux calibration."""
    for side, label in (("lrs", "LRS"), ("xp", "XP")):
        z, names = evidence.windows[side], evidence.names[side]
        level = np.array([family(name) == "continuum" for name in names])
        other = evidence.windows["xp" if side == "lrs" else "lrs"]
        if not level.any() or level.all():
            continue
        if (
            np.abs(z[level]).max() >= CLEAR_Z
            and np.abs(z[~level]).max() < 0.5 * np.abs(z[level]).max()
            and np.abs(other).max() < CLEAR_Z
        ):
            return [f"{label}'s level is off while its lines are as predicted"]
    return []


def _wrong_match_words(evidence: Evidence) -> str:
    text = "the two spectra are of different stars: each has close neighbours, which disagree"
    teff = evidence.labels.get("teff")
    if teff is not None and abs(teff[0] - teff[1]) > max(3 * teff[2], 150.0):
        return f"{text} by {abs(teff[0] - teff[1]):.0f} K (LRS like {teff[0]:.0f} K, XP like {teff[1]:.0f} K)"
    for name, unit in (("feh", "dex in [Fe/H]"), ("logg", "dex in log g")):
        pair = evidence.labels.get(name)
        if pair is not None and abs(pair[0] - pair[1]) > max(3 * pair[2], 0.3):
            return f"{text} by {abs(pair[0] - pair[1]):.1f} {unit} (LRS {pair[0]:.1f}, XP {pair[1]:.1f})"
    z = max(evidence.z[name] for name in APART)
    return f"{text} by {z:.0f} sigma (similarity of the two spectra {evidence.mutual_similarity:.2f})"


def _window_words(evidence: Evidence) -> str:
    """The strongest window of either instrument, and whether the other instrument confirms it."""
    side, strength = _telling_side(evidence)
    if strength < LEAST_Z:
        return ""
    z, names = evidence.windows[side], evidence.names[side]
    emission = only_hydrogen(names, z)
    phrases: list[str] = []
    families: set[str] = set()
    for index in leading(z):
        if abs(z[index]) < LEAST_Z or (family(names[index]) in families and phrases):
            continue
        families.add(family(names[index]))
        phrases.append(
            f"{line_phrase(names[index], z[index], emission)}, {z[index]:+.0f} sigma at "
            f"{evidence.centres[side][index]:.0f} {_short(evidence.units[side])} in {side.upper()}"
        )
    return "; ".join([*phrases, *_agreement(evidence, side, names[int(leading(z, 1)[0])], float(z[leading(z, 1)[0]]))])


def _telling_side(evidence: Evidence) -> tuple[str, float]:
    """The instrument whose windows explain the anomaly, and its largest |z|.

    A peculiarity in one spectrum affects the whole prediction of the other. If one
    residual is in one kind of line and the other is broad, the narrow one is the cause.
    """
    strongest = {side: float(np.abs(z).max(initial=0.0)) for side, z in evidence.windows.items()}
    side = max(strongest, key=lambda name: strongest[name])
    other = "xp" if side == "lrs" else "lrs"
    if strongest[other] >= CLEAR_Z and _broad(evidence, side) and not _broad(evidence, other):
        side = other
    return side, strongest[side]


def _agreement(evidence: Evidence, side: str, name: str, z: float) -> list[str]:
    other = "xp" if side == "lrs" else "lrs"
    wanted = (
        set(SAME_FEATURE.get(name, ())) if side == "lrs" else {lrs for lrs, xp in SAME_FEATURE.items() if name in xp}
    )
    values = [float(evidence.windows[other][i]) for i, label in enumerate(evidence.names[other]) if label in wanted]
    if not values:
        return []
    value = max(values, key=abs)
    if abs(value) < AGREE_Z:
        return [f"{other.upper()} shows nothing there"]
    return [f"{other.upper()} agrees" if value * z > 0 else f"{other.upper()} says the opposite"]


def _pattern_words(evidence: Evidence) -> str:
    """The most significant named pattern, if it is among the most significant quantities."""
    name = max(PATTERN_WORDS, key=lambda pattern: evidence.parts[pattern])
    if evidence.z[name] < PATTERN_Z or evidence.parts[name] < PATTERN_SHARE * max(evidence.parts.values()):
        return ""
    return "" if name == "emission" else f"{PATTERN_WORDS[name]} ({evidence.z[name]:+.0f} sigma)"


def _isolation_words(evidence: Evidence) -> str:
    lrs, xp = evidence.z["lrs_isolation"], evidence.z["xp_isolation"]
    if max(lrs, xp) < 3.0:
        return ""
    where = "both instruments" if min(lrs, xp) >= 3.0 else ("LRS" if lrs > xp else "XP")
    return f"no close neighbours in {where}: {max(lrs, xp):.0f} sigma farther from them than they are from theirs"


def _general_words(evidence: Evidence) -> str:
    name = max(NAMES, key=lambda quantity: evidence.parts[quantity])
    whom = "its neighbours" if name in LOCAL_NAMES else "other stars"
    words = {
        "lrs_error": "LRS spectrum is not what XP predicts",
        "xp_error": "XP spectrum is not what LRS predicts",
        "lrs_window": "a window of LRS is off",
        "xp_window": "a window of XP is off",
        "lrs_isolation": "few close neighbours in LRS",
        "xp_isolation": "few close neighbours in XP",
        "mutual": "its two spectra are less alike than its neighbours'",
        "disagreement": "its two spectra have different neighbours",
        "lrs_free": "LRS spectrum is not what XP predicts, at any velocity",
        "xp_free": "XP spectrum is not what LRS predicts, behind any dust",
        "lrs_own": "the model has seen no LRS spectrum like it",
        "xp_own": "the model has seen no XP spectrum like it",
        "lrs_free_peak": "a narrow feature of LRS is off",
        "xp_free_peak": "a narrow feature of XP is off",
        "lrs_own_peak": "a narrow feature of LRS is unknown to the model",
        "xp_own_peak": "a narrow feature of XP is unknown to the model",
        "color": "LRS's raw colors are not XP's",
        "calibration": "LRS's raw flux, band by band, is not XP's",
        "join": "a step between LRS's blue and red arm",
        "lrs_rarity": "a rare kind of star in LRS, though alike ones may be near",
        "match": "its two spectra do not look like one star's",
        "labels": "the labels estimated from its two spectra differ",
        "identity": "its two spectra are hardly one star's, by everything that tells stars apart",
        **PATTERN_WORDS,
    }
    said = words.get(name, f"high {name.replace('_', ' ')}")
    return f"{said}, {evidence.z[name]:+.1f} sigma against {whom}; no single line stands out"


def _short(unit: str) -> str:
    return "A" if unit == "Angstrom" else unit
