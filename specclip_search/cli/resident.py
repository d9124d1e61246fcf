"""A process that stays, with the program's modules and some atlases loaded, and runs commands for the command line.

One socket a user and installation, in the user's runtime folder, which only the user can open. A request holds the
arguments, the working folder, the environment and the three standard streams of a call; a forked copy of this process
runs it on these very streams, so that output and exit code are those of a call without it. The process has one thread
and opens no database, because it forks. It ends itself when idle, and when its code or its packages have changed.
"""

from __future__ import annotations

import fcntl
import gc
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import QueryError, SpecclipError
from .start import FORWARDED, PATIENCE_S, STATUS_BYTES, is_own, runtime_folder, socket_path

IDLE_S = 1800.0
# atlases whose indexes are kept open
MOST_ATLASES = 4
LONGEST_REQUEST = 1 << 24
_STATUS = struct.Struct(">i")
#: signals that end a command, sent to the copy that runs it
_PASSED_ON = (signal.SIGINT, signal.SIGTERM)


def loaded_state() -> tuple[tuple[str, int], ...]:
    """Files of this package's loaded modules and folders of packages, with their modification times."""
    files = [str(module.__file__) for name, module in list(sys.modules.items())
             if name.partition(".")[0] == "specclip_search" and getattr(module, "__file__", None)]
    folders = [folder for folder in sys.path if folder.endswith("site-packages")]
    found = []
    for path in sorted({*files, *folders}):
        try:
            found.append((path, os.stat(path).st_mtime_ns))
        except OSError:
            found.append((path, 0))
    return tuple(found)


def load_modules() -> None:
    """Import what commands need, but not torch: it starts threads."""
    from .quick_start import keep_pandas_out

    keep_pandas_out()
    from importlib import import_module

    from .main import built, program

    program()
    for name in sorted(FORWARDED):
        built(name)
    for name in ("similar.similar", "anomalies.anomalies", "emp.candidates", "sql.ask", "sql.sandbox", "views.where"):
        import_module(f"specclip_search.queries.{name}")
    for name in ("tables.text", "tables.meanings", "cli.statements", "cli.reports", "cli.progress"):
        import_module(f"specclip_search.{name}")
    import duckdb  # noqa: F401

    with suppress(ImportError):
        import faiss  # noqa: F401


