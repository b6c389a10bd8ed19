"""Links as values: the URL and metadata of a target, and its bytes on demand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from dasklake._codecs.image import ImageCodec
from dasklake._codecs.sample import raw_value
from dasklake._links.limits import LinkLimits
from dasklake._links.verify import Findings, VerifyOptions, fetch, verify_link
from dasklake._media.file import File
from dasklake._media.sniff import format_of
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Link
from dasklake.exceptions import LinkError, PermissionDeniedError, SampleError

#: Samples whose links are checked, and fetched, ahead of the caller.
_CHECKS, _FETCHES = 1024, 32

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Linked(Link):
    """A value of a ``link[...]`` tensor.

    The target is not read until its bytes are requested.

    Attributes
    ----------
    url : str
        URL of the target.
    creds_key : str or None
        Credentials key to read it with.
    shape : tuple of int or None
        Shape of the target when it was written, or None if it was not stored.
    size : int or None
        Its size then, in bytes.
    etag : str or None
        The storage's identifier of that version of the target.
    format : str or None
        Its format, such as ``"jpeg"``.
    limits : LinkLimits or None
        Limits for reading it; None for the defaults.
    spec : TensorSpec or None
        The tensor, which says how the target is decoded.
    """

    shape: tuple[int, ...] | None = field(default=None, repr=False, compare=False)
    size: int | None = field(default=None, repr=False, compare=False)
    etag: str | None = field(default=None, repr=False, compare=False)
    format: str | None = field(default=None, repr=False, compare=False)
    limits: LinkLimits | None = field(default=None, repr=False, compare=False)
    spec: TensorSpec | None = field(default=None, repr=False, compare=False)

    def bytes(self) -> bytes:
        """Return the bytes of the file.

        Returns
        -------
        bytes
            The current contents of the file.

        Raises
        ------
        LinkError
            The file does not exist, or its web host does not deliver it.
        StoreError
            The storage of the file failed.
        """
        return fetch(self.url, self.creds_key, self.limits).result()


@dataclass(frozen=True, slots=True)
class LinkedImage(Linked):
    """A value of a ``link[image]`` tensor.

    The target is not read until its bytes or pixels are requested.

    Attributes
    ----------
    url, creds_key, shape, size, etag, format, limits, spec
        As of other links. The shape is height x width x channels.

    Examples
    --------
    >>> LinkedImage("s3://bucket/train2017/000000000009.jpg")
    LinkedImage(url='s3://bucket/train2017/000000000009.jpg', creds_key=None)
    """

    def numpy(self) -> npt.NDArray[np.uint8]:
        """Return the pixels, as of an image that is stored in the tensor.

        Returns
        -------
        numpy.ndarray
            uint8; height x width x channels. ``link[image.rgb]`` has three channels,
            ``link[image.gray]`` one.

        Raises
        ------
        LinkError
            The file does not exist, or its web host does not deliver it.
        StoreError
            The storage of the file failed.
        SampleError
            The file is not an image.
        """
        # Not super(): a dataclass with slots replaces the class.
        return ImageCodec(self.spec or _IMAGE).decode_file(Linked.bytes(self))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:  # noqa: FBT001 # numpy's protocol
        # The pixels are decoded on every call, so no copy is needed.
        return np.asarray(self.numpy(), dtype=dtype)


#: The tensor of an image that belongs to no lake.
_IMAGE = TensorSpec("link[image]", verify=False)


@dataclass(frozen=True, slots=True)
class LinkedFile(Linked):
    """A value of ``link[audio]``, ``link[video]`` and the links to other media files.

    The target is not read until its bytes or its content are requested.

    Attributes
    ----------
    url, creds_key, shape, size, etag, format, limits, spec
        As of other links.

    Examples
    --------
    >>> LinkedFile("s3://bucket/speech/0001.flac")
    LinkedFile(url='s3://bucket/speech/0001.flac', creds_key=None)
    """

    def file(self) -> File:
        """Return the target as a file that is read once, on its first use.

        Returns
        -------
        File
            Like the value of a tensor that stores the file: ``link.file()[10:20]`` decodes some
            rows. Its methods raise the errors of :meth:`numpy`.
        """
        dtype = None if self.spec is None else self.spec.dtype
        return File(partial(_media_bytes, self), url=self.url, dtype=dtype)

    def numpy(self) -> npt.NDArray[Any]:
        """Return the whole content, as of a file that is stored in the tensor.

        Returns
        -------
        numpy.ndarray
            The content, with the dtype of the tensor, or of the file if the tensor has none.

        Raises
        ------
        LinkError
            The file does not exist, or its web host does not deliver it.
        StoreError
            The storage of the file failed.
        SampleError
            The file cannot be decoded, or has another format.
        MissingExtraError
            The library that reads the format is not installed.
        """
        return self.file().numpy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:  # noqa: FBT001 # numpy's protocol
        # The content is decoded on every call, so no copy is needed.
        return np.asarray(self.numpy(), dtype=dtype)


def _media_bytes(link: LinkedFile) -> bytes:
    """Return the bytes of a target after checking that its format is one of its htype."""
    data = link.bytes()
    if link.spec is not None and format_of(data) not in link.spec.kind.files:
        *most, last = link.spec.kind.files
        content = format_of(data) or f"an unknown format that begins with {data[:8]!r}"
        raise SampleError(
            f"the file must be {', '.join(most)}{' or ' * bool(most)}{last}, a format of the htype "
            f"{link.spec.kind.name!r}, got {content} ({len(data)} bytes). Fix the link, or get the "
            "file undecoded with link.bytes()."
        )
    return data


def linked(
    spec: TensorSpec,
    stored: Mapping[str, Any],
    keys: Mapping[str, str],
    limits: LinkLimits | None = None,
) -> Linked:
    """Make a value of a stored link.

    Parameters
    ----------
    spec : TensorSpec
        The tensor.
    stored : mapping
        The stored link.
    keys : mapping of str to str
        The new names of renamed credentials keys.
    limits : LinkLimits, optional
        Limits for reading the target.
    """
    shape, size, key = stored.get("shape"), stored.get("size"), stored["creds_key"]
    return (LinkedImage if spec.kind.codec == "image" else LinkedFile)(
        stored["url"],
        keys.get(key, key),
        shape=None if shape is None else tuple(shape),
        size=None if size is None else int(size),
        etag=stored.get("etag"),
        format=stored.get("format"),
        limits=limits,
        spec=spec,
    )


class Problem(NamedTuple):
    """A link whose target is broken, changed, or not accessible.

    Attributes
    ----------
    sample : int
        Number of the sample.
    tensor : str
        Name of the tensor.
    url : str
        URL of the target.
    creds_key : str or None
        Credentials key.
    problem : str
        ``"broken"``: the target is missing, of another format, or truncated; ``"changed"``: it is
        not the version that was written; ``"denied"``: access is denied; ``"unavailable"``: a web
        host did not deliver it within the limits.
    message : str
        Details.
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
    limits: LinkLimits | None = None,
) -> list[Problem]:
    """Check the links of some samples, many at the same time.

    Parameters
    ----------
    samples : iterable of mapping
        The samples.
    first : int
        Number of the first sample.
    specs : mapping of str to TensorSpec
        The link tensors.
    decode : bool
        Fetch and decode each target completely.
    limits : LinkLimits, optional
        Limits for reading each target; by default, those of the link.

    Returns
    -------
    list of Problem
        The problems, in the order of the samples.
    """

    def start(value: tuple[int, str, Linked]) -> Future[Findings]:
        _, name, link = value
        options = VerifyOptions.of(specs[name], decode=decode)
        return verify_link(link.url, link.creds_key, options, limits or link.limits)

    values = (
        (number, name, sample[name])
        for number, sample in enumerate(samples, first)
        for name in specs
        if sample[name] is not None
    )
    problems: list[Problem] = []
    for (number, name, link), future in _ahead(values, start, _CHECKS):
        problem, message = _verdict(link, future)
        if problem:
            problems.append(Problem(number, name, link.url, link.creds_key, problem, message))
    return problems


