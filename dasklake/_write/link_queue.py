"""A bounded queue of samples whose links are being verified; samples leave it in order.

A sample goes to its chunk when all its links are verified. The samples after it are made in the
meantime, so that many targets are read at the same time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dasklake import creds
from dasklake._codecs.image import ImageCodec
from dasklake._codecs.sample import raw_value
from dasklake._codecs.transfer import CopiedLink
from dasklake._links.verify import Findings, VerifyOptions, verify_link
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._schema.values import Blob
from dasklake._storage.urls import safe_url
from dasklake._write.failures import describe_item
from dasklake.exceptions import LinkError

#: Most inputs in the queue, and most bytes of their samples.
_MAX_INPUTS, _MAX_BYTES = 256, 32 * 2**20

#: Larger arrays are not kept only for a message, in bytes.
_LARGE = 64 * 2**10

#: Assumed size of a value that is neither bytes nor an array, in bytes.
_SMALL = 64

Encoded = dict[str, Any]


@dataclass(slots=True)
class QueuedInput:
    """An input in the queue.

    Attributes
    ----------
    position : int
        Position of the input in the partition.
    item : object
        The input, or only its text for messages if it is large and has to wait.
    samples : list of dict
        The encoded samples made from it.
    error : Exception or None
        The error that was raised instead.
    nbytes : int
        Approximate size of the samples.
    checks : list of (str, dict, Future)
        For each link being verified: the tensor, the encoded link and the result.
    """

    position: int
    item: Any
    samples: list[Encoded] = field(default_factory=list)
    error: Exception | None = None
    nbytes: int = 0
    checks: list[tuple[str, Encoded, Future[Findings]]] = field(default_factory=list)

    def settle(self, schema: Schema) -> None:
        """Wait for the links, and add the properties of their targets to the samples.

        Raises
        ------
        LinkError
            A target is missing, damaged, or does not match the schema.
        StoreError
            The storage of a target failed.
        """
        if self.error is not None:
            raise self.error
        for name, link, future in self.checks:
            try:
                _add_findings(link, future.result(), schema[name])
            except LinkError as error:
                raise LinkError(error.message, tensor=name, reason=error.reason) from None


class LinkQueue:
    """The inputs of a partition whose links are being verified, in order.

    Parameters
    ----------
    schema : Schema
        The schema of the samples.
    repeated : bool, default False
        Whether the samples of an input may be put again, which verifies only new links.
    """

    def __init__(self, schema: Schema, *, repeated: bool = False) -> None:
        self._begun: dict[Any, Future[Findings]] | None = {} if repeated else None
        self._verified = {n: spec for n, spec in schema.items() if spec.linked and spec.verify}
        self._inputs: deque[QueuedInput] = deque()
        self._nbytes = 0

    def put(self, queued: QueuedInput) -> None:
        """Start to verify the links of an input's samples, and append the input.

        Raises
        ------
        PermissionDeniedError
            This process has no credentials under the key of a link.
        """
        for name, spec in self._verified.items():
            target = VerifyOptions.of(spec, decode=spec.verify == "decode")
            for link in (sample.get(name) for sample in queued.samples):
                if link is not None and not isinstance(link, CopiedLink):
                    future = self._begin(link, target)
                    queued.checks.append((name, link, future))
        if queued.checks or self._inputs:
            _detach(queued)
        self._inputs.append(queued)
        self._nbytes += queued.nbytes

    def _begin(self, link: Encoded, target: VerifyOptions) -> Future[Findings]:
        key = (link["url"], link["creds_key"], target)
        future = None if self._begun is None else self._begun.get(key)
        if future is None:
            future = verify_link(*key)
            if self._begun is not None:
                self._begun[key] = future
        return future

    def forget(self) -> None:
        """Forget the links that were verified, if they are kept for inputs that are put again."""
        if self._begun is not None:
            self._begun.clear()

    def fail(self, queued: QueuedInput, error: Exception) -> None:
        """Append an input that failed, so that failures are reported in order."""
        queued.error = error
        self._inputs.append(queued)

    def ready(self, *, flush: bool) -> Iterator[QueuedInput]:
        """Remove and yield the oldest inputs; the caller calls :meth:`QueuedInput.settle`.

        Parameters
        ----------
        flush : bool
            Whether to yield all inputs, also those whose links are still being verified.
        """
        while self._inputs and (
            flush
            or len(self._inputs) > _MAX_INPUTS
            or self._nbytes > _MAX_BYTES
            or not self._inputs[0].checks
        ):
            queued = self._inputs.popleft()
            self._nbytes -= queued.nbytes
            yield queued

    def close(self) -> None:
        """Cancel the verification of all inputs in the queue."""
        while self._inputs:
            for _, _, future in self._inputs.popleft().checks:
                future.cancel()


def require_keys(names: Sequence[str], samples: Sequence[Encoded]) -> None:
    """Check that this process has the credentials of links that are not verified.

    Parameters
    ----------
    names : sequence of str
        The tensors of these links.
    samples : sequence of dict
        Encoded samples.

    Raises
    ------
    PermissionDeniedError
        This process has no credentials under the key of a link.
    """
    for name in names:
        for sample in samples:
            link = sample.get(name)
            if link is not None and not isinstance(link, CopiedLink):
                creds.current(link["creds_key"])


def _detach(queued: QueuedInput) -> None:
    """Measure the samples, and copy memory that the user's code may change in the meantime.

    Samples above the limit of the queue are not copied: they leave it at once.
    """
    queued.nbytes = sum(_nbytes(value) for sample in queued.samples for value in sample.values())
    queued.item = _light(queued.item)
    if queued.nbytes <= _MAX_BYTES:
        queued.samples = [
            {name: copied(value) for name, value in sample.items()} for sample in queued.samples
        ]


class _Text:
    """The text of an input that is not kept."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _light(item: Any) -> Any:
    """Return an input, or only its text if it holds large arrays."""
    values = (raw_value(item, n) for n in item) if isinstance(item, Mapping) else (item,)
    large = any(getattr(value, "nbytes", 0) > _LARGE for value in values)
    return _Text(describe_item(item)) if large else item


