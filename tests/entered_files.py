"""Which of our files one query enters, and how often the next call lies in another file; `test_house` runs it.

    python -P tests/entered_files.py FOLDER_OF_SOURCE ATLAS similar KEY
    python -P tests/entered_files.py FOLDER_OF_SOURCE ATLAS anomalies

The query is the first of a fresh process. Calls and resumed generators count; modules that are imported on
the way do not. Prints JSON: ``files`` (calls that come from another file, by file, most first) and ``changes``.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any


class Trace:
    """Counts files and changes of file of Python calls into `root`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._folders = tuple(f"{root}/{name}/" for name in ("specclip_search", "training", "indexing", "queries"))
        self.entered: Counter[str] = Counter()
        self.changes = 0
        self._last = ""

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not self._ours(frame) or self._importing(frame):
            return
        name = frame.f_code.co_filename
        if name != self._last:
            self.changes += bool(self._last)
            self._last = name
            self.entered[name.removeprefix(self.root).lstrip("/")] += 1

    def _ours(self, frame: FrameType) -> bool:
        return frame.f_code.co_filename.startswith(self._folders)

    def _importing(self, frame: FrameType | None) -> bool:
        while frame is not None:
            if frame.f_code.co_name == "<module>" and self._ours(frame):
                return True
            frame = frame.f_back
        return False


def traced(root: str, call: Callable[[], Any]) -> Trace:
    trace = Trace(root)
    sys.setprofile(trace)
    try:
        call()
    finally:
        sys.setprofile(None)
    return trace


def main(root: str, path: str, what: str, *keys: str) -> None:
    import specclip_search

    atlas = specclip_search.Atlas(path)
    if what == "similar":
        from specclip_search import similar

        trace = traced(root, lambda: similar(atlas, keys[0], k=5))
    else:
        from specclip_search import anomalies

        trace = traced(root, lambda: anomalies(atlas, top=5))
    print(json.dumps({"files": dict(trace.entered.most_common()), "changes": trace.changes}))


if __name__ == "__main__":
    main(*sys.argv[1:])
