"""Figures: checked file names, atomic writes, the same bytes for the same data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atlas.files import whole_file
from ..errors import MissingExtra, QueryError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE_FORMATS = ("png", "svg", "pdf")
DOTS_PER_INCH = 150
# the time of writing, which would make files differ
_UNDATED: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def picture_format(path: Path) -> str:
    """`png`, `svg` or `pdf`, from the suffix of a file name.

    Raises
    ------
    QueryError
        If the suffix is another one.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in PICTURE_FORMATS:
        raise QueryError(
            f"A picture's name must end in .png, .svg or .pdf; found '{path.name}'.", "Use, for example, picture.png."
        )
    return suffix


@contextmanager
def picture(path: Path, width: float, height: float, purpose: str) -> Iterator[Figure]:
    """A figure of `width` x `height` inches to draw on; written to `path` when the block ends without error.

    Raises
    ------
    QueryError
        If the suffix is not a supported format.
    MissingExtra
        If matplotlib is not installed; `purpose` says what needs it.
    """
    form = picture_format(path)
    with plain_style(purpose):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        with whole_file(path) as temporary:
            figure.savefig(temporary, format=form, dpi=DOTS_PER_INCH, metadata=_UNDATED[form])


@contextmanager
def plain_style(purpose: str) -> Iterator[None]:
    """Matplotlib's default style, whatever the process has set (GaiaXPy switches to LaTeX)."""
    try:
        import matplotlib
    except ImportError:
        raise MissingExtra("matplotlib", "plots", purpose) from None
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {"svg.hashsalt": "specclip-search", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
        )
        yield
