"""Distributed training: the processes of a run and the exchange of data between them.

Processes are started by `torchrun`, which sets their number and rank in the
environment. Every loss term is a partial value whose sum over processes is the term of the whole
batch, so that summed gradients equal those of one process with the whole batch.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from specclip_search.errors import CheckpointError

PATIENCE = timedelta(hours=6)
"""Timeout for processes waiting for the first one, which copies the spectra and validates."""
BUCKET = 8_000_000
"""Number of gradient elements per all-reduce."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, from the view of one of them."""

    rank: int = 0
    """Rank of this process."""
    world: int = 1
    """Number of processes."""

    @property
    def first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process arrives."""
        if self.world > 1:
            dist.barrier()

    def total(self, value: Tensor) -> Tensor:
        """Sum over processes, without gradients."""
        if self.world == 1:
            return value.detach()
        result = value.detach().clone()
        dist.all_reduce(result)
        return result

    def from_first(self, *values: float) -> list[float]:
        """Broadcast `values` from the first process."""
        if self.world == 1:
            return list(values)
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        result = torch.tensor(values, dtype=torch.float64, device=device)
        dist.broadcast(result, src=0)
        return result.tolist()

    def gather(self, vectors: Tensor) -> Tensor:
        """(B, D) vectors of every process, (world * B, D) in order of rank, with their gradients."""
        if self.world == 1:
            return vectors
        return _Gather.apply(_wide(vectors), self).to(vectors.dtype)  # type: ignore[no-untyped-call]

    def sum(self, value: Tensor) -> Tensor:
        """Sum over processes, with gradients."""
        return value if self.world == 1 else _Sum.apply(value)  # type: ignore[no-untyped-call]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients over processes, in place."""
        if self.world == 1:
            return
        for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat)
            for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))


def joined(device: torch.device) -> Ranks:
    """Join the process group of `torchrun`, if there is one, until this process ends.

    gloo is used between CPUs, nccl between GPUs. A process joins once; later calls
    reuse the group.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or not {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
        return Ranks()
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        atexit.register(dist.destroy_process_group)
    return Ranks(dist.get_rank(), dist.get_world_size())


def own_device(device: torch.device) -> torch.device:
    """The GPU of this process on its machine; other devices unchanged."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def share_of(size: int, ranks: Ranks) -> tuple[int, int] | None:
    """(rank, world) for a `PairSource`; None for a single process.

    Raises
    ------
    CheckpointError
        If a batch of `size` cannot be shared equally.
    """
    if ranks.world == 1:
        return None
    if size % ranks.world or size // ranks.world < 2:
        raise CheckpointError(f"A batch of {size} stars cannot be shared equally by {ranks.world} processes.",
                              f"Make [data] batch_size a multiple of {ranks.world}.")
    return ranks.rank, ranks.world


class SharedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation with statistics over all processes; keys and evaluation as in BatchNorm1d."""

    ranks = Ranks()

    def forward(self, x: Tensor) -> Tensor:
        """(B, n) to (B, n); every process has the same number of rows."""
        if not self.training or self.ranks.world == 1:
            return super().forward(x)
        rows, wide = len(x) * self.ranks.world, _wide(x)
        mean = self.ranks.sum(wide.sum(0)) / rows
        centred = wide - mean
        variance = self.ranks.sum((centred**2).sum(0)) / rows
        self._remember(mean.detach(), variance.detach() * (rows / (rows - 1)))
        return (centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def share_norms(module: nn.Module, ranks: Ranks) -> nn.Module:
    """Replace every BatchNorm1d by a `SharedBatchNorm` with the same parameters."""
    if ranks.world == 1:
        return module
    for parent in list(module.modules()):
        for name, norm in parent.named_children():
            if type(norm) is nn.BatchNorm1d:
                shared = SharedBatchNorm(norm.num_features, norm.eps, norm.momentum or 0.0)
                shared.weight, shared.bias, shared.ranks = norm.weight, norm.bias, ranks
                for buffer in ("running_mean", "running_var", "num_batches_tracked"):
                    setattr(shared, buffer, getattr(norm, buffer))
                setattr(parent, name, shared)
    return module


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, ranks: Ranks) -> Tensor:
        ctx.rank, ctx.rows = ranks.rank, len(vectors)
        parts = [torch.empty_like(vectors) for _ in range(ranks.world)]
        dist.all_gather(parts, vectors.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        whole = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(whole)
        return whole[ctx.rank * ctx.rows : (ctx.rank + 1) * ctx.rows], None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        result = value.clone()
        dist.all_reduce(result)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        result = gradients[0].clone()
        dist.all_reduce(result)
        return result


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        bucket.append(tensor)
        if sum(t.numel() for t in bucket) >= BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket
