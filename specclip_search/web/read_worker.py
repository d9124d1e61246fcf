"""The process that reads one uploaded file: bytes in, one spectrum out. It may crash or be killed; nobody minds.

The file lies in memory only (`memfd_create`). Standard input holds its bytes, standard output gets an `.npz` with
wavelength, flux, ivar and, as JSON, the rest; or JSON with an error.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from typing import Any

import numpy as np

MEMORY_BYTES = 2 << 30
SECONDS = 20


def _limit() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # readers write nothing; whatever a file talks them into writes nothing either
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def in_memory(payload: bytes) -> int:
    """Handle of a file in memory that holds the bytes."""
    handle = os.memfd_create("upload")
    view = memoryview(payload)
    while view:
        view = view[os.write(handle, view) :]
    return handle


def read(handle: int, options: dict[str, str]) -> bytes:
    """One spectrum of an open file as an `.npz`.

    Raises
    ------
    SpecclipError
        If the file holds no spectrum that can be read.
    """
    from ..readers import read_spectrum

    spectrum = read_spectrum(f"/proc/self/fd/{handle}", **options)  # type: ignore[arg-type]
    plain = {k: v for k, v in spectrum.meta.items() if isinstance(v, str | int | float | bool) or v is None}
    about: dict[str, Any] = {
        "modality": spectrum.modality,
        "spec_id": None if spectrum.spec_id is None else int(spectrum.spec_id),
        "meta": {k: (v.item() if isinstance(v, np.generic) else v) for k, v in plain.items()},
    }
    stream = io.BytesIO()
    np.savez(
        stream,
        wavelength=np.asarray(spectrum.wavelength, np.float64),
        flux=np.asarray(spectrum.flux, np.float64),
        ivar=np.asarray(spectrum.ivar, np.float64),
        about=np.frombuffer(json.dumps(about, default=str).encode(), np.uint8),
    )
    return stream.getvalue()


def main() -> None:
    """Read standard input, answer on standard output."""
    output = sys.stdout.buffer
    # whatever prints must not get into the answer
    sys.stdout = sys.stderr
    head = json.loads(sys.stdin.buffer.readline())
    # imports may write caches of compiled code; the limits come after them
    from ..errors import SpecclipError

    # files in memory count as files: this one is written before the limits forbid any
    handle = in_memory(sys.stdin.buffer.read())
    _limit()
    try:
        answer = b"S" + read(handle, head["options"])
    except SpecclipError as error:
        content = {"error": error.message, "hint": error.hint, "reason": str(getattr(error, "reason", ""))}
        answer = b"E" + json.dumps(content).encode()
    output.write(answer)
    output.flush()


if __name__ == "__main__":
    main()
