"""Normalization of dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dasklake import TensorSpec
from dasklake._codecs.registry import codec_for
from dasklake._schema.dtypes import normalize_dtype
from dasklake.exceptions import SampleError, SchemaError


@pytest.mark.parametrize("dtype", [np.longdouble, np.clongdouble, "Sparse[int]"], ids=str)
def test_unsupported_dtypes_are_refused(dtype: Any) -> None:
    """A dtype that chunks cannot store is refused when a spec is created."""
    if np.dtype(np.longdouble).itemsize == 8 and dtype != "Sparse[int]":
        pytest.skip("longdouble is float64 here")
    with pytest.raises(SchemaError, match=r"float64|plain"):
        normalize_dtype(dtype)


@pytest.mark.parametrize("dtype", [pa.date32(), pa.date64()], ids=str)
def test_a_declared_date_stays_a_date(dtype: pa.DataType) -> None:
    """A date of Arrow is no time in milliseconds: a time of the day is refused, not stored."""
    spec = TensorSpec(dtype=dtype, shape=())
    assert spec.arrow_type == dtype
    assert codec_for(spec).encode(pd.Timestamp("2024-01-01")) is not None
    with pytest.raises(SampleError, match=r"valid date(32|64).*13:05"):
        codec_for(spec).encode(pd.Timestamp("2024-01-01 13:05"))


def test_only_dtypes_outside_numpy_have_an_arrow_type() -> None:
    """Only a dtype that numpy lacks has an Arrow type."""
    assert normalize_dtype("f4") == ("float32", None)
    assert normalize_dtype(None) == (None, None)
    assert normalize_dtype("Int64")[1] is not None


def test_names_that_pandas_cannot_parse_are_refused_with_a_type_that_works() -> None:
    """The error proposes the Arrow type itself, which is valid."""
    name = "decimal128(10, 2)[pyarrow]"
    with pytest.raises(SchemaError, match=r"pyarrow.decimal128\(10, 2\)"):
        normalize_dtype(name)
    assert normalize_dtype(pa.decimal128(10, 2))[0] == "decimal128(10, 2)[pyarrow]"
