"""Links as readers see them: where the data lie, and the data themselves when asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from dasklake._links.verify import Findings, Wanted, fetch, look
from dasklake._media.image import decode_image
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Link
from dasklake.exceptions import LakeError, LinkError, PermissionDeniedError

__all__ = ["Linked", "LinkedImage", "Problem", "check_rows", "fetched", "linked", "unwrapped"]

#: Samples whose links are read ahead: looked at, and fetched.
_LOOKS, _FETCHES = 1024, 32

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Linked(Link):
    """What a ``link[...]`` tensor gives for one sample.

    Nothing is read until it is asked for.

    Attributes
    ----------
    url : str
        Where the target lies.
    creds_key : str or None
        Name of the credentials to read it with.
    shape : tuple of int or None
        Shape of the target, as it was written; None where it was not stored.
    size : int or None
        Its length then, in bytes.
    etag : str or None
        The storage's name of that version of it.
    format : str or None
        Its format, such as ``"jpeg"``.
    """

    shape: tuple[int, ...] | None = field(default=None, repr=False, compare=False)
    size: int | None = field(default=None, repr=False, compare=False)
    etag: str | None = field(default=None, repr=False, compare=False)
    format: str | None = field(default=None, repr=False, compare=False)

    def bytes(self) -> bytes:
        """Return the bytes of the file.

        Returns
        -------
        bytes
            As they are there now.

        Raises
        ------
        LinkError
            It is not there.
        StoreError
            It cannot be read.
        """
        return fetch(self.url, self.creds_key).result()


@dataclass(frozen=True, slots=True)
class LinkedImage(Linked):
    """What a ``link[image]`` tensor gives for one sample.

    Nothing is read until the bytes or pixels are asked for.

    Attributes
    ----------
    url, creds_key, shape, size, etag, format
        As of any other link; the shape is height x width x channels.

    Examples
    --------
    >>> LinkedImage("s3://bucket/train2017/000000000009.jpg")
    LinkedImage(url='s3://bucket/train2017/000000000009.jpg', creds_key=None)
    """

    def numpy(self) -> npt.NDArray[np.uint8]:
        """Return the pixels.

        Returns
        -------
        numpy.ndarray
            uint8; height x width x channels.

        Raises
        ------
        LinkError
            The file is not there.
        StoreError
            It cannot be read.
        SampleError
            It is not a picture.
        """
        # Not of the zero-argument kind: a dataclass with slots is a class of its own.
        pixels = decode_image(Linked.bytes(self))
        return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:  # noqa: FBT001 # numpy's protocol
        # The pixels are fresh every time: there is nothing that a copy would protect.
        return np.asarray(self.numpy(), dtype=dtype)


def linked(spec: TensorSpec, stored: Mapping[str, Any], keys: Mapping[str, str]) -> Linked:
    """Make it of what a tensor stores; ``keys`` are credentials keys that were renamed."""
    shape, size, key = stored.get("shape"), stored.get("size"), stored["creds_key"]
    return (LinkedImage if spec.kind.codec == "image" else Linked)(
        stored["url"],
        keys.get(key, key),
        shape=None if shape is None else tuple(shape),
        size=None if size is None else int(size),
        etag=stored.get("etag"),
        format=stored.get("format"),
    )


class Problem(NamedTuple):
    """A link that is not, or no more, what it was.

    Attributes
    ----------
    sample : int
        Place of the sample.
    tensor : str
        The tensor.
    url : str
        Where the target lies.
    creds_key : str or None
        Name of the credentials.
    problem : str
        ``"broken"``: the target is gone, not what it should be, or not whole; ``"changed"``: it is
        another version than the one that was written; ``"denied"``: it may not be read.
    message : str
        What is known of it.
    """

    sample: int
    tensor: str
    url: str
    creds_key: str | None
    problem: str
    message: str


def check_rows(
    samples: Iterable[Mapping[str, Any]],
    first: int,
    specs: Mapping[str, TensorSpec],
    *,
    decode: bool,
) -> list[Problem]:
    """Look at the links of some samples again, many at the same time.

    Parameters
    ----------
    samples : iterable of mapping
        The samples.
    first : int
        Place of the first of them.
    specs : mapping of str to TensorSpec
        The tensors of links.
    decode : bool
        Whether all of each target is fetched and decoded.

    Returns
    -------
    list of Problem
        In order.
    """

    def start(place: tuple[int, str, Linked]) -> Future[Findings]:
        picture = specs[place[1]].kind.codec == "image"
        return look(place[2].url, place[2].creds_key, Wanted(picture, decode))

    places = (
        (number, name, sample[name])
        for number, sample in enumerate(samples, first)
        for name in specs
        if sample[name] is not None
    )
    found: list[Problem] = []
    for (number, name, link), future in _ahead(places, start, _LOOKS):
        problem, message = _verdict(link, future)
        if problem:
            found.append(Problem(number, name, link.url, link.creds_key, problem, message))
    return found


def _verdict(link: Linked, future: Future[Findings]) -> tuple[str, str]:
    try:
        found = future.result()
    except LinkError as error:
        return "broken", error.message
    except PermissionDeniedError as error:
        return "denied", str(error)
    pairs = {"size": (link.size, found.size), "etag": (link.etag, found.etag)}
    other = [
        f"its {name} is {now}, and was {was}"
        for name, (was, now) in pairs.items()
        if was is not None and now is not None and was != now
    ]
    return ("changed", "; ".join(other)) if other else ("", "")


class _Lost(NamedTuple):
    """Stands for bytes that could not be fetched."""

    error: LakeError


def fetched(samples: Iterable[dict[str, Any]], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield samples with bytes in place of their links; some are fetched ahead.

    What cannot be fetched is an error when :func:`unwrapped` meets it.
    """

    def start(sample: dict[str, Any]) -> list[Future[bytes] | None]:
        links = (sample[name] for name in names)
        return [None if link is None else fetch(link.url, link.creds_key) for link in links]

    for sample, futures in _ahead(iter(samples), start, _FETCHES):
        values = zip(names, map(_bytes, futures), strict=True)
        yield {**sample, **dict(values)}


def _bytes(future: Future[bytes] | None) -> bytes | _Lost | None:
    if future is None:
        return None
    try:
        return future.result()
    except LinkError as error:
        return _Lost(error)


def unwrapped(sample: dict[str, Any]) -> dict[str, Any]:
    """Return a sample of :func:`fetched`.

    Raises
    ------
    LinkError
        One of its links could not be fetched.
    """
    for name, value in sample.items():
        if isinstance(value, _Lost):
            raise LinkError(str(value.error), tensor=name)
    return sample


def _ahead(items: Iterable[_T], start: Callable[[_T], Any], most: int) -> Iterator[tuple[_T, Any]]:
    """Yield items with what was started for each, up to ``most`` of them ahead of the caller."""
    line: deque[tuple[_T, Any]] = deque()
    for item in items:
        line.append((item, start(item)))
        if len(line) > most:
            yield line.popleft()
    while line:
        yield line.popleft()
