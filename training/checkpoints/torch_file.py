"""Read the zip format of torch.save by memory map, without running its pickle.

Only requested tensors are read. A pickle is a program that names functions and calls them. Here
every name is looked up in a short list of harmless stand-ins. A class that is not in it becomes an
inert stub that accepts any arguments, and a call of anything else is refused. No name is ever
imported.
"""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from specclip_search.errors import CheckpointError
from specclip_search.opening.regular import open_regular

# modules whose objects no checkpoint needs
_DANGEROUS = frozenset({
    "os", "posix", "nt", "posixpath", "ntpath", "subprocess", "_posixsubprocess", "sys", "builtins", "__builtin__",
    "importlib", "imp", "runpy", "code", "codeop", "shutil", "socket", "_socket", "ctypes", "_ctypes", "pty", "pdb",
    "bdb", "timeit", "pickle", "_pickle", "marshal", "webbrowser", "multiprocessing", "asyncio", "concurrent",
    "threading", "_thread", "signal", "types", "inspect", "gc", "tempfile", "glob", "fileinput", "io", "_io", "http",
    "urllib", "ftplib", "smtplib", "telnetlib", "xmlrpc", "platform", "commands", "operator", "functools", "site",
    "venv", "ensurepip", "pip", "setuptools", "distutils", "cProfile", "profile", "trace",
})
# lower-case callables used to pickle ordinary objects; none of them is run
_HARMLESS_CALLS = frozenset({
    "torch.device", "torch.dtype", "functools.partial", "_codecs.encode", "datetime.datetime", "datetime.timedelta",
    "datetime.date", "collections.defaultdict", "collections.deque", "collections.Counter", "numpy.dtype",
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy._core.numeric._frombuffer",
    "numpy.core.numeric._frombuffer", "builtins.frozenset", "builtins.bytearray", "builtins.complex", "builtins.slice",
    "builtins.range", "builtins.object", "torch._utils._rebuild_device_tensor_from_numpy", "types.SimpleNamespace",
})
_STORAGE_TYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}
_ERRORS = (pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, TypeError, ValueError,
           RecursionError, OverflowError, MemoryError, AssertionError)


@dataclass(frozen=True)
class StorageRef:
    """A storage in the file, not read yet."""

    key: str
    dtype: str
    numel: int


