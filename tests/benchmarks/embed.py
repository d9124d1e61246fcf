"""Embedding runs measured: spectra a second of `embed`, against the model alone on spectra in memory.

    python tests/benchmarks/embed.py --spectra 2000 --model mini

The ratio is what reading, checking, writing and digesting shards cost, and copying the model into the
atlas once: 1 would be nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests" / "indexing")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spectra", type=int, default=2000)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--precision", default="float32", choices=["float32", "bf16"])
    options = parser.parse_args()
    from fakes import fluxes, write_spectra

    from indexing.embedding import BATCH_ROWS, embed
    from specclip_search.atlas import Atlas
    from specclip_search.errors import SpecclipError
    from training.model import load_model

    try:
        model = load_model(options.model, precision=options.precision)
    except SpecclipError as error:
        print(f"skipped: {error.message}")
        return
    for modality in model.modalities:
        spectra = fluxes(options.spectra, modality)
        model.embed_raw(modality, spectra[:64])
        started, cpu = time.perf_counter(), time.process_time()
        for start in range(0, len(spectra), BATCH_ROWS):
            model.embed_raw(modality, spectra[start : start + BATCH_ROWS])
        alone, alone_cpu = time.perf_counter() - started, time.process_time() - cpu
        with tempfile.TemporaryDirectory() as scratch:
            atlas = Atlas.create(Path(scratch) / "atlas")
            for number, part in enumerate(np.array_split(spectra, 2)):
                write_spectra(atlas, modality, number, part, 1 + number * options.spectra)
            cpu = time.process_time()
            report = embed(atlas, model, [modality])
            run_cpu = time.process_time() - cpu
            again = embed(atlas, model, [modality])
        print(f"{modality}: model alone {options.spectra / alone:,.0f} spectra/s, "
              f"embed {report.read / report.seconds:,.0f} spectra/s; "
              f"embed takes {report.seconds / alone:.2f} x the wall and {run_cpu / alone_cpu:.2f} x the CPU time; "
              f"a second run, all current: {again.seconds:.3f} s")


if __name__ == "__main__":
    main()
