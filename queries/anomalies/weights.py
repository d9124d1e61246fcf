"""Weight of each quantity in the anomaly score, and its tail model.

`specclip_search.queries.evaluation.learn_weights` sets both from a simulated survey.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ..statistics.tail_shape import TailModel

if TYPE_CHECKING:
    pass

FILE = "anomalies.json"
START = 0.5


def load_weights(names: Sequence[str]) -> dict[str, float]:
    """The shipped weights in the order of `names`; quantities without one get `START`."""
    kept = _kept().get("weights", {})
    return {name: float(kept.get(name, START)) for name in names}


def load_tails(names: Sequence[str]) -> list[TailModel | None]:
    """The shipped tail models in the order of `names`; None if there is none."""
    kept = _kept().get("tails", {})
    return [TailModel.from_json(kept[name]) if name in kept else None for name in names]


def _kept() -> dict[str, Any]:
    path = files(__package__).joinpath("weights", FILE)
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

