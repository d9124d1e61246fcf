"""The built-in formats, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import SpectrumError
from ..spectrum import Spectrum
from ..surveys import XP
from . import fits_spectrum, gaia_tables, gaia_xp, lamost, specutils_bridge, text_spectrum
from .containers.archive_member import Member
from .content import Content
from .registry import Reader, ReadOptions, register
from .surveys import apogee, desi, gaia_rvs, lamost_mrs, mmu, row_tables, sdss


def _read_lamost(content: Content, options: ReadOptions) -> Iterator[Spectrum]:
    data = None
    if isinstance(content, Member):
        with content.open() as stream:
            data = stream.read()
    yield lamost.read_lamost(content.path, options.release, data)


def _is_gaia(content: Content) -> bool:
    if content.kind == "fits" and b"BINTABLE" not in content.head:
        return False
    return gaia_xp.is_gaia_xp(gaia_tables.column_names(content), content)


def _read_gaia(content: Content, options: ReadOptions) -> Iterator[Spectrum]:
    for batch in gaia_xp.iter_xp(content, options.release):
        rejected = {row: (reason, message) for row, _, reason, message in batch.rejected}
        good = dict(zip(batch.row.tolist(), gaia_xp.to_spectra(batch, options.release, str(content.path)), strict=True))
        for row in sorted([*rejected, *good]):
            if row in rejected:
                reason, message = rejected[row]
                raise SpectrumError(reason, f"{content.path}#{row}: {message}.", "Give another row, or another file.")
            yield good[row]


def _fits_or_specutils(content: Content, options: ReadOptions) -> Iterator[Spectrum]:
    try:
        yield from fits_spectrum.read_fits_spectrum(content, options)
    except SpectrumError as ours:
        if "no spectrum in a layout" not in ours.message or not specutils_bridge.specutils_is_there(content):
            raise
        yield from specutils_bridge.read_with_specutils(content, options)


for _reader in (lamost_mrs.READER, sdss.READER, apogee.READER, desi.READER, mmu.READER):
    register(_reader)
register(Reader("lamost", "LAMOST low-resolution spectra (FITS image or COADD table)", lamost.is_lamost, _read_lamost))
register(gaia_rvs.READER)
register(Reader(XP, "Gaia XP sampled or continuous mean spectra (CSV, ECSV, FITS, VOTable, Avro, Parquet)",
                _is_gaia, _read_gaia))
register(Reader("text", "a table of wavelength and flux (CSV, ECSV, plain columns)",
                text_spectrum.is_text_spectrum, text_spectrum.read_text_spectrum))
register(row_tables.READER)
register(Reader("fits", "FITS tables and 1-D images", fits_spectrum.is_fits,
                _fits_or_specutils))
