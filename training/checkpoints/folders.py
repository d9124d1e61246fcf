"""Folders that appear whole or not at all, and the tensors kept in them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from specclip_search.atlas.files import TEMPORARY_PREFIX, sync_folder, whole_file
from specclip_search.errors import CheckpointError


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`; on a clean exit it becomes `target`, durably.

    A `target` that stands already is replaced. If the body raises, nothing changes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with open(file, "rb+") as handle:
                    os.fsync(handle.fileno())
        sync_folder(temporary)
        old = target.with_name(f"{TEMPORARY_PREFIX}old-{os.getpid()}-{target.name}")
        if target.exists():
            os.rename(target, old)
        os.rename(temporary, target)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(target.parent)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors, whole or not at all, without a second copy in memory.

    Tensors that share storage are told apart by the format, so each is made contiguous.
    """
    from safetensors.torch import save_file

    with whole_file(path) as temporary:
        save_file({key: value.detach().contiguous() for key, value in tensors.items()}, temporary, metadata)
        os.chmod(temporary, 0o644)  # the writer makes it readable to its owner alone


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, memory-mapped.

    Raises
    ------
    CheckpointError
        If the file is missing, cut short or not in this format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file ({error}).",
                              "Copy the model folder again, whole.") from error


def cast(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """A state with its floating-point tensors in `dtype`; integers stay."""
    return {key: v.to(dtype) if v.is_floating_point() else v for key, v in state.items()}


def fill_module(module: nn.Module, state: Mapping[str, Tensor], where: str, assign: bool = True) -> None:
    """Give a module its weights, exactly: no key missing, none surplus, every shape as expected.

    Parameters
    ----------
    where
        What to call the state in messages.
    assign
        Whether the tensors themselves become the parameters; False copies their values.

    Raises
    ------
    CheckpointError
        If not, naming the keys.
    """
    wanted = {key: tuple(v.shape) for key, v in module.state_dict().items()}
    found = {key: tuple(v.shape) for key, v in state.items()}
    problems = key_differences(wanted, found)
    if problems:
        raise CheckpointError(f"{where} does not fit its architecture: {problems}.",
                              "Use the weights that belong to this model.toml.")
    module.load_state_dict(dict(state), assign=assign)


def key_differences(wanted: Mapping[str, Any], found: Mapping[str, Any], most: int = 5) -> str:
    """Missing, surplus and misshapen keys in words; empty where there are none."""
    missing = sorted(set(wanted) - set(found))
    surplus = sorted(set(found) - set(wanted))
    shapes = [f"{key} {found[key]} instead of {wanted[key]}" for key in wanted
              if key in found and found[key] != wanted[key]]
    parts = []
    for what, names in (("missing", missing), ("surplus", surplus), ("of another shape", shapes)):
        if names:
            more = f" and {len(names) - most} more" if len(names) > most else ""
            parts.append(f"{len(names)} {what} ({', '.join(names[:most])}{more})")
    return "; ".join(parts)
