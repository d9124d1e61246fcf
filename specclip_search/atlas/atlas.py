"""The atlas: one directory that holds spectra, vectors, scores and catalogues of a survey."""

from __future__ import annotations

import os
import re
from html import escape
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import AtlasError
from ..version import __version__
from .manifest import MARKER, change_marker, read_marker, recorded_stages
from .stage import Stage

if TYPE_CHECKING:
    import pandas as pd

    from specclip_search.queries.session import Session
    from specclip_search.queries.views.rows import Rows

    from ..spectrum import Spectrum

FORMAT_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Atlas:
    """An atlas on disk.

    Parameters
    ----------
    path
        Folder that holds `atlas.toml`.
    allow_partial
        Answer from the shards that are there where some are missing. A warning names them, results
        carry them in `attrs["partial"]`. By default a stage with missing shards is refused.

    Attributes
    ----------
    partial
        By stage, numbers of missing shards that were left out so far.

    Raises
    ------
    AtlasError
        If there is no atlas at `path`, or it was written by a newer version.
    """

    def __init__(self, path: str | os.PathLike[str], *, allow_partial: bool = False) -> None:
        self.path = Path(path)
        self.allow_partial = allow_partial
        self.partial: dict[str, list[int]] = {}
        marker = self.path / MARKER
        if not marker.is_file():
            found = "a folder without atlas.toml" if self.path.is_dir() else "no file or folder of that name"
            raise AtlasError(
                f"No atlas at {self.path}: found {found}.",
                "Check --atlas (or SPECCLIP_ATLAS); `specclip-search ingest` creates one, "
                "`specclip-search demo` an example atlas.",
            )
        self._check_format(read_marker(self.path))

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Atlas:
        """Open the atlas at `path`, creating an empty one if there is none.

        Raises
        ------
        AtlasError
            If `path` is a file, or a non-empty folder that is not an atlas.
        """
        folder = Path(path)
        if folder.exists() and not folder.is_dir():
            raise AtlasError(f"{folder} is a file; an atlas is a folder.", "Name another folder.")
        if not (folder / MARKER).exists():
            others = [p.name for p in folder.iterdir() if not p.name.startswith(".")] if folder.exists() else []
            if others:
                raise AtlasError(
                    f"{folder} is not empty and is not an atlas (found {', '.join(sorted(others)[:3])}).",
                    "Name a new or empty folder for the atlas.",
                )
            folder.mkdir(parents=True, exist_ok=True)
            change_marker(folder, lambda _: {"format_version": FORMAT_VERSION, "created_by": __version__})
        return cls(folder)

    def _check_format(self, content: dict[str, Any]) -> None:
        version = content.get("format_version")
        if version != FORMAT_VERSION:
            raise AtlasError(
                f"{self.path} has atlas format {version}; this version reads format {FORMAT_VERSION}.",
                "Use the version of specclip-search that made it, or rebuild the atlas.",
            )

    @property
    def active_model(self) -> str | None:
        """Name of the model whose vectors are searched by default; None before the first `embed`."""
        return read_marker(self.path).get("active_model")

    def use_model(self, name: str) -> None:
        """Make `name` the active model."""
        chosen = checked_name(name, "model")
        change_marker(self.path, lambda content: content | {"active_model": chosen})

    def require_model(self, name: str | None = None) -> str:
        """`name` if given, else the active model; raises `AtlasError` if there is neither."""
        chosen = name or self.active_model
        if chosen is None:
            raise AtlasError(
                f"{self.path} has no vectors yet, so no model is active.",
                "Run `specclip-search embed` first, or name a model with --model.",
            )
        return checked_name(chosen, "model")

    # -- stages -----------------------------------------------------------------------------

    def stage(self, folder: Path, label: str) -> Stage:
        """The stage in a folder of this atlas."""
        return Stage(folder, label, self.partial if self.allow_partial else None, self.path)

    def spectra(self, modality: str) -> Stage:
        return self.stage(self.path / "spectra" / modality, f"{modality} spectra")

    def observed(self, modality: str) -> Stage:
        return self.stage(self.path / "observed" / modality, f"observed {modality} spectra")

    def rejected(self, modality: str) -> Stage:
        return self.stage(self.path / "rejected" / modality, f"rejected {modality} spectra")

    def waiting(self, modality: str) -> Stage:
        return self.stage(self.path / "waiting" / modality, f"{modality} spectra that wait for their calibration")

    def catalog(self, name: str) -> Stage:
        return self.stage(self.path / "catalogs" / checked_name(name, "catalogue"), f"catalogue '{name}'")

    def vectors(self, model: str, modality: str) -> Stage:
        return self.stage(
            self.path / "vectors" / checked_name(model, "model") / modality, f"{modality} vectors of '{model}'"
        )

    def estimates(self, modality: str, model: str | None = None) -> Stage:
        """Label estimates of a modality, by the active model unless another is named."""
        name = self.require_model(model)
        return self.stage(self.path / "estimates" / name / modality, f"{modality} label estimates of '{name}'")

    def translations(self, model: str) -> Stage:
        return self.stage(self.path / "translations" / checked_name(model, "model"), f"translations of '{model}'")

    def results(self, name: str) -> Stage:
        return self.stage(self.path / "results" / checked_name(name, "result"), f"results '{name}'")

    def index_folder(self, model: str, modality: str) -> Path:
        return self.path / "indexes" / checked_name(model, "model") / modality

    def model_folder(self, model: str) -> Path:
        return self.path / "models" / checked_name(model, "model")

    # -- contents ---------------------------------------------------------------------------

    def modalities(self) -> list[str]:
        """Names of modalities with at least one committed shard of spectra."""
        return [name for name in self._folders("spectra") if self.spectra(name).exists]

    def catalogs(self) -> list[str]:
        """Names of ingested catalogues."""
        return [name for name in self._folders("catalogs") if self.catalog(name).exists]

    def observed_names(self) -> list[str]:
        """Names of modalities whose spectra are kept as observed."""
        return [name for name in self._folders("observed") if self.observed(name).exists]

    def rejected_names(self) -> list[str]:
        """Names of modalities of which spectra were rejected."""
        return [name for name in self._folders("rejected") if self.rejected(name).exists]

    def result_names(self) -> list[str]:
        """Names of stored results."""
        return [name for name in self._folders("results") if self.results(name).exists]

    def models(self) -> list[str]:
        """Names of models kept in the atlas."""
        return [name for name in self._folders("models") if (self.model_folder(name) / "model.toml").exists()]

    def _folders(self, kind: str) -> list[str]:
        """Folders of a kind that are there or should be; what could not have been made here `doctor` names."""
        folder = self.path / kind
        there = {p.name for p in folder.iterdir() if is_name(p.name) and p.is_dir()} if folder.is_dir() else set()
        recorded = (name.split("/") for name in recorded_stages(self.path))
        named = {parts[1] for parts in recorded if parts[0] == kind and len(parts) == 2}
        return sorted(there | {name for name in named if is_name(name)})

    def sql(self, statement: str, parameters: list[Any] | dict[str, Any] | None = None) -> Rows:
        """Run SQL over views of every stage; see `specclip_search.queries.sql.ask.run`.

        Returns
        -------
        Rows
            Evaluated when read; None where the statement yields no rows, as COPY.
        """
        return _questions().run(self, statement, parameters)

    def similar(self, target: Any, k: int = 20, **options: Any) -> pd.DataFrame:
        """Spectra most similar to a target; see `specclip_search.similar`."""
        return _questions().similar(self, target, k, **options)

    def anomalies(self, top: int = 100, **options: Any) -> pd.DataFrame:
        """The highest-scoring stars; see `specclip_search.anomalies`."""
        return _questions().anomalies(self, top, **options)

    def emp_candidates(self, below: float = -3.0, **options: Any) -> pd.DataFrame:
        """Candidates for extremely metal-poor stars; see `specclip_search.emp_candidates`."""
        return _questions().emp_candidates(self, below, **options)

    def spectrum(self, key: str, *, epoch: int | None = None) -> Spectrum:
        """The spectrum of a key as observed, over its full range; see `specclip_search.observed_spectrum`."""
        return _questions().observed_spectrum(self, key, epoch=epoch)

    def session(self) -> Session:
        """Hold the atlas open for many questions: one connection, open indexes, a model loaded once.

        Examples
        --------
        >>> with atlas.session() as session:                              # doctest: +SKIP
        ...     near = session.similar("gaia:5853418002145112704")
        ...     count = session.sql("SELECT count(*) FROM stars").fetchall()
        """
        return _questions().Session(self)

    def explore(self, **options: Any) -> Any:
        """Look at the atlas in a browser; see `specclip_search.web.explore`. Needs the extra `web`."""
        from specclip_search.web import explore

        return explore(self, **options)

    def summary(self) -> list[tuple[str, str]]:
        """What the atlas holds, as name and text; shown by `repr` and in notebooks."""
        held = [(f"{name} spectra", _counted(self.spectra(name), "")) for name in self.modalities()]
        held += [(f"catalogue {name}", _counted(self.catalog(name), " rows")) for name in self.catalogs()]
        held += [("model", self.active_model or "none yet")]
        held += [(f"results {name}", _counted(self.results(name), " rows")) for name in self.result_names()]
        return held

    def __repr__(self) -> str:
        return f"<Atlas {str(self.path)!r}: " + "; ".join(f"{name} {text}" for name, text in self.summary()) + ">"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in self.summary())
        return f"<table><caption>Atlas {escape(str(self.path))}</caption>{rows}</table>"


def _counted(stage: Stage, unit: str) -> str:
    """Rows of a stage in words; a damaged one is shown as such, because `repr` must not fail."""
    try:
        return f"{stage.rows:,}{unit}"
    except AtlasError:
        return "incomplete or damaged (see `specclip-search doctor`)"


def _questions() -> ModuleType:
    """What can be asked of an atlas: the one import that leads up, because the atlas is where people look for it."""
    from specclip_search.queries import session

    return session


def is_name(name: str) -> bool:
    """Whether a folder of an atlas may be called so."""
    return _NAME.fullmatch(name) is not None and ".." not in name


def checked_name(name: str, what: str) -> str:
    """`name` if it is safe as a folder name; raises `AtlasError` otherwise."""
    if not is_name(name):
        raise AtlasError(
            f"'{name}' cannot be the name of a {what}.",
            "Use letters, digits, '_', '-' and '.', beginning with a letter or digit, at most 64 characters.",
        )
    return name
