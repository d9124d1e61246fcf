"""Which engine runs the heavy arithmetic of an index, by the device asked for."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from specclip_search.errors import QueryError

from .engines import Engine, ProcessorEngine

_DEVICE = re.compile(r"auto|cpu|gpu|cuda(:\d+)?")


def choose_engine(device: str | None = None) -> Engine:
    """The engine for a device: None or `auto` takes a GPU where there is one, else the processor.

    On a GPU, a GPU build of FAISS goes before torch.

    Raises
    ------
    QueryError
        If there is no such device, or a GPU is asked for and there is none.
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
    raise QueryError(f"Device '{device}' was asked for; no GPU is found here.", "Use --device cpu or auto.")


def _driver_present() -> bool:
    """Whether a GPU's driver shows itself, so that torch need not be loaded only to find none."""
    return sys.platform != "linux" or any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))
