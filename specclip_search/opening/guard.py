"""Whatever a decoder raises on a damaged file becomes one error with the file's name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import Reason, SpecclipError, SpectrumError
from .regular import PathLike, shown_path, shown_text


@contextmanager
def reading(path: PathLike, kind: str) -> Iterator[None]:
    """Turn foreign exceptions into one `unreadable` error that names the file; our own errors pass.

    Decoders of other packages raise anything on damaged bytes: KeyError, IndexError, UnicodeDecodeError,
    RecursionError, MemoryError where a damaged header asks for the impossible.

    Parameters
    ----------
    path
        The file.
    kind
        What it is read as, for the message.
    """
    try:
        yield
    except SpecclipError:
        raise
    except Exception as error:
        text = shown_text((str(error) or type(error).__name__).splitlines()[0][:160])
        raise SpectrumError(
            Reason.UNREADABLE,
            f"{shown_path(path)} cannot be read as {kind}: damaged or truncated ({text}).",
            "Download or write it again.") from None
