"""`specclip-search explore` and `explore()`: an address to open, or a refusal in words."""

from __future__ import annotations

import json
import socket
import urllib.request
from typing import Any

import pytest
from typer.testing import CliRunner

from specclip_search.cli.commands import explore as command
from specclip_search.errors import AtlasError, QueryError
from specclip_search.web import explore


def refused(*arguments: str) -> BaseException | None:
    return CliRunner().invoke(command.app, list(arguments)).exception


def test_what_the_command_refuses(shown: Any, tmp_path: Any) -> None:
    atlas = str(shown.atlas.path)
    assert isinstance(refused("--atlas", str(tmp_path / "none")), AtlasError)
    open_to_all = refused("--atlas", atlas, "--host", "0.0.0.0")
    assert isinstance(open_to_all, QueryError)
    assert "--token-file FILE, or --read-only" in open_to_all.hint
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        error = refused("--atlas", atlas, "--port", str(taken.getsockname()[1]))
    assert isinstance(error, QueryError)
    assert "cannot listen on 127.0.0.1" in error.message
    assert "--port" in error.hint


def test_from_python_in_a_thread(shown: Any) -> None:
    pytest.importorskip("uvicorn", reason="the extra 'web' is not installed")
    address = explore(shown.atlas, block=False, offline=True)
    with urllib.request.urlopen(f"{address}index.json", timeout=120) as answer:
        content = json.load(answer)
    assert content["atlas"] == shown.atlas.path.name
    with pytest.raises(QueryError, match="lets other machines in"):
        explore(shown.atlas, block=False, host="0.0.0.0")
