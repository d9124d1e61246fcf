"""`specclip-search train` as torch's launcher starts it, once a process.

    torchrun --nproc-per-node 2 -m specclip_search.__main__ mini --atlas my-atlas --output runs/mini

Arguments are those of `specclip-search train`.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command with this process's arguments; its exit code is the process's."""
    from .cli.main import run

    run(["train", *sys.argv[1:]])


if __name__ == "__main__":
    main()
