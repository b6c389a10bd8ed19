"""Normalization of dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dasklake._schema.dtypes import normalize_dtype
from dasklake.exceptions import SchemaError


@pytest.mark.parametrize("dtype", [np.longdouble, np.clongdouble, "Sparse[int]"], ids=str)
def test_unsupported_dtypes_are_refused(dtype: Any) -> None:
    """A dtype that chunks cannot store is refused when a spec is created."""
    if np.dtype(np.longdouble).itemsize == 8 and dtype != "Sparse[int]":
        pytest.skip("longdouble is float64 here")
    with pytest.raises(SchemaError, match=r"float64|plain"):
        normalize_dtype(dtype)


def test_only_dtypes_outside_numpy_have_an_arrow_type() -> None:
    """Only a dtype that numpy lacks has an Arrow type."""
    assert normalize_dtype("f4") == ("float32", None)
    assert normalize_dtype(None) == (None, None)
    assert normalize_dtype("Int64")[1] is not None
