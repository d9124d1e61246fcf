"""Published label heads on an atlas's vectors: made heads of the published shapes, and folders that are refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from specclip_search.atlas import Atlas
from specclip_search.atlas.arrays import table_from_columns
from specclip_search.atlas.schemas import vectors_schema
from specclip_search.cli.main import app
from specclip_search.errors import CheckpointError
from specclip_search.indexing.vectors.label_heads import apply_heads, heads_schema
from specclip_search.training.checkpoints.folder import new_card, save_model
from specclip_search.training.checkpoints.heads import read_heads
from specclip_search.training.checkpoints.importing import import_checkpoint
from specclip_search.training.networks.label_head import LabelHead

LRS, XP = "lamost_lrs", "gaia_xp"
IDS = 5_853_418_002_145_112_704 + np.arange(70, dtype=np.int64)


def made_head(path: Path, seed: int) -> LabelHead:
    torch.manual_seed(seed)
    head = LabelHead()
    head(torch.randn(64, 768))  # statistics of the batch norms
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model_state_dict": head.state_dict(), "loss": 0.1}, path)
    statistics = path.parents[1] / "stats" / path.parent.name / f"{path.stem}_mean_std.json"
    statistics.parent.mkdir(parents=True, exist_ok=True)
    statistics.write_text(json.dumps({"mean": [0.01 * seed] * 768, "std": [2.0] * 768}), encoding="utf-8")
    return head.eval()


def atlas_of(folder: Path, kind: str) -> tuple[Atlas, np.ndarray, np.ndarray]:
    """An atlas with LRS vectors of a model of this kind; its weights are not needed."""
    atlas = Atlas.create(folder)
    card = save_model(atlas.model_folder("own"), new_card("own", kind), {"w": torch.zeros(1)}, {})
    rng = np.random.default_rng(1)
    raw = rng.normal(size=(len(IDS), card.dim)).astype(np.float32)
    norm = np.linalg.norm(raw, axis=1)
    stage, schema = atlas.vectors("own", LRS), vectors_schema(card.dim)
    with stage.lock():
        for number, rows in enumerate(np.array_split(np.arange(len(IDS)), 2)):
            columns = {"spec_id": IDS[rows], "source_id": IDS[rows], "release": ["dr9"] * len(rows),
                       "vector": raw[rows] / norm[rows, None], "norm": norm[rows]}  # fmt: skip
            stage.write(number, table_from_columns(columns, schema), schema=schema, inputs=f"{number}",
                        extra={"model_digest": card.digest})  # fmt: skip
    atlas.use_model("own")
    return atlas, raw, norm


def test_heads_give_the_published_numbers(tmp_path: Path) -> None:
    heads = tmp_path / "heads"
    mg, age = made_head(heads / "lrs" / "mg_fe.pt", 1), made_head(heads / "lrs" / "age.pt", 2)
    made_head(heads / "xp" / "fe_h.pt", 3)
    import_checkpoint(heads / "lrs" / "age.pt", heads / "lrs" / "age_folder")
    (heads / "lrs" / "age.pt").unlink()
    (heads / "lrs" / "age_folder").rename(heads / "lrs" / "age")
    atlas, raw, _ = atlas_of(tmp_path / "atlas", "pr")
    answer = CliRunner().invoke(app, ["estimate", "--heads", str(heads), "--atlas", str(atlas.path)])
    assert answer.exit_code == 0, answer.output
    assert "have labels by 2 heads (age, mg_fe)" in answer.stderr
    found = atlas.sql("SELECT * FROM heads_lamost_lrs ORDER BY spec_id").df()
    assert found["spec_id"].to_numpy().tolist() == IDS.tolist()
    with torch.no_grad():
        for name, head, seed in (("mg_fe", mg, 1), ("age", age, 2)):
            expected = head.network((torch.from_numpy(raw) - 0.01 * seed) / 2.0)[:, 0].numpy()
            # vectors are stored as float16
            np.testing.assert_allclose(found[name], expected, rtol=0.02, atol=0.01)
    part = atlas.results("heads_lamost_lrs").parts()[0]
    assert set(part.extra["heads"]) == {"age", "mg_fe"}
    assert part.extra["model_digest"].startswith("sha256:")
    again = apply_heads(atlas, heads)
    assert (again.written, again.current) == (0, 2)
    made_head(heads / "lrs" / "mg_fe.pt", 4)
    assert apply_heads(atlas, heads).written == 2
    assert [field.name for field in heads_schema(read_heads(heads)[:1])][-1] == "age"


def test_what_is_refused(tmp_path: Path) -> None:
    heads = tmp_path / "heads"
    with pytest.raises(CheckpointError, match="Label heads were expected"):
        read_heads(heads)
    made_head(heads / "lrs" / "mg_fe.pt", 1)
    (heads / "lrs" / "teff.pkl").write_bytes(pickle.dumps({"inference": 1, "mean": 0.0, "std": 1.0}))
    with pytest.raises(CheckpointError, match="is a pickle, as those of SBI posteriors") as caught:
        read_heads(heads)
    assert "ingest catalog sbi_labels FILE.csv" in caught.value.hint
    (heads / "lrs" / "teff.pkl").unlink()
    (heads / "stats" / "lrs" / "mg_fe_mean_std.json").rename(heads / "elsewhere.json")
    with pytest.raises(CheckpointError, match=r"statistics .* were expected at .*mg_fe_mean_std\.json"):
        read_heads(heads)
    (heads / "elsewhere.json").rename(heads / "stats" / "lrs" / "mg_fe_mean_std.json")
    (heads / "lrs" / "mg_fe.pt").rename(heads / "lrs" / "mg fe; drop.pt")
    with pytest.raises(CheckpointError, match="named after its label"):
        read_heads(heads)
    (heads / "lrs" / "mg fe; drop.pt").rename(heads / "lrs" / "mg_fe.pt")
    for kind, why in (("mini", "of a published model; 'own' is of kind 'mini'"), ("split", "private vectors")):
        atlas, *_ = atlas_of(tmp_path / kind, kind)
        with pytest.raises(CheckpointError, match=why):
            apply_heads(atlas, heads)
    (heads / "stats" / "lrs" / "al_fe_mean_std.json").write_text("{}", encoding="utf-8")
    torch.save({"state_dict": {"network.0.weight": torch.zeros(3, 768)}}, heads / "lrs" / "al_fe.pt")
    with pytest.raises(CheckpointError, match="does not fit it"):
        read_heads(heads)
    answer = CliRunner().invoke(app, ["estimate", "--heads", str(heads), "--within", XP, "--atlas", str(atlas.path)])
    assert answer.exit_code != 0
