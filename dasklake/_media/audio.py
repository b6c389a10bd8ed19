"""Reader of audio (libsndfile): samples x channels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._media.reader import convert, import_optional, selected_rows, translate_errors

#: Dtypes to which libsndfile converts.
_DTYPES = ("float64", "float32", "int32", "int16")


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
        """Decode samples; floats range from -1 to 1."""
        with self.open(data) as file:
            rows = selected_rows(item, file.frames)
            if not rows:
                return np.empty((0, file.channels), dtype or "float64")
            # Samples of an MP3 depend on the samples before them: decode from the beginning.
            first = 0 if file.format == "MP3" else min(rows[0], rows[-1])
            last = max(rows[0], rows[-1])
            with translate_errors("audio"):
                file.seek(first)
                read_dtype = dtype if dtype in _DTYPES else "float64"
                samples = file.read(last + 1 - first, read_dtype, always_2d=True)
                if len(samples) <= last - first:
                    raise EOFError(f"it ends before sample {last}")
        return convert(samples[np.asarray(rows) - first], item, dtype)
