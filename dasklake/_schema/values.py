"""Values that are more than arrays: blobs, unresolved labels, links and several samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dasklake.exceptions import SampleError

__all__ = ["Blob", "Link", "Samples", "UnresolvedLabels", "link"]


class Blob(NamedTuple):
    """The bytes of one sample and the shape they decode to."""

    data: bytes | bytearray | memoryview
    shape: tuple[int, ...]


class UnresolvedLabels(NamedTuple):
    """Labels of one sample that are text: they become numbers when the sample goes to its chunk.

    Attributes
    ----------
    names : tuple of str
        The names, in C order.
    shape : tuple of int
        Their shape.
    stored : callable
        Returns what the column stores for the places of the names in the chunk's own list.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    stored: Callable[[Sequence[int]], Any]


@dataclass(frozen=True, slots=True)
class Link:
    """A reference to a value stored outside the lake.

    Attributes
    ----------
    url : str
        URL of the data, as fsspec reads it.
    creds_key : str or None
        Name of the credentials to read it with; never the credentials themselves.
    """

    url: str
    creds_key: str | None = None


def link(url: str, creds_key: str | None = None) -> Link:
    """Make a value of a ``link[...]`` tensor.

    Parameters
    ----------
    url : str
        URL of the data, as fsspec reads it.
    creds_key : str, optional
        Name of the credentials to read it with.

    Returns
    -------
    Link
        The value to put into a sample.

    Raises
    ------
    SampleError
        ``url`` or ``creds_key`` is not a string.

    Examples
    --------
    >>> link("s3://bucket/train2017/000000000009.jpg").url
    's3://bucket/train2017/000000000009.jpg'
    """
    if not isinstance(url, str):
        raise SampleError(f"url must be a string, got {type(url).__name__}. Give a URL.")
    if not isinstance(creds_key, str | None):
        raise SampleError(
            f"creds_key must be a string, got {type(creds_key).__name__}. Name credentials."
        )
    return Link(url, creds_key)


class Samples(list[Any]):
    """The samples that a ``transform`` makes of one item: none, one or several, in order.

    A list of its own type, since a plain list may be the value of a lone tensor. The item stays the
    unit of failure: if one of its samples does not fit, none of them is written.

    Parameters
    ----------
    iterable : iterable, optional
        The samples.

    Examples
    --------
    >>> import dasklake
    >>> def words(line):
    ...     return dasklake.Samples({"word": word} for word in line.split())
    >>> words("to lake")
    [{'word': 'to'}, {'word': 'lake'}]
    """

    __slots__ = ()
