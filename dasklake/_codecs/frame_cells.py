"""Restore values from cells of a frame of a lake, whose columns have types of pandas and Arrow.

=======================  ==============================================
cell                     value
=======================  ==============================================
``data`` and ``shape``   an array; unambiguous in every frame
nested lists             an array of the dtype and fixed axes of the spec
text of JSON             the document
list                     a list of such values
=======================  ==============================================
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._codecs.sample import StoredValue, raw_value
from dasklake._schema.schema import TensorSpec

__all__ = ["value_of_cell", "values_of_row"]


def value_of_cell(cell: Any, spec: TensorSpec, *, of_lake: bool) -> Any:
    """Return the value of a cell for the codec of its tensor.

    Parameters
    ----------
    cell : object
        The cell.
    spec : TensorSpec
        Description of the tensor.
    of_lake : bool
        Whether the column is known to come from a lake; text is then that of JSON.
    """
    if cell is None or isinstance(cell, StoredValue):
        return cell
    try:
        if spec.sequence:
            return [value_of_cell(c, spec.item, of_lake=True) for c in cell] if of_lake else cell
        if spec.kind.codec == "json":
            return json.loads(cell) if of_lake and isinstance(cell, str) else cell
        if spec.numpy_dtype is None or spec.encoded or spec.linked:
            return cell
        return _array(cell, spec, spec.numpy_dtype, of_lake=of_lake)
    except (ValueError, TypeError):
        return cell  # the codec reports what it must be


def values_of_row(
    row: Mapping[str, Any], schema: Mapping[str, TensorSpec], lake_columns: Collection[str]
) -> dict[str, Any]:
    """Return the values of the cells of a row; those of unknown columns stay."""
    cells = ((name, raw_value(row, name)) for name in row)
    return {
        name: value_of_cell(cell, schema[name], of_lake=name in lake_columns)
        if name in schema
        else cell
        for name, cell in cells
    }


def _array(cell: Any, spec: TensorSpec, dtype: np.dtype[Any], *, of_lake: bool) -> Any:
    if isinstance(cell, dict) and cell.keys() == {"data", "shape"}:
        return _numbers(cell["data"], dtype).reshape(cell["shape"])
    nested = of_lake and isinstance(cell, list | np.ndarray) and dtype.kind in "biufc"
    if not nested:
        return cell
    array = _numbers(cell, dtype)
    shape: Any = spec.shape
    return array.reshape(shape) if spec.fixed else array


def _numbers(values: Any, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if dtype.kind != "c" or not len(values):
        return np.array(values, dtype)
    parts = np.array(values, f"f{dtype.itemsize // 2}")
    # An array of fixed shape is a flat list; all others end with an axis of two.
    return parts.view(dtype) if parts.ndim == 1 else parts.view(dtype)[..., 0]
