"""What is fuzzed: every reader, the catalogues and the checkpoints; what must hold for every input."""

from __future__ import annotations

import io
import random
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from specclip_search.errors import SpecclipError
from specclip_search.surveys import LRS, XP

from .model_folders import KINDS, damaged, sound

ACCEPTED, REFUSED = "accepted", "refused"


def read_one(path: Path) -> str:
    """As `similar FILE` reads a file: its first spectra, prepared."""
    from itertools import islice

    from specclip_search.readers import iter_spectra
    from specclip_search.readers.registry import ReadOptions
    from specclip_search.surveys import get_modality
    from specclip_search.surveys.batch import prepare_batch

    try:
        for spectrum in islice(iter_spectra(path, ReadOptions(unit="Angstrom", medium="vacuum")), 3):
            prepared = prepare_batch(get_modality(spectrum.modality), [spectrum])
            assert not prepared.keep[0] or np.isfinite(prepared.flux).all()
    except SpecclipError as error:
        return _refusal(error)
    return ACCEPTED


def ingest_as(modality: str) -> Callable[[Path], str]:
    """As `ingest` reads a file: nothing is raised, and read = kept + rejected."""
    def run(path: Path) -> str:
        from specclip_search.ingest.spectra import read_lamost_file, read_xp_file
        from specclip_search.ingest.worker import PartTask, prepare_part

        reading = read_lamost_file if modality == LRS else read_xp_file
        rows = prepare_part(PartTask(0, [(str(path), None)]), modality, reading)
        assert rows.kept.num_rows + rows.rejected.num_rows >= 1
        assert rows.kept["spec_id"].null_count == 0
        for message in rows.rejected["message"].to_pylist():
            # the ingest's last guard caught it: the reader's own is missing
            assert "Error:" not in message or "could not be read" not in message, message
        return ACCEPTED if rows.kept.num_rows else REFUSED

    return run


def catalogue(path: Path) -> str:
    """As `ingest catalog` reads a file, without writing it."""
    from specclip_search.catalogs.columns import convert_chunk, plan_columns
    from specclip_search.catalogs.formats import open_catalog
    from specclip_search.catalogs.ingest import holds_ids
    from specclip_search.opening.guard import reading

    try:
        opened = open_catalog(path)
        with reading(path, "a catalogue"):
            plan = plan_columns(opened.schema, looks_like_id=lambda name: holds_ids(opened, name))
        read = kept = 0
        for chunk in opened.chunks([column.source for column in plan.columns]):
            with reading(path, "a catalogue"):
                done = convert_chunk(chunk, plan)
            read, kept = read + chunk.num_rows, kept + done.table.num_rows + done.rejected
        assert read == kept
    except SpecclipError as error:
        return _refusal(error)
    return ACCEPTED


def checkpoint(path: Path) -> str:
    """As `model import` reads a file, up to the tensors."""
    from specclip_search.training.checkpoints.importing import match
    from specclip_search.training.checkpoints.torch_file import TorchFile, tensor_table

    try:
        file = TorchFile(path)
        table = tensor_table(file.content)
        if table is None:
            return REFUSED
        for ref in list(table.values())[:5]:
            file.tensor(ref).sum()
        match({key: ref.shape for key, ref in table.items()}, path.name)
    except SpecclipError as error:
        return _refusal(error)
    return ACCEPTED


def _refusal(error: SpecclipError) -> str:
    """A refusal has the parts that every message has."""
    assert error.message, error
    assert error.hint, error
    return REFUSED


@dataclass(frozen=True)
class Seed:
    """A sound input: its name, what reads it, its kind for the mutator, and its bytes (inflated)."""

    name: str
    run: Callable[[Path], str]
    kind: str
    data: bytes


def seeds(shared: Path) -> list[Seed]:
    """Real files of every form that is read, and small catalogues and checkpoints made of what real ones hold."""
    import gzip

    def content(name: str) -> bytes:
        data = (shared / name).read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data

    matrix, table = (str(sorted((shared / "lamost" / layout).rglob("*.fits.gz"))[0].relative_to(shared))
                     for layout in ("matrix", "table"))
    gaia = "gaia_xp/"
    found = [Seed(f"{name} {way}", run, "fits", content(name)) for name in (matrix, table)
             for way, run in (("ingest", ingest_as(LRS)), ("one", read_one))]
    found += [Seed("boss", read_one, "fits", content("surveys/boss/spec-3586-55181-0500.fits.gz"))]
    for name, kind in (("sampled/XP_SAMPLED_RAW_dr3int6.csv", "text"), ("sampled/XP_SAMPLED_RAW_dr3int6.ecsv", "text"),
                       ("sampled/XP_SAMPLED_RAW_dr3int6.fits", "fits"), ("continuous/XP_CONTINUOUS_RAW.csv", "text"),
                       ("sampled/XP_SAMPLED_RAW_votable_plain_dr3int6.xml", "xml"),
                       ("sampled/XP_SAMPLED_RAW_votable_dr3int6.xml", "xml"),
                       ("continuous/MeanSpectrumSolutionWithCov.avro", "binary")):
        found.append(Seed(f"xp {name}", ingest_as(XP), kind, content(gaia + name)))
    text = "# wavelength flux err\n" + "".join(f"{3700 + i * 4.0} {1 + i % 7 / 10} 0.01\n" for i in range(1400))
    found.append(Seed("plain text spectrum", read_one, "text", text.encode()))
    folders = [Seed(f"model folder {file}", _model_folder(file), kind, sound()[file]) for file, kind in KINDS.items()]
    return [*found, *_catalogues(), *_checkpoints(), *folders]


