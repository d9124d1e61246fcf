"""A flipped bit in any file of an atlas: the right answer, or an error that names the file."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from specclip_search.atlas import Atlas
from specclip_search.atlas.files import file_digest
from specclip_search.atlas.integrity import check_shards, forget
from specclip_search.catalogs.ingest import ingest_catalog_table
from specclip_search.errors import AtlasError, SpecclipError
from specclip_search.indexing.search.store import StoreWriter, VectorStore, row_sums
from specclip_search.indexing.vectors.model_copy import keep_model
from specclip_search.ingest.files import FoundFile
from specclip_search.ingest.plan import Plan
from specclip_search.ingest.spectra import by_count
from specclip_search.queries.anomalies.anomalies import anomalies
from specclip_search.queries.emp.candidates import emp_candidates
from specclip_search.queries.similar.similar import similar
from specclip_search.training.model import load_model

from ..queries.toy_survey import FIRST_SOURCE, LRS, XP

# lines that a process writes for people, and locks, tell nothing that an answer is made from
NO_CONTENT = (".lock", ".writer", ".manifest.lock")
FLIPS = int(os.environ.get("SPECCLIP_HARDEN_FLIPS", "1"))
KINDS = int(os.environ.get("SPECCLIP_HARDEN_KINDS", "2"))


def frame(answer: Any) -> Any:
    """Rows of an answer as text, in which NaN equals NaN; floats to the last digit."""
    if isinstance(answer, pa.Table):
        return repr((answer.to_pydict(), {f.name: dict(f.metadata or {}) for f in answer.schema}))
    return answer if isinstance(answer, str) else answer.to_csv()


def used_files(atlas: Atlas) -> list[Path]:
    """Files of the atlas's model after it was loaded; `files.json` vouches for the others and says nothing itself."""
    folder = load_model(atlas.model_folder("mini")).folder
    assert folder is not None
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name not in (*NO_CONTENT, "files.json"))


def planned_files(plan: Plan) -> pa.Table:
    return pa.concat_tables([plan.files(part) for part in range(len(plan))])


QUERIES: dict[str, Callable[[Atlas], Any]] = {
    "stars": lambda atlas: atlas.sql("SELECT * FROM stars ORDER BY ALL").arrow(),
    "spectra": lambda atlas: atlas.sql("SELECT * FROM spectra ORDER BY ALL").arrow(),
    "vectors": lambda atlas: atlas.sql("SELECT * FROM vectors_gaia_xp ORDER BY spec_id").arrow(),
    "translations": lambda atlas: atlas.sql("SELECT * FROM translations ORDER BY ALL").arrow(),
    "catalogue": lambda atlas: atlas.sql("SELECT * FROM truth_labels ORDER BY ALL").arrow(),
    "catalogue_of": lambda atlas: atlas.sql(f"SELECT * FROM truth_labels_of({FIRST_SOURCE + 128})").arrow(),
    "similar": lambda atlas: similar(atlas, f"gaia:{FIRST_SOURCE}", 40),
    "similar to lamost": lambda atlas: similar(atlas, "lamost:101001", 40, within=XP, where="snr > 1"),
    "anomalies": lambda atlas: anomalies(atlas, top=20),
    "model": lambda atlas: repr([(p.name, file_digest(p)) for p in used_files(atlas)]),
    "plan": lambda atlas: planned_files(Plan(atlas.spectra(XP).folder)),
    "emp": lambda atlas: emp_candidates(atlas, top=20, builtin_seeds=False),
}


# every kind of file that an atlas may hold, and what looks at its bytes before they are used
CHECKED = {
    r"atlas\.toml": "its own digest, at each reading",
    r"catalogs/\w+/catalog\.json": "its own digest, at each reading",
    r".*/manifest\.json": "its numbers and the digest of the shards",
    r".*/part-\d+\.json": "the digest in the manifest",
    r".*/part-\d+\.parquet": "the digest in its sidecar, at first use",
    r"spectra/\w+/plan\.parquet": "digests of its parts, at each reading",
    r"translations/\w+/model_error\.npz": "made again from the spectra; zip's own sums",
    r"indexes/\w+/\w+/index\.toml": "its own digest, at each reading",
    r"indexes/\w+/\w+/generation-\d+/store\.(f16|sums)": "a checksum a vector, at first use",
    r"indexes/\w+/\w+/generation-\d+/files\.json": "the files it speaks of",
    r"indexes/\w+/\w+/generation-\d+/(\w+\.npy|\w+\.json|index\.faiss)": "files.json, at first use",
    r"indexes/\w+/means/\w+\.(npy|json)": "the digest of the mean, at each reading",
    r"models/\w+/files\.json": "the files it speaks of",
    r"models/\w+/[\w.]+": "files.json, at first use",
}


def test_every_kind_of_file_has_a_check(sound: tuple[Path, dict[str, Any]]) -> None:
    """Who adds a kind of file to an atlas says here what notices a flipped bit in it, and the flips below try it."""
    files = [file.as_posix() for some in kinds(sound[0]).values() for file in some]
    unknown = [file for file in files if not any(re.fullmatch(kind, file) for kind in CHECKED)]
    assert unknown == []
    unused = [kind for kind in CHECKED if not any(re.fullmatch(kind, file) for file in files)]
    assert unused == []


def answers(folder: Path) -> dict[str, Any]:
    """Every query's answer, or the error it ends in."""
    found: dict[str, Any] = {}
    for name, ask in QUERIES.items():
        try:
            found[name] = frame(ask(Atlas(folder)))
        except SpecclipError as error:
            found[name] = error
    return found


