"""Agents get sized answers with their origin, and errors in words; they change nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

mcp = pytest.importorskip("mcp", reason="the extra 'mcp' is not installed")
from specclip_search.web.agents import MOST_CELLS, make_server  # noqa: E402


@pytest.fixture(scope="module")
def server(shown: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("specclip_search.queries.space.space.Space.loaded_model", lambda _: shown.model)
        yield make_server(shown.atlas)


def call(server: Any, tool: str, **arguments: Any) -> Any:
    async def ask() -> Any:
        async with mcp.Client(server) as client:
            return await client.call_tool(tool, arguments)

    return asyncio.run(ask())


def test_every_tool_says_what_it_does(server: Any) -> None:
    async def ask() -> Any:
        async with mcp.Client(server) as client:
            return (await client.list_tools()).tools

    tools = {tool.name: tool for tool in asyncio.run(ask())}
    assert set(tools) == {
        "resolve", "about", "star", "similar", "anomalies", "metal_poor", "schema", "sql", "picture",
    }  # fmt: skip
    assert all(tool.description for tool in tools.values())


def test_a_way_from_an_id_to_neighbours(server: Any, shown: Any) -> None:
    key = call(server, "resolve", text=str(shown.source_id[5])).structured_content["key"]
    assert key == f"gaia:{shown.source_id[5]}"
    star = call(server, "star", key=key).structured_content
    assert star["source_id"] == str(shown.source_id[5])
    assert star["from"]["model"] == "toy"
    near = call(server, "similar", key=key, k=3, within="gaia_xp").structured_content
    assert len(near["rows"]) == 3
    assert near["rows"][0]["spec_id"].isdigit()
    assert near["rows"][0]["similarity"] >= near["rows"][2]["similarity"]


def test_lists_are_sized(server: Any) -> None:
    found = call(server, "anomalies", top=5).structured_content
    assert [row["rank"] for row in found["rows"]] == [1, 2, 3, 4, 5]
    wide = call(server, "sql", statement="SELECT * FROM anomalies").structured_content
    assert wide["rows_in_all"] > len(wide["rows"])
    assert len(wide["rows"]) * len(wide["rows"][0]) <= MOST_CELLS
    poor = call(server, "metal_poor", top=4).structured_content
    assert len(poor["rows"]) == 4


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("star", {"key": "gaia:17"}, "is not in this atlas"),
        ("star", {"key": "/etc/passwd"}, "is not a spectrum key"),
        ("picture", {"key": "../../etc/passwd"}, "is not a spectrum key"),
        ("similar", {"key": "gaia:17"}, "is not in this atlas"),
        ("sql", {"statement": "SELECT * FROM read_text('/etc/passwd')"}, "may not be called here"),
        ("sql", {"statement": "DROP VIEW stars"}, "DROP statement"),
        ("schema", {"view": "nothing"}, "There is no view 'nothing'"),
        ("resolve", {"text": ""}, "needs a name"),
    ],
)
def test_errors_are_told_in_words(server: Any, tool: str, arguments: dict[str, str], message: str) -> None:
    answer = call(server, tool, **arguments)
    assert answer.is_error
    assert message in answer.content[0].text


def test_a_picture_is_a_png(server: Any, shown: Any) -> None:
    import base64

    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    answer = call(server, "picture", key=f"gaia:{shown.source_id[3]}", k=5)
    assert not answer.is_error, answer.content
    assert base64.b64decode(answer.content[0].data)[:8] == b"\x89PNG\r\n\x1a\n"
