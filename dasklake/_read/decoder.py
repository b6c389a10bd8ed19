"""Decode stored values, and make the samples that decode them on first access."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any, TypeGuard

import pyarrow as pa

from dasklake._codecs.decoded_origins import remember
from dasklake._codecs.registry import Codec, codec_for
from dasklake._codecs.sample import Sample, StoredValue
from dasklake._links.limits import LinkLimits
from dasklake._read.chunk_reader import MALFORMED
from dasklake._read.corruption import decode_or_skip
from dasklake._read.linked_values import linked
from dasklake._read.origin import Origin
from dasklake._schema.arrow_layout import Layout, storage_of
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Link
from dasklake.exceptions import CorruptionError, LakeError, SampleError


class Decoder:
    """Decodes stored values.

    Parameters
    ----------
    schema : mapping of str to TensorSpec
        The tensors.
    keys : mapping of str to str
        New names of renamed credentials keys.
    limits : LinkLimits, optional
        Limits for reading the targets of links.
    """

    def __init__(
        self,
        schema: Mapping[str, TensorSpec],
        keys: Mapping[str, str],
        limits: LinkLimits | None = None,
    ) -> None:
        self._specs = schema
        self._keys = keys
        self._limits = limits
        self._codecs: dict[str, Codec] = {name: codec_for(spec) for name, spec in schema.items()}
        #: Tensors whose values are decoded at once, because nothing can be lost by encoding them again.
        self._plain = {name for name, spec in schema.items() if _is_plain(spec)}
        if keys:
            # The new names of their keys are in the values only, not in what is stored.
            self._plain |= {name for name, spec in schema.items() if _lists_links(spec)}

    def __reduce__(self) -> tuple[Any, ...]:
        return Decoder, (dict(self._specs), dict(self._keys), self._limits)

    def spec(self, name: str) -> TensorSpec:
        """Return the description of a tensor."""
        return self._specs[name]

    def decode(self, name: str, stored: Any, sample: int) -> Any:
        """Decode a stored value; None means no value.

        Raises
        ------
        SampleError
            The bytes are undamaged but cannot be decoded.
        """
        if stored is None:
            return None
        codec = self._codecs[name]
        value = call_decoder(codec.decode, stored, name, sample)
        if isinstance(value, Link):
            link = linked(self._specs[name], stored, self._keys, self._limits)
            remember(link, self._renamed(stored), codec)
            return link
        if isinstance(value, list) and value and isinstance(value[0], Link):
            spec, keys = self._specs[name], self._keys
            return [linked(spec, asdict(link), keys, self._limits) for link in value]
        return value

    @cached_property
    def _without_keys(self) -> Decoder:
        """Return the decoder of links whose keys have their present names."""
        links = {name: spec for name, spec in self._specs.items() if spec.linked}
        return Decoder(links, {}, self._limits)

    def _renamed(self, stored: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a stored link with the present name of its credentials key."""
        key = stored["creds_key"]
        return stored if key not in self._keys else {**stored, "creds_key": self._keys[key]}

    def sample(
        self, names: Iterable[str], stored: Iterable[Any], number: int, *, lazy: bool = True
    ) -> Sample:
        """Return a sample of stored values.

        Parameters
        ----------
        names : iterable of str
            The tensors.
        stored : iterable
            Their stored values, or None for no value.
        number : int
            Number of the sample.
        lazy : bool, default True
            Whether values are decoded on first access, not at once.
        """
        sample = Sample()
        for name, value in zip(names, stored, strict=True):
            entry = self.entry(name, value, number)
            if not lazy and isinstance(entry, StoredValue):
                entry.get()
            sample[name] = entry
        return sample

    def entry(self, name: str, stored: Any, number: int) -> Any:
        """Return a value for a sample: a :class:`StoredValue`, or decoded if nothing is lost."""
        if stored is None or name in self._plain:
            return self.decode(name, stored, number)
        if self._keys and self._specs[name].linked:
            return StoredValue(self._without_keys, name, self._renamed(stored), number)
        return StoredValue(self, name, stored, number)

    def sample_or_skip(
        self, origin: Origin, names: Iterable[str], stored: Iterable[Any], number: int
    ) -> Sample | None:
        """Return a sample; with ``on_corrupt="skip"``, None if it cannot be decoded."""
        lazy = origin.on_corrupt == "raise"
        decode = partial(self.sample, names, stored, number, lazy=lazy)
        return decode_or_skip(decode, origin.on_corrupt, origin.store.url, number)


def call_decoder(decode: Callable[[Any], Any], stored: Any, name: str, sample: int) -> Any:
    """Decode a stored value; errors name the tensor and the sample.

    Raises
    ------
    SampleError
        The bytes are undamaged but cannot be decoded.
    CorruptionError
        The value does not match the schema.
    """
    try:
        return decode(stored)
    except SampleError as error:
        raise SampleError(error.message, tensor=name, sample=str(sample)) from error
    except LakeError:
        raise
    except MALFORMED as error:
        raise CorruptionError(
            f"Tensor {name!r} of sample {sample} does not match the schema ({error}). Restore its "
            "chunk from a copy. If the chunk was changed, `dasklake verify` reports its name."
        ) from error


def is_decoded(sample: Sample | None) -> TypeGuard[Sample]:
    """Return whether a sample was decoded, and not skipped."""
    return sample is not None


def _is_plain(spec: TensorSpec) -> bool:
    """Return whether decoding and encoding a value always gives the same stored value."""
    storage = storage_of(spec)
    if storage.layout is Layout.BLOB or spec.linked or spec.class_names is not None:
        return False
    constrained = bool(spec.kind.constraints) or len(spec.kind.last) > 1
    text = pa.types.is_large_string(storage.type) or pa.types.is_string(storage.type)
    return not constrained and (storage.element is not None or text)


def _lists_links(spec: TensorSpec) -> bool:
    return spec.sequence and "link[" in spec.htype
