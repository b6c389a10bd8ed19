"""One column of each dtype that a frame may have, and its way through a lake and through Parquet."""

from __future__ import annotations

import datetime as dt
import uuid
import warnings
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa

import dasklake

#: Makes a column.
Make = Callable[..., Any]

NAN = float("nan")
NOON = dt.datetime(2026, 1, 1, 12, 0, 0, 250, tzinfo=dt.UTC)


def _arrow(kind: pa.DataType, values: list[Any]) -> Any:
    # Not made by pandas, some releases of which drop NaN.
    return pd.arrays.ArrowExtensionArray(pa.array([*values, None], kind, from_pandas=False))


def _numbers(dtype: str) -> Any:
    return np.array([0, 1, 1], dtype)


def _complex(dtype: str) -> Any:
    return _numbers(dtype) * (1 + 2j)


def _times(unit: str, zone: Any = None) -> Any:
    times = pd.DatetimeIndex(["2026-01-01", "2026-10-25 01:30", None]).as_unit(unit)
    return times if zone is None else times.tz_localize("UTC").tz_convert(zone)


def _durations(unit: str) -> Any:
    return pd.TimedeltaIndex(["1h", "-3s", None]).as_unit(unit)


def _categories(values: list[Any], **options: Any) -> Any:
    return pd.Categorical([*values, None], **options)


def _strings(dtype: Any) -> Any:
    return pd.array(["a", "é中", None], dtype=dtype)


def _numpy() -> dict[str, Make]:
    numbers = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64"
    units = ("s", "ms", "us", "ns")
    makers: dict[str, Make] = {name: partial(_numbers, name) for name in numbers.split()}
    makers |= {name: partial(_complex, name) for name in ("complex64", "complex128")}
    makers["float64 with NaN and inf"] = lambda: np.array([NAN, np.inf, -0.0])
    makers["longdouble"] = lambda: np.array([1, 2, 3], np.longdouble)
    makers |= {f"datetime64[{unit}]": partial(_times, unit) for unit in units}
    makers |= {f"timedelta64[{unit}]": partial(_durations, unit) for unit in units}
    return makers


def _pandas() -> dict[str, Make]:
    zones = {
        "UTC": "UTC",
        "Europe/Berlin": "Europe/Berlin",
        "+05:30": dt.timezone(dt.timedelta(hours=5.5)),
    }
    makers: dict[str, Make] = {
        f"datetime64[{unit}, {name}]": partial(_times, unit, zone)
        for unit in ("us", "ns")
        for name, zone in zones.items()
    }
    for name in [
        "Int8",
        "Int16",
        "Int32",
        "Int64",
        "UInt8",
        "UInt16",
        "UInt32",
        "UInt64",
        "Float32",
        "Float64",
        "boolean",
    ]:
        makers[name] = partial(pd.array, [1, 0, None], dtype=name)
    makers |= {
        "Int64 beyond float64": lambda: pd.array([2**63 - 1, -(2**63), None], dtype="Int64"),
        "str": lambda: pd.Series(["a", "é中", None]).array,
        "string[python]": lambda: _strings(pd.StringDtype("python")),
        "string[pyarrow]": lambda: _strings(pd.StringDtype("pyarrow")),
        "category of str": lambda: _categories(["b", "a"], categories=["b", "a", "unused"]),
        "category of str, ordered": lambda: _categories(
            ["b", "a"], categories=["b", "a"], ordered=True
        ),
        "category of string": lambda: pd.Series(_strings("string")).astype("category").array,
        "category of int64": lambda: _categories([5, 7]),
        "category of float64": lambda: _categories([0.5, 1.5]),
        "category of datetime64": lambda: _categories(list(_times("us")[:2])),
        "category of bool": lambda: _categories([True, False]),
        "category of interval": lambda: pd.Categorical(pd.cut([1, 2, 3], 2)),
        "category without categories": lambda: _categories([]).take([0, 0, 0]),
        "period[D]": lambda: pd.PeriodIndex(["2026-01-01", "2026-01-02", None], freq="D").array,
        "period[M]": lambda: pd.PeriodIndex(["2026-01", "2026-02", None], freq="M").array,
        "interval[int64]": lambda: pd.arrays.IntervalArray.from_breaks([0, 1, 2, 3]),
        "interval[float64]": lambda: pd.arrays.IntervalArray.from_breaks([0.0, 0.5, 1, 2]),
        "Sparse[int64]": lambda: pd.arrays.SparseArray([0, 0, 1]),
        "Sparse[float64]": lambda: pd.arrays.SparseArray([NAN, 0.5, NAN]),
        "object of bytes": lambda: pd.Series([b"a", b"\xff", None], dtype=object),
        "object of lists": lambda: pd.Series([[1], [], None], dtype=object),
        "object of numbers and strings": lambda: pd.Series([1, "a", None], dtype=object),
    }
    if pd.Series(["a"]).dtype == np.dtype(object):
        # Before pandas 3, strings are objects, and those of categories cannot be told apart.
        del makers["str"], makers["category of string"]
    return makers


