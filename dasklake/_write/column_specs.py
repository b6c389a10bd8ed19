"""Specs of the columns of a frame, and the code that a message shows for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from dasklake._schema.lake_tensors import LakeDtype
from dasklake._schema.schema import Schema, TensorSpec, describe
from dasklake.exceptions import SchemaError

#: Category that Dask shows for categories that are not known yet.
UNKNOWN_CATEGORIES = "__UNKNOWN_CATEGORIES__"


def column_spec(column: Any) -> TensorSpec:
    """Return the spec of a column.

    Raises
    ------
    SchemaError
        The dtype of ``column`` does not determine a spec that keeps its values.
    """
    dtype = column.dtype
    if isinstance(dtype, LakeDtype):
        return dtype.spec
    if isinstance(dtype, pd.CategoricalDtype):
        return _categories_spec(dtype)
    if isinstance(dtype, pd.SparseDtype):
        raise SchemaError("it is sparse, and a lake stores all values")
    if dtype == np.dtype(object):
        raise SchemaError("a column of objects may hold anything")
    return TensorSpec(dtype=dtype, shape=())


def _categories_spec(dtype: Any) -> TensorSpec:
    names = list(dtype.categories)
    if UNKNOWN_CATEGORIES in names:
        raise SchemaError("its categories are not known; column.cat.as_known() computes them")
    if not all(isinstance(name, str) for name in names):
        raise SchemaError(f"its categories are of dtype {dtype.categories.dtype}, not strings")
    restored = pd.CategoricalDtype(names).categories.dtype
    # Older releases of pandas restore all strings as objects, whatever Dask made of them.
    exact = not names or isinstance(restored, pd.StringDtype)
    if exact and dtype.categories.dtype != restored:
        raise SchemaError(
            f"its categories are of dtype {dtype.categories.dtype!r}, not {restored!r}"
        )
    return TensorSpec("class_label", class_names=tuple(names), shape=(), ordered=dtype.ordered)


def code_of(name: str, spec: TensorSpec) -> str:
    """Return the code that creates a spec, with all of its class names."""
    try:
        TensorSpec(dtype=spec.dtype, shape=spec.shape)
    except (SchemaError, NotImplementedError):
        # The names of some Arrow types cannot be parsed.
        return f"dasklake.TensorSpec(dtype=frame.dtypes[{name!r}], shape=())"
    call = describe(replace(spec, class_names=None, ordered=False))
    if spec.class_names is not None:
        call = f"{call[:-1]}, class_names={list(spec.class_names)!r})"
    return f"dasklake.{call[:-1]}, ordered=True)" if spec.ordered else f"dasklake.{call}"


def ordered_categories(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dtypes of ordered categoricals whose categories are known."""
    dtypes = {name: column.dtype for name, column in columns.items()}
    return {
        name: dtype
        for name, dtype in dtypes.items()
        if isinstance(dtype, pd.CategoricalDtype)
        and dtype.ordered
        and UNKNOWN_CATEGORIES not in dtype.categories
    }


def check_names(columns: Sequence[str], schema: Schema) -> None:
    """Check that the columns of a frame are the tensors of a schema.

    Raises
    ------
    SchemaError
        A column has no tensor, or a tensor that every sample must have has no column.
    """
    extra = [name for name in columns if name not in schema]
    missing = [name for name, spec in schema.items() if name not in columns and not spec.optional]
    if extra or missing:
        problems = [f"no tensor for the columns {extra}"] if extra else []
        problems += [f"no column for the tensors {missing}"] if missing else []
        raise SchemaError(
            f"The columns must be the tensors, but there is {' and '.join(problems)}. Rename or drop "
            "columns, add tensors to the schema (lake.create_tensor(...) if the lake exists), or "
            "fill missing columns with None."
        )


def check_orders(columns: Mapping[str, Any], schema: Schema) -> None:
    """Check that ordered categories have the order of the class names.

    Parameters
    ----------
    columns : mapping of str to pandas.CategoricalDtype
        The ordered categories.
    schema : Schema
        The tensors to write.

    Raises
    ------
    SchemaError
        The order would be lost, or become another one.
    """
    for name, dtype in columns.items():
        spec = schema.get(name)
        if spec is None or spec.class_names is None:
            continue
        positions = {label: i for i, label in enumerate(spec.class_names)}
        order = [positions[label] for label in dtype.categories if label in positions]
        if not spec.ordered or order != sorted(order):
            raise SchemaError(
                f"Column {name!r} has the ordered categories {list(dtype.categories)[:8]}, and the "
                f"tensor is {describe(spec)}. Drop the order with column.cat.as_unordered(), or "
                "declare the tensor with class_names in this order and ordered=True."
            )
