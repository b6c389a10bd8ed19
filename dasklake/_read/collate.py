"""Decode the values of a batch in threads, and join them to columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._codecs.decoded_origins import forget
from dasklake._codecs.registry import codec_for
from dasklake._codecs.sequence import SequenceCodec
from dasklake._codecs.text import TextCodec
from dasklake._read.corruption import decode_or_skip
from dasklake._read.decoder import Decoder
from dasklake._read.fetched import Fetched, Form, Numbers, Tensors, selected
from dasklake._read.origin import Origin
from dasklake._read.partition import array_shape
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob
from dasklake.exceptions import InvalidInputError, LakeError, SampleError

#: A function of the user that changes a sample.
Transform = Callable[[dict[str, Any]], Mapping[str, Any]]

#: A batch: an array or a list for each tensor.
Batch = dict[str, Any]

#: Tasks for each decoding thread and batch, so that threads with fast samples take more of them.
_TASKS_PER_THREAD = 2


class PendingBatch:
    """A batch whose values are being decoded.

    Parameters
    ----------
    parts : sequence of Future
        Decode consecutive samples: lists of tuples of values, with None for skipped samples.
    finish : callable
        Makes the batch of all samples.
    """

    def __init__(
        self, parts: Sequence[Future[list[Any]]], finish: Callable[[list[Any]], Batch]
    ) -> None:
        self._parts = parts
        self._finish = finish

    def result(self) -> Batch:
        """Wait for the values, and return the batch."""
        return self._finish([sample for part in self._parts for sample in part.result()])

    def cancel(self) -> None:
        """Cancel the tasks that have not begun."""
        for part in self._parts:
            part.cancel()


class Collator:
    """Makes batches of stored values.

    Parameters
    ----------
    origin : Origin
        The version.
    tensors : Tensors
        Its tensors.
    forms : mapping of str to Form
        The tensors, and the forms of their values.
    transform : callable, optional
        Called with each sample.
    threads : int
        Threads of ``pool``.
    pool : concurrent.futures.Executor, optional
        Decodes the samples. By default, they are decoded in the calling thread.
    """

    def __init__(
        self,
        origin: Origin,
        tensors: Tensors,
        forms: Mapping[str, Form],
        transform: Transform | None = None,
        threads: int = 1,
        pool: Executor | None = None,
    ) -> None:
        specs = {name: tensors[name].spec for name in forms}
        self._origin = origin
        self._specs = specs
        self._tensors = tensors
        self._forms = forms
        self._transform = transform
        self._threads = threads
        self._pool = pool
        self._decoder = Decoder(specs, origin.keys, origin.limits)
        self._codecs = {name: codec_for(spec) for name, spec in specs.items()}
        self._final = {name for name in forms if self._is_final(name)}
        self._stacked = {
            name
            for name, form in forms.items()
            if tensors[name].stacks and (form is Form.DECODED or tensors[name].is_array)
        }

    @staticmethod
    def needs_pool(specs: Mapping[str, TensorSpec], forms: Mapping[str, Form]) -> bool:
        """Return whether decoding the values takes long enough for threads."""
        return any(
            (
                form is Form.DECODED
                and (spec.encoded or spec.compression is not None or spec.kind.codec == "mask")
            )
            or (form is Form.BYTES and spec.linked)
            for name, form in forms.items()
            for spec in [specs[name]]
        )

    def start(self, fetched: Fetched, begin: int, end: int) -> PendingBatch:
        """Begin to decode the samples from ``begin`` to before ``end``."""
        rows = fetched.intact(begin, end)
        numbers = fetched.rows[rows]
        columns: dict[str, Any] = {}
        decoded: list[str] = []
        for name, column in fetched.columns.items():
            if isinstance(column, Numbers):
                columns[name] = column.decoded(rows, self._tensors[name])
                continue
            columns[name] = values = selected(column, rows)
            is_array = self._tensors[name].is_array and Blob not in set(map(type, values))
            if not is_array and name not in self._final:
                decoded.append(name)
        if not decoded and self._transform is None:
            return PendingBatch([], lambda _: self._joined(columns))
        one = partial(self._one, numbers, columns, decoded)
        parts = self._split(len(numbers), one)
        return PendingBatch(parts, partial(self._finish, columns, decoded))

    def _is_final(self, name: str) -> bool:
        """Return whether stored values are handed out as they are."""
        as_stored = self._forms[name] is Form.STORED and self._specs[name].encoded
        return as_stored or isinstance(self._codecs[name], TextCodec)

    def _split(self, count: int, one: Callable[[int], Any]) -> list[Future[list[Any]]]:
        """Call a function for each sample, in the threads of the pool."""

        def several(begin: int, end: int) -> list[Any]:
            return [one(sample) for sample in range(begin, end)]

        if self._pool is None:
            future: Future[list[Any]] = Future()
            future.set_result(several(0, count))
            return [future]
        tasks = min(count, _TASKS_PER_THREAD * self._threads)
        edges = [count * task // tasks for task in range(tasks + 1)] if tasks else []
        return [self._pool.submit(several, first, last) for first, last in pairwise(edges)]

    def _one(
        self,
        numbers: npt.NDArray[np.int64],
        columns: Mapping[str, Any],
        decoded: Sequence[str],
        sample: int,
    ) -> Any:
        """Return the decoded values of a sample, or the transformed sample; None to skip it."""
        number = int(numbers[sample])

        def decode() -> list[Any]:
            return [self._value(name, columns[name][sample], number) for name in decoded]

        origin = self._origin
        values = decode_or_skip(decode, origin.on_corrupt, origin.store.url, number)
        if values is None or self._transform is None:
            return values
        by_name = dict(zip(decoded, values, strict=True))
        item = {
            name: by_name[name] if name in by_name else column[sample]
            for name, column in columns.items()
        }
        return _transformed(self._transform, item, number)

    def _value(self, name: str, stored: Any, number: int) -> Any:
        """Return one value in its form."""
        form, spec = self._forms[name], self._specs[name]
        if stored is None:
            return None
        if form is Form.DECODED or type(stored) is np.ndarray:
            value = (
                stored if type(stored) is np.ndarray else self._decoder.decode(name, stored, number)
            )
            forget(value)
            return value
        codec = self._codecs[name]
        if isinstance(codec, SequenceCodec) and _is_packed(spec.item):
            items = [item.data for item in codec.items(stored)]
            if form is Form.BYTES:
                return list(map(bytes, items))
            return [memoryview(item).toreadonly() for item in items]
        if isinstance(stored, memoryview):
            return bytes(stored) if form is Form.BYTES else stored
        value = self._decoder.decode(name, stored, number)
        return value.bytes() if form is Form.BYTES else value

    def _finish(self, columns: dict[str, Any], decoded: Sequence[str], samples: list[Any]) -> Batch:
        """Return the batch of decoded samples."""
        present = [i for i, sample in enumerate(samples) if sample is not None]
        if self._transform is not None:
            return _joined_samples([samples[i] for i in present])
        if len(present) < len(samples):
            columns = {
                name: [column[i] for i in present] if isinstance(column, list) else column[present]
                for name, column in columns.items()
            }
        for position, name in enumerate(decoded):
            columns[name] = [samples[i][position] for i in present]
        return self._joined(columns)

    def _joined(self, columns: Mapping[str, Any]) -> Batch:
        """Return columns as arrays if their tensors have a fixed shape and no value is missing."""
        return {
            name: self._stack(name, column)
            if name in self._stacked and isinstance(column, list)
            else column
            for name, column in columns.items()
        }

    def _stack(self, name: str, values: list[Any]) -> Any:
        if any(value is None for value in values):
            return values
        spec = self._specs[name]
        return np.stack(values) if values else np.empty((0, *array_shape(name, spec)), spec.dtype)


def _is_packed(spec: TensorSpec) -> bool:
    """Return whether a value is stored as a file, or compressed."""
    return spec.encoded or spec.compression is not None or spec.kind.codec == "json"


def _transformed(transform: Transform, item: dict[str, Any], number: int) -> Mapping[str, Any]:
    """Return what the transform makes of a sample."""
    try:
        result = transform(item)
    except (LakeError, MemoryError):
        raise
    except Exception as error:
        raise SampleError(
            f"transform raised {type(error).__name__}: {error}. Fix the function, or the sample.",
            sample=str(number),
        ) from error
    if not isinstance(result, Mapping):
        raise InvalidInputError(
            f"transform must return a sample as a dict, got {type(result).__name__} for sample "
            f"{number}."
        )
    return result


def _joined_samples(samples: Sequence[Mapping[str, Any]]) -> Batch:
    """Return transformed samples as columns: arrays of values with one shape and dtype, or lists."""
    if not samples:
        return {}
    names = list(samples[0])
    for sample in samples:
        if sample.keys() != samples[0].keys():
            raise InvalidInputError(
                f"transform must return the same names for all samples, got {sorted(names)} and "
                f"{sorted(sample)}."
            )
    return {name: _as_array([sample[name] for sample in samples]) for name in names}


def _as_array(values: list[Any]) -> Any:
    first = values[0]
    if all(type(value) is type(first) for value in values):
        if isinstance(first, bool | int | float):
            return np.array(values)
        if isinstance(first, np.ndarray | np.generic):
            same = {(value.shape, value.dtype) for value in values}
            return np.stack(values) if len(same) == 1 else values
    return values
