"""Find the schema of a write: the given one, the lake's, or the one inferred from the input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from pandas.api.extensions import ExtensionDtype

from dasklake._format.documents import plan_digests
from dasklake._log.log import Log
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._storage.store import ObjectStore
from dasklake._write.input import source_of
from dasklake._write.source import Source
from dasklake.exceptions import SchemaError

#: What users may give as the spec of a tensor.
SpecLike: TypeAlias = (
    TensorSpec | str | type | np.dtype[Any] | pa.DataType | ExtensionDtype | Mapping[str, Any]
)

#: What users may give as a schema.
SchemaLike: TypeAlias = Schema | pa.Schema | Mapping[str, SpecLike]


def resolve_schema(
    collection: Any,
    schema: SchemaLike | None,
    store: ObjectStore,
    mode: str,
    run: str | None,
    *,
    transformed: bool,
) -> tuple[Source, Schema]:
    """Return the source of a collection, and the given schema, the lake's, or the inferred one.

    Raises
    ------
    SchemaError
        The schema is empty, invalid or missing.
    """
    given = schema if schema is None or isinstance(schema, Schema) else Schema(schema)
    if given is not None and not given:
        raise SchemaError("schema has no tensors. Give at least one tensor name and its spec.")
    if given is not None and mode in ("append", "resume"):
        head = Log(store).head() if any(s.discover is None for s in given.values()) else None
        given = given if head is None else given.decided_by(head.schema)
    source = source_of(collection, given, transformed=transformed)
    resolved = given or _lake_schema(store, mode, run, source.schema)
    if resolved is None:
        raise SchemaError(
            "The schema of a bag cannot be inferred from its metadata. Give a schema: that of the lake "
            "that the samples were read from, schema=lake.schema, that of some samples, "
            "schema=dasklake.Schema.infer(samples), or one such as "
            "schema={'image': dasklake.TensorSpec('image', compression='jpeg'), "
            "'label': dasklake.TensorSpec('class_label', class_names=[...])}."
        )
    if not resolved:
        raise SchemaError("The lake has no tensors yet. Add some with lake.create_tensor(...).")
    return source.with_schema(resolved, transformed=transformed), resolved


def _lake_schema(
    store: ObjectStore, mode: str, run: str | None, inferred: Schema | None
) -> Schema | None:
    """Return the schema of the lake that is continued, else the inferred schema."""
    head = Log(store).head() if mode in ("append", "resume") else None
    if head is None:
        return inferred
    states = [s for name, s in head.runs.items() if run in (None, name) and not s.finished]
    planned = {state.plan.schema for state in states}
    if mode == "resume" and inferred is not None and not planned.isdisjoint(plan_digests(inferred)):
        # An unfinished overwrite, whose schema is not the lake's schema yet.
        return inferred
    return head.schema
