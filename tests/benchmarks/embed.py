"""Embedding measured against the model's bare forward pass, and against what the hardware can do.

    python tests/benchmarks/embed.py                      # one processor thread
    python tests/benchmarks/embed.py --device cuda        # also: share of the bf16 matrix peak, spectra/s end to end

On a processor: seconds of `Model.embed_raw` (checks, batches, unit length) and of `embed` (reading and writing
shards too) over those of the encoder alone on the same batches, each repeated in turn; the aim is 1.3.
On a GPU: the LRS encoder at its published size in bfloat16 over the largest rate of a bfloat16 matrix product
measured beside it (aim: half), and shards to vectors with loading overlapped (aim: 10M LRS in 10 minutes).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests" / "indexing")]

from fakes import fluxes, write_spectra  # noqa: E402

from specclip_search.atlas import Atlas  # noqa: E402
from specclip_search.errors import SpecclipError  # noqa: E402
from specclip_search.indexing.vectors.embed import BATCH_ROWS, embed  # noqa: E402
from specclip_search.surveys import LRS  # noqa: E402
from specclip_search.training.checkpoints.folder import build_module, new_card, save_model  # noqa: E402
from specclip_search.training.model import Model, load_model  # noqa: E402
from specclip_search.training.networks.aligned import AlignedModel  # noqa: E402
from specclip_search.training.networks.transformer import MaskedTransformer  # noqa: E402

Timing = tuple[float, float]


def timed(function: Callable[[], object]) -> Timing:
    """Seconds of wall and of processor time."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def forward_alone(model: Model, modality: str, spectra: np.ndarray) -> Callable[[], object]:
    """The encoder over the same batches, tensors ready."""
    batches = torch.from_numpy(spectra).to(model.device).split(model.batch_size)
    module = model.module
    assert isinstance(module, AlignedModel)

    def run() -> None:
        bf16 = model.precision == "bf16"
        with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            for batch in batches:
                module.encode(modality, batch)

    return run


def in_memory(model: Model, modality: str, spectra: np.ndarray) -> Callable[[], object]:
    def run() -> None:
        for start in range(0, len(spectra), BATCH_ROWS):
            model.embed_raw(modality, spectra[start : start + BATCH_ROWS])

    return run


def from_shards(model: Model, modality: str, spectra: np.ndarray, folder: Path) -> Timing:
    atlas = Atlas.create(folder)
    for number, part in enumerate(np.array_split(spectra, 2)):
        write_spectra(atlas, modality, number, part, 1 + number * len(spectra))
    return timed(lambda: embed(atlas, model, [modality]))  # type: ignore[arg-type]


def on_processor(model: Model, count: int, repeats: int) -> None:
    for modality in model.modalities:
        spectra = fluxes(count, modality).astype(np.float32)
        alone, memory = forward_alone(model, modality, spectra), in_memory(model, modality, spectra)
        alone()
        memory()
        found: dict[str, list[Timing]] = {"forward pass alone": [], "Model.embed_raw": [], "embed, from shards": []}
        for number in range(repeats):
            found["forward pass alone"].append(timed(alone))
            found["Model.embed_raw"].append(timed(memory))
            with tempfile.TemporaryDirectory() as scratch:
                found["embed, from shards"].append(from_shards(model, modality, spectra, Path(scratch) / str(number)))
        base = np.min(found["forward pass alone"], axis=0)
        for name, timings in found.items():
            wall, cpu = np.min(timings, axis=0)
            print(f"{modality:11} {name:20} {count / wall:10,.0f} spectra/s  {wall / base[0]:5.2f} x the wall time, "
                  f"{cpu / base[1]:5.2f} x the processor time")


def seconds_on_gpu(function: Callable[[], object], least: float = 2.0) -> float:
    """Seconds a call, over at least `least` seconds."""
    for _ in range(3):
        function()
    torch.cuda.synchronize()
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < least:
        for _ in range(4):
            function()
        torch.cuda.synchronize()
        calls += 4
    return (time.perf_counter() - started) / calls


def matrix_peak() -> float:
    """Most floating-point operations a second of a bfloat16 matrix product here."""
    best = 0.0
    for size in (4096, 8192, 16384):
        a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        best = max(best, 2 * size**3 / seconds_on_gpu(partial(torch.matmul, a, b), 1.0))
    return best


def on_gpu(count: int, batch: int) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    peak = matrix_peak()
    print(f"{torch.cuda.get_device_name()}: bf16 matrix product {peak / 1e12:,.0f} TFLOP/s")
    card = new_card("lrs_mt", "lrs_mt")
    module = build_module(card).cuda().eval()
    assert isinstance(module, MaskedTransformer)
    spectra = fluxes(max(count, batch), LRS).astype(np.float32)
    x = torch.from_numpy(spectra[:batch]).cuda()
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
        with FlopCounterMode(display=False) as counter:
            module.embed(x)
        work = counter.get_total_flops()
        for name in ("as it is", "compiled"):
            if name == "compiled":
                for block in module.blocks:
                    block.compile()
            seconds = seconds_on_gpu(lambda: module.embed(x))
            print(f"published LRS encoder, batch {batch}, {name}: {batch / seconds:,.0f} spectra/s, "
                  f"{work / seconds / 1e12:,.0f} TFLOP/s, {work / seconds / peak:.1%} of the matrix peak")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_model(folder / "model", card, build_module(card).state_dict(), {})
        model = load_model(folder / "model", device="cuda", precision="bf16", batch_size=batch)
        model.embed_raw(LRS, spectra[:batch])
        wall, cpu = from_shards(model, LRS, spectra, folder / "atlas")
    print(f"shards to vectors: {len(spectra) / wall:,.0f} spectra/s ({cpu / wall:.1f} processors busy); "
          f"10M spectra in {1e7 * wall / len(spectra) / 60:.1f} minutes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spectra", type=int, default=4096)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--precision", default="float32", choices=["float32", "bf16"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1, help="processor threads of torch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1024, help="spectra that go through a GPU at once")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        model = load_model(options.model, device="cpu", precision=options.precision)
    except SpecclipError as error:
        print(f"skipped: {error.message}")
    else:
        on_processor(model, options.spectra, options.repeats)
    if options.device == "cpu" or not torch.cuda.is_available():
        print("no GPU: its share of the matrix peak and its spectra/s were not measured")
    else:
        on_gpu(max(options.spectra, 65536), options.batch)


if __name__ == "__main__":
    main()
