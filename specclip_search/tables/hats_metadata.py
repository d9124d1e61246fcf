"""What a HATS catalogue says of itself: its tiles, its columns, its properties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..atlas.files import write_text
from ..version import __version__
from .sky_tiles import INDEX_ORDER, Tiles

INDEX = "_healpix_29"


def margin_name(name: str, arcsec: float) -> str:
    """Folder of a catalogue's margin."""
    return f"{name}_{arcsec:g}arcs".replace(".", "p")


def write_metadata(
    folder: Path, schema: pa.Schema, tiles: Tiles, rows: int, most: int, said: dict[str, str]
) -> None:
    """The columns of all files, the list of tiles, and the properties of one catalogue."""
    pq.write_metadata(schema, folder / "dataset" / "_common_metadata")
    size = sum(path.stat().st_size for path in (folder / "dataset").rglob("*.parquet"))
    by = np.lexsort((tiles.pixel, tiles.order))
    lines = [f"{order},{pixel}" for order, pixel in zip(tiles.order[by], tiles.pixel[by], strict=True)]
    write_text(folder / "partition_info.csv", "\n".join(["Norder,Npix", *lines]) + "\n")
    _write_properties(
        [folder / "hats.properties", folder / "properties"],
        {
            "obs_collection": folder.name,
            **said,
            "hats_nrows": str(rows),
            "hats_col_healpix": INDEX,
            "hats_col_healpix_order": str(INDEX_ORDER),
            "hats_npix_suffix": ".parquet",
            "hats_max_rows": str(most),
            "hats_order": str(int(tiles.order.max())),
            "moc_sky_fraction": f"{float(np.sum(4.0 ** -tiles.order) / 12):.6g}",
            "hats_estsize": str(max(1, size // 1024)),
            "hats_builder": f"specclip-search {__version__}",
            "hats_version": "v0.1",
            "obs_frame": "ICRS",
        },
    )


def write_collection(work: Path, name: str, arcsec: float) -> None:
    """The properties of catalogue and margin together."""
    said = {"obs_collection": name, "hats_primary_table_url": name}
    margin = margin_name(name, arcsec)
    if (work / margin).is_dir():
        said |= {"all_margins": margin, "default_margin": margin}
    _write_properties(
        [work / "collection.properties"], said | {"hats_builder": f"specclip-search {__version__}"}
    )


def _write_properties(paths: list[Path], said: dict[str, str]) -> None:
    """Java properties: one `key = value` a line."""
    text = "#HATS\n" + "".join(f"{key} = {value}\n" for key, value in said.items())
    for path in paths:
        write_text(path, text)
