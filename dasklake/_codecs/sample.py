"""Samples read from a lake: dicts that hold stored values, and decode them on first access.

A writer passes the stored values of a sample through if its tensors allow it, so that copies are exact
and need no decoding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, ValuesView
from copy import deepcopy
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from dasklake._codecs.compression import Encoded
from dasklake._codecs.same_values import IMMUTABLE, is_same
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob

_S = TypeVar("_S", bound="Sample")

_UNDECODED: Any = object()
_REQUIRED: Any = object()


class ValueSource(Protocol):
    """The tensors of the version that a stored value comes from."""

    def spec(self, name: str) -> TensorSpec:
        """Return the description of a tensor."""

    def decode(self, name: str, stored: Encoded, sample: int) -> Any:
        """Decode a stored value."""


class StoredValue:
    """A value of a tensor as it is stored, decoded on first access.

    Parameters
    ----------
    source : ValueSource
        The tensors of its version.
    name : str
        Name of its tensor.
    stored : Encoded
        The stored form.
    sample : int
        Number of its sample, for messages.
    """

    __slots__ = ("_value", "name", "sample", "source", "stored")

    def __init__(self, source: ValueSource, name: str, stored: Encoded, sample: int) -> None:
        self.source = source
        self.name = name
        self.stored = stored
        self.sample = sample
        self._value = _UNDECODED

    @property
    def stored_spec(self) -> TensorSpec:
        """Description of its tensor in the lake."""
        return self.source.spec(self.name)

    def __repr__(self) -> str:
        return f"<{self.spec.htype}, not decoded>" if not self.is_decoded else repr(self._value)

    @property
    def nbytes(self) -> int:
        """Size of the decoded value in memory, 0 if it was not decoded or has no such size."""
        return int(getattr(self._value, "nbytes", 0))

    def __reduce__(self) -> tuple[Any, ...]:
        stored = self.stored
        if isinstance(stored, Blob) and not isinstance(stored.data, bytes):
            stored = stored._replace(data=bytes(stored.data))
        return StoredValue, (self.source, self.name, stored, self.sample)

    @property
    def spec(self) -> TensorSpec:
        """Description of the tensor."""
        return self.source.spec(self.name)

    @property
    def is_decoded(self) -> bool:
        """Return whether the value was decoded."""
        return self._value is not _UNDECODED

    def get(self) -> Any:
        """Return the decoded value, the same object every time."""
        if self._value is _UNDECODED:
            self._value = self.source.decode(self.name, self.stored, self.sample)
        return self._value

    def is_unchanged(self) -> bool:
        """Return whether the decoded value, if there is one, still equals the stored one."""
        value = self._value
        if value is _UNDECODED or isinstance(value, IMMUTABLE):
            return True
        if isinstance(value, np.ndarray) and np.may_share_memory(value, _memory(self.stored)):
            return False  # unknown: a change of one is a change of both
        return is_same(value, self.source.decode(self.name, self.stored, self.sample))

    def sealed(self) -> Any:
        """Return the value apart from the caller's objects: as stored, or as it was changed."""
        if self._value is _UNDECODED:
            return self
        if not self.is_unchanged():
            return self._value
        return StoredValue(self.source, self.name, self.stored, self.sample)


class StoredColumn(ABC):
    """A column of a frame whose values are stored as in a lake."""

    @abstractmethod
    def stored(self) -> Iterator[StoredValue | None]:
        """Yield each value as it is stored, or None for a missing one."""


def _memory(stored: Encoded) -> Any:
    if isinstance(stored, Blob):
        return np.frombuffer(stored.data, np.uint8)
    return stored if isinstance(stored, np.ndarray) else np.empty(0)


class Sample(dict[str, Any]):
    """A sample of a lake, as a dict of values by name of tensor.

    Values are decoded when they are first used. As long as a value is not changed, a writer copies
    what is stored.

    Parameters
    ----------
    *args, **kwargs
        As for a dict.

    Examples
    --------
    >>> sample = Sample({"x": 1}, y=2)
    >>> sample | {"y": 3}
    {'x': 1, 'y': 3}
    """

    __slots__ = ()
    __hash__ = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.update(*args, **kwargs)

    # Without this method, dict(sample) would copy undecoded values.
    def __iter__(self) -> Iterator[str]:
        return super().__iter__()

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        return value.get() if type(value) is StoredValue else value

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value, or ``default`` if there is no such tensor."""
        return self[name] if name in self else default  # noqa: SIM401 # this is get()

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override] # a view of the same interface
        """Return a view of names and values."""
        return ItemsView(self)

    def values(self) -> ValuesView[Any]:  # type: ignore[override] # a view of the same interface
        """Return a view of the values."""
        return ValuesView(self)

    def pop(self, name: str, default: Any = _REQUIRED) -> Any:
        """Remove a tensor and return its value."""
        if name not in self and default is not _REQUIRED:
            return default
        value = self[name]
        del self[name]
        return value

    def popitem(self) -> tuple[str, Any]:
        """Remove the last tensor and return its name and value."""
        name = next(reversed(self), _REQUIRED)
        if name is _REQUIRED:
            raise KeyError("popitem(): dictionary is empty")
        return name, self.pop(name)

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Return a value; set it to ``default`` if there is no such tensor."""
        if name not in self:
            self[name] = default
        return self[name]

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set values. Stored values of another sample stay undecoded."""
        for given in (*args, kwargs):
            if isinstance(given, Sample):
                for name, value in _entries(given):
                    super().__setitem__(name, value)
            else:
                super().update(given)

    def copy(self) -> Self:
        """Return a shallow copy."""
        return type(self)(self)

    __copy__ = copy

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, dict):
            return NotImplemented
        result = self.copy()
        result.update(other)
        return result

    def __ror__(self, other: Any) -> Any:
        if not isinstance(other, dict):
            return NotImplemented
        result = type(self)(other)
        result.update(self)
        return result

    def __ior__(self, other: Any) -> Self:  # type: ignore[override] # as for a dict
        self.update(other)
        return self

    def __eq__(self, other: object) -> bool:
        return bool(dict(self) == (dict(other) if isinstance(other, Sample) else other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __repr__(self) -> str:
        return repr(dict(self))

    def __deepcopy__(self, memo: Any) -> Self:
        return sealed(self, lambda value: deepcopy(value, memo))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        del protocol
        return _restore, (type(self), list(_entries(sealed(self, lambda value: value))))


def _restore(cls: type[Sample], entries: Iterable[tuple[str, Any]]) -> Sample:
    sample = cls()
    for name, value in entries:
        sample[name] = value
    return sample


def _entries(sample: Sample) -> Iterator[tuple[str, Any]]:
    return ((name, raw_value(sample, name)) for name in sample)


def raw_value(sample: Mapping[str, Any], name: str) -> Any:
    """Return the value of a tensor; of a :class:`Sample`, without decoding it."""
    return dict.get(sample, name) if isinstance(sample, Sample) else sample.get(name)


def sealed(sample: _S, copy: Callable[[Any], Any]) -> _S:
    """Return a copy of a sample that later changes of the caller's objects do not reach.

    Parameters
    ----------
    sample : Sample
        The sample.
    copy : callable
        Copies a value that is not a stored one.
    """
    result = type(sample)()
    for name in sample:
        value = raw_value(sample, name)
        value = value.sealed() if type(value) is StoredValue else value
        result[name] = value if type(value) is StoredValue else copy(value)
    return result
