"""Lazy imports: names of a package are imported from their modules when first used (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__` that imports `name` from the module `homes[name]` and caches it.

    Parameters
    ----------
    package
        The package's `__name__`.
    homes
        Module of each public name; relative to the package if it begins with a dot.
    """

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__
