"""How a public name is retired: it works for one more minor version, and says what to use instead."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def deprecated(instead: str, removed_in: str) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Decorator of a function that is going to be removed.

    Each place that calls it gets one `FutureWarning`, the category that Python shows to users and not to developers
    alone. The note is added to the docstring.

    Parameters
    ----------
    instead
        What to call, for example ``specclip_search.compare``.
    removed_in
        First version without it.

    Examples
    --------
    >>> @deprecated("specclip_search.similar", removed_in="0.3")
    ... def search(atlas, key): ...
    """

    def decorate(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        note = f"{function.__qualname__} is deprecated and will be removed in version {removed_in}; use {instead}."

        @functools.wraps(function)
        def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            warnings.warn(note, FutureWarning, stacklevel=2)
            return function(*args, **kwargs)

        wrapper.__doc__ = f"{function.__doc__ or ''}\n\n.. deprecated:: {note}".lstrip()
        return wrapper

    return decorate
