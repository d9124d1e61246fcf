"""Importing checkpoints: whole and exact where they are sound, and never run where they are not."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from specclip_search.errors import CheckpointError
from specclip_search.training.checkpoints.folder import load_label_head, load_metrics
from specclip_search.training.checkpoints.importing import LEGACY, expected_shapes, import_checkpoint, match, recognise
from specclip_search.training.checkpoints.torch_file import TorchFile, read_pickle
from specclip_search.training.model import load_model
from specclip_search.training.networks.label_head import LabelHead
from specclip_search.training.networks.published import KINDS, build


class Call:
    """Pickles as a call of any name with any arguments."""

    def __init__(self, name: str, *arguments: Any) -> None:
        self.name, self.arguments = name, arguments


class CallPickler(pickle._Pickler):
    """Writes calls by name without importing what they name."""

    def save(self, value: Any, save_persistent_id: bool = True) -> None:
        if not isinstance(value, Call):
            super().save(value, save_persistent_id)
            return
        module, name = value.name.rsplit(".", 1)
        self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        super().save(value.arguments)
        self.write(pickle.REDUCE)


def with_calls(value: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    CallPickler(buffer, protocol=2).dump(value)
    buffer.seek(0)
    return buffer


@pytest.fixture
def authors_package(monkeypatch: pytest.MonkeyPatch) -> type[nn.Module]:
    """A module class of a package that exists while saving and is gone while loading."""
    package = types.ModuleType("authors_package")

    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.LayerNorm(4))

    Backbone.__module__, Backbone.__qualname__ = package.__name__, "Backbone"
    package.Backbone = Backbone  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, package.__name__, package)
    return Backbone


@pytest.fixture(scope="module")
def small() -> dict[str, torch.Tensor]:
    """State of the smallest known model, a label head."""
    torch.manual_seed(0)
    return LabelHead().state_dict()


def test_a_training_checkpoint_with_modules_and_optimiser(
    authors_package: type[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    autoencoder = build("xp_oae")
    moments = {i: {"step": torch.tensor(5.0), "exp_avg": torch.randn(64)} for i in range(3)}
    content = {
        "epoch": 191, "global_step": 1000, "pytorch-lightning_version": "1.9.5",
        "state_dict": autoencoder.state_dict(),
        "optimizer_states": [{"state": moments, "param_groups": [{"lr": 1e-5}]}],
        "callbacks": {"best": np.float64(0.25), "folder": Path("somewhere")}, "lr_schedulers": [],
        "hyper_parameters": {"encoder": authors_package(), "temperature": 14.25, "device": torch.device("cpu"),
                             "dtype": torch.float32, "names": {"a", "b"}},
    }
    torch.save(content, tmp_path / "encoder.ckpt")
    monkeypatch.delitem(sys.modules, "authors_package")
    report = import_checkpoint(tmp_path / "encoder.ckpt", tmp_path / "model")
    assert (report.kind, report.dim, report.parameters, report.entries) == ("xp_oae", 768, 42_846_129, 34)
    assert (report.epoch, report.temperature, report.dropped) == (191, 14.25, [])
    assert "authors_package.Backbone" in report.stubbed
    assert "authors_package" not in sys.modules
    model = load_model(tmp_path / "model", device="cpu")
    assert model.digest == report.digest
    assert load_metrics(tmp_path / "model")["imported"]["global_step"] == 1000
    for key, value in autoencoder.state_dict().items():
        assert torch.equal(model.module.state_dict()[key], value)
    with pytest.raises(CheckpointError, match="already contains a model"):
        import_checkpoint(tmp_path / "encoder.ckpt", tmp_path / "model")


@pytest.mark.parametrize("name", [
    "os.system", "posix.system", "builtins.eval", "builtins.exec", "__builtin__.eval", "builtins.getattr",
    "subprocess.Popen", "subprocess.check_output", "importlib.import_module", "torch.load", "torch.hub.load",
    "numpy.load", "socket.create_connection", "shutil.rmtree", "runpy.run_path", "authors.thing.do_it", "os.PathLike",
    "types.CodeType", "operator.attrgetter",
])
def test_calls_are_refused_by_name(name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"tries to (call|create an object of) {name}"):
        read_pickle(with_calls({"state_dict": Call(name, "touch /tmp/never")}), "evil.ckpt")


def test_nothing_of_a_hostile_checkpoint_runs(small: dict[str, torch.Tensor], tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {mark}",)

    torch.save({"state_dict": small, "hyper_parameters": {"x": Hostile()}}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match=r"tries to call (posix|nt)\.system") as caught:
        import_checkpoint(tmp_path / "evil.ckpt", tmp_path / "model")
    assert "It was not run" in str(caught.value)
    assert not mark.exists()
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("opcodes", [
    b"cos\nsystem\n(S'true'\ntR.",  # REDUCE
    b"(S'true'\nios\nsystem\n.",  # INST
    b"(cos\nsystem\nS'true'\no.",  # OBJ
    b"\x80\x02csubprocess\nPopen\n(S'true'\nt\x81.",  # NEWOBJ
    b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",  # STACK_GLOBAL
    b"\x80\x04\x8c\x08builtins\x8c\x0cgetattr.eval\x93\x8c\x011\x85R.",  # a dotted name
    b"ccopyreg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.",
])
def test_every_way_to_call_is_closed(opcodes: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"tries to|cannot be read"):
        read_pickle(io.BytesIO(opcodes), "evil.ckpt")


def test_objects_of_unknown_classes_are_inert() -> None:
    value = {"conf": Call("omegaconf.dictconfig.DictConfig", {"a": 1}), "part": Call("functools.partial", 1),
             "number": Call("numpy.core.multiarray.scalar", "f8", b"12345678"), "plain": [1, 2.5, "x", None, True]}
    content, stubbed = read_pickle(with_calls(value), "file")
    assert content["plain"] == value["plain"]
    assert {"functools.partial", "numpy.core.multiarray.scalar", "omegaconf.dictconfig.DictConfig"} <= set(stubbed)
    assert content["conf"].kept == {}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_are_recognised_by_their_keys(kind: str) -> None:
    shapes = expected_shapes(kind)
    assert match(shapes, "file") == (kind, [])
    fewer = dict(list(shapes.items())[:-1])
    with pytest.raises(CheckpointError, match=rf"looks like a '{kind}' model.*1 missing \({list(shapes)[-1]}\)"):
        match(fewer, "file")
    with pytest.raises(CheckpointError, match=r"1 surplus \(logit_scale\)"):
        match({**shapes, "logit_scale": ()}, "file")
    key = list(shapes)[-1]
    with pytest.raises(CheckpointError, match=rf"1 of another shape \({key} \(5, 5\) instead of"):
        match({**shapes, key: (5, 5)}, "file")


def test_the_four_legacy_keys_are_dropped_and_no_others() -> None:
    for kind, prefix in (("xp_mt", ""), ("base_xpmt", "gaia_xp_encoder.backbone.")):
        legacy = {prefix + key: shape for key, shape in LEGACY.items()}
        assert match(expected_shapes(kind) | legacy, "file") == (kind, list(legacy))
    with pytest.raises(CheckpointError, match="4 surplus"):
        match(expected_shapes("lrs_mt") | LEGACY, "file")
    with pytest.raises(CheckpointError, match=r"1 surplus \(conv1d.bias\)"):
        match(expected_shapes("xp_mt") | {"conv1d.bias": (19,)}, "file")
    assert recognise({"some.weight": (2, 2)}) is None
    with pytest.raises(CheckpointError, match=r"contains none of the known models; its first keys are some\.weight"):
        match({"some.weight": (2, 2)}, "file")


def test_label_head(tmp_path: Path) -> None:
    torch.manual_seed(1)
    head = LabelHead()
    head(torch.randn(64, 768))
    torch.save({"model_state_dict": head.state_dict(), "loss": 0.1}, tmp_path / "feh.pt")
    report = import_checkpoint(tmp_path / "feh.pt", tmp_path / "feh")
    assert (report.kind, report.entries, report.parameters) == ("mlp_head", 23, 1_348_353)
    statistics = tmp_path / "feh_mean_std.json"
    statistics.write_text(json.dumps({"mean": [0.5] * 768, "std": [2.0] * 768}))
    loaded = load_label_head(tmp_path / "feh", statistics)
    vectors = np.random.default_rng(0).normal(size=(5, 768)).astype(np.float32)
    with torch.no_grad():
        expected = head.eval().network((torch.from_numpy(vectors) - 0.5) / 2.0)[:, 0].numpy()
    assert np.allclose(loaded.predict(vectors), expected, atol=1e-6)
    with pytest.raises(CheckpointError, match="holds a label head"):
        load_model(tmp_path / "feh")
    statistics.write_text(json.dumps({"mean": [0.5] * 7, "std": [2.0] * 7}))
    with pytest.raises(CheckpointError, match="must hold 768 means"):
        load_label_head(tmp_path / "feh", statistics)


def test_files_that_are_no_checkpoints(tmp_path: Path, small: dict[str, torch.Tensor]) -> None:
    path, output = tmp_path / "file.ckpt", tmp_path / "model"
    with pytest.raises(CheckpointError, match="There is no file"):
        import_checkpoint(path, output)
    path.write_bytes(pickle.dumps({"inference": 1}))
    with pytest.raises(CheckpointError, match="not a checkpoint in torch's zip format"):
        import_checkpoint(path, output)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"without torch's data\.pkl"):
        import_checkpoint(path, output)
    torch.save([1, 2, 3], path)
    with pytest.raises(CheckpointError, match="contains no table of tensors"):
        import_checkpoint(path, output)
    torch.save({"state_dict": {"a": torch.ones(2)}}, path)
    with pytest.raises(CheckpointError, match="none of the known models; its first keys are a"):
        import_checkpoint(path, output)
    broken = OrderedDict(small)
    broken["network.0.bias"] = torch.full((1024,), float("nan"))
    torch.save(broken, path)
    with pytest.raises(CheckpointError, match=r"'network\.0\.bias' contains non-finite numbers"):
        import_checkpoint(path, output)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="not a checkpoint in torch's zip format"):
        import_checkpoint(path, output)
    assert not output.exists()


def test_storages_that_do_not_hold_what_the_pickle_says(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.arange(8.0)}}, tmp_path / "sound.pt")
    with zipfile.ZipFile(tmp_path / "sound.pt") as source, zipfile.ZipFile(tmp_path / "short.pt", "w") as short:
        for info in source.infolist():
            content = source.read(info)
            short.writestr(info.filename, content[:-4] if "/data/" in info.filename else content)
    file = TorchFile(tmp_path / "short.pt")
    with pytest.raises(CheckpointError, match="storage 0 should hold 32 bytes; found 28"):
        file.tensor(file.content["state_dict"]["a"])
    beyond = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    beyond += b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x08tQK\x00(K\x09t(K\x01tNNtR."
    with pytest.raises(CheckpointError, match="reaches beyond its 8 numbers"):
        read_pickle(io.BytesIO(beyond), "file")


def test_views_of_shared_storages_come_out_right(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    saved = {"rows": base[1:3], "columns": base.T, "half": base.half(), "brain": base.bfloat16(), "n": torch.tensor(7)}
    torch.save({"state_dict": saved}, tmp_path / "views.pt")
    file = TorchFile(tmp_path / "views.pt")
    for key, ref in file.content["state_dict"].items():
        assert torch.equal(file.tensor(ref), saved[key])


def test_what_often_stands_in_a_checkpoints_place_is_named(tmp_path: Path) -> None:
    for name, content, words, hint in (
        ("pointer.ckpt", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 172345678\n",
         "git-lfs pointer of 72 bytes.*172,345,678 bytes", "git lfs pull"),
        ("page.ckpt", b"<!DOCTYPE html><html><title>Sign in</title>", "is a web page", "login"),
        ("error.ckpt", b'{"error": "not found"}', "JSON text", "editor"),
        ("empty.ckpt", b"", "empty", "again"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=words) as caught:
            import_checkpoint(tmp_path / name, tmp_path / "model")
        assert name in caught.value.message
        assert hint in caught.value.hint


def test_the_pointer_that_a_clone_without_lfs_leaves(cases: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="git-lfs pointer"):
        import_checkpoint(cases / "lfs-pointer" / "specclip_model_predrecon_mlp.ckpt", tmp_path / "model")


def test_dictionaries_that_hold_themselves_or_are_deep_are_no_state(tmp_path: Path) -> None:
    cyclic: dict[str, Any] = {}
    cyclic["state_dict"] = cyclic
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"state_dict": deep}
    buffer = io.BytesIO()
    for name, content in (("cyclic", cyclic), ("deep", deep)):
        if name == "deep":  # pickled by hand: pickle itself recurses
            data = b"\x80\x02" + b"}X\x0a\x00\x00\x00state_dict" * 5000 + b"}" + b"s" * 5000 + b"."
        else:
            data = pickle.dumps(content, protocol=2)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/byteorder", b"little")
        (tmp_path / f"{name}.ckpt").write_bytes(buffer.getvalue())
        with pytest.raises(CheckpointError, match="no table of tensors"):
            import_checkpoint(tmp_path / f"{name}.ckpt", tmp_path / "model")
