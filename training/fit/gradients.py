"""Gradient of one optimiser step, also for batches that do not fit in memory.

A contrastive loss cannot be accumulated by adding losses of parts: each part would use only its own
stars as negatives. Here a large batch is encoded in parts without gradients, the loss of the whole
batch is computed, and the parts are encoded again to propagate its gradient to the encoders
(Gao et al. 2021, arXiv 2101.06983). The result equals that of the whole batch at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..networks.aligned import AlignedModel
from .objective import DeviceBatch, Encoded, Objective


class StepGradients:
    """Computes the gradients of a step.

    Parameters
    ----------
    parts
        Number of parts a batch is encoded in; 1 for no splitting.
    """

    def __init__(self, objective: Objective, parts: int = 1) -> None:
        self.objective, self.parts = objective, parts
        self.parameters: list[nn.Parameter] = [p for p in objective.module.parameters() if p.requires_grad]

    def fill(self, batch: DeviceBatch) -> dict[str, float]:
        """Add the whole batch's gradient, over all processes, to the parameters.

        Returns
        -------
        dict
            Every loss term of the whole batch, over all processes.
        """
        objective = self.objective
        if self.parts == 1:
            terms = objective.terms(batch)
            terms["total"].backward()  # type: ignore[no-untyped-call]
        elif isinstance(objective.module, AlignedModel):
            terms = self._by_vectors(batch)
        else:
            terms = self._by_rows(batch)
        objective.ranks.sum_gradients(self.parameters)
        values = objective.ranks.total(torch.stack([term.detach().double() for term in terms.values()]))
        return dict(zip(terms, values.tolist(), strict=True))

    def _by_rows(self, batch: DeviceBatch) -> dict[str, Tensor]:
        """A single encoder, whose loss is a mean over stars."""
        sums: dict[str, Tensor] = {}
        for rows in self._slices(batch.rows):
            part = DeviceBatch({name: x[rows] for name, x in batch.inputs.items()}, {}, None)
            terms = {name: term * (part.rows / batch.rows) for name, term in self.objective.terms(part).items()}
            terms["total"].backward()  # type: ignore[no-untyped-call]
            for name, term in terms.items():
                sums[name] = sums.get(name, term.new_zeros(())) + term.detach()
        return sums

    def _by_vectors(self, batch: DeviceBatch) -> dict[str, Tensor]:
        objective, parts = self.objective, min(self.parts, batch.rows)
        states: list[list[Tensor]] = []
        pieces: list[Encoded] = []
        with torch.no_grad(), objective.autocast():
            for number in range(parts):
                states.append(self._random_state())
                pieces.append(objective.encode(batch, number, parts))
        whole: Encoded = {modality: {key: torch.cat([piece[modality][key] for piece in pieces]).requires_grad_()
                                     for key in pieces[0][modality]} for modality in pieces[0]}
        with objective.autocast():
            terms = objective.aligned_terms(whole, batch)
        terms["total"].backward()  # type: ignore[no-untyped-call]
        after = self._random_state()
        for number, state in enumerate(states):
            self._set_random_state(state)  # the same dropout as before
            with objective.autocast():
                again = objective.encode(batch, number, parts)
            self._carry_on(again, whole, {name: batch.piece(name, number, parts) for name in again})
        self._set_random_state(after)
        return terms

    @staticmethod
    def _carry_on(encoded: Encoded, whole: Encoded, rows: dict[str, slice]) -> None:
        """Propagate the gradient with respect to the vectors to the encoders."""
        outputs, gradients = [], []
        for modality, vectors in encoded.items():
            for key, vector in vectors.items():
                gradient = whole[modality][key].grad
                if gradient is not None:
                    outputs.append(vector)
                    gradients.append(gradient[rows[modality]])
        torch.autograd.backward(outputs, gradients)

    def _slices(self, rows: int) -> Iterator[slice]:
        size = -(-rows // self.parts)
        return (slice(start, min(start + size, rows)) for start in range(0, rows, size))

    def _random_state(self) -> list[Tensor]:
        device = self.objective.device
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]

    def _set_random_state(self, state: list[Tensor]) -> None:
        torch.set_rng_state(state[0])
        if len(state) > 1:
            torch.cuda.set_rng_state(state[1], self.objective.device)
