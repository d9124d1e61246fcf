"""`specclip-search index ...` as a user meets it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from specclip_search.atlas import Atlas
from specclip_search.cli.main import run
from specclip_search.indexing import neighbour_stage

from .conftest import BIG, star_vectors, write_vectors

Index = Callable[..., tuple[int, str]]
RECIPE = ["build", "--within", "gaia_xp", "--recipe", "PCA16,IVF8,PQ16"]


@pytest.fixture
def atlas(make_atlas: Callable[..., Atlas]) -> Atlas:
    return make_atlas(1500)


@pytest.fixture
def index(atlas: Atlas, capsys: pytest.CaptureFixture[str]) -> Index:
    """Runs an index command on the small atlas; its exit status and all that it said."""

    def call(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            run(["index", *words, "--atlas", str(atlas.path)])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    return call


def test_needs_come_first_and_the_report_says_what_was_done(index: Index) -> None:
    code, said = index("build")
    assert code == 0
    assert said.index("will need about") < said.index("gaia_xp: built; flat, 1,500 vectors")
    assert "up to date, nothing was done" in index("build")[1]


def test_growth_and_retraining_are_reported(index: Index, atlas: Atlas) -> None:
    vectors = star_vectors(1700, 0)
    write_vectors(atlas, "gaia_xp", vectors[:1500])
    index(*RECIPE)
    write_vectors(atlas, "gaia_xp", vectors[1500:], first_id=BIG + 1500, first_part=3)
    said = index(*RECIPE)[1]
    assert "updated without retraining" in said
    assert "1,700 vectors" in said
    odd = -star_vectors(600, 0, seed=4)
    write_vectors(atlas, "gaia_xp", odd, first_id=BIG + 1700, first_part=4)
    assert "retrained: new vectors lie" in index(*RECIPE)[1]


def test_an_index_that_cannot_grow_says_why(index: Index, atlas: Atlas) -> None:
    index(*RECIPE)
    assert "its search is tuned for recall 0.99" in index(*RECIPE, "--recall", "0.9")[1]
    assert "rebuilt: the seed is 5 and was 0" in index(*RECIPE, "--seed", "5")[1]
    write_vectors(atlas, "gaia_xp", star_vectors(1800, 0), first_id=BIG + 1500, first_part=3)
    assert "3,300 vectors, more than 2 x the 1,500 learnt from" in index(*RECIPE, "--seed", "5")[1]
    said = index("build", "--within", "gaia_xp", "--recipe", "flat")[1]
    assert "rebuilt: the recipe is flat and was PCAR16,IVF8,PQ16" in said


def test_neighbours_become_a_view(index: Index, atlas: Atlas) -> None:
    index("build")
    code, said = index("neighbours", "-k", "3")
    assert (code, "3 neighbours of 1,500 gaia_xp spectra; 1,500 searched" in said) == (0, True)
    assert "0 searched" in index("neighbours", "-k", "3")[1]
    assert neighbour_stage(atlas, "tiny", "gaia_xp").read()["neighbour_row"].type.list_size == 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["build", "--memory", "1M"], r"needs \d+ MB of memory; 1.0 MB are allowed: \d+ MB are missing"),
        (["build", "--memory", "lots"], "'lots' is not an amount of memory"),
        (["build", "--device", "abacus"], "A device is auto, cpu, cuda or cuda:N; found 'abacus'"),
        (["build", "--recipe", "PQ16"], "'PQ16' is not an index recipe"),
        (["build", "--recipe", "PCA9999,IVF16,PQ16"], "at least as many"),
        (["build", "--within", "nosuch"], "no modality 'nosuch'"),
        (["build", "--model", "nosuch"], "no .* vectors of 'nosuch'"),
        (["tune"], "index build"),
        (["info"], "index build"),
        (["neighbours"], "index build"),
        (["neighbours", "-k", "0"], "greater than or equal to 1"),
    ],
)
def test_bad_requests_are_told(index: Index, words: list[str], expected: str) -> None:
    code, said = index(*words)
    assert code == 2
    assert re.search(expected, said), said
    assert "Traceback" not in said


def test_check_of_no_index_says_what_to_do(index: Index) -> None:
    code, said = index("check")
    assert code == 1
    assert "problem" in said
    assert "index build" in said


def test_a_flipped_byte_is_found_in_every_file_and_mended(index: Index, atlas: Atlas) -> None:
    index(*RECIPE)
    folder = next(path for path in (atlas.path / "indexes").rglob("generation-*") if path.is_dir())
    assert index("check", "--within", "gaia_xp")[0] == 0
    for file in sorted(folder.iterdir()):
        before = file.read_bytes()
        _flip(file, before)
        code, said = index("check", "--full", "--within", "gaia_xp")
        file.write_bytes(before)
        assert code == 1, f"{file.name}: {said}"
        assert "index build --fresh" in said, file.name
        assert re.search(rf"{file.name}|damaged|stored vectors differ", said), file.name
    _flip(folder / "index.faiss", (folder / "index.faiss").read_bytes())
    assert "nothing was done" in index(*RECIPE)[1]
    assert "gaia_xp: built;" in index(*RECIPE, "--fresh")[1]
    assert index("check", "--full", "--within", "gaia_xp")[0] == 0


def test_an_unreadable_manifest_is_told_and_mended(index: Index, atlas: Atlas) -> None:
    index("build")
    (atlas.path / "indexes" / "tiny" / "gaia_xp" / "index.toml").write_bytes(b"\xff not TOML")
    for command in ("info", "tune", "build"):
        code, said = index(command, "--within", "gaia_xp")
        assert code == 2
        assert "index build --fresh" in said
    code, said = index("build", "--fresh")
    assert code == 0, said
    assert index("check")[0] == 0


def _flip(file: Path, content: bytes) -> None:
    middle = len(content) // 2
    file.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
