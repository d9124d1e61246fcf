"""One open atlas that serves many requests: connections, indexes, the model, and answers worth keeping."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import LifoQueue
from typing import TYPE_CHECKING, Any, TypeVar

from specclip_search.queries.space.space import Space, open_space
from specclip_search.queries.sql.sandbox import Answer, Sandbox
from specclip_search.queries.views.connection import AtlasConnection

from ..atlas.files import text_digest
from ..errors import QueryError, SpecclipError, VectorIndexError
from ..version import __version__

if TYPE_CHECKING:
    from ..atlas import Atlas
    from .settings import Settings

T = TypeVar("T")
CONNECTIONS = 2
KEPT_ANSWERS = 128
# grids of millions of points: few, and made again when others are asked for
KEPT_GRIDS = 6
# what changes with every verdict, and hardly anything depends on
VERDICTS = ("results/verdict_log", "results")
# a statement waits this long for a free process before the answer is to try again later
SQL_WAIT_S = 15.0


class Busy(QueryError):
    """All processes that could answer are at work."""


class Session:
    """An atlas held open.

    Attributes
    ----------
    atlas
        The atlas.
    settings
        What the explorer may do.
    """

    def __init__(self, atlas: Atlas, settings: Settings) -> None:
        self.atlas = atlas
        self.settings = settings
        self._lock = threading.RLock()
        self._opened: Space | None = None
        self._model_lock = threading.Lock()
        self._connections: LifoQueue[tuple[Any, AtlasConnection] | None] = LifoQueue()
        self._sandboxes: LifoQueue[Sandbox] = LifoQueue()
        for _ in range(CONNECTIONS):
            self._connections.put(None)
        for _ in range(settings.sql_workers):
            self._sandboxes.put(Sandbox(atlas))
        self._kept: OrderedDict[Any, Any] = OrderedDict()
        self._grids: OrderedDict[Any, Any] = OrderedDict()
        self._making: dict[Any, threading.Lock] = {}
        self._digests: dict[str, tuple[int, str]] = {}
        self._digest: tuple[tuple[Any, ...], str, str] | None = None

    # -- what the atlas holds at this moment ----------------------------------------------------

    def stamp(self) -> tuple[tuple[str, int], ...]:
        """Modification times of all folders whose files decide an answer; a commit renames into them."""
        return tuple((str(folder), folder.stat().st_mtime_ns) for folder in self._folders() if folder.exists())

    def _folders(self) -> Iterator[Path]:
        root = self.atlas.path
        yield root
        for kind, depth in (("spectra", 1), ("observed", 1), ("catalogs", 1), ("results", 1), ("rejected", 1),
                            ("vectors", 2), ("estimates", 2), ("translations", 1), ("indexes", 2)):  # fmt: skip
            yield from _below(root / kind, depth)

    def digest(self, verdicts: bool = True) -> str:
        """Digest of all that the atlas holds: the same on every copy of it.

        Parameters
        ----------
        verdicts
            With the verdicts, which change while the rest stays.
        """
        stamp = self.stamp()
        with self._lock:
            if self._digest is None or self._digest[0] != stamp:
                pieces = {name: f"{name}:{self._folder_digest(Path(path), when)}"
                          for path, when in stamp
                          if (name := Path(path).relative_to(self.atlas.path).as_posix())}  # fmt: skip
                lasting = [piece for name, piece in pieces.items() if name not in VERDICTS]
                self._digest = (stamp, text_digest(__version__, *pieces.values()), text_digest(__version__, *lasting))
            _, whole, lasting_digest = self._digest
            return whole if verdicts else lasting_digest

    def _folder_digest(self, folder: Path, when: int) -> str:
        known = self._digests.get(str(folder))
        if known is not None and known[0] == when:
            return known[1]
        texts = [
            f"{path.name}:{path.read_text(encoding='utf-8', errors='replace')}"
            for path in sorted([*folder.glob("*.json"), *folder.glob("*.toml")])
        ]
        made = text_digest(*texts) if texts else ""
        self._digests[str(folder)] = (when, made)
        return made

    # -- what answers are made with ---------------------------------------------------------------

    @property
    def space(self) -> Space:
        """Keys, vectors and indexes of the active model, opened by one thread before others use them."""
        with self._lock:
            found = open_space(self.atlas)
            if found is not self._opened:
                for modality in found.modalities:
                    found.keys(modality)
                    # an atlas without an index, or with a stale one, can be asked all else
                    with suppress(VectorIndexError):
                        found.index(modality)
                self._opened = found
            return found

    def warm(self) -> None:
        """Import what requests need and open the indexes, in one thread: torch imported by two crashes."""
        import torch  # noqa: F401

        import specclip_search.queries.similar.similar
        import specclip_search.training.model  # noqa: F401

        with suppress(SpecclipError):
            self.space  # noqa: B018

    def model(self) -> Any:
        """The model itself, loaded when first asked for; one thread loads it."""
        space = self.space
        with self._model_lock:
            return space.loaded_model()

    def run_model(self, call: Callable[[Any], T]) -> T:
        """Let the model work; one request at a time, for torch takes all cores it is given."""
        space = self.space
        with self._model_lock:
            return call(space.loaded_model())

    @contextmanager
    def connection(self) -> Iterator[AtlasConnection]:
        """A connection of our own, for our own statements; views are those of this moment."""
        held = self._connections.get()
        stamp = self.stamp()
        try:
            if held is not None and held[0] != stamp:
                held[1].close()
                held = None
            if held is None:
                held = (stamp, AtlasConnection(self.atlas, read_only=True))
            yield held[1]
        finally:
            self._connections.put(held)

    def sandboxed(self, statement: str) -> Answer:
        """Run a stranger's statement in the next free process.

        Raises
        ------
        QueryError
            As of `specclip_search.queries.sql.sandbox.Sandbox.run`.
        Busy
            If no process becomes free in time.
        """
        from queue import Empty

        try:
            sandbox = self._sandboxes.get(timeout=SQL_WAIT_S)
        except Empty:
            raise Busy("All processes for statements are at work.", "Try again in a few seconds.") from None
        try:
            return sandbox.run(statement)
        finally:
            self._sandboxes.put(sandbox)

    def kept(self, key: Any, make: Callable[[], T], *, verdicts: bool = False, grid: bool = False) -> T:
        """An answer, made once as long as the atlas stays the same; two that ask at once wait for one.

        Parameters
        ----------
        verdicts
            Whether the answer depends on the verdicts.
        grid
            Whether it is large.
        """
        whole = (self.digest(verdicts), key)
        store, most = (self._grids, KEPT_GRIDS) if grid else (self._kept, KEPT_ANSWERS)
        with self._lock:
            if whole in store:
                store.move_to_end(whole)
                return store[whole]
            making = self._making.setdefault(whole, threading.Lock())
        with making:
            with self._lock:
                if whole in store:
                    return store[whole]
            try:
                made = make()
            finally:
                with self._lock:
                    self._making.pop(whole, None)
            with self._lock:
                store[whole] = made
                while len(store) > most:
                    store.popitem(last=False)
        return made

    def close(self) -> None:
        """End the processes and close the connections."""
        for _ in range(self.settings.sql_workers):
            self._sandboxes.get(timeout=SQL_WAIT_S).close()
        for _ in range(CONNECTIONS):
            held = self._connections.get(timeout=SQL_WAIT_S)
            if held is not None:
                held[1].close()


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """Folders exactly `depth` levels below `folder`, in order."""
    try:
        with os.scandir(folder) as entries:
            inner = sorted(entry.path for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return
    for path in inner:
        if depth == 1:
            yield Path(path)
        else:
            yield from _below(Path(path), depth - 1)
