"""The atlas keeps a copy of the model that made its vectors, so that later queries use the same one."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

from specclip_search.atlas import Atlas
from specclip_search.atlas.files import whole_file
from specclip_search.atlas.lock import writer_lock

CARD = "model.toml"


def keep_model(atlas: Atlas, model: Any) -> bool:
    """Copy the model's folder into the atlas unless the same weights are there; whether it copied.

    The card goes last: a model folder without its card is no model, so a killed copy is made again.
    A model without a folder of its own (made in memory) is not copied.
    """
    source: Path | None = getattr(model, "folder", None)
    target = atlas.model_folder(model.name)
    if source is None or (target.exists() and target.samefile(source)) or _digest_in(target) == model.digest:
        return False
    with writer_lock(target):
        # the old card must not vouch for new weights
        (target / CARD).unlink(missing_ok=True)
        files = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
        for path in sorted(files, key=lambda path: path.name == CARD):
            with whole_file(target / path.name) as temporary:
                shutil.copyfile(path, temporary)
    return True


def _digest_in(folder: Path) -> str | None:
    """Digest of the weights that a model folder's card names."""
    try:
        return tomllib.loads((folder / CARD).read_text(encoding="utf-8")).get("digest")
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return None
