"""Video, by FFmpeg: frames x height x width x 3."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._media.reader import convert, library, reading, rows_of_item
from dasklake.exceptions import SampleError

__all__ = ["VideoReader"]


class VideoReader:
    """Reads MP4, Matroska, WebM and AVI: the first stream of pictures."""

    def shape(self, data: bytes) -> tuple[int, ...]:
        """Return frames, height, width and 3; nothing is decoded."""
        with reading("video"), self.open(data) as container:
            stream = _stream(container)
            # Some formats do not say how many there are: their packets are counted.
            frames = stream.frames or sum(p.size > 0 for p in container.demux(stream))
            return frames, stream.codec_context.height, stream.codec_context.width, 3

    def info(self, data: bytes) -> dict[str, Any]:
        """Return the rate in frames a second, the duration in seconds, and the codec."""
        frames = self.shape(data)[0]
        with reading("video"), self.open(data) as container:
            stream = _stream(container)
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            seconds = frames / rate if rate else None
            return {"rate": rate, "seconds": seconds, "encoding": stream.codec_context.name}

    def open(self, data: bytes) -> Any:
        """Return an ``av.container.InputContainer``."""
        av = library("av", "The htype 'video'", "video")
        with reading("video"):
            return av.open(io.BytesIO(data))

    def read(self, data: bytes, item: int | slice, dtype: str | None) -> npt.NDArray[Any]:
        """Return frames; those before them are decoded too, those after them are not."""
        shape = self.shape(data)
        rows = rows_of_item(item, shape[0])
        found = np.empty((len(rows), *shape[1:]), np.uint8)
        wanted = {row: place for place, row in enumerate(rows)}
        last = max(rows, default=-1)
        with reading("video"), self.open(data) as container:
            for number, frame in enumerate(container.decode(_stream(container))):
                if number > last:
                    break
                place = wanted.pop(number, None)
                if place is not None:
                    found[place] = frame.to_ndarray(format="rgb24")
        if wanted:
            raise SampleError(
                f"the video ends before frame {min(wanted)} of {shape[0]}. Its bytes are returned "
                "by .bytes()."
            )
        return convert(found, item, dtype)


def _stream(container: Any) -> Any:
    if not container.streams.video:
        raise SampleError("the file has no video stream. Use the htype 'audio', or fix the file.")
    return container.streams.video[0]
