"""The zip format of torch.save, read by memory map: only tensors that are asked for are touched."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specclip_search.errors import CheckpointError

from .restricted_unpickler import StorageRef, TensorRef, read_pickle

MAX_PICKLE_BYTES = 256 * 2**20
_LOCAL_HEADER = 30


class TorchFile:
    """A checkpoint file, open for reading.

    Parameters
    ----------
    path
        File written by torch.save since torch 1.6.

    Attributes
    ----------
    content
        What was saved, with `TensorRef` for tensors and `Stub` for objects of unknown classes.
    stubbed
        Names of those classes.

    Raises
    ------
    CheckpointError
        If the file is none, is damaged, or tries to run something.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise CheckpointError(f"There is no file {path}.", "Check the path.")
        try:
            with zipfile.ZipFile(path) as archive:
                self._entries = {info.filename: info for info in archive.infolist()}
                self._prefix = self._find_prefix()
                self._check_byte_order(archive)
                pickle_info = self._entries[f"{self._prefix}/data.pkl"]
                if pickle_info.file_size > MAX_PICKLE_BYTES:
                    raise CheckpointError(f"The pickle inside {path.name} is {pickle_info.file_size} bytes long.",
                                          "No checkpoint of these models needs that; get the file again.")
                with archive.open(pickle_info) as file:
                    self.content, self.stubbed = read_pickle(file, path.name)
        except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
            raise CheckpointError(
                f"{path} is not a checkpoint in torch's zip format ({error}).",
                "Copy it again; a file of torch older than 1.6, or a plain pickle, must be saved anew by its authors.",
            ) from error

    def _find_prefix(self) -> str:
        found = [name.removesuffix("/data.pkl") for name in self._entries if name.endswith("/data.pkl")]
        if len(found) != 1:
            raise CheckpointError(f"{self.path} is a zip file without torch's data.pkl.", "Name a checkpoint file.")
        return found[0]

    def _check_byte_order(self, archive: zipfile.ZipFile) -> None:
        name = f"{self._prefix}/byteorder"
        if name in self._entries and archive.read(name) != b"little":
            raise CheckpointError(f"{self.path} was written on a big-endian machine.", "Save it anew on another one.")

    def tensor(self, ref: TensorRef) -> Tensor:
        """One tensor as a view of the file; nothing is read before it is used."""
        dtype = getattr(torch, ref.storage.dtype)
        numbers = torch.from_numpy(self._storage_bytes(ref.storage, dtype.itemsize)).view(dtype)
        return numbers.as_strided(ref.shape, ref.stride, ref.offset)

    def _storage_bytes(self, storage: StorageRef, itemsize: int) -> np.ndarray:
        info = self._entries.get(f"{self._prefix}/data/{storage.key}")
        size = storage.numel * itemsize
        if info is None or info.file_size != size or info.compress_type != zipfile.ZIP_STORED:
            found = "nothing" if info is None else f"{info.file_size} bytes"
            raise CheckpointError(f"{self.path.name}: storage {storage.key} should hold {size} bytes; found {found}.",
                                  "The file is damaged; copy it again.")
        if not size:
            return np.empty(0, np.uint8)
        return np.memmap(self.path, np.uint8, mode="c", offset=self._data_offset(info), shape=(size,))

    def _data_offset(self, info: zipfile.ZipInfo) -> int:
        # the local header's extra field may be longer than the central directory says
        with open(self.path, "rb") as handle:
            handle.seek(info.header_offset)
            header = handle.read(_LOCAL_HEADER)
        if len(header) != _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
            raise CheckpointError(f"{self.path} is a damaged zip file.", "Copy it again.")
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        return info.header_offset + _LOCAL_HEADER + name_length + extra_length


def tensor_table(content: Any) -> dict[str, TensorRef] | None:
    """The named tensors of what was saved: its `state_dict`, `model_state_dict`, or itself."""
    if not isinstance(content, Mapping):
        return None
    for name in ("state_dict", "model_state_dict"):
        if name in content:
            return tensor_table(content[name])
    tensors = {str(key): value for key, value in content.items() if isinstance(value, TensorRef)}
    return tensors if tensors and len(tensors) == len(content) else None
