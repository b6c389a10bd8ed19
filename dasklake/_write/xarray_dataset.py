"""Turn a Dataset of xarray, which is recognized without importing it, into aligned arrays."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np

from dasklake._schema.printable import safe_repr
from dasklake._write.caller_warning import warn_caller
from dasklake.exceptions import InvalidInputError


def is_dataset(collection: Any) -> bool:
    """Return whether an object is a Dataset of xarray.

    Raises
    ------
    InvalidInputError
        ``collection`` is a DataArray, whose name as a tensor is not certain.
    """
    kind = type(collection)
    if kind.__module__.partition(".")[0] != "xarray":
        return False
    if kind.__name__ == "DataArray":
        name = collection.name if isinstance(collection.name, str) else "x"
        raise InvalidInputError(
            "collection must be an xarray Dataset, got a DataArray. Use "
            f"array.to_dataset(name={name!r})."
        )
    return kind.__name__ == "Dataset"


def arrays_of_dataset(dataset: Any, dim: Any) -> dict[str, da.Array]:
    """Return the variables of a Dataset as Dask Arrays whose first axis is the samples.

    Parameters
    ----------
    dataset : xarray.Dataset
        Data variables and coordinates along ``dim``. Other coordinates are left out with a warning.
    dim : str or None
        The dimension of the samples. By default, the first one of the first data variable.

    Returns
    -------
    dict of str to dask.array.Array
        Coordinates along the dimension, then data variables; with the chunks of the Dataset.

    Raises
    ------
    InvalidInputError
        The Dataset does not have ``dim``, a data variable does not lie along it, or no variable
        is a Dask Array.
    """
    dim = _dimension(dataset, dim)
    fixed = [name for name, variable in dataset.data_vars.items() if dim not in variable.dims]
    if fixed:
        raise InvalidInputError(
            f"The data variables {fixed} must have the dimension {dim!r} of the samples. Leave them out "
            f"with dataset.drop_vars({fixed}), or give another dimension with dim=."
        )
    if not any(isinstance(variable.data, da.Array) for variable in dataset.data_vars.values()):
        raise InvalidInputError(
            "An xarray Dataset must hold Dask Arrays, got arrays in memory. Use "
            f"dataset.chunk({{{dim!r}: 1000}})."
        )
    _warn_of_rest(dataset, dim)
    chunks = dict(dataset.unify_chunks().chunks).get(dim, -1)
    along = [name for name, variable in dataset.coords.items() if dim in variable.dims]
    names = [*along, *dataset.data_vars]
    return {name: _array(dataset[name].transpose(dim, ...), chunks) for name in names}


def _dimension(dataset: Any, dim: Any) -> Any:
    dims = [*dict.fromkeys(d for variable in dataset.data_vars.values() for d in variable.dims)]
    if not dims:
        raise InvalidInputError(
            "An xarray Dataset must have a data variable with a dimension, that of the samples. Add "
            "one with dataset.assign(...) or dataset.expand_dims(...)."
        )
    if dim is None:
        return dims[0]
    if not isinstance(dim, str) or dim not in dims:
        raise InvalidInputError(
            f"dim must be one of the dimensions {', '.join(map(repr, dims))} of the data variables, got "
            f"{safe_repr(dim)}."
        )
    return dim


def _warn_of_rest(dataset: Any, dim: str) -> None:
    """Warn of coordinates and attributes, for which a lake has no place."""
    fixed = [name for name, variable in dataset.coords.items() if dim not in variable.dims]
    parts = [f"coordinates {fixed} without the dimension {dim!r}"] if fixed else []
    if dataset.attrs or any(variable.attrs for variable in dataset.variables.values()):
        parts.append("attributes")
    if parts:
        drop = f".drop_vars({fixed})" if fixed else ""
        drop += ".drop_attrs()" if parts[-1] == "attributes" else ""
        warn_caller(
            f"The {' and the '.join(parts)} of the xarray Dataset are not written. Keep them elsewhere; "
            f"dataset{drop} is written without this warning.",
        )


def _array(variable: Any, chunks: Any) -> da.Array:
    data = variable.data
    if not isinstance(data, da.Array):
        data = da.from_array(np.asarray(variable.values), chunks=-1)
    array: da.Array = data.rechunk({0: chunks})
    return array
