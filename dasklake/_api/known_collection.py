"""Accept collections of xarray and geopandas, which are recognized without importing the libraries."""

from __future__ import annotations

from typing import Any

from dasklake._write.geometry_columns import frame_with_wkb
from dasklake._write.xarray_dataset import arrays_of_dataset, is_dataset
from dasklake.exceptions import InvalidInputError


def known_collection(collection: Any, dim: Any) -> Any:
    """Return a collection of Dask that has the content of one of xarray or geopandas.

    Parameters
    ----------
    collection : object
        The input; other collections are not changed.
    dim : str or None
        The dimension of a Dataset along which the samples lie.

    Raises
    ------
    InvalidInputError
        ``collection`` does not determine the samples, or ``dim`` is given without a Dataset.
    """
    if is_dataset(collection):
        return arrays_of_dataset(collection, dim)
    if dim is not None:
        raise InvalidInputError(
            f"dim is the dimension of an xarray Dataset, got a {type(collection).__name__}. Omit it."
        )
    return frame_with_wkb(collection)
