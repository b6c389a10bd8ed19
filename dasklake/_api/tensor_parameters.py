"""Parse the parameters of ``Lake.create_tensor``, which other libraries name differently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from dasklake._schema.schema import Schema, TensorSpec
from dasklake.exceptions import SchemaError

#: Names that other libraries use for parameters of TensorSpec.
_ALIASES = {"sample_compression": "compression", "chunk_compression": "compression"}


def tensor_spec(name: str, htype: str, parameters: Mapping[str, Any]) -> TensorSpec:
    """Return the spec of a new tensor.

    Parameters
    ----------
    name : str
        Name of the tensor.
    htype : str
        Type of its values.
    parameters : mapping
        Further parameters of TensorSpec, or their names in other libraries.

    Raises
    ------
    SchemaError
        A parameter is unknown, repeated or invalid.
    """
    parameters = {"htype": htype, **_rename_aliases(name, parameters)}
    # Validated without its group, whose other tensors may be created later.
    alone = Schema({name: {**parameters, "same_length": None}})[name]
    # Explicit, because a missing compression means the default of the htype.
    compression = alone.compression or "none"
    return replace(alone, compression=compression, same_length=parameters.get("same_length"))


def _rename_aliases(name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters by their names in TensorSpec."""
    allowed = {field.name for field in fields(TensorSpec) if field.repr} - {"htype"}
    renamed: dict[str, Any] = {}
    for key, value in parameters.items():
        parameter = _ALIASES.get(key, key)
        if parameter not in allowed:
            raise SchemaError(
                f"tensor {name!r}: {key!r} is not a parameter. Use one of: "
                f"{', '.join(sorted({*allowed, *_ALIASES}))}."
            )
        if parameter in renamed:
            raise SchemaError(
                f"tensor {name!r}: {key!r} and {parameter!r} are the same parameter. Give one of them."
            )
        # An explicit None means no compression, not the default of the htype.
        renamed[parameter] = "none" if key in _ALIASES and value is None else value
    return renamed
