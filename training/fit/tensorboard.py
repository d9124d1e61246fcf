"""TensorBoard log of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from specclip_search.errors import MissingExtra

FOLDER = "tensorboard"


class TensorBoardLog:
    """Writes the loss of every step and the metrics of every epoch under `run/tensorboard`.

    Parameters
    ----------
    done
        Steps already done by a resumed run; later entries of the interrupted run are hidden.

    Raises
    ------
    MissingExtra
        If the package tensorboard is not installed.
    """

    def __init__(self, run: Path, done: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra("tensorboard", "tensorboard", "A log for TensorBoard") from error
        make: Callable[..., Any] = SummaryWriter
        self.writer = make(str(run / FOLDER), purge_step=done + 1 if done else None)

    def step(self, number: int, loss: float, rate: float) -> None:
        """Log step `number` of the run, counted from 1."""
        self.writer.add_scalar("step/loss", loss, number)
        self.writer.add_scalar("step/rate", rate, number)

    def epoch(self, number: int, metrics: dict[str, float]) -> None:
        """Log an epoch whose last step was `number`."""
        for name, value in metrics.items():
            group, _, rest = name.partition("_")
            tag = f"{group}/{rest}" if group in ("train", "validation") else f"epoch/{name}"
            self.writer.add_scalar(tag, value, number)
        self.writer.flush()

    def close(self) -> None:
        """Flush pending events."""
        self.writer.close()
