"""What label estimators reach on validation stars, from the card beside them; `--write` puts it into a document.

python tests/benchmarks/estimators.py --model mini --write docs/model.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- estimators: begin -->", "<!-- estimators: end -->"
NAMES = {"feh_below_m1.5": "feh, stars below -1.5", "feh_below_m2": "feh, stars below -2"}
UNITS = {"teff": " K", "rv": " km/s"}


def tables(metrics: dict[str, Any]) -> list[str]:
    """Markdown lines: robust sigma and bias of each label, then coverage by S/N."""
    lines = recipe_lines(metrics.get("recipe", {}))
    lines += ["| from | stars | label | robust sigma | bias | number |", "|---|---|---|---|---|---|"]
    instruments = [name for name in ("gaia_xp", "lamost_lrs") if name in metrics]
    for modality in instruments:
        for group in ("real", "made", "simulated"):
            for label, row in metrics[modality].get(group, {}).items():
                unit = UNITS.get(label, " dex")
                digits = 1 if label in UNITS else 3
                lines.append(f"| {modality} | {group} | {NAMES.get(label, label)} | {row['sigma']:.{digits}f}{unit} "
                             f"| {row['bias']:+.{digits}f} | {row['stars']:,} |")
    lines += ["", "Share of true values within the 68.3 % and 95.4 % intervals, calibrated on the other half of the "
              "validation stars:", ""]
    for modality in instruments:
        lines += [*coverage(modality, metrics[modality]["coverage"]), ""]
    return lines[:-1]


def recipe_lines(recipe: dict[str, Any]) -> list[str]:
    """How the estimators at hand were trained, in words."""
    if not recipe:
        return []
    text = (f"{recipe['members']} networks of {recipe['epochs']} epochs; a star counts by the density of stars at its\n"
            f"[Fe/H] to the power -{recipe['balance']:g}, a made XP star {recipe['made_weight']:g} times a real one")
    if "made_below" in recipe:
        text += f",\nand above [Fe/H] = {recipe['made_below']:g}, where there are real ones, for [C/Fe] alone"
    return [text + ".", ""]


def coverage(modality: str, rows: list[dict[str, Any]]) -> list[str]:
    """A table with a row a label and a column an S/N bin."""
    bins = sorted({(row["snr_from"], row["snr_to"] or float("inf")) for row in rows})
    heads = [f"S/N {low:g} to {high:g}" if high < float("inf") else f"S/N above {low:g}" for low, high in bins]
    lines = [f"| {modality} | {' | '.join(heads)} |", "|---" * (len(bins) + 1) + "|"]
    for label in dict.fromkeys(row["label"] for row in rows):
        found = {(r["snr_from"], r["snr_to"] or float("inf")): r for r in rows if r["label"] == label}
        cells = [f"{found[b]['within_68']:.3f}, {found[b]['within_95']:.3f}" if b in found else "" for b in bins]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def write(path: Path, lines: list[str]) -> None:
    """Replace what stands between the two marks."""
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{path} has no lines '{BEGIN}' and '{END}'")
    path.write_text("\n".join([before + BEGIN, "", *lines, "", END + after]), encoding="utf-8")


def main() -> None:
    from specclip_search.training.checkpoints.shipped import find_model
    from specclip_search.training.estimators.estimators import CARD

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="a shipped model or a model folder")
    parser.add_argument("--write", type=Path, help="a document with the two marks")
    given = parser.parse_args()
    card = json.loads((find_model(given.model) / CARD).read_text(encoding="utf-8"))
    lines = tables(card["metrics"])
    print("\n".join(lines))
    if given.write:
        write(given.write, lines)


if __name__ == "__main__":
    main()
