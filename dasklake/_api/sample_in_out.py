"""Arguments of a function of a pipeline: the sample to read, and the collector of its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dasklake._codecs.sample import Sample, StoredValue, raw_value
from dasklake.exceptions import SampleError


class SampleIn(Sample):
    """The sample that a function of a pipeline reads, as a dict of values by name of tensor.

    ``sample_in["boxes"]`` is the value, ``sample_in.boxes.numpy()`` the value as an array. Values of
    a lake are decoded when they are first used.

    Parameters
    ----------
    *args, **kwargs : object
        As for a dict.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return _Value(raw_value(self, name))
        group = SampleIn()
        for key in self:
            if key.startswith(f"{name}/"):
                group[key[len(name) + 1 :]] = raw_value(self, key)
        if not group:
            raise AttributeError(f"The sample has no tensor {name!r}. It has {list(self)}.")
        return group


class _Value:
    """A value of a :class:`SampleIn`, not decoded yet if it comes from a lake."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def numpy(self) -> Any:
        """Return the value as an array."""
        return np.asarray(self.raw.get() if isinstance(self.raw, StoredValue) else self.raw)


class _OutTensor:
    """A tensor, or a group of tensors, of a :class:`SampleOut`."""

    def __init__(self, values: dict[str, list[Any]], name: str) -> None:
        self._values = values
        self._name = name

    def __getitem__(self, name: str) -> _OutTensor:
        return _OutTensor(self._values, f"{self._name}/{name}")

    def __getattr__(self, name: str) -> _OutTensor:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def append(self, value: Any) -> None:
        """Add the value of one sample; None means that the sample has no value."""
        self._values.setdefault(self._name, []).append(_unwrap(value))

    def extend(self, values: Any) -> None:
        """Add the values of several samples."""
        for value in values:
            self.append(value)


class SampleOut:
    """Collect the samples that a function makes from one item: none, one or several.

    ``sample_out.append({"x": 1, "y": 2})`` adds a sample. ``sample_out.x.append(1)`` and
    ``sample_out["group/x"].append(1)`` add a value to one tensor. When the function returns, all
    tensors must have the same number of values.

    Examples
    --------
    >>> import dasklake
    >>> sample_out = dasklake.SampleOut()
    >>> sample_out.append({"x": 1, "y": 2})
    >>> sample_out.x.append(3)
    >>> sample_out.y.append(None)
    >>> sample_out.samples()
    [{'x': 1, 'y': 2}, {'x': 3, 'y': None}]
    """

    def __init__(self) -> None:
        self._values: dict[str, list[Any]] = {}

    def __getitem__(self, name: str) -> _OutTensor:
        return _OutTensor(self._values, name)

    def __getattr__(self, name: str) -> _OutTensor:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def append(self, sample: Mapping[str, Any], *, append_empty: bool = False) -> None:
        """Add one sample.

        Parameters
        ----------
        sample : mapping of str to object
            Values by name of tensor; None means no value.
        append_empty : bool, default False
            Whether samples of one item may have different tensors. Missing ones have no value.

        Raises
        ------
        SampleError
            ``sample`` is not a mapping, or has other tensors than the samples before it and
            ``append_empty`` is False.
        """
        if not isinstance(sample, Mapping):
            raise SampleError(
                "the argument of sample_out.append() must be a mapping of tensor names to values, "
                f"got {type(sample).__name__}"
            )
        rows = self._rows()
        if not append_empty and rows and sample.keys() != self._values.keys():
            raise SampleError(
                f"all samples of an item must have the same tensors, got {_listed(sample)} after "
                f"{_listed(self._values)}; give None for no value, or append_empty=True"
            )
        for name in sample:
            self._values.setdefault(name, [None] * rows)
        for name, values in self._values.items():
            values.append(_unwrap(raw_value(sample, name)))

    def extend(self, samples: Mapping[str, Sequence[Any]], *, append_empty: bool = False) -> None:
        """Add several samples.

        Parameters
        ----------
        samples : mapping of str to sequence
            The values of all samples for each tensor.
        append_empty : bool, default False
            As in :meth:`append`.

        Raises
        ------
        SampleError
            The sequences in ``samples`` have different lengths, or as in :meth:`append`.
        """
        _count({name: len(values) for name, values in samples.items()})
        for row in zip(*samples.values(), strict=True):
            self.append(dict(zip(samples, row, strict=True)), append_empty=append_empty)

    @property
    def tensors(self) -> list[str]:
        """Names of the tensors that have values."""
        return list(self._values)

    def _rows(self) -> int:
        return _count({name: len(values) for name, values in self._values.items()})

    def samples(self) -> list[dict[str, Any]]:
        """Return the samples, in order.

        Returns
        -------
        list of dict
            Values by name of tensor.

        Raises
        ------
        SampleError
            The tensors have different numbers of values.
        """
        self._rows()
        rows = zip(*self._values.values(), strict=True)
        return [Sample(zip(self._values, row, strict=True)) for row in rows]


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


def _count(lengths: Mapping[str, int]) -> int:
    """Return the number of values that all tensors have."""
    if len(set(lengths.values())) > 1:
        raise SampleError(
            f"all tensors must have the same number of values, got {dict(lengths)}; give None if a "
            "sample has no value"
        )
    return next(iter(lengths.values()), 0)


def _unwrap(value: Any) -> Any:
    return value.raw if isinstance(value, _Value) else value
