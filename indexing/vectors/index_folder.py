"""Files of an index on disk, and how a new index replaces the old one.

`indexes/<model>/<modality>/index.toml` names the folder of the index in use. A build works in a
folder of its own; when it is complete, `index.toml` is replaced by a single rename.
"""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from specclip_search.atlas import Atlas
from specclip_search.atlas.files import file_digest, text_digest, write_json, write_text
from specclip_search.atlas.integrity import check_files
from specclip_search.errors import AtlasError, VectorIndexError

FORMAT = 1
MANIFEST = "index.toml"
STORE = "store.f16"
FAISS_FILE = "index.faiss"
BUILDING = "building"
DIGESTS = "files.json"
CHECK = "check"


@dataclass(frozen=True, slots=True)
class Generation:
    """An index in use: its folder and the contents of `index.toml`."""

    folder: Path
    manifest: dict[str, Any]


def current_generation(atlas: Atlas, model: str, modality: str) -> Generation | None:
    """The index in use; None if none was built.

    Raises
    ------
    VectorIndexError
        If `index.toml` cannot be read, has another format, or names a missing folder.
    """
    root = atlas.index_folder(model, modality)
    try:
        manifest = dict(_checked_manifest(root, (root / MANIFEST).read_bytes()))
    except FileNotFoundError:
        return None
    folder = root / str(manifest.get("folder", ""))
    if not folder.is_dir() or folder == root:
        raise _unusable(root, f"its folder '{manifest.get('folder')}' is missing")
    return Generation(folder, manifest)


@lru_cache(maxsize=16)
def _checked_manifest(root: Path, raw: bytes) -> dict[str, Any]:
    """What the bytes of `index.toml` say; each question opens keys and index of the same one."""
    try:
        manifest = tomllib.loads(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _unusable(root, f"{MANIFEST} is not valid TOML ({error})") from error
    if manifest.get("format") != FORMAT:
        raise _unusable(root, f"format {FORMAT} is expected, found {manifest.get('format')}")
    if CHECK in manifest and manifest[CHECK] != _digest_of(manifest):
        raise _unusable(root, f"{root / MANIFEST} is damaged: it does not say what was written")
    manifest.pop(CHECK, None)
    return manifest


def publish(atlas: Atlas, model: str, modality: str, building: Path, manifest: dict[str, Any]) -> Generation:
    """Make a complete build the index in use; the previous one is removed afterwards.

    The caller must hold the writer lock of the index folder.
    """
    root = atlas.index_folder(model, modality)
    _remove_unpublished(root)
    name = _free_name(root)
    building.rename(root / name)
    content = {"format": FORMAT, "folder": name} | manifest
    _write_manifest(root, content)
    remove_old_generations(root, name)
    return Generation(root / name, content)


def note_files(folder: Path) -> None:
    """Store the digests of a complete build's small files; the store is checked against the vectors instead."""
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and p.name not in (STORE, DIGESTS))
    write_json(folder / DIGESTS, {name: file_digest(folder / name) for name in names})


def kept_digests(folder: Path) -> dict[str, str]:
    """Digests of a build's small files, as `note_files` kept them.

    Raises
    ------
    VectorIndexError
        If they cannot be read.
    """
    try:
        kept = _parsed((folder / DIGESTS).read_bytes())
        if not isinstance(kept, dict) or not all(isinstance(value, str) for value in kept.values()):
            raise ValueError("not names and digests")
        if any(Path(name).name != name for name in kept):
            raise ValueError("names that lead out of the folder")
        return kept
    except (OSError, ValueError) as error:
        raise _unusable(folder.parent, f"{folder / DIGESTS} cannot be read ({error})") from error


@lru_cache(maxsize=16)
def _parsed(raw: bytes) -> Any:
    return json.loads(raw)


def damaged_files(folder: Path, deep: bool) -> list[str]:
    """What is wrong with the files of an index, in words; `deep` compares their bytes."""
    wrong = [
        f"{name} is missing" if not (folder / name).exists() else f"{name} is damaged"
        for name, digest in kept_digests(folder).items()
        if not (folder / name).exists() or (deep and file_digest(folder / name) != digest)
    ]
    return wrong if (folder / STORE).exists() else [*wrong, f"{STORE} is missing"]


def rewrite_manifest(generation: Generation, changes: dict[str, Any]) -> Generation:
    """Replace entries of `index.toml` of the index in use. The caller must hold the writer lock."""

    content = generation.manifest | changes
    _write_manifest(generation.folder.parent, content)
    return Generation(generation.folder, content)


def _remove_unpublished(root: Path) -> None:
    """Remove the folder of a build that was killed before `index.toml` named it."""
    try:
        named = tomllib.loads((root / MANIFEST).read_text(encoding="utf-8")).get("folder", "")
    except FileNotFoundError:
        named = ""
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return
    remove_old_generations(root, str(named))


def remove_old_generations(root: Path, keep: str) -> None:
    """Remove generations other than `keep`; readers that have one open keep their mapped files."""
    for folder in root.glob("generation-*"):
        if folder.name != keep:
            shutil.rmtree(folder, ignore_errors=True)


def _write_manifest(root: Path, content: dict[str, Any]) -> None:
    """Replace `index.toml`, with the digest of what it says at its end."""
    import tomli_w

    plain = {name: value for name, value in content.items() if name != CHECK}
    write_text(root / MANIFEST, tomli_w.dumps({CHECK: _digest_of(plain), **plain}))


def _digest_of(content: dict[str, Any]) -> str:
    plain = {name: value for name, value in content.items() if name != CHECK}
    return text_digest(json.dumps(plain, sort_keys=True, default=str))


def check_index_files(folder: Path, names: Iterable[str]) -> None:
    """Make sure that files of an index have the bytes they were written with; read at the first use alone.

    Raises
    ------
    VectorIndexError
        If one is damaged or missing.
    """
    if not (folder / DIGESTS).exists():
        return
    kept = kept_digests(folder)
    try:
        check_files(folder, {name: kept[name] for name in names if name in kept})
    except AtlasError as error:
        raise VectorIndexError(
            error.message, "Run `specclip-search index build --fresh`; an index is rebuilt from the vectors."
        ) from error


def _free_name(root: Path) -> str:
    numbers = [int(p.name.removeprefix("generation-")) for p in root.glob("generation-*")
               if p.name.removeprefix("generation-").isdigit()]
    return f"generation-{max(numbers, default=0) + 1:06d}"


def _unusable(root: Path, why: str) -> VectorIndexError:
    return VectorIndexError(f"The index in {root} cannot be used: {why}.",
                            "Run `specclip-search index build --fresh`; the index is rebuilt from the vectors.")
