"""Choice of the engine that does the heavy arithmetic of an index, by requested device."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from specclip_search.errors import QueryError

from .engines import Engine, ProcessorEngine

_DEVICE = re.compile(r"auto|cpu|gpu|cuda(:\d+)?")


def choose_engine(device: str | None = None) -> Engine:
    """The engine for a device: None or `auto` uses a GPU if available, else the CPU.

    On a GPU, a GPU build of FAISS is preferred over torch.

    Raises
    ------
    QueryError
        If the device does not exist, or a GPU is requested and there is none.
    """
    if device is not None and not _DEVICE.fullmatch(device):
        raise QueryError(f"A device is auto, cpu, cuda or cuda:N; found '{device}'.", "Use --device auto.")
    if device == "cpu" or (device in (None, "auto") and not _driver_present()):
        return ProcessorEngine()
    import torch

    from .faiss_gpu import FaissGpuEngine, gpu_build
    from .torch_engine import TorchEngine

    if gpu_build() is not None and device in (None, "auto", "gpu", "cuda"):
        return FaissGpuEngine(exact=TorchEngine("cuda") if torch.cuda.is_available() else None)
    if torch.cuda.is_available():
        return TorchEngine("cuda" if device in (None, "auto", "gpu") else str(device))
    if device in (None, "auto"):
        return ProcessorEngine()
    raise QueryError(f"Device '{device}' was requested; no GPU was found.", "Use --device cpu or auto.")


def _driver_present() -> bool:
    """Whether a GPU driver is present; avoids importing torch only to find no GPU."""
    return sys.platform != "linux" or any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))
