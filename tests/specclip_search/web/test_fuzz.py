"""Requests at random: refused or answered, never a failure of the server."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import quote

import numpy as np
from starlette.testclient import TestClient

# the whole thousand by SPECCLIP_FUZZ=1000
REQUESTS = int(os.environ.get("SPECCLIP_FUZZ", "250"))
PATHS = (
    "/index.json",
    "/anomalies.json",
    "/anomalies.csv",
    "/emp.json",
    "/emp.parquet",
    "/verdicts.json",
    "/map.json",
    "/map/chosen.json",
    "/map/chosen.csv",
    "/map/point.json",
    "/map/points",
    "/sky.json",
    "/sky/density",
    "/sql.json",
    "/sql.vot",
    "/about.json",
    "/api/resolve",
    "/api/similar",
    "/me.json",
    "/static/{}",
    "/star/{}",
    "/star/{}.json",
    "/star/{}.csv",
    "/star/{}/spectra",
    "/star/{}/neighbours.json",
    "/star/{}/{}",
    "/map/tiles/{}/{}/{}",
    "/{}",
    "/login",
    "/verdict",
    "/upload",
    "/tap/sync",
    "/tap/async",
    "/tap/async/{}",
    "/tap/async/{}/{}",
    "/tap/tables",
    "/tap/capabilities",
)
NAMES = (
    "q",
    "top",
    "kind",
    "snr",
    "p",
    "score",
    "box",
    "lasso",
    "color",
    "row",
    "k",
    "within",
    "where",
    "target",
    "own",
    "table",
    "frame",
    "verdict",
    "clean",
    "every_visit",
    "name",
    "QUERY",
    "LANG",
    "FORMAT",
    "MAXREC",
    "PHASE",
    "WAIT",
    "modality",
    "unit",
    "medium",
    "",
)
PIECES = (
    "",
    "0",
    "-1",
    "1e400",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "1,2,3,4",
    "0,0,1,1",
    "9" * 40,
    "1" * 19,
    "gaia:",
    "lamost:",
    ":",
    "@",
    "gaia:{id}",
    "lamost:{obsid}",
    "{id}",
    "gaia:{id}@dr9",
    "lamost:{obsid}@",
    "SELECT 1",
    "SELECT * FROM stars LIMIT 2",
    "SELECT",
    "';--",
    "../../etc/passwd",
    "%2e%2e%2f",
    "\x00",
    "\x1b[31m",
    "é",
    "𝔘",
    "\u202e",
    "٣",
    "<script>alert(1)</script>",
    "{{7*7}}",
    "teff",
    "feh",
    "modality",
    "gaia_xp",
    "lamost_lrs",
    "icrs",
    "galactic",
    "true",
    "null",
    "[]",
    "{}",
    "x" * 3000,
    "0,0,1,1," * 50,
    "1,2,1,2,1,2",
    "12:34:56 +12:34:56",
    "188 12",
    "J122345.67+123456.7",
    "emp",
    "anomaly",
    "labels",
    "none",
    "interesting",
    ".json",
)
BODIES = (
    b"",
    b"{}",
    b"[]",
    b"null",
    b"\xff" * 50,
    b'{"queue": 1}',
    b'{"queue": "emp", "lrs_spec_id": {}}',
    b"a=1&token=x",
)
KINDS = (
    "application/json",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "multipart/form-data; boundary=x",
    "",
)


def test_nothing_makes_the_server_fail(client: TestClient, shown: Any) -> None:
    rng = np.random.default_rng(20)
    values = {"id": shown.source_id[11], "obsid": shown.obsid[11]}

    def pick(of: tuple[Any, ...]) -> Any:
        return of[int(rng.integers(len(of)))]

    def piece() -> str:
        text = pick(PIECES)
        return text.format(**values) if "{id}" in text or "{obsid}" in text else text

    seen = set()
    for number in range(REQUESTS):
        path = pick(PATHS)
        while "{}" in path:
            path = path.replace("{}", quote(piece(), safe=""), 1)
        query = "&".join(f"{quote(pick(NAMES))}={quote(piece())}" for _ in range(int(rng.integers(0, 4))))
        headers = {
            "Accept": pick(("*/*", "text/html", "")),
            "If-None-Match": piece().encode("ascii", "replace").decode().replace("\x00", "").replace("\x1b", ""),
        }
        url = f"{path}?{query}" if query else path
        if rng.random() < 0.15:
            answer = client.post(url, content=pick(BODIES), headers=headers | {"Content-Type": pick(KINDS)})
        else:
            answer = client.get(url, headers=headers)
        assert answer.status_code < 500, (number, url, answer.status_code, answer.text[:300])
        if answer.status_code >= 400 and answer.headers["content-type"].startswith("application/json"):
            assert answer.json()["error"], url
        seen.add(answer.status_code)
    assert {200, 400, 404} <= seen