def _of_arrow() -> dict[str, Make]:
    t = pa
    columns: dict[str, Make] = {}
    integers = [t.int8(), t.int16(), t.int32(), t.int64(), t.uint8(), t.uint16(), t.uint32()]
    samples: list[tuple[pa.DataType, list[Any]]] = [
        (t.bool_(), [True, False]),
        *((kind, [1, 2]) for kind in integers),
        (t.uint64(), [2**64 - 1, 0]),
        (t.float16(), [np.float16(1.5), np.float16(NAN)]),
        (t.float32(), [1.5, NAN]),
        (t.float64(), [0.1, NAN]),
        (t.decimal128(10, 2), [Decimal("1.25"), Decimal(-3)]),
        (t.decimal256(50, 2), [Decimal("1.25"), Decimal(-3)]),
        (t.string(), ["a", "é中"]),
        (t.large_string(), ["a", ""]),
        (t.binary(), [b"a", b"\xff"]),
        (t.large_binary(), [b"a", b""]),
        (t.binary(2), [b"ab", b"\x00\xff"]),
        (t.date32(), [dt.date(1, 1, 1), dt.date(2026, 1, 1)]),
        (t.date64(), [dt.date(1, 1, 1), dt.date(2026, 1, 1)]),
        (t.time32("s"), [dt.time(1, 2, 3), dt.time()]),
        (t.time32("ms"), [dt.time(1, 2, 3, 4000), dt.time()]),
        (t.time64("us"), [dt.time(1, 2, 3, 4), dt.time()]),
        (t.time64("ns"), [1, 2000]),
        *((t.timestamp(unit), [5, -5]) for unit in ("s", "ms", "us", "ns")),
        (t.timestamp("s", "UTC"), [5, -5]),
        (t.timestamp("us", "Europe/Berlin"), [NOON, NOON]),
        (t.timestamp("ns", "+05:30"), [5, -5]),
        *((t.duration(unit), [5, -5]) for unit in ("s", "ms", "us", "ns")),
        (t.month_day_nano_interval(), [t.MonthDayNano([1, 2, 3]), t.MonthDayNano([0, 0, -1])]),
        (t.null(), [None, None]),
        (t.dictionary(t.int8(), t.string()), ["a", "b"]),
        (t.dictionary(t.int32(), t.int64()), [5, 7]),
        (t.dictionary(t.int32(), t.string(), ordered=True), ["b", "a"]),
        (t.list_(t.int64()), [[1, None], []]),
        (t.list_(t.float64()), [[NAN, None, 1.5], []]),
        (t.list_(t.string()), [["a", None], [""]]),
        (t.list_(t.bool_()), [[True], [False, None]]),
        (t.large_list(t.float32()), [[1.5], [NAN]]),
        (t.list_(t.int16(), 2), [[1, 2], [3, None]]),
        (t.list_(t.list_(t.int8())), [[[1], []], []]),
        (t.list_(t.struct([("a", t.int64())])), [[{"a": 1}, None], []]),
        (t.list_(t.timestamp("us", "Asia/Tokyo")), [[NOON], [None]]),
        (t.list_(t.decimal128(5, 2)), [[Decimal("1.25")], []]),
        (t.list_(t.dictionary(t.int32(), t.string())), [["a"], ["b"]]),
        (
            t.struct([("a", t.int64()), ("b", t.string())]),
            [{"a": 1, "b": None}, {"a": None, "b": ""}],
        ),
        (t.struct([("f", t.float64())]), [{"f": NAN}, {"f": None}]),
        (
            t.struct([("d", t.date32()), ("z", t.timestamp("ms", "UTC"))]),
            [{"d": dt.date(2026, 1, 1), "z": None}, None],
        ),
        (
            t.struct([("s", t.struct([("l", t.list_(t.uint8()))]))]),
            [{"s": {"l": [1]}}, {"s": None}],
        ),
        (t.map_(t.string(), t.int64()), [[("a", 1), ("b", None)], []]),
        (t.map_(t.int32(), t.list_(t.float64())), [[(1, [NAN])], []]),
    ]
    for kind, values in samples:
        if pa.array([], kind).type != kind:
            continue  # older releases make no ordered dictionaries
        columns[f"{kind}[pyarrow]"] = partial(_arrow, kind, values)
    for name, value in (("uuid", uuid.UUID(int=7).bytes), ("json_", "{}"), ("bool8", 1)):
        if hasattr(t, name):
            kind = getattr(t, name)()
            columns[f"{kind}[pyarrow]"] = lambda kind=kind, value=value: _arrow(
                kind, [value, value]
            )
    return columns


