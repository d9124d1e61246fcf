"""Two encoders with a shared space, and their decoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from specclip_search.surveys import LRS, XP

from .heads import SplitDecoder
from .losses import PUBLISHED_TEMPERATURE, clip_loss, l1_loss
from .tokens import mean_and_std

OTHER = {XP: LRS, LRS: XP}
SHORT = {XP: "xp", LRS: "lrs"}


class AlignedModel(nn.Module):
    """Two encoders trained so that both spectra of a star get nearly the same vector.

    Parameters
    ----------
    gaia_xp_encoder, lamost_lrs_encoder
        Modules from (B, n) spectra to a dict with `shared` and, for split models, `private`.
    decoders
        `gaia_xp_decoder`, `lamost_lrs_decoder` (same instrument) and `gaia_xp_cross_decoder`,
        `lamost_lrs_cross_decoder` (named by what they produce); none for a purely contrastive model.
    temperature
        Factor of the cosines in the contrastive loss.
    """

    def __init__(self, gaia_xp_encoder: nn.Module, lamost_lrs_encoder: nn.Module,
                 decoders: Mapping[str, nn.Module] | None = None, temperature: float = PUBLISHED_TEMPERATURE) -> None:
        super().__init__()
        self.gaia_xp_encoder = gaia_xp_encoder
        self.lamost_lrs_encoder = lamost_lrs_encoder
        for name, decoder in (decoders or {}).items():
            self.add_module(name, decoder)
        self.temperature = temperature

    @property
    def can_decode(self) -> bool:
        """Whether the model has decoders, so that it can reconstruct and translate."""
        return hasattr(self, "gaia_xp_cross_decoder")

    def scale(self) -> float | Tensor:
        """Factor of the cosines in the contrastive loss."""
        return self.temperature

    def encode(self, modality: str, x: Tensor) -> dict[str, Tensor]:
        """(B, n) spectra to `shared` (B, D) and, for split models, `private`; not of unit length."""
        return getattr(self, f"{modality}_encoder")(x)

    def decode(self, target: str, encoded: dict[str, Tensor], same: bool) -> Tensor:
        """Spectra of `target` from the output of `encode`.

        With `same` True the encoded spectra are of `target` itself. Then LRS comes out
        standardised (minus mean, over std), while a translation comes out in units of the
        continuum; XP is always flux over flux at 550 nm.
        """
        if not self.can_decode:
            raise AttributeError("this kind of model has no decoders: it neither reconstructs nor translates")
        decoder = getattr(self, f"{target}_decoder" if same else f"{target}_cross_decoder")
        if isinstance(decoder, SplitDecoder):
            return decoder(encoded["shared"], encoded["private"])
        return decoder(encoded["shared"])

    def reconstruct(self, modality: str, x: Tensor) -> Tensor:
        """(B, n) spectra through their own decoder; LRS standardised, see `decode`."""
        return self.decode(modality, self.encode(modality, x), same=True)

    def translate(self, source_modality: str, x: Tensor) -> Tensor:
        """(B, n) spectra to predicted spectra of the other instrument."""
        return self.decode(OTHER[source_modality], self.encode(source_modality, x), same=False)

    def contrast(self, xp: Tensor, lrs: Tensor) -> Tensor:
        """Contrastive loss of paired shared vectors."""
        return clip_loss(xp, lrs, self.scale())

    def losses(self, xp: Tensor, lrs: Tensor, weights: Mapping[str, Tensor] | None = None,
               targets: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Loss terms of paired spectra and their sum `total` (all weights 1, as published).

        Parameters
        ----------
        xp, lrs
            (B, 343) and (B, 1462) model inputs; row i of both is the same star.
        weights
            By modality, pixel weights of the absolute errors, see
            `specclip_search.training.networks.losses.error_weights`.
        targets
            By modality, targets of the decoders if different from the input, for example
            the spectrum before noise was added.

        Returns
        -------
        dict
            `clip`, `total` and, where the model decodes, `recon_xp`, `recon_lrs`, `pred_xp`, `pred_lrs`.
        """
        return self.losses_of({XP: self.encode(XP, xp), LRS: self.encode(LRS, lrs)}, xp, lrs, weights, targets)

    def losses_of(self, encoded: Mapping[str, dict[str, Tensor]], xp: Tensor, lrs: Tensor,
                  weights: Mapping[str, Tensor] | None = None, targets: Mapping[str, Tensor] | None = None,
                  gather: Callable[[Tensor], Tensor] = lambda vectors: vectors,
                  labels: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """`losses` from the output of `encode` for both instruments.

        Extra spectra of one instrument belong to stars without a spectrum of the
        other: they enter reconstruction and label losses but not contrast and prediction.

        Parameters
        ----------
        gather
            Gathers the vectors of all processes for the contrastive loss.
        labels
            By modality, (B, labels) in their units, NaN where unknown. Models with heads for them
            (`specclip_search.training.networks.mini`) add `label_xp` and `label_lrs`.
        """
        pairs = min(len(xp), len(lrs))
        paired = {name: {key: v[:pairs] for key, v in vectors.items()} for name, vectors in encoded.items()}
        terms = {"clip": self.contrast(gather(paired[XP]["shared"]), gather(paired[LRS]["shared"]))}
        if self.can_decode:
            flux = targets or {XP: xp, LRS: lrs}
            weight: Mapping[str, Tensor | None] = weights or {XP: None, LRS: None}
            mean, std = mean_and_std(lrs, self.floor())
            own = {XP: flux[XP], LRS: (flux[LRS] - mean) / std}
            for name in (XP, LRS):
                terms[f"recon_{SHORT[name]}"] = l1_loss(self.decode(name, encoded[name], True), own[name], weight[name])
            for name in (XP, LRS):
                predicted, own_weight = self.decode(name, paired[OTHER[name]], False), weight[name]
                terms[f"pred_{SHORT[name]}"] = l1_loss(predicted, flux[name][:pairs],
                                                       None if own_weight is None else own_weight[:pairs])
        for name, known in (labels or {}).items():
            if hasattr(self, f"{name}_labels"):
                terms[f"label_{SHORT[name]}"] = getattr(self, f"{name}_labels").loss(encoded[name]["shared"], known)
        terms["total"] = sum(terms.values(), start=xp.new_zeros(()))
        return terms

    def floor(self) -> float:
        """Smallest standard deviation that LRS spectra are divided by; published: none."""
        return 0.0
