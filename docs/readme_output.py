"""Write what `make demo` prints into README.md.

    python docs/readme_output.py              # runs the demo in a temporary folder, a few minutes
    python docs/readme_output.py OUTPUT       # takes its standard output from a file

README's blocks of output are the ```text blocks behind a line `<!-- demo: NAME -->`; tests/test_demo.py compares them
with a demo that it runs.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCK = re.compile(r"(<!-- demo: (\w+) -->\n```text\n)(.*?)(```)", re.S)
ROWS = 5


def sections(output: str) -> dict[str, str]:
    """The excerpts by name, from all that the demo prints to standard output."""
    near = re.findall(r"^rank .*?similarity  simulated.*?^Median[^\n]*$", output, re.S | re.M)
    emp = re.search(r"^rank  +source_id  probability.*?APOGEE \[Fe/H\] < -2\.$", output, re.S | re.M)
    sql = re.search(r"^SELECT .*?(?=\n\n)\n\n(.*)\Z", output, re.S | re.M)
    odd = re.findall(r"^ ?\d+  gaia:\d+  .*?(?=^ ?\d+  gaia:|^\n)", output, re.S | re.M)
    if len(near) != 2 or emp is None or sql is None or len(odd) < ROWS:
        raise SystemExit("this is not what `specclip-search demo` prints")
    statement = sql[0][: sql.start(1) - sql.start()]
    return {
        "similar": "\n".join(_head(table) for table in near),
        "anomalies": "".join(odd[:ROWS]) + "...\n",
        "emp": _head(emp[0]),
        "sql": statement + "\n".join(sql[1].strip("\n").split("\n")[: ROWS + 1]) + "\n...\n",
    }


def _head(table: str) -> str:
    """Heading, first rows and closing line of a table."""
    lines = [line for line in table.split("\n") if line.strip()]
    return "\n".join([*lines[: ROWS + 1], "...", lines[-1]]) + "\n"


def demo_output(command: list[str], folder: Path) -> str:
    """Standard output of a demo built in `folder` by a command such as ``specclip-search``."""
    words = [*command, "demo", "--atlas", str(folder / "atlas")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def main() -> None:
    """Replace README's excerpts."""
    if len(sys.argv) > 1:
        output = Path(sys.argv[1]).read_text(encoding="utf-8")
    else:
        with tempfile.TemporaryDirectory() as folder:
            output = demo_output([sys.executable, "-m", "specclip_search"], Path(folder))
    found = sections(output)
    text = README.read_text(encoding="utf-8")
    README.write_text(BLOCK.sub(lambda m: m[1] + found[m[2]] + m[4], text), encoding="utf-8")


if __name__ == "__main__":
    main()
