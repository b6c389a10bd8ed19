"""The schema of a lake: its tensors by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import zip_longest
from types import MappingProxyType
from typing import Any, cast

from dasklake._schema.parameters import is_text, named_groups
from dasklake._schema.same_length import groups_of
from dasklake._schema.spec import TensorSpec, describe
from dasklake.exceptions import SchemaError

__all__ = ["Schema", "TensorSpec", "describe"]


@dataclass(frozen=True, slots=True)
class Schema(Mapping[str, TensorSpec]):
    """The tensors of a lake, by name, in order.

    Parameters
    ----------
    tensors : mapping of str to TensorSpec, str or mapping
        A string is an htype; a mapping holds the parameters of ``TensorSpec``.
    same_length : sequence of str, or of such sequences, optional
        Names of tensors that have the same number of objects in each sample: boxes, labels,
        points along their first axis, masks and keypoints along their last.

    Raises
    ------
    SchemaError
        A name or a description cannot be used.

    Examples
    --------
    >>> schema = Schema({"label": "class_label", "x": TensorSpec(dtype="float32", shape=(3,))})
    >>> list(schema)
    ['label', 'x']
    """

    tensors: Any
    same_length: Any = ()

    def __post_init__(self) -> None:
        if not isinstance(self.tensors, Mapping):
            raise SchemaError("tensors must be a mapping of tensor names to their specs.")
        found = {_name(name): _spec(name, value) for name, value in self.tensors.items()}
        for group in named_groups(self.same_length):
            for name in group:
                if name not in found:
                    raise SchemaError(f"same_length names {name!r}, which is not in the schema.")
                spec = found[name]
                # Said again, for left out a compression is the htype's default.
                compression, label = spec.compression or "none", spec.same_length or group[0]
                found[name] = replace(spec, same_length=label, compression=compression)
        object.__setattr__(self, "tensors", MappingProxyType(found))
        object.__setattr__(self, "same_length", groups_of(found))

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

    def to_json(self) -> dict[str, Any]:
        """Return what a commit stores."""
        return {name: spec.to_json() for name, spec in self.tensors.items()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Schema:
        """Read what :meth:`to_json` wrote."""
        return cls({name: TensorSpec.from_json(spec) for name, spec in document.items()})

    @property
    def given(self) -> Schema:
        """The schema with only those discovered class names whose places are settled."""
        return Schema({name: spec.given for name, spec in self.items()})

    @property
    def settled(self) -> Schema:
        """The schema with all class names in the places that they have now."""
        return Schema(
            {
                name: spec if spec.settled is None else replace(spec, settled=None)
                for name, spec in self.items()
            }
        )

    @property
    def planned(self) -> Schema:
        """The schema without names that are still to be discovered; a run's plan has its digest."""
        return Schema({name: _planned(spec) for name, spec in self.items()})

    def differences(self, other: Schema) -> list[str]:
        """Say in words what ``other`` has differently, tensor by tensor."""
        found = [f"{name!r} is missing" for name in self if name not in other]
        found += [f"{name!r} is new" for name in other if name not in self]
        for name in self:
            if name in other and _differ(self[name], other[name]):
                found.append(f"{name!r} {_difference(self[name], other[name])}")
        return found


def _name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise SchemaError(f"A tensor name must be a non-empty string, got {name!r}.")
    if not is_text(name):
        raise SchemaError(f"The tensor name {name!r} is not valid text. Choose another.")
    if name.endswith(":shape") or any(ord(c) < ord(" ") for c in name):
        raise SchemaError(f"The tensor name {name!r} is reserved or has control characters.")
    return name


def _spec(name: str, value: object) -> TensorSpec:
    try:
        if isinstance(value, TensorSpec):
            return value
        if isinstance(value, str):
            return TensorSpec(value)
        if isinstance(value, Mapping):
            return TensorSpec(**_parameters(value))
    except SchemaError as error:
        raise SchemaError(f"tensor {name!r}: {error}") from error
    raise SchemaError(f"tensor {name!r} must be a TensorSpec or an htype, got {value!r}.")


def _planned(spec: TensorSpec) -> TensorSpec:
    return replace(spec, class_names=(), settled=None) if spec.discover else spec


def _differ(ours: TensorSpec, theirs: TensorSpec) -> bool:
    """Return whether ``theirs`` is another spec; it may know fewer discovered names."""
    if not (ours.discover and theirs.discover):
        return ours != theirs
    names, known = theirs.given.class_names, ours.given.class_names
    return _planned(ours) != _planned(theirs) or names != known[: len(names)]


def _difference(ours: TensorSpec, theirs: TensorSpec) -> str:
    """Say what ``theirs`` has differently, also where a description is too short to show it."""
    ours, theirs = ours.given, theirs.given
    wanted, found = describe(ours), describe(theirs)
    words = [f"is {found}, not {wanted}"] if found != wanted else []
    if ours.class_names and theirs.class_names and ours.class_names != theirs.class_names:
        words.append(_other_names(ours.class_names, theirs.class_names))
    if ours.dtype == theirs.dtype and ours.arrow != theirs.arrow:
        words.append(f"has values of type {theirs.arrow_type}, not {ours.arrow_type}")
    return " and ".join(words)


def _other_names(ours: tuple[str, ...], theirs: tuple[str, ...]) -> str:
    pairs = enumerate(zip_longest(theirs, ours))
    index, (found, wanted) = next(each for each in pairs if each[1][0] != each[1][1])
    count = f"{len(theirs)} class_names, not {len(ours)}: " if len(ours) != len(theirs) else ""
    this, that = ("nothing" if each is None else repr(each) for each in (found, wanted))
    return f"has {count or 'other class_names: '}index {index} is {this}, not {that}"


def _parameters(value: Mapping[Any, Any]) -> dict[str, Any]:
    known = [each.name for each in fields(TensorSpec) if each.repr]
    for key in value:
        if key not in (*known, "arrow"):
            raise SchemaError(f"TensorSpec has no {key!r}. It has {', '.join(known)}.")
    return dict(value)
