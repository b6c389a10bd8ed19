"""What a transform returns that makes several samples of one item, or none."""

from __future__ import annotations

from typing import Any

__all__ = ["Samples"]


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
