"""What an explorer may do and how much it gives away: one object that the whole server reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import QueryError

if TYPE_CHECKING:
    from .access import Tokens

DEFAULT_PORT = 8642
MOST_ROWS = 10_000


@dataclass(frozen=True)
class Settings:
    """Settings of one explorer.

    Attributes
    ----------
    host, port
        Where it listens.
    read_only
        Refuse verdicts and uploads, and limit the rate of requests: for the public.
    allow_upload
        Take uploads although `read_only`.
    tokens
        Who may come in; None lets everybody in who reaches the port.
    base_url
        Path below which a proxy serves the explorer, for example ``/lamost``.
    allowed_hosts
        Further names by which browsers may address it.
    offline
        Resolve no names over the network.
    upload_bytes
        Largest upload.
    sql_workers
        Processes for statements of SQL.
    per_second, burst
        Requests of one address where the rate is limited.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    read_only: bool = False
    allow_upload: bool = False
    tokens: Tokens | None = None
    base_url: str = ""
    allowed_hosts: tuple[str, ...] = ()
    offline: bool = False
    upload_bytes: int = 20_000_000
    sql_workers: int = 2
    per_second: float = 20.0
    burst: int = 120
    limit_rate: bool | None = field(default=None)

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the port."""
        return is_loopback(self.host)

    @property
    def uploads(self) -> bool:
        return self.allow_upload or not self.read_only

    @property
    def rate_limited(self) -> bool:
        return self.limit_rate if self.limit_rate is not None else (self.read_only or not self.loopback)

    @property
    def hosts(self) -> frozenset[str]:
        """Names that a request's Host header may have, without the port."""
        own = {"localhost", "127.0.0.1", "[::1]"} if self.loopback else set()
        named = set() if self.host in ("0.0.0.0", "::", "") else {_bracketed(self.host)}
        return frozenset(name.lower() for name in {*own, *named, *self.allowed_hosts})


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def checked_settings(
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    *,
    read_only: bool = False,
    allow_upload: bool = False,
    token_file: Path | None = None,
    base_url: str = "",
    allowed_hosts: tuple[str, ...] = (),
    offline: bool = False,
) -> Settings:
    """Settings from what a user says.

    Raises
    ------
    QueryError
        If the explorer would be open to others with the right to write, or an option is not usable.
    """
    from .access import read_tokens

    if not is_loopback(host) and token_file is None and not read_only:
        raise QueryError(
            f"--host {host} lets other machines in, and nothing says who may give verdicts.",
            "Add --token-file FILE, or --read-only to show the atlas to everyone.",
        )
    if base_url and (not base_url.startswith("/") or base_url.endswith("/") or "//" in base_url):
        raise QueryError(f"--base-url must begin with '/' and not end in it; found '{base_url}'.", "Try /lamost.")
    if not is_loopback(host) and host in ("0.0.0.0", "::") and not allowed_hosts:
        raise QueryError(
            f"--host {host} listens on every address, so the name that browsers will use must be told.",
            "Add --allow-host NAME, for example --allow-host stars.example.org.",
        )
    tokens = None if token_file is None else read_tokens(token_file)
    return Settings(
        host=host,
        port=port,
        read_only=read_only,
        allow_upload=allow_upload,
        tokens=tokens,
        base_url=base_url,
        allowed_hosts=allowed_hosts,
        offline=offline,
    )
