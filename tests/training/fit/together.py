"""What each of several processes does in `test_distributed`; started by torch's launcher, not by pytest.

    torchrun --nproc-per-node 2 tests/training/together.py FOLDER
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(REPOSITORY), str(Path(__file__).parents[1])]

from conftest import TINY, made_up_pairs  # noqa: E402

from specclip_search.training.checkpoints.folder import new_card  # noqa: E402
from specclip_search.training.fit.augment import Augmentation  # noqa: E402
from specclip_search.training.fit.distributed import Ranks, joined, share_norms, share_of  # noqa: E402
from specclip_search.training.fit.gradients import StepGradients  # noqa: E402
from specclip_search.training.fit.objective import Objective  # noqa: E402
from specclip_search.training.fit.recipe import DataSettings, LossSettings, OptimiserSettings, Recipe  # noqa: E402
from specclip_search.training.fit.start import fresh_module  # noqa: E402
from specclip_search.training.fit.train import train  # noqa: E402

CPU = torch.device("cpu")
# without dropout and augmentation, whose draws differ from process to process
PLAIN = Recipe("tiny", "mini", seed=5, model=replace(TINY, dropout=0.0), data=DataSettings(batch_size=64),
               augment=Augmentation(0.0), loss=LossSettings(error_weighted=True),
               optimiser=OptimiserSettings(rate=1e-3, warmup_steps=3, epochs=2, precision="float32"))
NOISY = replace(PLAIN, model=TINY, augment=Augmentation(0.5, noise=1.0, rv_kms=50.0, mask_pixels=9))


def first_step(recipe: Recipe, ranks: Ranks, parts: int = 1) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Loss terms and gradients of the first step, buffers after it included."""
    torch.manual_seed(recipe.seed)
    card = new_card("tiny", "mini", recipe.model)
    module = share_norms(fresh_module(recipe, card), ranks).train()
    gradients = StepGradients(Objective(module, card, recipe, CPU, ranks), parts)
    size = recipe.data.batch_size
    batch = next(made_up_pairs(uneven=True).batches("train", size, 1, 0, share=share_of(size, ranks)))
    terms = gradients.fill(gradients.objective.on_device(batch))
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return terms, found | {name: b.clone() for name, b in module.named_buffers()}


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    ranks = joined(CPU)
    for contrast in ("clip", "sigmoid"):
        for parts in (1, 2):
            recipe = replace(PLAIN, model=replace(PLAIN.model, contrast=contrast))
            terms, tensors = first_step(recipe, ranks, parts)
            if ranks.first:
                tensors |= {f"term {name}": torch.tensor(value) for name, value in terms.items()}
                save_file(tensors, str(folder / f"{contrast}-{parts}.safetensors"))
    pairs = made_up_pairs()
    train(PLAIN, pairs, folder / "plain")
    train(NOISY, pairs, folder / "whole")
    train(NOISY, pairs, folder / "parts", stop_after=1)
    train(NOISY, pairs, folder / "parts", resume=True)


if __name__ == "__main__":
    main()