def kinds(folder: Path) -> dict[str, list[Path]]:
    """Files of an atlas by their kind: folder of the stage and name without numbers."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in NO_CONTENT and path.stat().st_size:
            kind = f"{path.parent.relative_to(folder).as_posix()}/{path.name.replace('00000', '')}"
            found.setdefault("".join(c for c in kind if not c.isdigit()), []).append(path.relative_to(folder))
    return found


@pytest.fixture(scope="session")
def sound(whole: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An atlas with a catalogue of labels, and the right answers."""
    folder = tmp_path_factory.mktemp("sound") / "atlas"
    shutil.copytree(whole.atlas.path, folder)
    rows = pa.table({"source_id": FIRST_SOURCE + 128 * np.arange(50, dtype=np.int64), "teff": np.arange(50.0) + 4000})
    ingest_catalog_table(Atlas(folder), "truth_labels", rows)
    keep_model(Atlas(folder), load_model("mini"))
    plan = Plan(folder / "spectra" / XP)
    plan.update([FoundFile(f"/data/{i}.csv", i, i, True) for i in range(400)], by_count(100), "dr3")
    first = answers(folder)
    assert not [error for error in first.values() if isinstance(error, Exception)], first
    # scores are made again where a catalogue has come; from here on all is stored
    return folder, answers(folder)


def flip(path: Path, chance: random.Random) -> str:
    content = bytearray(path.read_bytes())
    place, bit = chance.randrange(len(content)), chance.randrange(8)
    content[place] ^= 1 << bit
    path.write_bytes(content)
    return f"bit {bit} of byte {place} of {len(content)}"


def try_flip(sound: tuple[Path, dict[str, Any]], file: Path, chance: random.Random, target: Path) -> list[str]:
    """Flip one bit of a copy's file and ask everything; what was silently wrong."""
    source, right = sound
    shutil.copytree(source, target)
    where = flip(target / file, chance)
    wrong = []
    for name, answer in answers(target).items():
        if isinstance(answer, SpecclipError):
            told = f"{answer.message} {answer.hint}"
            named = any(part in told for part in (file.name, file.stem, file.parent.name, str(file.parent.parent.name)))
            if not named:
                wrong.append(f"{file}, {where}: {name} does not name it: {told}")
        elif answer != right[name]:
            wrong.append(f"{file}, {where}: {name} answers otherwise")
    shutil.rmtree(target)
    return wrong


def test_a_flip_is_never_silent(sound: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """A random share of the kinds of files; `make harden` takes every kind many times."""
    usual = random.SystemRandom().randrange(10**6) if FLIPS > 1 else 0
    seed = int(os.environ.get("SPECCLIP_HARDEN_SEED", usual))
    chance = random.Random(seed)
    every = kinds(sound[0])
    chosen = sorted(every) if FLIPS > 1 else chance.sample(sorted(every), min(KINDS, len(every)))
    wrong = []
    for turn in range(FLIPS):
        for kind in chosen:
            file = chance.choice(every[kind])
            wrong += try_flip(sound, file, chance, tmp_path / f"{turn}")
    assert not wrong, f"SPECCLIP_HARDEN_SEED={seed}\n" + "\n".join(wrong)


def test_any_flip_changes_a_rows_checksum() -> None:
    rows = np.random.default_rng(1).normal(size=(3, 48)).astype(np.float16)
    before = row_sums(rows)
    bits = rows.view(np.uint16)
    for place in range(48):
        for bit in range(16):
            bits[1, place] ^= np.uint16(1 << bit)
            assert (row_sums(rows) != before).tolist() == [False, True, False]
            bits[1, place] ^= np.uint16(1 << bit)
    swapped = rows[:, ::-1]
    assert (row_sums(swapped) != before).all()


def test_a_store_is_checked_where_it_is_first_read(tmp_path: Path) -> None:
    vectors = np.random.default_rng(2).normal(size=(500, 48)).astype(np.float32)
    writer = StoreWriter(tmp_path / "store.f16", 48)
    writer.append(vectors[:300])
    writer.close()
    writer = StoreWriter(tmp_path / "store.f16", 48, 200)
    writer.append(vectors[200:])
    writer.close()
    content = bytearray((tmp_path / "store.f16").read_bytes())
    content[96 * 444 + 7] ^= 4
    (tmp_path / "store.f16").write_bytes(content)
    store = VectorStore(tmp_path / "store.f16", 500, 48)
    assert store.take(np.arange(440)).shape == (440, 48)
    assert store.scores(np.array([1, 499]), vectors[0]).shape == (2,)
    for read in (
        lambda: store.take(np.array([3, 444])),
        lambda: store.scores(np.array([444]), vectors[0]),
        lambda: list(store.blocks(64)),
    ):
        with pytest.raises(SpecclipError, match=r"store\.f16 is damaged: vector 444"):
            read()


def test_a_shard_is_read_once_and_then_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Atlas.create(tmp_path / "a").results("things")
    table = pa.table({"n": [1, 2]})
    with stage.lock():
        file = stage.write(0, table, schema=table.schema, inputs="x").file
    read: list[Path] = []
    from specclip_search.atlas import integrity

    digest = integrity.file_digest
    monkeypatch.setattr(integrity, "file_digest", lambda path: (read.append(path), digest(path))[1])
    check_shards([file])
    assert not read, "its writer knows it"
    forget([file.parent])
    for _ in range(3):
        check_shards([file])
    assert read == [file]
    forget()
    check_shards([file])
    assert read == [file], "the next process finds it in the user's cache folder"
    content = bytearray(file.read_bytes())
    content[30] ^= 1
    stat = file.stat()
    with open(file, "r+b") as handle:
        handle.write(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(AtlasError, match=r"part-000000\.parquet is damaged: expected sha256:"):
        check_shards([file])
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    forget()
    with pytest.raises(AtlasError, match="is damaged"):
        check_shards([file])
    assert LRS != XP
