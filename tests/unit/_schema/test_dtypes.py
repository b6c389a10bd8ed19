"""Dtypes by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dasklake._schema.dtypes import normalize_dtype
from dasklake.exceptions import SchemaError


@pytest.mark.parametrize("dtype", [np.longdouble, np.clongdouble, "Sparse[int]"], ids=str)
def test_what_arrow_cannot_hold_is_refused(dtype: Any) -> None:
    """A dtype that chunks have no place for is refused when it is named, not when it is written."""
    if np.dtype(np.longdouble).itemsize == 8 and dtype != "Sparse[int]":
        pytest.skip("longdouble is float64 here")
    with pytest.raises(SchemaError, match=r"float64|plain"):
        normalize_dtype(dtype)


def test_what_numpy_knows_has_no_arrow_type() -> None:
    """Only a dtype that numpy lacks has an Arrow type beside its name."""
    assert normalize_dtype("f4") == ("float32", None)
    assert normalize_dtype(None) == (None, None)
    assert normalize_dtype("Int64")[1] is not None
