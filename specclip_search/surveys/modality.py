"""Description of an instrument (modality): grid, preparation of raw flux, columns and spectral windows.

Built-in instruments are registered by the files of this folder. Other packages add instruments with a module
named under the entry point group ``specclip_search.plugins``. No other code contains an instrument's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata

import numpy as np
import pyarrow as pa

from ..errors import QueryError, Reason, SpectrumError
from ..keys import add_prefix
from ..preparation.prepared import Prepared
from ..spectrum import Spectrum

PLUGINS = "specclip_search.plugins"
"""Entry point group of modules that register further instruments when they are imported."""

RowPreparation = Callable[[np.ndarray, np.ndarray, np.ndarray, Prepared], None]
"""Fills a `Prepared` from wavelength (P,), flux (N, P) and inverse variance (N, P)."""

@dataclass(frozen=True, slots=True)
class SpectralWindow:
    """A named wavelength range.

    Attributes
    ----------
    lo, hi
        Limits, inclusive, in vacuum, in `unit`.
    note
        What the window measures, in a few words.
    """

    name: str
    lo: float
    hi: float
    unit: str
    note: str


def windows(unit: str, rows: list[tuple[str, float, float, str]]) -> tuple[SpectralWindow, ...]:
    """Windows in one unit from rows of (name, lo, hi, note)."""
    return tuple(SpectralWindow(name, lo, hi, unit, note) for name, lo, hi, note in rows)


@dataclass(frozen=True, eq=False)
class Modality:
    """One instrument.

    Attributes
    ----------
    name
        Name in the atlas, for example ``lamost_lrs``.
    prefix
        Prefix of its keys in text form, for example ``lamost``.
    wavelength
        (n,) float64 grid of the model's input, in `unit`, vacuum.
    unit
        ``Angstrom`` or ``nm``.
    windows
        Named wavelength ranges of interest to a reader.
    title
        The instrument's full name for display.
    prepare_flux
        (P,) wavelength and (N, P) finite flux to (N, n) float64: the model's input, computed as published.
    prepare_rows
        The same with masks, errors and quality, see `RowPreparation`.
    columns
        Columns of `spectra/<name>` that only this instrument has.
    short
        The instrument's name in columns of results, for example ``lrs`` in ``lrs_spec_id``.
    id_name
        The survey's name for the key of a spectrum, for example ``obsid``.
    flux_label
        Description of the model's input, for axes and columns.
    flux_unit
        Unit of the flux as delivered; empty if it is relative, or if each file says its own.
    names_stars
        Whether the key of a spectrum is the star's Gaia `source_id`. If not, spectra are linked to stars by
        catalogues or by position.
    reach
        Largest wavelength, in `unit`, that preparation uses; None if it uses all.
    keeps_bands
        Whether the broad-band shape of the raw flux, which the model's input lacks, is kept in the column `sed`.
    line_width
        Line width of plotted spectra, in points.
    small_files
        Whether each file holds one spectrum: below some hundred files, starting worker processes does not pay off.
    seen_as
        Name of the instrument whose grid and encoder its spectra use, after `specclip_search.surveys.seen_as` has
        degraded them to its resolution; None for an instrument with an encoder of its own.
    unsigned_ids
        Whether the survey's ids are unsigned, see `specclip_search.keys.add_prefix`.
    """

    name: str
    prefix: str
    wavelength: np.ndarray
    unit: str
    windows: tuple[SpectralWindow, ...]
    title: str
    prepare_flux: Callable[[np.ndarray, np.ndarray], np.ndarray] = field(repr=False)
    prepare_rows: RowPreparation = field(repr=False)
    columns: tuple[pa.Field, ...] = field(default=(), repr=False)
    short: str = ""
    id_name: str = "spec_id"
    flux_label: str = "flux"
    flux_unit: str = ""
    names_stars: bool = False
    reach: float | None = None
    keeps_bands: bool = False
    line_width: float = 1.0
    small_files: bool = False
    seen_as: str | None = None
    unsigned_ids: bool = False

    def __post_init__(self) -> None:
        if not self.short:
            object.__setattr__(self, "short", self.prefix)
        self.wavelength.flags.writeable = False

    @property
    def size(self) -> int:
        """Number of grid points."""
        return len(self.wavelength)

    @property
    def encoder(self) -> str:
        """Name of the instrument whose encoder takes its spectra: its own, unless they are seen as another's."""
        return self.seen_as or self.name

    @property
    def has_epochs(self) -> bool:
        """Whether single visits or exposures of a spectrum can be kept beside the combined one."""
        return any(column.name == "epoch" for column in self.columns)

    @property
    def meta_columns(self) -> tuple[str, ...]:
        """Names of the columns of `spectra/<name>` that a spectrum's `meta` may fill."""
        measured = {"spec_id", "simulated", "good_fraction", "n_repaired", "n_clipped", "scale", "sed", "flux", "error"}
        return tuple(name for name in self.schema.names if name not in measured)

    @property
    def link_column(self) -> str | None:
        """Column of catalogues with the ids of this instrument's spectra next to a `source_id`; None if not needed."""
        return None if self.names_stars else self.id_name

    @property
    def schema(self) -> pa.Schema:
        """Columns of `spectra/<name>`."""
        from ..atlas.schemas import spectra_schema

        return spectra_schema(self.columns, self.size)

    def prepare(self, wavelength: np.ndarray, flux: np.ndarray) -> np.ndarray:
        """Convert raw flux to the model's input, as published.

        Parameters
        ----------
        wavelength
            (P,) in `unit`, vacuum, strictly increasing, and covering the grid.
        flux
            (N, P) or (P,) raw flux in any unit, any floating type and byte order, finite.

        Returns
        -------
        ndarray
            (N, n) float64; also two-dimensional for a single spectrum.

        Raises
        ------
        SpectrumError
            If wavelengths or flux cannot be used. For many spectra of unknown quality use
            `specclip_search.surveys.batch.prepare_batch`, which rejects bad ones.
        """
        wavelength = np.asarray(wavelength, dtype=np.float64)
        rows = _rows(flux, wavelength)
        return self.prepare_flux(wavelength, rows)

    def window_mask(self, window: SpectralWindow) -> np.ndarray:
        """(n,) bool: grid points inside a window."""
        return (self.wavelength >= window.lo) & (self.wavelength <= window.hi)

    def __repr__(self) -> str:
        ends = f"{self.wavelength[0]:.1f}-{self.wavelength[-1]:.1f} {self.unit}"
        return f"<Modality {self.name}: {self.size} points, {ends}>"

    def __reduce__(self) -> tuple[Callable[[str], Modality], tuple[str]]:
        return get_modality, (self.name,)


