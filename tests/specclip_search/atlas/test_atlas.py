"""Opening, making and naming: what an atlas is and what it refuses."""

import pytest

from specclip_search import Atlas
from specclip_search.errors import AtlasError


def test_a_missing_atlas_is_told_from_a_folder_that_is_none(tmp_path):
    with pytest.raises(AtlasError, match="no file or folder of that name"):
        Atlas(tmp_path / "none")
    with pytest.raises(AtlasError, match=r"without atlas\.toml"):
        Atlas(tmp_path)


def test_an_atlas_is_made_only_in_a_new_or_empty_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(AtlasError, match=r"notes\.txt"):
        Atlas.create(tmp_path)
    with pytest.raises(AtlasError, match="is a file"):
        Atlas.create(tmp_path / "notes.txt")
    made = Atlas.create(tmp_path / "new")
    assert Atlas.create(made.path).path == made.path
    assert made.modalities() == made.catalogs() == made.models() == []


def test_a_newer_format_and_broken_toml_are_refused(tmp_path):
    atlas = Atlas.create(tmp_path / "a")
    (atlas.path / "atlas.toml").write_text("format_version = 99\n")
    with pytest.raises(AtlasError, match="format 99; this version reads format 1"):
        Atlas(atlas.path)
    (atlas.path / "atlas.toml").write_text("format_version = = 1")
    with pytest.raises(AtlasError, match="not valid TOML"):
        Atlas(atlas.path)


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a..b", "x" * 65, "naïve"])
def test_names_that_could_leave_the_atlas_are_refused(tmp_path, name):
    atlas = Atlas.create(tmp_path / "a")
    with pytest.raises(AtlasError, match="cannot be the name of a catalogue"):
        atlas.catalog(name)


def test_the_active_model_is_remembered(tmp_path):
    atlas = Atlas.create(tmp_path / "a")
    assert atlas.active_model is None
    with pytest.raises(AtlasError, match="no model is active"):
        atlas.require_model()
    atlas.use_model("mini")
    assert Atlas(atlas.path).require_model() == "mini"
    assert atlas.require_model("other") == "other"