#: Dtypes that a lake does not restore, and therefore refuses.
_REFUSED = frozenset(
    {
        "longdouble",
        "category of string",
        "category of int64",
        "category of float64",
        "category of datetime64",
        "category of bool",
        "category of interval",
        "category without categories",
        "Sparse[int64]",
        "Sparse[float64]",
        "object of bytes",
        "object of lists",
        "object of numbers and strings",
        "dictionary<values=string, indices=int32, ordered=1>[pyarrow]",
        "list<item: dictionary<values=string, indices=int32, ordered=0>>[pyarrow]",
    }
)

#: A maker of a column of three values for each dtype, by its name on the page.
COLUMNS: dict[str, Make] = {**_numpy(), **_pandas(), **_of_arrow()}


REFUSED = _REFUSED & set(COLUMNS)


def frame_of(names: list[str]) -> dd.DataFrame:
    """Return a frame of some columns and two partitions, without Dask's conversion to strings."""
    columns = {name: pd.Series(COLUMNS[name]()) for name in names}
    with dask.config.set({"dataframe.convert-string": False}):
        frame: dd.DataFrame = dd.from_pandas(pd.DataFrame(columns), npartitions=2)
    return frame


def difference(before: pd.DataFrame, after: pd.DataFrame) -> str:
    """Return the first difference of two frames, or an empty text."""
    try:
        pd.testing.assert_frame_equal(after, before, check_exact=True)
    except AssertionError as error:
        return str(error)
    except NotImplementedError:  # pandas does not compare intervals of Arrow
        if not after.dtypes.equals(before.dtypes):
            return f"{after.dtypes.tolist()} for {before.dtypes.tolist()}"
    # The comparison of pandas takes NaN and missing values in lists for equal.
    for name in before:
        texts = [repr(frame[name].tolist()) for frame in (before, after)]
        if texts[0] != texts[1]:
            return f"{texts[1]} for {texts[0]}"
    return ""


def through_lake(frame: dd.DataFrame, url: str) -> str:
    """Return ``"equal"``, ``"refused: ..."`` or ``"CHANGED: ..."`` for a frame in a lake."""
    try:
        frame.to_lake(url, options=dasklake.WriteOptions(scheduler="sync"), progress=False)
    except dasklake.exceptions.SchemaError as error:
        return f"refused: {error}"
    with dask.config.set({"dataframe.convert-string": False}):
        after = dasklake.read_lake(url).compute(scheduler="sync")
    changed = difference(frame.compute(scheduler="sync"), after)
    return f"CHANGED: {changed}" if changed else "equal"


def through_parquet(frame: dd.DataFrame, folder: str) -> str:
    """Return ``"equal"``, ``"refused"`` or ``"changed: ..."`` for a frame in files of Parquet."""
    before = frame.compute(scheduler="sync")
    try:
        convert = dask.config.set({"dataframe.convert-string": False, "scheduler": "sync"})
        with convert, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame.to_parquet(folder)
            after = dd.read_parquet(folder).compute()
    except Exception:  # noqa: BLE001 # any class: of Arrow, pandas or Dask
        return "refused"
    if not difference(before, after):
        return "equal"
    name = before.columns[0]
    dtypes = before[name].dtype, after[name].dtype
    return f"becomes `{dtypes[1]!s}`" if dtypes[0] != dtypes[1] else "values change"
