"""Text of a card: formatted numbers, [Fe/H] estimates, catalogue row, evidence and links."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from specclip_search.surveys import PAIR

if TYPE_CHECKING:
    import pandas as pd

    from ..space.spectra import SpectrumRows

INSTRUMENTS = tuple(modality.short for modality in PAIR)
_NO_EVIDENCE = ("_spec_id", "_release", "_snr", "_simulated")


def emp_words(row: pd.Series) -> str:
    """[Fe/H] of a star from each instrument: `LRS: neighbours -2.4 ± 0.1; XP: neighbours -2.6 ± 0.2`."""
    told = []
    for side in INSTRUMENTS:
        said = [
            f"{who} {float(row[value]):.2f} ± {float(row[error]):.2f}"
            for who, value, error in (
                ("estimator", f"{side}_est_feh", f"{side}_est_feh_err"),
                ("networks on the flux", f"{side}_net_feh", f"{side}_net_feh_err"),
                ("neighbours", f"{side}_feh", f"{side}_feh_sigma"),
            )
            if value in row.index and error in row.index and written(row[value]) and written(row[error])
        ]
        told += [f"{side.upper()}: {', '.join(said)}"] if said else []
    return f"[Fe/H] by {'; by '.join(told)}" if told else ""


def catalogue_row(row: pd.Series, about: dict[str, dict[str, str]]) -> list[tuple[str, str, str]]:
    """Name, value with unit, and meaning of position and labels."""
    from specclip_search.labels import LABEL_NAMES

    names = ["source_id", "lrs_spec_id", "xp_spec_id", "ra", "dec", *LABEL_NAMES, "label_source"]
    names += [f"catalog_{name}" for name in LABEL_NAMES]
    return [
        (name, f"{text} {about.get(name, {}).get('unit', '')}".strip(), about.get(name, {}).get("description", ""))
        for name in names
        if name in row.index and (text := written(row[name]) if name not in ("ra", "dec") else f"{row[name]:.5f}")
    ]


def evidence_rows(row: pd.Series, about: dict[str, dict[str, str]], shown: set[str]) -> list[tuple[str, str, str]]:
    """Evidence behind the score: all columns of the two spectra not shown elsewhere."""
    return [
        (str(name), f"{text} {about.get(name, {}).get('unit', '')}".strip(), about.get(name, {}).get("description", ""))
        for name in row.index
        if str(name).startswith(("z_", "lrs_", "xp_", "near_", "p_"))
        and not str(name).endswith(_NO_EVIDENCE)
        and name not in shown
        and (text := written(row[name]))
    ]


def sky_links(
    row: pd.Series, obsid: int, release: str | None, lrs: SpectrumRows | None, i: int
) -> list[tuple[str, str]]:
    """Links to other services for this sky position."""
    ra, dec = row.get("ra"), row.get("dec")
    if ra is None or dec is None or not (np.isfinite(float(ra)) and np.isfinite(float(dec))):
        return []
    place = quote(f"{float(ra):.6f} {float(dec):+.6f}")
    links = [
        ("Simbad", f"https://simbad.cds.unistra.fr/simbad/sim-coo?Coord={place}&Radius=5&Radius.unit=arcsec"),
        ("Aladin", f"https://aladin.cds.unistra.fr/AladinLite/?target={place}&fov=0.05"),
        ("ESASky", f"https://sky.esa.int/esasky/?target={place}&fov=0.05&cooframe=J2000"),
        ("VizieR", f"https://vizier.cds.unistra.fr/viz-bin/VizieR?-c={place}&-c.rs=5"),
    ]
    if lrs is not None and lrs.found[i] and not lrs.simulated[i] and release and release.startswith("dr"):
        links.append(("LAMOST", f"https://www.lamost.org/{quote(release)}/v2.0/spectrum/view?obsid={obsid}"))
    return links


def figures(value: float) -> str:
    """Four significant figures, without an exponent for large numbers."""
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def written(value: Any) -> str:
    """Format a value: ids in full, numbers to four significant figures, empty for missing values."""
    import pandas as pd

    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        return figures(float(value))
    return str(value)