class Resident:
    """The process behind the socket; `serve` runs until it is idle, stopped or outdated.

    Parameters
    ----------
    idle_s
        Seconds without a command after which it ends.
    """

    def __init__(self, idle_s: float = IDLE_S) -> None:
        self.idle_s = idle_s
        self._running: dict[int, socket.socket] = {}
        self._asked: list[tuple[str, str]] = []
        self._stop = False
        self._selector = selectors.DefaultSelector()

    def serve(self, ready: Callable[[], None]) -> None:
        """Take the socket, load everything, call `ready`, answer.

        Raises
        ------
        QueryError
            If another one has the socket already.
        """
        path = Path(socket_path())
        own_folder(path.parent)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise QueryError("A resident process runs already.",
                             "End it with `specclip-search resident stop`.") from None
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        load_modules()
        path.unlink(missing_ok=True)  # of one that was killed
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(16)
        listener.setblocking(False)
        try:
            self._loop(listener, ready)
        finally:
            path.unlink(missing_ok=True)
            listener.close()
            os.close(lock)

    def _loop(self, listener: socket.socket, ready: Callable[[], None]) -> None:
        heard, bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_stop)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(heard, selectors.EVENT_READ)
        state = loaded_state()
        gc.collect()
        gc.freeze()
        ready()
        last = time.monotonic()
        while not (self._stop and not self._running):
            left = last + self.idle_s - time.monotonic()
            if left <= 0 and not self._running:
                return
            events = self._selector.select(max(left, 0.0) if not self._running else self.idle_s)
            for key, _ in events:
                if key.fileobj is listener:
                    last = time.monotonic()
                    if not self._stop:
                        self._accepted(listener, state)
                elif key.fileobj == heard:
                    with suppress(BlockingIOError):
                        os.read(heard, 4096)
                elif isinstance(key.fileobj, socket.socket):
                    self._hung_up(key.fileobj)
            if self._reaped():
                last = time.monotonic()
            if not events and not self._running:
                continue
            if self._asked and not self._running:
                warm_up(self._asked.pop())
                state = loaded_state() if self._unchanged(state) else state
                gc.freeze()

    def _on_stop(self, *_: object) -> None:
        self._stop = True

    def _unchanged(self, before: tuple[tuple[str, int], ...]) -> bool:
        """Whether all that was loaded then still is what lies on the disk."""
        now = dict(loaded_state())
        return all(now.get(path) == changed for path, changed in before)

    def _accepted(self, listener: socket.socket, state: tuple[tuple[str, int], ...]) -> None:
        """Take one request and fork; a caller that is not answered runs its command itself."""
        try:
            line, _ = listener.accept()
        except OSError:
            return
        handed: list[int] = []
        try:
            line.settimeout(PATIENCE_S)
            if not _same_user(line):
                return
            if not self._unchanged(state):
                self._stop = True
                return
            content = _received(line, handed)
            if content is None or len(handed) != 3:
                return
            # a signal that reaches the copy before it has set its own handlers would be lost in those of this process
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
            try:
                child = os.fork()
                if child == 0:
                    _child(content, handed)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            with suppress(OSError):
                os.setpgid(child, child)
            self._running[child] = line
            self._asked = [asked] if (asked := _atlas_of(content)) is not None else []
            line.sendall(_STATUS.pack(child))
            self._selector.register(line, selectors.EVENT_READ)
            line = None  # type: ignore[assignment]
        except OSError:
            return
        finally:
            for number in handed:
                os.close(number)
            if line is not None and line not in self._running.values():
                line.close()

    def _hung_up(self, line: socket.socket) -> None:
        """The caller has gone: its command goes, too."""
        with suppress(OSError):
            if line.recv(1):
                return
        self._selector.unregister(line)
        for child, other in self._running.items():
            if other is line:
                with suppress(OSError):
                    os.killpg(child, signal.SIGTERM)

    def _reaped(self) -> bool:
        """Send the exit status of each child that has ended."""
        any_ended = False
        while self._running:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if child == 0:
                break
            line = self._running.pop(child, None)
            if line is None:
                continue
            any_ended = True
            with suppress(KeyError, ValueError):
                self._selector.unregister(line)
            with suppress(OSError):
                line.sendall(_STATUS.pack(os.waitstatus_to_exitcode(status)))
            line.close()
        return any_ended


def own_folder(folder: Path) -> None:
    """Make the folder of sockets, for this user alone.

    Raises
    ------
    QueryError
        If it is somebody else's, or open to others.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_own(str(folder)):
        raise QueryError(
            f"Expected {folder} to be a folder of this user that nobody else can open; it is not.",
            f"Remove it, or run `chmod 700 {folder}`.",
        )


def _same_user(line: socket.socket) -> bool:
    """Whether the caller is this user, by what the kernel says; the socket's mode says so, too."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    _, user, _ = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return bool(user == os.getuid())


def _received(line: socket.socket, handed: list[int]) -> bytes | None:
    """The content of a request; the streams that come with it are appended to `handed`."""
    first, numbers, _, _ = socket.recv_fds(line, 65_536, 3)
    handed += numbers
    if len(first) < STATUS_BYTES:
        return None
    size = int.from_bytes(first[:STATUS_BYTES], "big")
    content = first[STATUS_BYTES:]
    if size > LONGEST_REQUEST:
        return None
    while len(content) < size:
        piece = line.recv(min(size - len(content), 65_536))
        if not piece:
            return None
        content += piece
    return content


def _parsed(content: bytes) -> tuple[list[str], int, str, list[str], dict[bytes, bytes]]:
    """Encodings of the streams, umask, working folder, arguments, environment."""
    fields = content.split(b"\0")
    texts = [os.fsdecode(field) for field in fields[:6]]
    end = 6 + int(texts[5])
    pairs = (field.partition(b"=") for field in fields[end:])
    environment = {name: value for name, _, value in pairs}
    return texts[:3], int(texts[3]), texts[4], [os.fsdecode(field) for field in fields[6:end]], environment


