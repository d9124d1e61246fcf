"""The explorer: an atlas in a browser. Stands beside the command line, above the queries; nothing imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..atlas import Atlas


def explore(atlas: Atlas, port: int = 0, *, block: bool = True, **options: Any) -> str:
    """Open an atlas in a browser.

    Parameters
    ----------
    atlas
        Atlas to show.
    port
        Port to listen on; 0 takes a free one.
    block
        Wait until the explorer is stopped; else it runs in a thread of this process until that ends.
    options
        As of `specclip_search.web.settings.checked_settings`: `host`, `read_only`, `token_file`, ...

    Returns
    -------
    str
        Address of the first page.

    Raises
    ------
    QueryError
        If an option is not usable, or the port is taken.
    MissingExtra
        If the extra `web` is not installed.
    """
    import threading
    import webbrowser

    from .serve import address_of, listen, serve
    from .settings import checked_settings

    settings = checked_settings(port=port, **options)
    listening = listen(settings)
    # requests that come before the server is ready wait in this queue
    listening.listen()
    address = address_of(settings, listening)
    if block:
        with listening:
            webbrowser.open(address)
            serve(atlas, settings, listening)
    else:
        threading.Thread(target=serve, args=(atlas, settings, listening), daemon=True, name="explorer").start()
    return address
