"""What a demo atlas of 300 stars answers, kept in `demo_answers.json` so that no change of code moves it unseen.

    python -P tests/demo_answers.py        writes the file again, after a change of answers that was meant
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

KEPT = Path(__file__).with_suffix(".json")
STARS = 300
ROWS = 10
# names and keys of a star that is always among those of the demo (BS 16080-054)
STAR = 1624605949904837888
SQL = """SELECT s.source_id, s.lamost_spec_id, s.teff, s.feh, s.snr_lrs, a.score, a.kind
FROM stars s JOIN anomalies a USING (source_id) WHERE s.teff > 4500 ORDER BY s.source_id"""


def build(folder: Path) -> Any:
    """The demo's atlas, small: real XP spectra, simulated LAMOST spectra, the shipped model."""
    from specclip_search import Atlas
    from specclip_search.indexing import build_index, embed
    from specclip_search.indexing.vectors.estimate import estimate
    from specclip_search.ingest import ingest_library
    from specclip_search.queries.translation.translate import translate
    from specclip_search.simulation.samples.pairs import simulate_pairs
    from specclip_search.training.model import load_model

    atlas = Atlas.create(folder)
    ingest_library(atlas, STARS, seed=0, always=(STAR,))
    simulate_pairs(atlas, seed=0)
    model = load_model("mini")
    embed(atlas, model)
    estimate(atlas, model)
    translate(atlas, model)
    for modality in atlas.modalities():
        build_index(atlas, model.name, modality, recipe="flat", seed=0)
    return atlas


def answers(atlas: Any) -> dict[str, list[dict[str, Any]]]:
    """First rows of each kind of search: whole numbers and text as they are, other numbers to three digits."""
    from specclip_search import anomalies, similar
    from specclip_search.queries.emp.candidates import emp_candidates
    from specclip_search.surveys import GAIA_XP

    frames = {
        "similar": similar(atlas, f"{GAIA_XP.prefix}:{STAR}", k=ROWS),
        "anomalies": anomalies(atlas, top=ROWS),
        "emp": emp_candidates(atlas, below=-2.0, top=ROWS),
        "sql": atlas.sql(SQL).df().head(ROWS),
    }
    return {name: _rows(frame.head(ROWS)) for name, frame in frames.items()}


def _rows(frame: Any) -> list[dict[str, Any]]:
    import pyarrow as pa

    rows = pa.Table.from_pandas(frame, preserve_index=False).to_pylist()
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return None if value != value else float(f"{value:.3g}")
    return value if isinstance(value, str | int | bool | None) else str(value)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = answers(build(Path(folder) / "atlas"))
    # a row a line, so that a difference shows
    lists = [f'"{name}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]" for name, rows in found.items()]
    KEPT.write_text("{" + ",\n".join(lists) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
