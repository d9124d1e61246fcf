"""Who may come in and what they may do; what a page of another site may not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from specclip_search.errors import QueryError
from specclip_search.web.access import Tokens, read_tokens
from specclip_search.web.guard import Buckets
from specclip_search.web.settings import checked_settings

SECRETS = {role: f"a-long-secret-of-the-{role}" for role in ("viewer", "judge", "owner")}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    path = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    path.write_text(
        "".join(f'[[token]]\nuser = "{r[0]}na"\nrole = "{r}"\ntoken = "{s}"\n' for r, s in SECRETS.items()),
        encoding="utf-8",
    )
    return read_tokens(path)


@pytest.fixture
def guarded(shown: Any, opened: Callable[..., TestClient], tokens: Tokens) -> TestClient:
    hosts = ("stars.example.org",)
    return opened(shown.atlas, hosts[0], tokens=tokens, allowed_hosts=hosts, limit_rate=False)


def verdict_of(client: TestClient, **headers: str) -> int:
    return client.post("/verdict", json={"queue": "anomalies"}, headers=headers).status_code


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "", "[::1", "a" * 300])
def test_another_host_name_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/me.json", headers={"Host": host})
    assert answer.status_code == 421
    assert "--allow-host" in answer.json()["hint"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:9999"}, 403),
        ({"Origin": "http://[bad"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        # ours: refused for what the verdict says, not for where it came from
        ({"Origin": "http://localhost"}, 400),
        ({}, 400),
    ],
)
def test_a_page_of_another_site_changes_nothing(client: TestClient, headers: dict[str, str], status: int) -> None:
    assert verdict_of(client, **headers) == status


def test_a_page_of_another_site_reads_nothing_but_may_link(client: TestClient) -> None:
    strange = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert client.get("/sql.json?q=SELECT 1", headers=strange).status_code == 403
    assert client.get("/", headers={**strange, "Sec-Fetch-Mode": "navigate"}).status_code == 200
    # a form cannot send JSON without asking first
    form = client.post("/verdict", content="{}", headers={"Content-Type": "text/plain"})
    assert form.json()["error"] == "A verdict is sent as application/json."
    assert "access-control-allow-origin" not in client.get("/me.json", headers={"Origin": "http://localhost"}).headers


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("judge", 400), ("owner", 400)])
def test_roles(guarded: TestClient, role: str, status: int) -> None:
    bearer = {"Authorization": f"Bearer {SECRETS[role]}"}
    assert guarded.get("/me.json", headers=bearer).json()["role"] == role
    assert verdict_of(guarded, **bearer) == status
    upload = guarded.post("/upload", content=b"", headers=bearer).status_code
    assert upload == status


def test_without_a_token_nothing_is_seen(guarded: TestClient) -> None:
    for path in ("/me.json", "/anomalies.json", "/star/gaia:1.json", "/map/tiles/0/0/0", "/api/resolve?q=1"):
        answer = guarded.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
    assert guarded.get("/me.json", headers={"Authorization": "Bearer wrong-wrong-wrong-wrong"}).status_code == 401
    page = guarded.get("/anomalies", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["location"]) == (303, "/login")
    assert guarded.get("/static/app.js").status_code == 200


def test_signing_in_by_cookie(guarded: TestClient, tokens: Tokens) -> None:
    assert guarded.post("/login", data={"token": "wrong"}).status_code == 403
    answer = guarded.post("/login", data={"token": SECRETS["judge"]})
    cookie = answer.headers["set-cookie"]
    assert answer.status_code == 303
    assert all(word in cookie.lower() for word in ("httponly", "samesite=strict", "path=/"))
    assert SECRETS["judge"] not in cookie
    assert guarded.get("/me.json").json()["role"] == "judge"
    guarded.cookies.clear()
    good = tokens.cookie_for(SECRETS["viewer"])
    name, expires, signature = good.split("|")
    forged = [
        f"jna|{expires}|{signature}",
        f"{name}|{int(expires) + 1}|{signature}",
        f"{name}|{expires}|{signature[:-1]}0" if signature[-1] != "0" else f"{name}|{expires}|{signature[:-1]}1",
        "||", "", "a|b|c", f"{name}|{'9' * 400}|{signature}", "\u00e9|1|\u00e9",
    ]  # fmt: skip
    for cookie in forged:
        assert tokens.person_of_cookie(cookie) is None, cookie
    assert tokens.person_of_cookie(good) is not None
    assert tokens.person_of_cookie(good, now=int(expires) + 1) is None


def test_read_only_refuses_every_change(shown: Any, opened: Callable[..., TestClient]) -> None:
    public = opened(shown.atlas, read_only=True, limit_rate=False)
    paths = [route.path for route in public.app.routes if "POST" in (route.methods or ())]  # type: ignore[attr-defined]
    # TAP's questions may come as forms; they read, and their jobs live in memory
    assert {path for path in paths if not path.startswith("/tap/")} == {"/verdict", "/upload", "/login", "/logout"}
    for path in ("/verdict", "/upload"):
        answer = public.post(path, json={})
        assert answer.status_code == 403
        assert "read-only" in answer.json()["error"]
    assert public.get("/anomalies.json?top=1").status_code == 200
    assert public.get("/me.json").json() | {"upload_bytes": 0} == {
        "user": "visitor", "role": "viewer", "judges": False, "uploads": False, "upload_bytes": 0, "login": False,
    }  # fmt: skip
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert public.request(method, "/verdict").status_code == 405
    assert opened(shown.atlas, read_only=True, allow_upload=True).post("/upload", content=b"").status_code == 400


def test_the_rate_is_limited_for_the_public(shown: Any, opened: Callable[..., TestClient]) -> None:
    public = opened(shown.atlas, read_only=True, per_second=0.001, burst=5)
    status = [public.get("/me.json").status_code for _ in range(7)]
    assert status == [200] * 5 + [429] * 2
    assert int(public.get("/me.json").headers["retry-after"]) > 1
    buckets = Buckets(2.0, 4)
    assert [buckets.wait("a", 1, 0.0) for _ in range(5)] == [0, 0, 0, 0, 0.5]
    assert buckets.wait("b", 1, 0.0) == 0
    assert buckets.wait("a", 1, 0.6) == 0


def test_large_requests_are_refused_unread(shown: Any, opened: Callable[..., TestClient]) -> None:
    small = opened(shown.atlas, upload_bytes=10_000)
    assert small.post("/upload", content=b"x" * 80_000).status_code == 413
    assert small.post("/verdict", content=b"x" * 70_000).status_code == 413

    def endless() -> Any:
        for _ in range(100):
            yield b"x" * 10_000

    # no length was told: counted while it comes
    assert small.post("/upload", content=endless()).status_code == 413
    assert small.post("/verdict", content=endless(), headers={"Content-Type": "application/json"}).status_code == 413


def test_a_proxy_s_prefix(shown: Any, opened: Callable[..., TestClient]) -> None:
    below = opened(shown.atlas, base_url="/lamost")
    for path in ("/lamost/anomalies", "/anomalies", "/lamost/", "/lamost"):
        page = below.get(path)
        assert page.status_code == 200, path
        assert 'src="/lamost/static/app.js"' in page.text
    assert below.get("/lamost/me.json").status_code == 200
    assert below.get("/lamostx/me.json").status_code == 404


def test_open_to_others_only_with_rights(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=r"lets other machines in") as refused:
        checked_settings("0.0.0.0")
    assert "--read-only" in refused.value.hint
    with pytest.raises(QueryError, match=r"name that browsers will use"):
        checked_settings("0.0.0.0", read_only=True)
    assert checked_settings("192.168.1.5", read_only=True).hosts == {"192.168.1.5"}
    assert checked_settings("::1").loopback
    with pytest.raises(QueryError, match="base-url"):
        checked_settings(base_url="lamost/")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no"),
        ("x = [", "cannot be read"),
        ('[[token]]\nuser = "a"\nrole = "king"\ntoken = "0123456789012345678901"', "needs a role"),
        ('[[token]]\nuser = "a"\nrole = "judge"\ntoken = "short"', "at least 20"),
        ('[[token]]\nuser = "a b<"\nrole = "judge"\ntoken = "0123456789012345678901"', "needs a user"),
        ('[[token]]\nuser = "a"\nrole = "judge"', "either token or sha256"),
        ('[[token]]\nuser = "a"\nrole = "judge"\nsha256 = "12"', "64 hexadecimal"),
        ('[[token]]\nuser = "a"\nrole = "judge"\npassword = "0123456789012345678901"', "keys other than"),
        ('[[token]]\nuser = "a"\nrole = "owner"\ntoken = "0123456789012345678901"\n' * 2, "one secret to two"),
    ],
)  # fmt: skip
def test_bad_token_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(QueryError, match=message) as refused:
        read_tokens(path)
    assert refused.value.hint
    with pytest.raises(QueryError, match="cannot be read"):
        read_tokens(tmp_path / "none.toml")
