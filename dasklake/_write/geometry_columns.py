"""Turn the geometries of a frame of (dask-)geopandas, which is not imported, into WKB."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa

from dasklake._write.caller_warning import warn_caller
from dasklake.exceptions import InvalidInputError

#: Well-known binary, the standard form of a geometry as bytes.
_WKB = pd.ArrowDtype(pa.large_binary())


def frame_with_wkb(collection: Any) -> Any:
    """Return a frame in which geometries are bytes of WKB; other collections are not changed.

    A warning names coordinate reference systems, which WKB does not have.

    Raises
    ------
    InvalidInputError
        ``collection`` is a frame or series of geometries that Dask does not divide into partitions,
        or a GeoSeries.
    """
    kind = type(collection).__name__
    module = type(collection).__module__.partition(".")[0]
    if module == "geopandas" and kind in ("GeoDataFrame", "GeoSeries"):
        raise InvalidInputError(
            f"collection must be a Dask collection, got a {kind} of geopandas. Use "
            "dask_geopandas.from_geopandas(frame, npartitions=4)."
        )
    if module == "dask_geopandas" and kind == "GeoSeries":
        raise InvalidInputError(
            "collection must be a frame, got a GeoSeries. Use series.to_frame('geometry')."
        )
    if kind not in ("DataFrame", "GeoDataFrame") or not isinstance(collection, dd.DataFrame):
        return collection
    meta = collection._meta  # noqa: SLF001 # Dask's documented meta
    columns = zip(meta.columns, meta.dtypes, strict=True)
    numbers = {number: name for number, (name, dtype) in enumerate(columns) if _is_geometry(dtype)}
    if not numbers and kind == "DataFrame":
        return collection
    for number, name in numbers.items():
        crs = getattr(meta.iloc[:, number].array, "crs", None)
        if crs is not None:
            warn_caller(
                f"Column {name!r} is written as WKB, without its coordinate reference system. To read it, "
                f"use geopandas.GeoSeries.from_wkb(frame[{name!r}].to_numpy(object, na_value=None), "
                f"frame.index, crs={crs.to_string()!r}) with a computed frame.",
            )
    converted = to_wkb(meta, [*numbers])
    return dd.map_partitions(to_wkb, collection, [*numbers], meta=converted)


def _is_geometry(dtype: Any) -> bool:
    return getattr(dtype, "name", None) == "geometry"


def to_wkb(part: pd.DataFrame, numbers: Sequence[int]) -> pd.DataFrame:
    """Convert the geometries of a partition.

    Parameters
    ----------
    part : pandas.DataFrame or geopandas.GeoDataFrame
        The partition.
    numbers : sequence of int
        Numbers of the columns of geometries.
    """
    shapely = importlib.import_module("shapely")  # as it has made the geometries
    frame = pd.DataFrame(part).copy(deep=False)
    for number in numbers:
        wkb = shapely.to_wkb(part.iloc[:, number].to_numpy(object))
        frame.isetitem(number, pd.Series(wkb, part.index, dtype=_WKB))
    return frame
