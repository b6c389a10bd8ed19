"""Types of values other than arrays: blobs, unresolved labels, links and sample lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dasklake.exceptions import SampleError


class Blob(NamedTuple):
    """The bytes of one sample and the shape they decode to."""

    data: bytes | bytearray | memoryview
    shape: tuple[int, ...]


class UnresolvedLabels(NamedTuple):
    """Text labels of one sample, to be converted to indices when its chunk is written.

    Attributes
    ----------
    names : tuple of str
        The names, in C order.
    shape : tuple of int
        Shape of the labels.
    stored : callable
        Returns the column's value, from the indices of the names in the chunk's own list.
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
    expected : tuple of int, or None
        Height and width that the target must have. A verification checks them; they are not stored.
    """

    url: str
    creds_key: str | None = None
    expected: tuple[int, int] | None = field(default=None, repr=False, compare=False)


def link(url: str, creds_key: str | None = None) -> Link:
    """Create a value of a ``link[...]`` tensor.

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
            f"creds_key must be a string, got {type(creds_key).__name__}. Give the name of registered credentials."
        )
    return Link(url, creds_key)


class Samples(list[Any]):
    """List of the samples that a ``transform`` returns for one item: none, one or several.

    A plain list may be the value of a single tensor, so several samples need this type. The item
    remains the unit of failure: if one of its samples does not fit, none of them is written.

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
