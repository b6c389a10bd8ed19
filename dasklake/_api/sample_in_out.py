"""What a function of a pipeline is given: a sample to read, and what takes the samples it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dasklake.exceptions import SampleError

__all__ = ["SampleIn", "SampleOut"]


class SampleIn(dict[str, Any]):
    """A sample that a function is given: values by name, ``sample_in["boxes"]``.

    ``sample_in.boxes.numpy()`` is the value as an array, as in other libraries.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return _Value(self[name])
        inside = {key[len(name) + 1 :]: self[key] for key in self if key.startswith(f"{name}/")}
        if not inside:
            raise AttributeError(f"The sample has no tensor {name!r}. It has {list(self)}.")
        return SampleIn(inside)


class _Value:
    """A value of a sample that a function is given."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def numpy(self) -> Any:
        """Return the value as an array."""
        return np.asarray(self.value)


class _OutTensor:
    """One tensor of the samples that a function makes, or a group of them."""

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
        """Add the value of one sample; None is no value."""
        self._values.setdefault(self._name, []).append(_plain(value))

    def extend(self, values: Any) -> None:
        """Add the values of several samples."""
        for value in values:
            self.append(value)


class SampleOut:
    """Takes the samples that a function makes of one item: none, one or several.

    ``sample_out.append({"x": 1, "y": 2})`` adds a sample; ``sample_out.x.append(1)``, or
    ``sample_out["group/x"].append(1)``, adds a value to one tensor. In the end all tensors must have
    got as many values.
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
            Values by name of tensor; None is no value.
        append_empty : bool, default False
            Give no value to tensors that only other samples of this item have.

        Raises
        ------
        SampleError
            It is no mapping, or has other tensors than the samples before it.
        """
        if not isinstance(sample, Mapping):
            raise SampleError(
                f"sample_out.append() takes a mapping of tensor names to values, not "
                f"{type(sample).__name__}"
            )
        rows = self._rows()
        if not append_empty and rows and sample.keys() != self._values.keys():
            raise SampleError(
                f"this sample has {_listed(sample)}, those before it have "
                f"{_listed(self._values)}; give None for no value, or append_empty=True"
            )
        for name in sample:
            self._values.setdefault(name, [None] * rows)
        for name, values in self._values.items():
            values.append(_plain(sample.get(name)))

    def extend(self, samples: Mapping[str, Sequence[Any]], *, append_empty: bool = False) -> None:
        """Add several samples.

        Parameters
        ----------
        samples : mapping of str to sequence
            For each tensor the values of all of them.
        append_empty : bool, default False
            As for :meth:`append`.

        Raises
        ------
        SampleError
            The sequences have different lengths; or as :meth:`append`.
        """
        _count({name: len(values) for name, values in samples.items()})
        for row in zip(*samples.values(), strict=True):
            self.append(dict(zip(samples, row, strict=True)), append_empty=append_empty)

    @property
    def tensors(self) -> list[str]:
        """The tensors that have got values."""
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
            The tensors got different numbers of values.
        """
        self._rows()
        rows = zip(*self._values.values(), strict=True)
        return [dict(zip(self._values, row, strict=True)) for row in rows]


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


def _count(lengths: Mapping[str, int]) -> int:
    """Return the number of values that all tensors have."""
    if len(set(lengths.values())) > 1:
        raise SampleError(
            f"the tensors got different numbers of values: {dict(lengths)}; give None where a "
            "sample has no value"
        )
    return next(iter(lengths.values()), 0)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, _Value) else value