def _verdict(link: Linked, future: Future[Findings]) -> tuple[str, str]:
    try:
        findings = future.result()
    except LinkError as error:
        return error.reason, error.message
    except PermissionDeniedError as error:
        return "denied", str(error)
    pairs = {"size": (link.size, findings.size), "etag": (link.etag, findings.etag)}
    changes = [
        f"its {name} is {now}, and was {was}"
        for name, (was, now) in pairs.items()
        if was is not None and now is not None and was != now
    ]
    return ("changed", "; ".join(changes)) if changes else ("", "")


class _Lost(NamedTuple):
    """The error of a file that could not be fetched, in place of its bytes."""

    error: LinkError


def fetched(
    samples: Iterable[dict[str, Any]], names: Sequence[str], limits: LinkLimits | None = None
) -> Iterator[dict[str, Any]]:
    """Yield samples with bytes in place of their links. Some are fetched ahead.

    ``limits`` are those of the links by default. :func:`unwrapped` raises the error of a file that cannot be fetched.
    """

    def start(sample: dict[str, Any]) -> list[Future[bytes] | None]:
        links = (sample[name] for name in names)
        return [
            None if link is None else fetch(link.url, link.creds_key, limits or link.limits)
            for link in links
        ]

    for sample, futures in _ahead(iter(samples), start, _FETCHES):
        values = zip(names, map(_bytes, futures), strict=True)
        yield sample | dict(values)


def _bytes(future: Future[bytes] | None) -> bytes | _Lost | None:
    if future is None:
        return None
    try:
        return future.result()
    except LinkError as error:
        return _Lost(error)


def unwrapped(sample: dict[str, Any]) -> dict[str, Any]:
    """Return a sample of :func:`fetched` after raising its errors.

    Raises
    ------
    LinkError
        A link of the sample could not be fetched.
    """
    for name in sample:
        value = raw_value(sample, name)
        if isinstance(value, _Lost):
            raise LinkError(value.error.message, tensor=name, reason=value.error.reason)
    return sample


def _ahead(items: Iterable[_T], start: Callable[[_T], Any], most: int) -> Iterator[tuple[_T, Any]]:
    """Yield items with the results of ``start``, called up to ``most`` items ahead of the caller."""
    queue: deque[tuple[_T, Any]] = deque()
    for item in items:
        queue.append((item, start(item)))
        if len(queue) > most:
            yield queue.popleft()
    while queue:
        yield queue.popleft()
