"""Make the pictures of docs/report.md anew from an atlas: python docs/img/make_pictures.py [ATLAS]."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PROGRAM = [sys.executable, "-c", "from specclip_search.cli.main import run; run()"]
TARGET = "gaia:1603948256723126656"
BROWSER = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)


def command(*words: str) -> None:
    subprocess.run([*PROGRAM, *words], check=True, stdout=subprocess.DEVNULL)


def main(atlas: str) -> None:
    command("similar", TARGET, "-k", "20", "--plot", str(HERE / "similar.png"), "--atlas", atlas)
    command("map", "--color", "feh", "--output", str(HERE / "map.png"), "--atlas", atlas)
    if BROWSER is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        command("report", "--anomalies", "5", "--emp", "5", "--below", "-2", "--output", str(page), "--atlas", atlas)
        options = ["--headless", "--no-sandbox", "--window-size=1200,2600", f"--user-data-dir={folder}/profile"]
        subprocess.run([BROWSER, *options, f"--screenshot={HERE / 'report.png'}", page.as_uri()], check=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "demo-atlas")
