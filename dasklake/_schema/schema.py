"""The schema of a lake: its tensors by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import zip_longest
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import pyarrow as pa
from pandas.api.extensions import ExtensionDtype

from dasklake._schema.infer import infer_specs
from dasklake._schema.parameters import is_text, normalize_groups
from dasklake._schema.same_length import same_length_groups
from dasklake._schema.spec import TensorSpec, describe
from dasklake.exceptions import InvalidInputError, SchemaError

__all__ = ["Schema", "TensorSpec", "describe"]


@dataclass(frozen=True, slots=True)
class Schema(Mapping[str, TensorSpec]):
    """The tensors of a lake, by name, in order.

    Parameters
    ----------
    tensors : mapping of str to TensorSpec, str, dtype or mapping, or pyarrow.Schema
        A string is an htype or a dtype. Dtypes of NumPy, pandas and Arrow, and the fields of an
        Arrow schema, describe scalars. A mapping holds the parameters of ``TensorSpec``.
    same_length : sequence of str, or of such sequences, optional
        Names of tensors that have the same number of objects in each sample. Boxes, labels and
        points list objects along the first axis, masks and keypoints along the last.

    Raises
    ------
    SchemaError
        A name or a spec in ``tensors`` is invalid, or ``same_length`` does not fit them.

    Examples
    --------
    >>> schema = Schema({"label": "class_label", "x": TensorSpec(dtype="float32", shape=(3,))})
    >>> list(schema)
    ['label', 'x']
    >>> Schema({"x": "int64"}) == Schema({"x": TensorSpec(dtype="int64", shape=())})
    True
    """

    tensors: Any
    same_length: Any = ()

    def __post_init__(self) -> None:
        tensors = self.tensors
        if isinstance(tensors, pa.Schema):
            if len(set(tensors.names)) < len(tensors.names):
                raise SchemaError(f"Fields must have different names, got {tensors.names}. Fix it.")
            tensors = dict(zip(tensors.names, tensors.types, strict=True))
        if not isinstance(tensors, Mapping):
            raise SchemaError("tensors must be a mapping of names to specs. Give a dict.")
        specs = {_name(name): _spec(name, value) for name, value in tensors.items()}
        for group in normalize_groups(self.same_length):
            for name in group:
                if name not in specs:
                    raise SchemaError(f"same_length names {name!r}. Add it to the schema.")
                spec = specs[name]
                # Explicit, since compression=None means the htype's default.
                compression, label = spec.compression or "none", spec.same_length or group[0]
                specs[name] = replace(spec, same_length=label, compression=compression)
        object.__setattr__(self, "tensors", MappingProxyType(specs))
        object.__setattr__(self, "same_length", same_length_groups(specs))

    def __getitem__(self, name: str) -> TensorSpec:
        return cast("TensorSpec", self.tensors[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __reduce__(self) -> tuple[Any, ...]:
        return Schema, (dict(self.tensors),)

    def __hash__(self) -> int:
        return hash(tuple(self.tensors.items()))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schema):
            return NotImplemented
        return list(self.tensors.items()) == list(other.tensors.items())

    def __repr__(self) -> str:
        rows = [f"    {name!r}: {describe(spec)}," for name, spec in self.tensors.items()]
        return "\n".join(["Schema({", *rows, "})"])

    @classmethod
    def infer(
        cls, samples: Iterable[Mapping[str, Any]], tensors: Any = None, *, limit: int = 1000
    ) -> Schema:
        """Infer the schema of samples from their values.

        Numbers, times and arrays of them have their dtype; axes of several lengths are ragged. Strings
        are ``text``, and lists of strings ``sequence[text]``. Dicts, and lists of dicts, are ``json``.
        Samples read from a lake have its specs. A tensor that a sample leaves out is optional.

        Print the result, and edit it if necessary: ``Schema({**schema, "label": "class_label"})``
        makes class names of text labels.

        Parameters
        ----------
        samples : iterable of mappings
            Samples: mappings of tensor names to values.
        tensors : Schema or mapping, optional
            Specs of tensors that are not inferred, as in :class:`Schema`.
        limit : int, default 1000
            Maximum number of samples that are taken from ``samples`` and examined.

        Returns
        -------
        Schema
            A schema that the examined samples fit.

        Raises
        ------
        SchemaError
            The values of a tensor do not determine a spec, or are of several types.
        InvalidInputError
            ``samples`` is empty or has other items than mappings, or ``limit`` is not positive.

        Examples
        --------
        >>> samples = [{"x": 1, "name": "a", "box": [[0.5, 1.0]]}, {"x": 2.5, "name": "b", "box": []}]
        >>> Schema.infer(samples[:1])
        Schema({
            'x': TensorSpec('generic', dtype='int64', shape=()),
            'name': TensorSpec('text'),
            'box': TensorSpec('generic', dtype='float64', shape=(1, 2)),
        })
        >>> Schema.infer(samples, {"box": {"dtype": "float32", "shape": (None, None)}})["x"].dtype
        'float64'
        """
        given = Schema({} if tensors is None else tensors)
        return cls(infer_specs(_checked_samples(samples), given, _checked_limit(limit)))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document that a commit stores."""
        return {name: spec.to_json() for name, spec in self.tensors.items()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Schema:
        """Read a document of :meth:`to_json`."""
        return cls({name: TensorSpec.from_json(spec) for name, spec in document.items()})

    @property
    def with_settled_names(self) -> Schema:
        """Copy with only the class names whose indices are settled."""
        return Schema({name: spec.with_settled_names for name, spec in self.items()})

    @property
    def with_all_names_settled(self) -> Schema:
        """Copy in which the present indices of all class names are settled."""
        return Schema(
            {
                name: replace(spec, settled=None) if spec.discover else spec
                for name, spec in self.items()
            }
        )

    @property
    def without_discovered_names(self) -> Schema:
        """Copy without the names of discovering tensors; a run's plan holds its digest."""
        return Schema({name: _without_names(spec) for name, spec in self.items()})

    @property
    def with_undecided_names(self) -> Schema:
        """Copy in which no labels have decided yet between names and indices."""
        return Schema({name: _undecided(spec) for name, spec in self.items()})

    def decided_by(self, lake: Schema) -> Schema:
        """Return the schema after the labels of a lake have decided between names and indices."""
        decided = {
            name: lake[name]
            for name, spec in self.items()
            if spec.discover is None and name in lake and _undecided(lake[name]) == spec
        }
        return Schema({**self, **decided}) if decided else self

    def differences(self, other: Schema) -> list[str]:
        """Describe the differences of ``other``, tensor by tensor.

        Raises
        ------
        SchemaError
            ``other`` is not a Schema.
        """
        if not isinstance(other, Schema):
            raise SchemaError(
                f"other must be a Schema, got {type(other).__name__}. Use Schema(...)."
            )
        differences = [f"{name!r} is missing" for name in self if name not in other]
        differences += [f"{name!r} is new" for name in other if name not in self]
        for name in self:
            if name in other and _differ(self[name], other[name]):
                differences.append(f"{name!r} {_difference(self[name], other[name])}")
        return differences


def _checked_samples(samples: Any) -> Iterable[Any]:
    if hasattr(samples, "__dask_graph__"):
        raise InvalidInputError(
            f"samples must be an iterable of dicts, got a Dask {type(samples).__name__}, of which all "
            "would be computed. Give some of its samples, such as bag.take(100)."
        )
    if isinstance(samples, Mapping | str) or not isinstance(samples, Iterable):
        raise InvalidInputError(
            f"samples must be an iterable of dicts, got {type(samples).__name__}. Give a list of dicts."
        )
    return samples


def _checked_limit(limit: Any) -> int:
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise InvalidInputError(
            f"limit must be a positive number of samples, got {limit!r}. Use 1000, or omit it."
        )
    return limit


def _name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise SchemaError(
            f"A tensor name must be a non-empty string, got {name!r}. Choose another."
        )
    if not is_text(name):
        raise SchemaError(f"The tensor name {name!r} is not valid text. Choose another.")
    if name.endswith(":shape") or any(ord(c) < ord(" ") for c in name):
        raise SchemaError(
            f"The tensor name {name!r} is reserved or has control characters. Choose another."
        )
    return name


def _spec(name: str, value: object) -> TensorSpec:
    try:
        if isinstance(value, TensorSpec):
            return value
        if isinstance(value, str):
            return _htype_or_dtype(value)
        if isinstance(value, type | np.dtype | pa.DataType | ExtensionDtype):
            return _scalar(value)
        if isinstance(value, Mapping):
            return TensorSpec(**_parameters(value))
    except SchemaError as error:
        raise SchemaError(f"tensor {name!r}: {error}") from error
    raise SchemaError(
        f"tensor {name!r} must be a TensorSpec, an htype or a dtype, got {value!r}. Fix it."
    )


def _htype_or_dtype(name: str) -> TensorSpec:
    try:
        return TensorSpec(name)
    except SchemaError:
        with contextlib.suppress(SchemaError):
            return _scalar(name)
        raise


def _scalar(dtype: Any) -> TensorSpec:
    spec = TensorSpec(dtype=dtype, shape=())
    if spec.dtype == "category":
        raise SchemaError(
            "dtype category is stored as class labels. Use dasklake.TensorSpec('class_label', "
            "shape=(), class_names=[...])."
        )
    return spec


def _without_names(spec: TensorSpec) -> TensorSpec:
    return replace(spec, class_names=(), settled=None) if spec.discover else spec


def _undecided(spec: TensorSpec) -> TensorSpec:
    """Return the spec that ``spec`` may have been before the first labels were committed."""
    if spec.discover or (spec.discover is False and spec.class_names is None):
        return replace(spec, class_names=None, settled=None, discover=None)
    return spec


def _differ(spec: TensorSpec, other: TensorSpec) -> bool:
    """Return whether ``other`` is a different spec; it may lack the latest discovered names."""
    if other.discover is None:
        return _undecided(spec) != other
    if not (spec.discover and other.discover):
        return spec != other
    names = other.with_settled_names.class_names
    prefix = spec.with_settled_names.class_names[: len(names)]
    return _without_names(spec) != _without_names(other) or names != prefix


def _difference(spec: TensorSpec, other: TensorSpec) -> str:
    """Describe the difference of ``other``, even if ``describe`` is too short to show it."""
    spec, other = spec.with_settled_names, other.with_settled_names
    old, new = describe(spec), describe(other)
    parts = [f"is {new}, not {old}"] if new != old else []
    if spec.class_names and other.class_names and spec.class_names != other.class_names:
        parts.append(_names_difference(spec.class_names, other.class_names))
    if spec.dtype == other.dtype and spec.arrow != other.arrow:
        parts.append(f"has values of type {other.arrow_type}, not {spec.arrow_type}")
    return " and ".join(parts)


def _names_difference(names: tuple[str, ...], other: tuple[str, ...]) -> str:
    pairs = enumerate(zip_longest(other, names))
    index, pair = next((index, pair) for index, pair in pairs if pair[0] != pair[1])
    count = f"{len(other)} class_names, not {len(names)}: " if len(names) != len(other) else ""
    new, old = ("missing" if name is None else repr(name) for name in pair)
    return f"has {count or 'other class_names: '}index {index} is {new}, not {old}"


def _parameters(value: Mapping[Any, Any]) -> dict[str, Any]:
    names = [field.name for field in fields(TensorSpec) if field.repr]
    for key in value:
        if key not in (*names, "arrow"):
            raise SchemaError(f"TensorSpec has no parameter {key!r}. Use: {', '.join(names)}.")
    return dict(value)
