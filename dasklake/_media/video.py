"""Reader of video (FFmpeg): frames x height x width x 3."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._media.reader import convert, import_optional, selected_rows, translate_errors
from dasklake.exceptions import SampleError


class VideoReader:
    """Reader of MP4, Matroska, WebM and AVI. It uses the first video stream."""

    def shape(self, data: bytes) -> tuple[int, ...]:
        """Return the number of frames, height, width and 3, without decoding."""
        with translate_errors("video"), self.open(data) as container:
            stream = _stream(container)
            # Some formats do not store the number of frames: count the packets.
            frames = stream.frames or sum(p.size > 0 for p in container.demux(stream))
            return frames, stream.codec_context.height, stream.codec_context.width, 3

    def info(self, data: bytes) -> dict[str, Any]:
        """Return the rate in frames per second, the duration in seconds, and the codec."""
        frames = self.shape(data)[0]
        with translate_errors("video"), self.open(data) as container:
            stream = _stream(container)
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            seconds = frames / rate if rate else None
            return {"rate": rate, "seconds": seconds, "encoding": stream.codec_context.name}

    def open(self, data: bytes) -> Any:
        """Return an ``av.container.InputContainer``."""
        av = import_optional("av", "The htype 'video'", "video")
        with translate_errors("video"):
            return av.open(io.BytesIO(data))

    def read(self, data: bytes, item: int | slice, dtype: str | None) -> npt.NDArray[Any]:
        """Decode frames, from the beginning of the file to the last selected frame."""
        shape = self.shape(data)
        rows = selected_rows(item, shape[0])
        pixels = np.empty((len(rows), *shape[1:]), np.uint8)
        positions = {row: position for position, row in enumerate(rows)}
        last = max(rows, default=-1)
        with translate_errors("video"), self.open(data) as container:
            for number, frame in enumerate(container.decode(_stream(container))):
                if number > last:
                    break
                position = positions.pop(number, None)
                if position is not None:
                    pixels[position] = frame.to_ndarray(format="rgb24")
            if positions:
                raise EOFError(f"it ends before frame {min(positions)} of {shape[0]}")
        return convert(pixels, item, dtype)


def _stream(container: Any) -> Any:
    if not container.streams.video:
        raise SampleError(
            "a video must have a video stream, got none. Use the htype 'audio', or fix the file."
        )
    return container.streams.video[0]
