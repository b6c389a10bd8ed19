"""Codec of JSON: documents, lists and tags, stored as UTF-8 text."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from dasklake._codecs.codec import Codec
from dasklake._codecs.compression import Encoded, shorten, wrong_value
from dasklake._codecs.convert import fit_shape
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob
from dasklake.exceptions import CorruptionError, SampleError


class JsonCodec(Codec):
    """Codec of ``json``, ``list`` and ``tag``.

    Parameters
    ----------
    spec : TensorSpec
        Description of the tensor.
    """

    def __init__(self, spec: TensorSpec) -> None:
        super().__init__(spec)
        self._htype = spec.kind.name

    def encode(self, value: object) -> Encoded:
        """Return a value as JSON text, and the length of a list."""
        value = self._tags(value) if self._htype == "tag" else _to_json_value(value)
        shape: tuple[int, ...] = ()
        if self._htype != "json":
            if not isinstance(value, list):
                raise wrong_value("a list", value, "Give a list, or use the htype 'json'.")
            shape = fit_shape((len(value),), self.spec.shape)
        try:
            data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        except UnicodeEncodeError as error:
            raise SampleError(
                f"{shorten(ascii(value))} contains invalid text: {error.reason}. Decode it with "
                "errors='replace'."
            ) from error
        return Blob(data, shape)

    def decode(self, stored: Blob) -> object:
        """Return the parsed value."""
        try:
            return json.loads(str(stored.data, "utf-8"))
        except (ValueError, RecursionError) as error:
            raise CorruptionError(
                f"A sample is not valid JSON: {error}. Restore its chunk from a copy."
            ) from error

    def _tags(self, value: Any) -> list[str]:
        if isinstance(value, np.ndarray):
            value = value.tolist()
        tags = [value] if isinstance(value, str) else value
        if not isinstance(tags, list | tuple) or not all(isinstance(tag, str) for tag in tags):
            raise SampleError(
                f"tags must be a string or a list of strings, got {shorten(value)}. Convert them."
            )
        return list(map(str, tags))


def _to_json_value(value: Any) -> Any:
    """Convert a value to types that JSON stores without loss."""
    if isinstance(value, np.generic) and not isinstance(value.item(), np.generic):
        return _to_json_value(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        raise SampleError(f"a JSON number must be finite, got {value}. Give None or a string.")
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, list | tuple):
        return [_to_json_value(item) for item in value]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise SampleError(
                    f"a JSON key must be a string, got {shorten(key)}. Convert it with str()."
                )
        return {str(key): _to_json_value(item) for key, item in value.items()}
    array = hasattr(value, "tolist") and not isinstance(value, np.generic)
    remedy = ".tolist()" if array else "str(), or a list, dict or number"
    raise wrong_value("valid JSON", value, f"Convert it with {remedy}.")
