"""Bind ``to_lake`` as a method of Dask's collections when dasklake is imported.

The function is the interface; the method is a convenience. An existing attribute ``to_lake`` is
not replaced.
"""

from __future__ import annotations

import functools
from typing import Any

from dask.array import Array
from dask.bag import Bag
from dask.dataframe import DataFrame, Series
from dask.dataframe.extensions import register_dataframe_accessor, register_series_accessor

from dasklake._api.write import to_lake


def bind_methods() -> None:
    """Bind ``to_lake`` to Bag, Array, DataFrame and Series, once."""
    for cls in (Bag, Array):
        if not hasattr(cls, "to_lake"):
            cls.to_lake = _method  # type: ignore[union-attr] # the classes do not declare it
    if not hasattr(DataFrame, "to_lake"):
        register_dataframe_accessor("to_lake")(_Accessor)
    if not hasattr(Series, "to_lake"):
        register_series_accessor("to_lake")(_Accessor)


@functools.wraps(to_lake)
def _method(self: Any, *args: Any, **kwargs: Any) -> Any:
    return to_lake(self, *args, **kwargs)


class _Accessor:
    """``ddf.to_lake(url, ...)``, registered as an accessor of DataFrames and Series."""

    def __init__(self, collection: Any) -> None:
        self._collection = collection

    @functools.wraps(to_lake)
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return to_lake(self._collection, *args, **kwargs)