def _rows(flux: np.ndarray, wavelength: np.ndarray) -> np.ndarray:
    """`flux` as (N, P) native float32 or float64; raises an error if its shape does not fit."""
    rows = np.atleast_2d(np.asarray(flux))
    if rows.ndim != 2 or wavelength.ndim != 1 or rows.shape[1] != len(wavelength):
        raise SpectrumError(
            Reason.LAYOUT_UNKNOWN,
            f"flux must be (N, P) with P = {wavelength.size} wavelengths; found {np.shape(flux)}.",
            "Give one row per spectrum, all on the same wavelengths.",
        )
    rows = rows.astype(np.float32 if rows.dtype.kind == "f" and rows.dtype.itemsize == 4 else np.float64, copy=False)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise SpectrumError(
            Reason.NOT_FINITE,
            f"flux must be finite; row {bad[0]} holds NaN or infinite values ({len(bad)} such rows).",
            "Use `prepare_batch`, which repairs or rejects such spectra.",
        )
    return rows


class _Registry(Mapping[str, Modality]):
    """Instruments by name, in the order of registration; plugins are loaded when first needed."""

    def __init__(self) -> None:
        self._known: dict[str, Modality] = {}
        self._complete = False

    def add(self, modality: Modality) -> None:
        self._known[modality.name] = modality

    def _load_plugins(self) -> None:
        if not self._complete:
            self._complete = True
            for entry in metadata.entry_points(group=PLUGINS):
                entry.load()

    def __getitem__(self, name: str) -> Modality:
        if name not in self._known:
            self._load_plugins()
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        self._load_plugins()
        return iter(self._known)

    def __len__(self) -> int:
        self._load_plugins()
        return len(self._known)


MODALITIES = _Registry()


def register(modality: Modality) -> Modality:
    """Register an instrument under its name and the prefix of its keys.

    Raises
    ------
    QueryError
        If another instrument has the same name or prefix.

    Examples
    --------
    >>> from specclip_search.surveys import GAIA_XP
    >>> get_modality(GAIA_XP.name) is GAIA_XP
    True
    """
    if modality.name in MODALITIES._known:
        raise QueryError(
            f"An instrument named '{modality.name}' is registered already.", "Give the new one another name."
        )
    add_prefix(modality.prefix, modality.name, modality.unsigned_ids)
    MODALITIES.add(modality)
    return modality


def encoder_of(name: str) -> str:
    """Name of the instrument whose encoder takes spectra of `name`; `name` itself where it is not registered."""
    return MODALITIES[name].encoder if name in MODALITIES else name


def own_encoders() -> tuple[str, ...]:
    """Names of the instruments with an encoder of their own."""
    return tuple(name for name, modality in MODALITIES.items() if modality.seen_as is None)


def get_modality(name: str) -> Modality:
    """The modality of that name.

    Raises
    ------
    QueryError
        If there is none; the message lists the known names.
    """
    try:
        return MODALITIES[name]
    except KeyError:
        raise QueryError(f"There is no modality '{name}'.", f"Choose one of: {', '.join(MODALITIES)}.") from None


def units_of(spectrum: Spectrum) -> tuple[str, str]:
    """Units of a spectrum's wavelength and flux; the second is empty where the flux is relative."""
    known = MODALITIES.get(spectrum.modality)
    said = spectrum.meta.get("flux_unit") or ("" if known is None else known.flux_unit)
    # readers give surveys that no encoder takes in Angstrom
    return "Angstrom" if known is None else known.unit, "" if said == "relative" else said
