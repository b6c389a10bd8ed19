"""Values of JSON: documents, lists and tags, as UTF-8 text."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from dasklake._codecs.codec import Codec
from dasklake._codecs.compression import Encoded, shorten
from dasklake._codecs.convert import to_shape
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob
from dasklake.exceptions import CorruptionError, SampleError

__all__ = ["JsonCodec"]


class JsonCodec(Codec):
    """Codec of ``json``, ``list`` and ``tag``.

    Parameters
    ----------
    spec : TensorSpec
        What the tensor holds.
    """

    def __init__(self, spec: TensorSpec) -> None:
        super().__init__(spec)
        self._listed = spec.kind.name != "json"

    def encode(self, value: object) -> Encoded:
        """Return the text of a value."""
        value = self._tags(value) if self.spec.kind.name == "tag" else _plain(value)
        shape: tuple[int, ...] = ()
        if self._listed:
            if not isinstance(value, list):
                raise SampleError(
                    f"{shorten(value)} of type {type(value).__name__} is not a list. Give one, or "
                    "use the htype 'json'."
                )
            shape = to_shape(np.broadcast_to(np.uint8(0), len(value)), self.spec.shape).shape
        try:
            data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        except UnicodeEncodeError as error:
            raise SampleError(
                f"{shorten(ascii(value))} has text that is not valid: {error.reason}. Decode it "
                "with errors='replace'."
            ) from error
        return Blob(data, shape)

    def decode(self, stored: Blob) -> object:
        """Return the value as JSON has it."""
        try:
            return json.loads(str(stored.data, "utf-8"))
        except (ValueError, RecursionError) as error:
            raise CorruptionError(
                f"A sample is not JSON: {error}. Restore its chunk from a copy."
            ) from error

    def _tags(self, value: Any) -> list[str]:
        if isinstance(value, np.ndarray):
            value = value.tolist()
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list | tuple) or not all(isinstance(v, str) for v in found):
            raise SampleError(f"{shorten(value)} must be a string or a list of strings.")
        return list(map(str, found))


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, without anything changed on the way."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        if not np.isfinite(value):
            raise SampleError(f"{value} is not a valid JSON number. Give None, or a string.")
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise SampleError(
                    f"the key {key!r} is not a string, as JSON's keys are. Use str()."
                )
        return {str(key): _plain(each) for key, each in value.items()}
    cure = ".tolist()" if hasattr(value, "tolist") else "str(), or a list, dict or number"
    raise SampleError(
        f"{shorten(value)} of type {type(value).__name__} is not a valid JSON value. Convert it with "
        f"{cure}."
    )
