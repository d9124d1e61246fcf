"""Readers of spectrum files: one module per format, identified by content."""

from . import formats as formats
from .registry import Reader, ReadOptions, iter_spectra, read_spectrum, reader_for, register
from .specutils_bridge import register_with_specutils, to_specutils

__all__ = [
    "ReadOptions", "Reader", "iter_spectra", "read_spectrum", "reader_for", "register", "register_with_specutils",
    "to_specutils",
]
