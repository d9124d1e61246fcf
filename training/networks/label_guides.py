"""Small heads that tell labels from the shared vector while a model trains, so that the vector keeps them.

They serve training alone; what a user is told comes from the estimators, which are trained on the
finished vectors and calibrated.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .label_scale import LABELS, TEFF_UNIT
from .losses import label_loss

# centre and width of each label on the learned scale: ln(teff / 5000 K), dex, km/s
CENTRE = {"teff": 0.0, "logg": 3.0, "feh": -0.5, "alpha_fe": 0.1, "c_fe": 0.0, "rv": 0.0}
WIDTH = {"teff": 0.15, "logg": 1.0, "feh": 0.6, "alpha_fe": 0.13, "c_fe": 0.5, "rv": 80.0}


class LabelGuide(nn.Module):
    """A perceptron over the unit vector: mean and ln scale of every label."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, hidden)
        self.outer = nn.Linear(hidden, 2 * len(LABELS))

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(B, dim) vectors of any length to mean and ln scale (B, labels), standardised."""
        # unit vectors have components of size 1/sqrt(dim): brought to 1
        unit = F.normalize(vectors.float(), dim=-1) * vectors.shape[-1] ** 0.5
        mean, log_scale = self.outer(F.gelu(self.inner(unit))).float().chunk(2, dim=-1)
        return mean, log_scale

    def loss(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """`specclip_search.training.networks.losses.label_loss` of (B, labels) labels in their units, NaN where
        unknown."""
        learned = torch.cat([torch.log(labels[:, :1] / TEFF_UNIT), labels[:, 1:]], dim=1)
        centre = labels.new_tensor([CENTRE[name] for name in LABELS])
        width = labels.new_tensor([WIDTH[name] for name in LABELS])
        mean, log_scale = self(vectors)
        return label_loss(mean, log_scale, (learned - centre) / width)
