"""The tensors of a lake that a task of a Dask collection reads."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dasklake._schema.schema import Schema, TensorSpec

__all__ = [
    "LAKE_COLUMNS",
    "LakeDtype",
    "LakeTensors",
    "columns_of_text",
    "columns_text",
    "schema_of_some",
]

#: Name of the attribute of a frame's metadata that describes the columns of a lake.
LAKE_COLUMNS = "dasklake"


class LakeTensors(ABC):
    """An argument of the tasks that read a lake, by which a writer finds the schema of their samples."""

    @property
    @abstractmethod
    def schema(self) -> Schema:
        """The tensors that are read, in order."""


class LakeDtype(ABC):
    """A dtype of a frame's column, by which a writer finds the spec of its values."""

    @property
    @abstractmethod
    def spec(self) -> TensorSpec:
        """Description of the values."""


def schema_of_some(tensors: Mapping[str, TensorSpec]) -> Schema:
    """Return the schema of some tensors of a lake.

    A tensor that is the only one left of its ``same_length`` group leaves the group.
    """
    groups = [spec.same_length for spec in tensors.values()]
    return Schema(
        {
            name: spec
            if spec.same_length is None or groups.count(spec.same_length) > 1
            # Explicit, because a missing compression means the default of the htype.
            else replace(spec, same_length=None, compression=spec.compression or "none")
            for name, spec in tensors.items()
        }
    )


def columns_text(tensors: Mapping[str, TensorSpec], dtypes: Mapping[str, Any]) -> str:
    """Return a description of columns for the attributes of a frame, as JSON, which all formats store."""
    return json.dumps({n: [str(dtypes[n]), spec.to_json()] for n, spec in tensors.items()})


def columns_of_text(text: str, dtypes: Mapping[str, Any]) -> dict[str, TensorSpec]:
    """Read the result of :func:`columns_text`, without columns that now have another dtype."""
    return {
        name: TensorSpec.from_json(spec)
        for name, (dtype, spec) in json.loads(text).items()
        if name in dtypes and str(dtypes[name]) == dtype
    }
