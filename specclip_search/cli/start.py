"""The program's entry point: a command goes to the resident process if one runs, else it runs here.

Nothing but the interpreter's own modules is imported before it is known that no resident process answers. See
`specclip_search.cli.resident` for the other end.
"""

from __future__ import annotations

import os
import sys

# what the resident process may answer: commands that read, and print rows
FORWARDED = frozenset({"similar", "anomalies", "emp", "sql", "spectrum"})
OFF = "SPECCLIP_RESIDENT"
# a request that the resident process has not begun after this time is answered here
PATIENCE_S = 2.0
STATUS_BYTES = 4


def run() -> None:
    """Entry point of `specclip-search`."""
    if len(sys.argv) > 1 and sys.argv[1] in FORWARDED and os.environ.get(OFF, "").lower() not in ("off", "0", "no"):
        code = forwarded(sys.argv[1:])
        if code is not None:
            sys.exit(code)
    from .main import run as run_here

    run_here()


def runtime_folder() -> str:
    """The user's own folder for sockets, which need not exist."""
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if given and os.path.isabs(given):
        return os.path.join(given, "specclip-search")
    return os.path.join(os.environ.get("TMPDIR") or "/tmp", f"specclip-search-{os.getuid()}")


def socket_path() -> str:
    """The socket of the resident process of this installation: of its environment and its source."""
    here, environment = os.stat(os.path.dirname(os.path.abspath(__file__))), os.stat(sys.prefix)
    return os.path.join(runtime_folder(), f"{here.st_dev:x}-{here.st_ino:x}-{environment.st_ino:x}.sock")


def is_own(path: str) -> bool:
    """Whether a file belongs to this user and to nobody else, and is no link."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return found.st_uid == os.getuid() and (found.st_mode & 0o170077) in (0o040000, 0o140000)


def forwarded(arguments: list[str]) -> int | None:
    """Exit code of a command that the resident process ran; None if it must run here."""
    try:
        path = socket_path()
        if not is_own(path) or not is_own(os.path.dirname(path)):
            return None
        # the C part of `socket`, which starts faster
        import _socket
    except (AttributeError, ImportError, OSError):
        return None
    line = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        line.settimeout(PATIENCE_S)
        line.connect(path)
        message = _request(arguments)
        handed = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
        sent = line.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, handed)])
        while sent < len(message):
            sent += line.send(message[sent:])
        begun = _exactly(line)
    except OSError:
        # nobody listens, or the process ended before it began: no part of the command has run
        return None
    if begun is None:
        return None
    line.settimeout(None)
    return _waited(line, begun)


def _waited(line: object, process: int) -> int:
    """Wait for the exit status of a command that has begun; an interrupt goes to its process group."""
    import signal

    while True:
        try:
            status = _exactly(line)
        except KeyboardInterrupt:
            _signalled(process, signal.SIGINT)
            continue
        except OSError:
            status = None
        break
    if status is None:
        sys.stderr.write("specclip-search: failed: the resident process ended before the command did.\n"
                         f"Run the command again; {OFF}=off runs it without a resident process.\n")
        return 1
    if status < 0:
        # it died by a signal: so does this process, as if it had run the command itself
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def _signalled(process: int, number: int) -> None:
    try:  # noqa: SIM105 - contextlib would be imported for this alone
        os.killpg(process, number)
    except OSError:
        pass


def _request(arguments: list[str]) -> bytes:
    """Length, then fields that end in NUL: encodings, umask, folder, number of arguments, arguments, environment."""
    mask = os.umask(0o077)
    os.umask(mask)
    texts = [f"{stream.encoding}:{stream.errors}" if stream is not None else ":"
             for stream in (sys.stdin, sys.stdout, sys.stderr)]
    fields = [*texts, str(mask), os.getcwd(), str(len(arguments)), *arguments]
    content = b"\0".join([*map(os.fsencode, fields), *(name + b"=" + value for name, value in os.environb.items())])
    return len(content).to_bytes(STATUS_BYTES, "big") + content


def _exactly(line: object) -> int | None:
    """A signed number of four bytes; None at the end of the connection."""
    found = b""
    while len(found) < STATUS_BYTES:
        piece = line.recv(STATUS_BYTES - len(found))  # type: ignore[attr-defined]
        if not piece:
            return None
        found += piece
    return int.from_bytes(found, "big", signed=True)


if __name__ == "__main__":
    run()
