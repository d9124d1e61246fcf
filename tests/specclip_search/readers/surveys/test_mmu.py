"""The Multimodal Universe's nested layout, as structures of lists and as lists of structures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specclip_search.errors import Reason, SpectrumError
from specclip_search.readers import read_spectrum
from specclip_search.readers.registry import ReadOptions, iter_rows


def _file(folder: Path, shared_data: Path, form: str) -> tuple[Path, object]:
    """A file of two DESI rows: a real spectrum padded with -1, and one without a spectrum."""
    one = read_spectrum(next((shared_data / "surveys" / "desi").glob("coadd-4*")))
    pad = 20
    columns = {
        "flux": np.pad(one.flux, (0, pad), mode="edge"),
        "ivar": np.pad(one.ivar, (0, pad)),
        "lambda": np.pad(one.wavelength, (0, pad), constant_values=-1),
        "lsf_sigma": np.pad(one.wavelength / (one.resolution * np.sqrt(8 * np.log(2))), (0, pad), mode="edge"),
        "mask": np.arange(len(one.flux) + pad) < 10,
    }
    if form == "struct":
        kind = pa.struct([(name, pa.list_(pa.bool_() if name == "mask" else pa.float64())) for name in columns])
        nested = pa.array([{name: values.tolist() for name, values in columns.items()}, None], kind)
    else:
        kind = pa.list_(pa.struct([(name, pa.bool_() if name == "mask" else pa.float64()) for name in columns]))
        nested = pa.array(
            [
                [
                    dict(zip(columns, values, strict=True))
                    for values in zip(*(part.tolist() for part in columns.values()), strict=True)
                ],
                None,
            ],
            kind,
        )
    file = folder / f"{form}.parquet"
    pq.write_table(
        pa.table(
            {
                "spectrum": nested,
                "object_id": ["39633345008634465", "2"],
                "ra": [105.4, 1.0],
                "dec": [56.6, 2.0],
                "z": [0.1, 0.2],
                "ebv": [0.05, 0.0],
                "fiberflux_g": [1.9, 1.0],
            }
        ),
        file,
    )
    return file, one


@pytest.mark.parametrize("form", ["struct", "list"])
def test_rows_are_the_spectra_that_went_in(tmp_path: Path, shared_data: Path, form: str) -> None:
    file, one = _file(tmp_path, shared_data, form)
    found, missing = iter_rows(file)
    assert (found.modality, found.spec_id, found.meta["ra"]) == ("desi", 39633345008634465, 105.4)
    for name in ("wavelength", "flux"):
        np.testing.assert_allclose(getattr(found, name), getattr(one, name))
    np.testing.assert_allclose(found.resolution, one.resolution)
    assert not found.ivar[:10].any()
    np.testing.assert_allclose(found.ivar[10:], one.ivar[10:])
    assert (missing.reason, missing.spec_id) == (Reason.LAYOUT_UNKNOWN, 2)


def test_the_survey_must_be_known(tmp_path: Path) -> None:
    kind = pa.struct([(name, pa.list_(pa.float64())) for name in ("flux", "lambda")])
    file = tmp_path / "what.parquet"
    row = {"flux": np.ones(50).tolist(), "lambda": np.linspace(4000, 5000, 50).tolist()}
    pq.write_table(pa.table({"spectrum": pa.array([row], kind), "object_id": ["b' 461628614023079936'"]}), file)
    with pytest.raises(SpectrumError, match="which survey") as raised:
        read_spectrum(file)
    assert "--as sdss" in raised.value.hint
    one = next(iter_rows(file, ReadOptions(modality="sdss")))
    assert (one.modality, one.spec_id, one.meta["ivar_estimated"]) == ("sdss", 461628614023079936, True)
