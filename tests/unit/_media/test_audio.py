"""Audio: samples have the dtype of the file, or the declared dtype, without wrong values."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import numpy as np
import numpy.typing as npt
import pytest
import soundfile

import dasklake
from dasklake import File, TensorSpec
from dasklake.exceptions import SampleError

#: A wave of half of the full range.
WAVE = np.sin(np.linspace(0, 100, 4000)) / 2

#: Format, encoding, and the dtype of the decoded samples.
ENCODINGS = [
    ("wav", "PCM_U8", "int16"),
    ("wav", "PCM_16", "int16"),
    ("wav", "PCM_24", "int32"),
    ("wav", "PCM_32", "int32"),
    ("wav", "FLOAT", "float32"),
    ("wav", "DOUBLE", "float64"),
    ("wav", "ULAW", "int16"),
    ("wav", "ALAW", "int16"),
    ("wav", "IMA_ADPCM", "int16"),
    ("wav", "MS_ADPCM", "int16"),
    ("wav", "GSM610", "int16"),
    ("flac", "PCM_S8", "int16"),
    ("flac", "PCM_16", "int16"),
    ("flac", "PCM_24", "int32"),
    ("ogg", "VORBIS", "float32"),
    ("ogg", "OPUS", "float32"),
    ("mp3", "MPEG_LAYER_III", "float32"),
]


def _sound(form: str, encoding: str, wave: Any = WAVE) -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, wave, 8000, format=form.upper(), subtype=encoding)
    return sink.getvalue()


def _fractions(samples: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return samples as fractions of the full range."""
    if samples.dtype.kind == "f":
        return samples.astype(float)
    info = np.iinfo(samples.dtype)
    middle = (float(info.max) + float(info.min) + 1) / 2
    return (samples.astype(float) - middle) / 2.0 ** (info.bits - 1)


@pytest.mark.parametrize(("form", "encoding", "dtype"), ENCODINGS)
def test_samples_have_the_dtype_of_the_file(form: str, encoding: str, dtype: str) -> None:
    """Whole files, slices, rows and empty slices have the smallest dtype without a loss."""
    file = File(_sound(form, encoding))
    whole = file.numpy()
    assert whole.dtype == dtype
    assert file[3:9].dtype == file[5].dtype == file[:0].dtype == dtype
    assert np.array_equal(file[2000:2010:3], whole[2000:2010:3])
    exact = soundfile.read(io.BytesIO(file.bytes()), dtype="float64", always_2d=True)[0]
    assert np.allclose(_fractions(whole), exact, rtol=0, atol=1e-6)
    assert np.array_equal(_fractions(whole), exact) or dtype == "float32"


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32"])
@pytest.mark.parametrize(("form", "encoding"), [encoding[:2] for encoding in ENCODINGS])
def test_every_integer_dtype_has_the_full_range(form: str, encoding: str, dtype: str) -> None:
    """A declared integer dtype holds the wave at its own full range, of float files, too."""
    data = _sound(form, encoding)
    samples, floats = File(data, dtype=dtype).numpy(), File(data, dtype="float64").numpy()
    assert samples.dtype == dtype
    assert np.abs(floats).max() > 0.4
    assert np.abs(_fractions(samples) - floats).max() <= 2.0 / 2 ** np.iinfo(dtype).bits


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint64"])
@pytest.mark.parametrize(("form", "encoding"), [("wav", "PCM_24"), ("wav", "DOUBLE")])
def test_wide_and_float_dtypes_hold_the_wave(form: str, encoding: str, dtype: str) -> None:
    """Declared floats range from -1 to 1, and 64-bit integers have their full range."""
    samples = File(_sound(form, encoding), dtype=dtype).numpy()
    assert samples.dtype == dtype
    assert np.abs(_fractions(samples)[:, 0] - WAVE).max() < (1e-3 if dtype == "float16" else 1e-6)


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint8", "int64"])
@pytest.mark.parametrize(
    ("form", "encoding"), [("wav", "FLOAT"), ("wav", "DOUBLE"), ("ogg", "VORBIS"), ("ogg", "OPUS")]
)
def test_sound_beyond_the_full_range_is_clipped(form: str, encoding: str, dtype: str) -> None:
    """Loud samples of a file of floats become the largest integer, instead of a negative one."""
    data = _sound(form, encoding, 3 * WAVE)
    loud, floats = File(data, dtype=dtype).numpy(), File(data).numpy()
    assert np.abs(floats).max() > 1.2
    worst = np.abs(_fractions(loud) - np.clip(floats.astype(float), -1, 1)).max()
    assert worst < 0.01


def test_integers_of_a_sample_that_is_no_number_are_refused() -> None:
    """NaN has no integer: the message names the sample, and the remedy works."""
    wave = WAVE.copy()
    wave[7] = np.nan
    data = _sound("wav", "DOUBLE", wave)
    with pytest.raises(SampleError, match=r"sample 7 .*must be a number.*got nan.*float64"):
        File(data, dtype="int16").numpy()
    with pytest.raises(SampleError, match="sample 7 "):
        File(data, dtype="int16")[5:10]
    assert np.isnan(File(data, dtype="float64")[7]).any()


def test_a_lake_returns_the_dtype_of_each_file(tmp_path: Path) -> None:
    """Files of one tensor keep their own dtypes; a declared dtype holds for all of them."""
    files = [_sound("wav", encoding) for encoding in ("PCM_16", "PCM_24", "FLOAT")]
    bag = db.from_sequence([{"plain": data, "declared": data} for data in files], npartitions=1)
    schema = {
        "plain": TensorSpec("audio", compression="wav"),
        "declared": TensorSpec("audio", dtype="float32", compression="wav"),
    }
    with dask.config.set(scheduler="synchronous"):
        dasklake.to_lake(bag, tmp_path / "lake", schema=schema)
    lake = dasklake.open(tmp_path / "lake")
    assert [lake[i]["plain"].numpy().dtype for i in range(3)] == ["int16", "int32", "float32"]
    assert [lake[i]["declared"].numpy().dtype for i in range(3)] == ["float32"] * 3
    assert np.abs(lake[0]["declared"].numpy()[:, 0] - WAVE).max() < 1e-3
