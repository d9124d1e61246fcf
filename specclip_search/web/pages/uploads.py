"""A spectrum that is not in the atlas: read in a process of its own, embedded, its nearest stars found."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from specclip_search.queries.similar.search import search_targets
from specclip_search.queries.similar.table import hits_table
from specclip_search.queries.space.targets import Target, space_modality
from specclip_search.queries.views.annotate import annotate

from ...errors import QueryError, Reason, SpectrumError
from ...spectrum import Spectrum
from ...surveys import LRS, PAIR, XP, get_modality
from ...surveys.batch import prepare_batch
from ..answers import Page, rows_json
from ..read_worker import SECONDS
from .curves import packed_panels, uploaded_panel

if TYPE_CHECKING:
    from pathlib import Path

    from ..session import Session

AT_ONCE = 2
_K = 20
_reading = threading.BoundedSemaphore(AT_ONCE)
_NAME = re.compile(r"[^\w.+-]+")
OPTIONS = {"modality": (LRS, XP), "medium": ("air", "vacuum"), "unit": ("Angstrom", "nm", "um")}


def upload_page(session: Session, payload: bytes, name: str, options: dict[str, str]) -> Page:
    """Nearest stars, estimated labels and the prepared spectrum of a file.

    Parameters
    ----------
    payload
        The file's bytes; they are written nowhere.
    name
        What the file was called, for messages.
    options
        `modality`, `medium` and `unit`, where the file does not say them.

    Raises
    ------
    QueryError, SpectrumError
        If the file holds no spectrum that can be used.
    """
    name = _NAME.sub("_", name)[-80:] or "upload"
    for key, value in options.items():
        if value not in OPTIONS[key]:
            raise QueryError(f"{key} must be one of {', '.join(OPTIONS[key])}; found '{value[:40]}'.", "Choose one.")
    spectrum = read_upload(payload, name, options)
    space = session.space
    session.model()
    modality = space_modality(space, spectrum.modality, _as_path(name))
    prepared = prepare_batch(get_modality(modality), [spectrum])
    if not bool(prepared.keep[0]):
        reason = prepared.reasons[0] or Reason.UNREADABLE
        raise SpectrumError(
            reason, f"{name} cannot be searched with ({reason}): {prepared.messages[0]}", "Choose another spectrum."
        )
    flux = np.asarray(prepared.flux)
    vector = session.run_model(lambda model: model.embed(modality, flux))[0]
    target = Target(name, modality, np.asarray(vector, np.float32))
    hits = search_targets(space, [target], _K, list(space.modalities))[0]
    table = hits_table(space, hits, 2 * _K, {})
    with session.connection() as connection:
        table = annotate(connection, table)
    content = rows_json(table)
    rows = [dict(zip([c["name"] for c in content["columns"]], row, strict=True)) for row in content["rows"]]
    prefix = {modality.name: modality.prefix for modality in PAIR}
    panel = uploaded_panel(modality, flux[0], np.asarray(prepared.error)[0].astype(np.float64))
    content |= {
        "name": name,
        "modality": modality,
        "keys": [f"{prefix.get(row['modality'], row['modality'])}:{row['spec_id']}" for row in rows],
        "labels": _estimated(session, modality, flux),
        "header": {k: v for k, v in spectrum.meta.items() if v is not None},
        "panels": base64.b64encode(packed_panels([panel])).decode(),
    }
    return Page(content, table, cacheable=False)


def _as_path(name: str) -> Path:
    from pathlib import Path

    return Path(name)


def _estimated(session: Session, modality: str, flux: np.ndarray) -> list[dict[str, Any]]:
    """Labels by the model's estimators; none where it has no estimators."""
    from ...errors import CheckpointError

    try:
        found = session.run_model(lambda model: model.estimate(modality, flux))
    except CheckpointError:
        return []
    return [
        {"label": label, "source": f"estimated from {modality}", "value": float(found[label][0]),
         "error": float(found[f"{label}_err"][0])}
        for label in ("teff", "logg", "feh", "alpha_fe", "c_fe", "rv")
        if label in found and f"{label}_err" in found and np.isfinite(found[label][0])
    ]  # fmt: skip


def read_upload(payload: bytes, name: str, options: dict[str, str]) -> Spectrum:
    """The spectrum of a file's bytes, read by the readers in a process with limits.

    Raises
    ------
    SpectrumError
        If the file cannot be read.
    QueryError
        If the process runs out of time or memory, or too many read at once.
    """
    if not hasattr(os, "memfd_create"):
        raise QueryError(
            "Files are read in memory alone, which this server's system cannot do.",
            "Search with the file on the command line: specclip-search similar FILE.",
        )
    if not payload:
        raise SpectrumError(Reason.UNREADABLE, f"{name} is empty (0 bytes).", "Choose another file.")
    if not _reading.acquire(timeout=SECONDS):
        raise QueryError("Other files are being read.", "Try again in a few seconds.")
    try:
        head = json.dumps({"name": name, "options": options}).encode() + b"\n"
        environment = {k: os.environ[k] for k in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR") if k in os.environ}
        environment |= {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1",
                        "OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-P", "-m", "specclip_search.web.read_worker"],
            input=head + payload, capture_output=True, timeout=SECONDS + 20, env=environment, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise QueryError(f"Reading {name} took too long.", "Choose a file with one spectrum.") from None
    finally:
        _reading.release()
    return _answered(done.stdout, name)


def _answered(answer: bytes, name: str) -> Spectrum:
    if answer[:1] == b"E":
        said = json.loads(answer[1:])
        where = re.compile(r"/proc/self/fd/\d+")
        reason = Reason(said["reason"]) if said["reason"] in set(Reason) else Reason.UNREADABLE
        raise SpectrumError(reason, where.sub(name, said["error"]), where.sub(name, said["hint"]))
    if answer[:1] != b"S":
        raise SpectrumError(
            Reason.UNREADABLE, f"{name} could not be read: its reader ended without an answer.", "Choose another file."
        )
    with np.load(io.BytesIO(answer[1:]), allow_pickle=False) as arrays:
        about = json.loads(arrays["about"].tobytes())
        return Spectrum(
            arrays["wavelength"], arrays["flux"], arrays["ivar"], about["modality"], about["spec_id"], about["meta"]
        )
