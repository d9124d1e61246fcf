"""What a person types is understood, or refused in words."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient


def resolved(client: TestClient, text: str) -> Any:
    return client.get("/api/resolve", params={"q": text}).json()


def test_ids_in_every_form(client: TestClient, shown: Any) -> None:
    star, obsid = int(shown.source_id[4]), int(shown.obsid[4])
    for text in (f"gaia:{star}", str(star), f"Gaia DR3 {star}", f"GAIA EDR3  {star}", f" gaia: {star} "):
        assert resolved(client, text)["key"] == f"gaia:{star}", text
    for text in (f"lamost:{obsid}", str(obsid), f"LAMOST {obsid}", f"lamost obsid {obsid}"):
        assert resolved(client, text)["key"] == f"lamost:{obsid}", text
    assert resolved(client, f"lamost:{obsid}@dr9")["key"] == f"lamost:{obsid}@dr9"


@pytest.mark.parametrize("text", ["gaia:17", "lamost:17", "1234567890123456789", "9" * 19, "99999999999999999999999"])
def test_ids_that_are_not_here(client: TestClient, text: str) -> None:
    answer = client.get("/api/resolve", params={"q": text})
    assert answer.status_code == (404 if len(text) < 19 or text.startswith("1") else 400)
    assert answer.json()["hint"]


@pytest.mark.parametrize("text", ["400 10", "10 95", "25:00:00 +10:00:00", "12:60:00 +10:00:00", "l=10 b=91"])
def test_positions_off_the_sky(client: TestClient, text: str) -> None:
    answer = client.get("/api/resolve", params={"q": text})
    assert answer.status_code == 400
    assert answer.json()["hint"]


def test_a_position_leads_to_the_star_there_or_tells_the_nearest(client: TestClient, shown: Any) -> None:
    there = resolved(client, "180.004 10.004")
    assert there["key"] == f"gaia:{shown.source_id[4]}"
    beside = resolved(client, "180.0 9.99")
    assert beside["key"] is None
    assert beside["near"][0]["key"] == f"gaia:{shown.source_id[0]}"
    assert beside["near"][0]["separation_arcsec"] == pytest.approx(36, rel=1e-3)
    assert resolved(client, "10 -80")["near"] == []


@pytest.mark.parametrize(
    "text", ["", "   ", "HD 122563", "<script>", "../../etc/passwd", "x" * 300, "spec-1", "\x00", "٣٤"]
)
def test_what_means_nothing(client: TestClient, text: str) -> None:
    answer = client.get("/api/resolve", params={"q": text})
    assert answer.status_code == 400
    assert answer.json()["hint"]


def test_a_lamost_file_name_that_is_not_here(client: TestClient) -> None:
    answer = client.get("/api/resolve", params={"q": "spec-55859-F5902_sp01-001.fits.gz"})
    assert answer.status_code == 404