def _model_folder(file: str) -> Callable[[Path], str]:
    """As commands load a model folder."""
    def run(path: Path) -> str:
        try:
            return damaged(file)(path)
        except SpecclipError as error:
            return _refusal(error)

    return run


def _catalogues() -> list[Seed]:
    import tempfile

    from astropy.table import Table

    table = Table({"source_id": np.arange(1, 31) + 2**61, "ra": np.linspace(0, 350, 30),
                   "dec": np.linspace(-80, 80, 30), "teff": np.linspace(4000, 7000, 30),
                   "feh": np.where(np.arange(30) % 5, -1.5, -99.99),
                   "name": [f"star {i}" for i in range(30)]})
    table["teff"].unit = "K"
    forms = {"fits": ("fits", "fits"), "vot": ("votable", "xml"), "ecsv": ("ascii.ecsv", "text"),
             "csv": ("ascii.csv", "text"), "parquet": ("parquet", "binary"),
             "ipac": ("ascii.ipac", "text"), "tex": ("ascii.latex", "text"),
             "mrt": ("ascii.mrt", "text"), "txt": ("ascii.fixed_width_two_line", "text")}
    found = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        for suffix, (form, kind) in forms.items():
            file = Path(folder) / f"c.{suffix}"
            table.write(file, format=form)
            found.append(Seed(f"catalogue {suffix}", catalogue, kind, file.read_bytes()))
    vizier = ("#\n#Column\tRA_ICRS\t(F15.11)\tRight ascension\nRA_ICRS\tDE_ICRS\tSource\tTeff\ndeg\tdeg\t\tK\n"
              "---\t---\t---\t---\n")
    rows = "".join(f"{i}.5\t{i - 15}.25\t{2**61 + i}\t{5000 + i}\n" for i in range(20))
    comma = "source_id;ra;dec;feh\n" + "".join(f"{2**61 + i};{i},5;{i},25;-2,{i}\n" for i in range(20))
    return [*found, Seed("catalogue vizier", catalogue, "text", (vizier + rows).encode()),
            Seed("catalogue decimal commas", catalogue, "text", comma.encode())]


def _checkpoints() -> list[Seed]:
    import torch

    from specclip_search.training.networks.label_head import LabelHead

    buffer = io.BytesIO()
    torch.manual_seed(0)
    torch.save({"state_dict": LabelHead().state_dict(), "epoch": 3, "hyper_parameters": {"temperature": 15.5}}, buffer)
    with zipfile.ZipFile(io.BytesIO(buffer.getvalue())) as archive:
        entries = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    pickled = entries.pop("data.pkl")
    return [Seed("checkpoint file", checkpoint, "binary", buffer.getvalue()),
            Seed("checkpoint pickle", _pickled(entries), "binary", pickled)]


def _pickled(entries: dict[str, bytes]) -> Callable[[Path], str]:
    """The mutated pickle in a sound archive: its check sums would else stop nearly every mutation."""
    def run(path: Path) -> str:
        with zipfile.ZipFile(path.with_suffix(".ckpt"), "w") as archive:
            for name, content in {**entries, "data.pkl": path.read_bytes()}.items():
                archive.writestr(f"archive/{name}", content)
        return checkpoint(path.with_suffix(".ckpt"))

    return run


def packed(data: bytes, rng: random.Random) -> bytes:
    """`data`, now and then gzipped, now and then with its gzip stream cut or flipped."""
    import gzip

    roll = rng.random()
    if roll > 0.15:
        return data
    zipped = bytearray(gzip.compress(data, 1))
    if roll < 0.05 and len(zipped) > 40:
        zipped[rng.randrange(len(zipped))] ^= 1 << rng.randrange(8)
    elif roll < 0.08:
        del zipped[rng.randrange(10, len(zipped)) :]
    return bytes(zipped)
