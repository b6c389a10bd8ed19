"""The tensors of a lake that a task of a Dask collection reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace

from dasklake._schema.schema import Schema, TensorSpec

__all__ = ["LakeTensors", "schema_of_some"]


class LakeTensors(ABC):
    """An argument of the tasks that read a lake, by which a writer finds the schema of their samples."""

    @property
    @abstractmethod
    def schema(self) -> Schema:
        """The tensors that are read, in order."""


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