def _nbytes(value: Any) -> int:
    if isinstance(value, Blob):
        return len(value.data) + _SMALL
    return int(getattr(value, "nbytes", _SMALL))


def copied(value: Any) -> Any:
    """Return an encoded value apart from memory that the user's code may change."""
    if isinstance(value, Blob) and not isinstance(value.data, bytes):
        return value._replace(data=bytes(value.data))
    return value.copy() if isinstance(value, np.ndarray) else value


def size_problem(expected: tuple[int, int], shape: tuple[int, ...]) -> str:
    """Return the message that an image does not have the expected height and width."""
    return (
        f"must have {expected[0]} x {expected[1]} pixels, got {shape[0]} x {shape[1]}. Correct the "
        "annotated size, or the image."
    )


def _fits(shape: tuple[int, ...], declared: tuple[int | None, ...]) -> bool:
    pairs = zip(shape, declared, strict=False)
    return len(shape) == len(declared) and all(axis in (None, length) for length, axis in pairs)


def _add_findings(link: Encoded, target: Findings, spec: TensorSpec) -> None:
    """Check the properties of its target, and add them to an encoded link."""
    expected = link.pop("expected", None)
    if expected is not None and target.shape is not None and target.shape[:2] != expected:
        raise LinkError(
            f"the target of link {safe_url(link['url'])} {size_problem(expected, target.shape)}"
        )
    if (shape := target.shape) is not None:
        if spec.kind.codec == "image":
            shape = ImageCodec(spec).decoded_shape(shape)
        if spec.shape != spec.kind.shape and not _fits(shape, spec.shape):
            raise LinkError(
                f"the target of link {link['url']} must have shape {spec.shape}, got {shape}. "
                "Fix the link, or change the shape of the tensor."
            )
        if spec.create_shape_tensor:
            link["shape"] = list(shape)
    if spec.create_sample_info_tensor:
        link |= {"size": target.size, "etag": target.etag, "format": target.format}
