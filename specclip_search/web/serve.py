"""Run the explorer: the listening socket, the address to open, uvicorn."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from ..errors import MissingExtra, QueryError

if TYPE_CHECKING:
    from ..atlas import Atlas
    from .settings import Settings


def listen(settings: Settings) -> socket.socket:
    """The socket to listen on.

    Raises
    ------
    QueryError
        If the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host.strip("[]"), settings.port))
    except OSError as error:
        listening.close()
        raise QueryError(
            f"The explorer cannot listen on {settings.host}, port {settings.port}: {error.strerror or error}.",
            "Choose another with --port; --port 0 takes a free one.",
        ) from error
    return listening


def address_of(settings: Settings, listening: socket.socket) -> str:
    """Where a browser finds the explorer."""
    host = next(iter(settings.allowed_hosts), settings.host)
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{listening.getsockname()[1]}{settings.base_url}/"


def serve(atlas: Atlas, settings: Settings, listening: socket.socket) -> None:
    """Answer until the process is stopped.

    Raises
    ------
    MissingExtra
        If uvicorn or starlette is not installed.
    """
    try:
        import uvicorn

        from .app import make_app
    except ImportError as error:
        raise MissingExtra(error.name or "uvicorn", "web", "The explorer") from error
    config = uvicorn.Config(
        make_app(atlas, settings), log_level="warning", access_log=False, server_header=False, ws="none",
        limit_concurrency=64, timeout_keep_alive=15, h11_max_incomplete_event_size=64 * 1024,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listening])
