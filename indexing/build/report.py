"""Report of a build, as fields and as text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..vectors.index_folder import Generation
from .costs import Estimate, Meter, folder_bytes, peak_memory, written_bytes
from .growth import Drift
from .recall import CentringGain, Recall

Action = Literal["built", "grown", "current"]


@dataclass(frozen=True, slots=True)
class BuildReport:
    """Report of a build.

    Attributes
    ----------
    model, modality, rows, dim
        The indexed vectors.
    recipe
        As a factory string.
    action
        `built`; `grown` if new shards were added to the existing index; `current` if the
        existing index was already built from these vectors.
    estimate
        Estimated cost.
    seconds
        Wall time of each step run in this process, and `total`.
    cpu_seconds, peak_memory
        CPU seconds of this process during the build; its peak resident bytes.
    cpu_steps
        CPU seconds of each step run in this process.
    disk
        Size of the index on disk, in bytes.
    explained_variance
        Fraction of the variance kept by the PCA; None for a flat index.
    nprobe, rerank
        Search settings found by tuning; 0 for a flat index.
    recall
        Measured against exact search, for each query group.
    centring
        Gain from subtracting the means, for each other instrument.
    recall_reached
        Whether the target recall was reached on the tuning sample.
    drift
        Drift of the vectors added since training; with action `built` it was too large to grow. None
        if growing was not tried.
    anew
        Why the previous index could not be grown; empty if there was none, or if drift is the reason.
    """

    model: str
    modality: str
    rows: int
    dim: int
    recipe: str
    action: Action
    estimate: Estimate
    seconds: dict[str, float]
    cpu_seconds: float
    peak_memory: int
    disk: int
    explained_variance: float | None
    nprobe: int
    rerank: float
    recall: list[Recall] = field(default_factory=list)
    centring: list[CentringGain] = field(default_factory=list)
    recall_reached: bool = True
    drift: Drift | None = None
    cpu_steps: dict[str, float] = field(default_factory=dict)
    anew: str = ""

    def __str__(self) -> str:
        lines = [f"{self.action}: {self.rows:,} {self.modality} vectors of '{self.model}' as {self.recipe} in "
                 f"{self.seconds['total']:.1f} s, {written_bytes(self.disk)} on disk, "
                 f"{written_bytes(self.estimate.bytes_a_vector)} per vector in memory"]
        if self.explained_variance is not None:
            lines.append(f"PCA keeps {self.explained_variance:.1%} of the variance; searches {self.nprobe} lists and "
                         f"re-ranks {self.rerank:g} candidates per result")
        lines += [f"recall@10 {r.at_10:.4f}, recall@100 {r.at_100:.4f}: {r.group} ({r.queries} queries)"
                  for r in self.recall]
        lines += [f"own star first / in the first ten, by {g.modality}: {g.with_centring[0]:.3f} / "
                  f"{g.with_centring[1]:.3f} centred, {g.without[0]:.3f} / {g.without[1]:.3f} not centred"
                  for g in self.centring]
        if self.drift is not None:
            lines.append(f"{'' if self.action == 'grown' else 'retrained: '}{self.drift}")
        if self.anew:
            lines.append(f"rebuilt: {self.anew}")
        if not self.recall_reached:
            lines.append("no setting reached the target recall; --recipe flat is exact")
        return "\n".join(lines)


def report_of(generation: Generation, needs: Estimate, action: Action, meter: Meter,
              drift: Drift | None = None, anew: str = "") -> BuildReport:
    """The report of an index from its `index.toml`."""
    manifest = generation.manifest
    gains = [CentringGain(g["modality"], tuple(g["with_centring"]), tuple(g["without"]), g["pairs"], g["gallery"])
             for g in manifest["centring"]]
    return BuildReport(
        manifest["model"], manifest["modality"], manifest["rows"], manifest["dim"], manifest["recipe"]["factory"],
        action, needs, meter.seconds | {"total": meter.total()}, meter.cpu(), peak_memory(),
        folder_bytes(generation.folder), manifest["learnt"].get("explained_variance"), manifest["search"]["nprobe"],
        manifest["search"]["rerank"], [Recall(**row) for row in manifest["recall"]], gains,
        manifest["search"].get("reached", True), drift, meter.cpu_seconds, anew)
