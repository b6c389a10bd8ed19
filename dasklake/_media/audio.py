"""Audio, read with libsndfile: samples x channels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._media.reader import convert, library, reading, rows_of_item
from dasklake.exceptions import SampleError

__all__ = ["AudioReader"]

#: What libsndfile converts to by itself.
_DTYPES = ("float64", "float32", "int32", "int16")


class AudioReader:
    """Reads WAV, FLAC, MP3 and Ogg."""

    def shape(self, data: bytes) -> tuple[int, ...]:
        """Return the number of samples and of channels."""
        with reading("sound"), self.open(data) as file:
            return file.frames, file.channels

    def info(self, data: bytes) -> dict[str, Any]:
        """Return the rate in samples a second, the duration in seconds, and the encoding."""
        with reading("sound"), self.open(data) as file:
            rate = file.samplerate
            return {"rate": rate, "seconds": file.frames / rate, "encoding": file.subtype}

    def open(self, data: bytes) -> Any:
        """Return a ``soundfile.SoundFile``."""
        soundfile = library("soundfile", "The htype 'audio'", "audio")
        with reading("sound"):
            return soundfile.SoundFile(io.BytesIO(data))

    def read(self, data: bytes, item: int | slice, dtype: str | None) -> npt.NDArray[Any]:
        """Return samples; floats lie from -1 to 1."""
        with self.open(data) as file:
            rows = rows_of_item(item, file.frames)
            if not rows:
                return np.empty((0, file.channels), dtype or "float64")
            # What MP3 decodes to depends on what came before: it is read from its beginning.
            first = 0 if file.format == "MP3" else min(rows[0], rows[-1])
            last = max(rows[0], rows[-1])
            with reading("sound"):
                file.seek(first)
                kind = dtype if dtype in _DTYPES else "float64"
                found = file.read(last + 1 - first, kind, always_2d=True)
        if len(found) <= last - first:
            raise SampleError(
                f"the sound ends before sample {last}. Its bytes are returned by .bytes()."
            )
        return convert(found[np.asarray(rows) - first], item, dtype)
