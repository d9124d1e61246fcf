"""`specclip-search mcp`"""

from __future__ import annotations

import typer

from ..options import AtlasOption, open_atlas

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def mcp(atlas: AtlasOption) -> None:
    """Let an agent ask the atlas by the Model Context Protocol, on standard input and output; read-only.

    Example: specclip-search mcp --atlas demo-atlas
    """
    from ...web.agents import make_server

    make_server(open_atlas(atlas)).run()
