"""Reader of audio (libsndfile): samples x channels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._media.reader import convert, import_optional, selected_rows, translate_errors
from dasklake.exceptions import SampleError

#: Dtype of the samples of each encoding: the smallest one of libsndfile that loses nothing.
_DTYPES = {
    **dict.fromkeys(("PCM_S8", "PCM_U8", "PCM_16", "ULAW", "ALAW", "IMA_ADPCM"), "int16"),
    **dict.fromkeys(("MS_ADPCM", "GSM610", "G721_32"), "int16"),
    **dict.fromkeys(("NMS_ADPCM_16", "NMS_ADPCM_24", "NMS_ADPCM_32"), "int16"),
    **dict.fromkeys(("PCM_24", "PCM_32"), "int32"),
    **dict.fromkeys(("FLOAT", "VORBIS", "OPUS"), "float32"),
    **dict.fromkeys(("MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"), "float32"),
}

#: Dtype of all other encodings. It holds the samples of any of them.
_ANY = "float64"


class AudioReader:
    """Reader of WAV, FLAC, MP3 and Ogg."""

    def shape(self, data: bytes) -> tuple[int, ...]:
        """Return the number of samples and of channels."""
        with translate_errors("audio"), self.open(data) as file:
            return file.frames, file.channels

    def info(self, data: bytes) -> dict[str, Any]:
        """Return the rate in samples per second, the duration in seconds, and the encoding."""
        with translate_errors("audio"), self.open(data) as file:
            rate = file.samplerate
            return {"rate": rate, "seconds": file.frames / rate, "encoding": file.subtype}

    def open(self, data: bytes) -> Any:
        """Return a ``soundfile.SoundFile``."""
        soundfile = import_optional("soundfile", "The htype 'audio'", "audio")
        with translate_errors("audio"):
            return soundfile.SoundFile(io.BytesIO(data))

    def read(self, data: bytes, item: int | slice, dtype: str | None) -> npt.NDArray[Any]:
        """Decode samples, by default with the dtype of the file; floats range from -1 to 1."""
        with self.open(data) as file:
            file_dtype = _DTYPES.get(file.subtype, _ANY)
            target = np.dtype(dtype or file_dtype)
            rows = selected_rows(item, file.frames)
            if not rows:
                return np.empty((0, file.channels), target)
            # Samples of an MP3 depend on the samples before them: decode from the beginning.
            from_start = file.format == "MP3" or not file.seekable()
            first = 0 if from_start else min(rows[0], rows[-1])
            last = max(rows[0], rows[-1])
            with translate_errors("audio"):
                if first:
                    file.seek(first)
                samples = file.read(
                    last + 1 - first, _read_dtype(file_dtype, target), always_2d=True
                )
                if len(samples) <= last - first:
                    raise EOFError(f"it ends before sample {last}")
        selected = samples[np.asarray(rows) - first]
        if target.kind in "iu" and selected.dtype != target:
            selected = _integers(selected, target, rows)
        return convert(selected, item, target.name)


def _read_dtype(file_dtype: str, target: np.dtype[Any]) -> str:
    """Return the dtype to read, from which :func:`_integers` makes integers of other widths.

    libsndfile itself neither scales nor clips floats for integers: a WAV of floats would become
    zeros, and loud parts of an Ogg would change their sign.
    """
    if target.kind == "f":
        return target.name if target.name in ("float32", "float64") else "float64"
    if file_dtype.startswith("float"):
        return "float64"
    return "int16" if target.name == "int16" else "int32"


def _integers(samples: npt.NDArray[Any], target: np.dtype[Any], rows: range) -> npt.NDArray[Any]:
    """Scale samples to the full range of an integer dtype. Floats beyond it are clipped.

    Parameters
    ----------
    samples : numpy.ndarray
        float64 from -1 to 1, or int32; samples x channels.
    target : numpy.dtype
        A dtype of integers.
    rows : range
        Numbers of the samples, for errors.

    Raises
    ------
    SampleError
        A float is not a number.
    """
    bits = 8 * target.itemsize
    depth = min(bits, 32)
    if samples.dtype.kind == "f":
        invalid = np.isnan(samples).any(axis=1)
        if invalid.any():
            raise SampleError(
                f"sample {rows[int(invalid.argmax())]} of the audio must be a number to be converted "
                f"to {target.name}, got nan. Read it with dtype='float64', or fix the file."
            )
        scale = 2.0 ** (depth - 1)
        signed = np.clip(np.rint(samples * scale), -scale, scale - 1).astype(np.int64)
    else:
        signed = samples.astype(np.int64) >> (32 - depth)
    signed <<= bits - depth
    if target.kind == "i":
        return signed.astype(target)
    # The middle of an unsigned range is half of it: adding that inverts the highest bit.
    unsigned: npt.NDArray[Any] = signed.astype(f"uint{bits}") ^ target.type(1 << (bits - 1))
    return unsigned
