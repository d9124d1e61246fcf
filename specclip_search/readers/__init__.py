"""Readers of spectrum files: one small file a format, found by content."""

from . import builtin as builtin
from .registry import Reader, ReadOptions, iter_spectra, read_spectrum, reader_for, register
from .with_specutils import register_with_specutils

__all__ = [
    "ReadOptions", "Reader", "iter_spectra", "read_spectrum", "reader_for", "register", "register_with_specutils",
]
