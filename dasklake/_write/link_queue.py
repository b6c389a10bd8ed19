"""Links that are looked at while they are written: some samples wait for theirs, in order.

A sample goes to its chunk when all its links were looked at. Those that follow are made meanwhile,
up to a bound, so that many targets are read at the same time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dasklake import creds
from dasklake._links.verify import Findings, Wanted, look
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._schema.values import Blob
from dasklake._write.failures import describe_item
from dasklake.exceptions import LinkError

__all__ = ["LinkQueue", "QueuedInput"]

#: Inputs that may wait, and the bytes of their samples.
_MOST, _MOST_BYTES = 256, 32 * 2**20

#: Arrays from this size on are not kept for the sake of a message, in bytes.
_LARGE = 64 * 2**10

#: What a value weighs that is neither bytes nor an array, in bytes.
_SMALL = 64

Encoded = dict[str, Any]


@dataclass(slots=True)
class QueuedInput:
    """An input whose samples wait for their links, or for their turn.

    Attributes
    ----------
    position : int
        Its place in the partition.
    item : object
        The input; what is shown of it, where it is large and has to wait.
    samples : list of dict
        What became of it, encoded.
    error : Exception or None
        What was raised instead.
    """

    position: int
    item: Any
    samples: list[Encoded] = field(default_factory=list)
    error: Exception | None = None
    weight: int = 0
    looks: list[tuple[str, Encoded, Future[Findings]]] = field(default_factory=list)

    def settle(self, schema: Schema) -> None:
        """Wait for the links, and note what was found out about them.

        Raises
        ------
        LinkError
            One of them is not what it should be.
        StoreError
            Its storage does not let us know.
        """
        if self.error is not None:
            raise self.error
        for name, link, future in self.looks:
            try:
                _note(link, future.result(), schema[name])
            except LinkError as error:
                raise LinkError(error.message, tensor=name) from None


class LinkQueue:
    """The inputs of a partition that wait, in order.

    Parameters
    ----------
    schema : Schema
        What is written.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._linked = {name: spec for name, spec in schema.items() if spec.linked}
        self._line: deque[QueuedInput] = deque()
        self._weight = 0

    def put(self, waiting: QueuedInput) -> None:
        """Start to look at the links of an input's samples, and let it wait.

        Raises
        ------
        PermissionDeniedError
            This process knows no credentials under the key of a link.
        """
        for name, spec in self._linked.items():
            for sample in waiting.samples:
                self._look(waiting, name, spec, sample.get(name))
        if waiting.looks or self._line:
            self._own(waiting)
        self._line.append(waiting)
        self._weight += waiting.weight

    def fail(self, waiting: QueuedInput, error: Exception) -> None:
        """Let an input that failed wait for its turn, so that failures come in order."""
        waiting.error = error
        self._line.append(waiting)

    def settled(self, *, all_of_them: bool) -> Iterator[QueuedInput]:
        """Yield the inputs that need not wait, or must not any longer; :meth:`QueuedInput.settle` them."""
        while self._line and (
            all_of_them
            or len(self._line) > _MOST
            or self._weight > _MOST_BYTES
            or not self._line[0].looks
        ):
            waiting = self._line.popleft()
            self._weight -= waiting.weight
            yield waiting

    def close(self) -> None:
        """Give up all that still wait."""
        while self._line:
            for _, _, future in self._line.popleft().looks:
                future.cancel()

    def _look(self, waiting: QueuedInput, name: str, spec: TensorSpec, link: Any) -> None:
        if link is None:
            return
        if not spec.verify:
            creds.current(link["creds_key"])
            return
        wanted = Wanted(spec.kind.codec == "image", spec.verify == "decode")
        waiting.looks.append((name, link, look(link["url"], link["creds_key"], wanted)))

    def _own(self, waiting: QueuedInput) -> None:
        """Copy what the user's code may change while the samples wait; weigh it.

        Very large samples are left as they are: they do not wait.
        """
        waiting.weight = sum(_weight(each) for one in waiting.samples for each in one.values())
        waiting.item = _light(waiting.item)
        if waiting.weight <= _MOST_BYTES:
            waiting.samples = [
                {name: _copied(value) for name, value in sample.items()}
                for sample in waiting.samples
            ]


class _Shown:
    """What failures show of an input that is gone."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _light(item: Any) -> Any:
    """Return an input that may wait without filling the memory."""
    values = item.values() if isinstance(item, Mapping) else (item,)
    large = any(getattr(value, "nbytes", 0) > _LARGE for value in values)
    return _Shown(describe_item(item)) if large else item


def _weight(value: Any) -> int:
    if isinstance(value, Blob):
        return len(value.data) + _SMALL
    return int(getattr(value, "nbytes", _SMALL))


def _copied(value: Any) -> Any:
    if isinstance(value, Blob) and not isinstance(value.data, bytes):
        return value._replace(data=bytes(value.data))
    return value.copy() if isinstance(value, np.ndarray) else value


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    pairs = zip(shape, wanted, strict=False)
    return len(shape) == len(wanted) and all(axis in (None, length) for length, axis in pairs)


def _note(link: Encoded, found: Findings, spec: TensorSpec) -> None:
    """Write into an encoded link what is known of its target."""
    if found.shape is not None:
        shape = (
            found.shape[:2] if len(spec.shape or ()) == 2 and found.shape[2] == 1 else found.shape
        )
        if spec.shape != spec.kind.shape and not _fits(shape, spec.shape):
            raise LinkError(
                f"the link {link['url']} has shape {shape}, and the tensor {spec.shape}. Mend the "
                "link, or the tensor's shape."
            )
        if spec.create_shape_tensor:
            link["shape"] = list(shape)
    if spec.create_sample_info_tensor:
        link |= {"size": found.size, "etag": found.etag, "format": found.format}
