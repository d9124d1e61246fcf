"""`specclip-search explain`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import AtlasOption, FormatOption, ModelOption, OutputOption, SeedOption, open_atlas
from ..reports import deliver, say

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def explain(
    atlas: AtlasOption,
    targets: Annotated[
        list[str],
        typer.Argument(metavar="TARGET...", help="Two spectra, or five and more; @FILE has one on each line."),
    ],
    model: ModelOption = None,
    seed: SeedOption = 0,
    format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Say what makes two spectra alike or unlike, or what the stars of a list have in common that others do not.

    Example: specclip-search explain gaia:1624605949904837888 gaia:2771029718749765376 --atlas demo-atlas
    """
    from specclip_search.queries.explain.explain import explain_group, explain_match

    from ...tables import require_writable

    require_writable(format, output)
    named = [name for text in targets for name in _named(text)]
    opened = open_atlas(atlas)
    if len(named) == 2:
        frame = explain_match(opened, named[0], named[1], model, seed)
    else:
        frame = explain_group(opened, named, model, seed)
    deliver(frame, format, output)
    say(*frame.attrs["words"])


def _named(text: str) -> list[str]:
    """The targets of one argument."""
    from ...errors import QueryError

    if not text.startswith("@"):
        return [text]
    path = Path(text[1:])
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise QueryError(
            f"The list {path} cannot be read: {error.strerror if isinstance(error, OSError) else error}.",
            "Write a file with one key on each line.",
        ) from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