def _atlas_of(content: bytes) -> tuple[str, str] | None:
    """The working folder of a request and the atlas that it names; None if it names none."""
    _, _, folder, arguments, environment = _parsed(content)
    named = os.fsdecode(environment.get(b"SPECCLIP_ATLAS", b""))
    for place, word in enumerate(arguments):
        if word in ("--atlas", "-a") and place + 1 < len(arguments):
            named = arguments[place + 1]
        elif word.startswith("--atlas="):
            named = word.partition("=")[2]
    return (folder, str(Path(named))) if named else None


def _child(content: bytes, handed: list[int]) -> None:
    """Run one command on the caller's streams; never returns."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for caught in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(caught, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        os.setpgid(0, 0)
        encodings, mask, folder, arguments, environment = _parsed(content)
        for place, number in enumerate(handed):
            os.dup2(number, place)
        os.umask(mask)
        os.chdir(folder)
        os.environb.clear()
        os.environb.update(environment)
        time.tzset()
        sys.stdin, sys.stdout, sys.stderr = (
            _stream(place, mode, text) for place, (mode, text) in enumerate(zip("rww", encodings, strict=True))
        )
        from .main import run

        try:
            run(arguments)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                # Python's own code where its last output cannot be written
                code = 120
    except KeyboardInterrupt:
        code = 130
    finally:
        os._exit(code)


def _stream(number: int, mode: str, text: str) -> Any:
    """A standard stream as Python opens it."""
    encoding, _, errors = text.partition(":")
    return open(number, mode, encoding=encoding or None, errors=errors or None, closefd=False,
                buffering=1 if number == 2 or (mode == "w" and os.isatty(number)) else -1)


def warm_up(asked: tuple[str, str]) -> None:
    """Open an atlas's indexes, keys and lookups, so that forked copies find them open.

    Parameters
    ----------
    asked
        Working folder, and the atlas's path from there.
    """
    from . import options

    if asked in options.open_atlases:
        return
    try:
        from specclip_search.queries.similar.similar import similar_table
        from specclip_search.queries.space.space import open_space
        from specclip_search.surveys import get_modality

        os.chdir(asked[0])
        atlas = options.open_atlas(Path(asked[1]))
        space = open_space(atlas)
        name = space.modalities[0]
        similar_table(atlas, f"{get_modality(name).prefix}:{int(space.keys(name).spec_id[0])}", k=2)
    except (SpecclipError, OSError, ValueError, LookupError):
        # what is wrong with the atlas is said to those who ask it
        return
    finally:
        os.chdir("/")
    while len(options.open_atlases) >= MOST_ATLASES:
        options.open_atlases.pop(next(iter(options.open_atlases)))
    options.open_atlases[asked] = atlas


def running() -> int | None:
    """Process id of the resident process; None if none runs."""
    lock = Path(socket_path()).with_suffix(".lock")
    if not is_own(runtime_folder()):
        return None
    try:
        number = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        text = os.read(number, 32).decode(errors="replace")
        return int(text) if text.isdigit() else None
    finally:
        os.close(number)
    return None


def start(idle_s: float = IDLE_S) -> int:
    """Start a resident process in the background and wait until it answers; its process id.

    Raises
    ------
    QueryError
        If one runs already, or it could not be started.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _in_background(write, idle_s)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read, encoding="utf-8") as answer:
        said = answer.read()
    if not said.isdigit():
        raise QueryError(said.partition("\n")[0] or "The resident process could not be started.",
                         said.partition("\n")[2] or "Run the commands without it.")
    return int(said)


def _in_background(write: int, idle_s: float) -> None:
    """Fork once more into a session of its own; never returns."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)

        def ready() -> None:
            os.write(write, str(os.getpid()).encode())
            os.close(write)

        try:
            Resident(idle_s).serve(ready)
        except SpecclipError as error:
            os.write(write, f"{error.message}\n{error.hint}".encode())
        except Exception as error:
            os.write(write, f"The resident process failed: {type(error).__name__}: {error}".encode())
    finally:
        os._exit(0)


def stop() -> bool:
    """End the resident process, after the commands that it runs now; whether there was one."""
    process = running()
    if process is None:
        return False
    os.kill(process, signal.SIGTERM)
    while running() == process:
        time.sleep(0.02)
    return True