@dataclass(frozen=True)
class TensorRef:
    """A tensor described by the pickle: a view of a storage, not read yet."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class StorageType:
    """Stand-in for a class such as torch.FloatStorage."""

    dtype: str


class _StubType(type):
    """Metaclass of stubs: REDUCE in a pickle calls a class, which may be refused."""

    origin: str

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        if not _may_call(cls.origin):
            raise CheckpointError(
                f"The file tries to call {cls.origin}; a checkpoint holds tensors and plain values only.",
                "It was not run. Do not use this file; download the checkpoint from its authors again.",
            )
        return _make(cls)


class Stub(metaclass=_StubType):
    """Inert object for an unknown class; keeps items, drops everything else."""

    origin = ""

    def __new__(cls, *arguments: Any, **named: Any) -> Stub:
        """Create an empty stub; arguments are dropped."""
        return _make(cls)

    kept: dict[Any, Any]

    def __setstate__(self, state: Any) -> None:
        """Drop it."""

    def __setitem__(self, key: Any, value: Any) -> None:
        self.kept[key] = value

    def append(self, value: Any) -> None:
        """Drop it."""

    def extend(self, values: Any) -> None:
        """Drop them."""

    def add(self, value: Any) -> None:
        """Drop it."""


def _make(cls: Any) -> Stub:
    if _root(cls.origin) in _DANGEROUS and cls.origin not in _HARMLESS_CALLS:
        raise CheckpointError(
            f"The file tries to create an object of {cls.origin}; a checkpoint does not need it.",
            "It was not run. Do not use this file; download the checkpoint from its authors again.",
        )
    stub: Stub = object.__new__(cls)
    stub.kept = {}
    return stub


class RestrictedUnpickler(pickle.Unpickler):
    """Reads tensor descriptions and plain values; runs nothing that the file refers to.

    Attributes
    ----------
    stubbed
        Names in the file that were replaced by stubs.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="utf-8")
        self._stubs: dict[str, _StubType] = {}

    @property
    def stubbed(self) -> list[str]:
        """Names replaced by stubs, sorted."""
        return sorted(self._stubs)

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for `module.name`; nothing is imported."""
        origin = f"{module}.{name}"
        if origin in _KNOWN:
            return _KNOWN[origin]
        if module in ("torch", "torch.storage") and name in _STORAGE_TYPES:
            return StorageType(_STORAGE_TYPES[name])
        if origin not in self._stubs:
            self._stubs[origin] = _StubType("Stub", (Stub,), {"origin": origin})
        return self._stubs[origin]

    def persistent_load(self, pid: Any) -> StorageRef:
        """A reference to a storage of the file."""
        kind, storage, key, _, numel = pid
        if kind != "storage" or not isinstance(storage, StorageType) or not isinstance(numel, int):
            raise pickle.UnpicklingError(f"unknown reference {pid!r}")
        return StorageRef(str(key), storage.dtype, numel)


def read_pickle(file: IO[bytes], where: str) -> tuple[Any, list[str]]:
    """Content of a pickle as plain values, `TensorRef` and `Stub`, and the names that were stubbed.

    Raises
    ------
    CheckpointError
        If the pickle is damaged, or tries to call something a checkpoint does not need.
    """
    unpickler = RestrictedUnpickler(file)
    try:
        return unpickler.load(), unpickler.stubbed
    except _ERRORS as error:
        raise CheckpointError(f"The pickle inside {where} cannot be read ({type(error).__name__}: {error}).",
                              "Copy the file again; check its size or checksum.") from error


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *ignored: Any) -> TensorRef:
    if not isinstance(storage, StorageRef):
        raise pickle.UnpicklingError("a tensor without a storage")
    numbers = (offset, *shape, *stride)
    if len(shape) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
        raise pickle.UnpicklingError(f"a tensor of shape {shape!r} and stride {stride!r} at {offset!r}")
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if all(shape) and last >= storage.numel:
        raise pickle.UnpicklingError(f"a tensor of shape {shape!r} reaches beyond its {storage.numel} numbers")
    return TensorRef(storage, offset, tuple(shape), tuple(stride))


def _rebuild_parameter(data: Any, *ignored: Any) -> Any:
    return data


def _reconstruct(cls: Any, *ignored: Any) -> Any:
    if not (isinstance(cls, type) and issubclass(cls, Stub)):
        raise pickle.UnpicklingError("copyreg on something that is not a stub")
    return _make(cls)


def _size(dimensions: Any = ()) -> tuple[Any, ...]:
    return tuple(dimensions)


_KNOWN: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set, "__builtin__.set": set, "builtins.dict": dict, "builtins.list": list,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor, "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch.nn.parameter.Parameter": _rebuild_parameter,
    "torch.Size": _size,
    "copyreg._reconstructor": _reconstruct, "copy_reg._reconstructor": _reconstruct,
    "copyreg.__newobj__": _reconstruct,
}


def _root(origin: str) -> str:
    return origin.split(".", 1)[0]


def _may_call(origin: str) -> bool:
    """Whether a call of this name can create an ordinary object: a class, by its capital letter."""
    if origin in _HARMLESS_CALLS:
        return True
    return _root(origin) not in _DANGEROUS and origin.rsplit(".", 1)[-1].lstrip("_")[:1].isupper()


def _refuse_what_is_no_checkpoint(path: Path) -> None:
    """Say what a file is that is often met in a checkpoint's place.

    Raises
    ------
    CheckpointError
        If it is a pointer of git-lfs, a web page, or empty.
    """
    with open_regular(path) as handle:
        head = handle.read(1024)
    if head.startswith(b"version https://git-lfs"):
        size = re.search(rb"size (\d+)", head)
        whole = f" ({int(size[1]):,} bytes)" if size else ""
        raise CheckpointError(
            f"{path} is a git-lfs pointer of {path.stat().st_size} bytes, not the checkpoint itself{whole}.",
            "In the folder that was cloned: git lfs install && git lfs pull; or download the file from its web page.")
    if not head:
        raise CheckpointError(f"{path} is empty (0 bytes).", "Download it again.")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(f"{path} is a web page, not a checkpoint.",
                              "The download failed or needs a login; get the file itself, not the page that shows it.")
    if start.startswith((b"{", b"[")) and b"\0" not in head:
        raise CheckpointError(f"{path} is JSON text, perhaps a server's error message, not a checkpoint.",
                              "Look at it in an editor, and download the checkpoint again.")


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
        The saved object, with `TensorRef` for tensors and `Stub` for objects of unknown classes.
    stubbed
        Names of those classes.

    Raises
    ------
    CheckpointError
        If the file is not a checkpoint, is damaged, or tries to run code.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise CheckpointError(f"There is no file {path}.", "Check the path.")
        _refuse_what_is_no_checkpoint(path)
        try:
            with zipfile.ZipFile(path) as archive:
                self._entries = {info.filename: info for info in archive.infolist()}
                self._prefix = self._find_prefix()
                self._check_byte_order(archive)
                pickle_info = self._entries[f"{self._prefix}/data.pkl"]
                if pickle_info.file_size > MAX_PICKLE_BYTES:
                    raise CheckpointError(f"The pickle inside {path.name} is {pickle_info.file_size} bytes long.",
                                          "No checkpoint of these models needs that; download the file again.")
                with archive.open(pickle_info) as file:
                    self.content, self.stubbed = read_pickle(file, path.name)
        except CheckpointError:
            raise
        except Exception as error:  # zipfile raises many kinds on damaged archives, zlib's and struct's among them
            raise CheckpointError(
                f"{path} is not a checkpoint in torch's zip format ({error}).",
                "Copy it again; a file of torch older than 1.6, or a plain pickle, must be saved again by its authors.",
            ) from error

    def _find_prefix(self) -> str:
        found = [name.removesuffix("/data.pkl") for name in self._entries if name.endswith("/data.pkl")]
        if len(found) != 1:
            raise CheckpointError(f"{self.path} is a zip file without torch's data.pkl.", "Give a checkpoint file.")
        return found[0]

    def _check_byte_order(self, archive: zipfile.ZipFile) -> None:
        name = f"{self._prefix}/byteorder"
        if name in self._entries and archive.read(name) != b"little":
            raise CheckpointError(f"{self.path} was written on a big-endian machine.",
                                      "Save it again on a little-endian machine.")

    def tensor(self, ref: TensorRef) -> Tensor:
        """One tensor as a view of the file; data are read on first use."""
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


MAX_DEPTH = 8


def tensor_table(content: Any) -> dict[str, TensorRef] | None:
    """The named tensors of what was saved: its `state_dict`, `model_state_dict`, or itself.

    Dictionaries inside dictionaries are followed to a depth that no real checkpoint has: one may hold itself.
    """
    for _ in range(MAX_DEPTH):
        if not isinstance(content, Mapping):
            return None
        inner = next((name for name in ("state_dict", "model_state_dict") if name in content), None)
        if inner is None:
            tensors = {str(key): value for key, value in content.items() if isinstance(value, TensorRef)}
            return tensors if tensors and len(tensors) == len(content) else None
        content = content[inner]
    return None
