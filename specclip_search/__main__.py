"""`python -m specclip_search`: the command line; torch's launcher starts it once per process.

    torchrun --nproc-per-node 2 -m specclip_search train mini --atlas my-atlas --output runs/mini
"""

from .cli.main import run

if __name__ == "__main__":
    run()
