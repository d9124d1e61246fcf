"""`specclip-search explore`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..options import AtlasOption, open_atlas
from ..reports import say

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def explore(
    atlas: AtlasOption,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8642,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; another than this machine's needs rights.")
    ] = ("127.0.0.1"),
    read_only: Annotated[
        bool, typer.Option("--read-only", help="For the public: no verdicts, no uploads, limited rate.")
    ] = False,
    allow_upload: Annotated[
        bool, typer.Option("--allow-upload", help="With --read-only: take spectra to search with all the same.")
    ] = False,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="TOML of who may look (viewer), judge or own."),
    ] = None,
    base_url: Annotated[
        str, typer.Option("--base-url", metavar="PATH", help="Path below which a proxy serves it.")
    ] = "",
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", metavar="NAME", help="Another name browsers use; repeatable.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Look up no names over the network.")] = False,
) -> None:
    """Look at the atlas, ask it and judge its stars in a browser.

    Example: specclip-search explore --atlas demo-atlas
    """
    from ...web.serve import address_of, listen, serve
    from ...web.settings import checked_settings

    atlas_there = open_atlas(atlas)
    settings = checked_settings(
        host,
        port,
        read_only=read_only,
        allow_upload=allow_upload,
        token_file=token_file,
        base_url=base_url,
        allowed_hosts=tuple(allow_host or ()),
        offline=offline,
    )
    with listen(settings) as listening:
        say(f"The atlas is open at {address_of(settings, listening)} (Ctrl-C ends it).")
        serve(atlas_there, settings, listening)
