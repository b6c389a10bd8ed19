"""Run the suite of pandas for extension arrays against columns of tensors.

The suite compares values in its assertions, which is not possible with arrays. So all of it runs with JSON
strings, and a part also with arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pandas.conftest
import pytest
from pandas.tests.extension import base
from pandas.tests.extension import conftest as fixtures

import dasklake

#: Whether pandas is of a release since 3.0.
YOUNG = int(pd.__version__.split(".")[0]) >= 3

JSON = dasklake.TensorDtype("json")
MATRIX = dasklake.TensorDtype(dasklake.TensorSpec(dtype="float32", shape=(None, None)))

#: Fixtures of pandas that the suite uses, in one of two modules, depending on the release.
_FIXTURES = (
    *("all_data", "data_for_twos", "data_repeated", "na_cmp", "na_value", "box_in_series"),
    *("groupby_apply_op", "as_frame", "as_series", "use_numpy", "fillna_method", "as_array"),
    *("invalid_scalar", "all_reductions", "all_numeric_reductions", "all_boolean_reductions"),
    *("all_numeric_accumulations", "all_arithmetic_operators", "comparison_op"),
    *("nullable_string_dtype", "using_infer_string", "using_nan_is_na", "sort_by_key"),
    *("dropna", "engine", "mpl_cleanup", "plot_data", "index_or_series_or_array"),
)


def _fixtures(*modules: ModuleType) -> dict[str, Any]:
    return {n: getattr(module, n) for module in modules for n in _FIXTURES if hasattr(module, n)}


globals().update(_fixtures(pandas.conftest, fixtures))

_EQUALITY = "arrays are not equal element by element, so columns of tensors refuse =="
_ORDER = "arrays have no order, so columns of tensors refuse to be sorted"
_IMMUTABLE = "stored values are immutable: a changed column is a new one, as for ArrowDtype"
_TEXT = "text is that of JSON, with quotes"
_FORMAT = "the reverse operand is a string of Python, whose % formats any object"
_OBJECTS = "results of map() are not encoded again, because that may lose precision"
_ADD = "the other operand holds strings, which older releases add to decoded strings"
_DTYPE = "the suite of older releases leaves out the dtype, which values do not determine"
_ARRAYS = "pandas takes an array for a list of values, and the suite compares values with =="
_DECODED = "decoded values belong to the caller, who may change them"

#: Tests, or single cases, that do not hold, each with its reason. It is an error if one does hold.
EXEMPT = {
    **dict.fromkeys(
        (
            *("test_compare_scalar[eq]", "test_compare_scalar[ne]", "test_compare_array"),
            *("test_setitem_mask_boolean_array_with_na", "test_setitem_2d_values"),
            "test_contains",
        ),
        _EQUALITY,
    ),
    **dict.fromkeys(
        (
            *("test_argsort", "test_argsort_missing_array", "test_argsort_missing"),
            *("test_nargsort", "test_sort_values", "test_sort_values_missing"),
            *("test_sort_values_frame", "test_sort_inplace", "test_sort_inplace_descending"),
            *("test_sort_inplace_na_position", "test_groupby_extension_agg"),
            *("test_groupby_extension_transform", "test_groupby_extension_apply"),
            *("test_value_counts[data_missing-False]", "test_value_counts_with_normalize"),
        ),
        _ORDER,
    ),
    **dict.fromkeys(("test_setitem_preserves_views", "test_view", "test_transpose"), _IMMUTABLE),
    "test_astype_string": _TEXT,
    "test_arith_series_with_scalar[__rmod__]": _FORMAT,
    "test_arith_frame_with_scalar[__rmod__]": _FORMAT,
    "test_readonly_propagates_to_numpy_array_method": _DECODED,
}

if YOUNG:
    EXEMPT |= dict.fromkeys(
        [f"test_compare_scalar[{n}]" for n in ("lt", "le", "gt", "ge")], _EQUALITY
    )
    EXEMPT |= {"test_combine_le": _EQUALITY, "test_map": _OBJECTS, "test_astype_str": _TEXT}
else:
    EXEMPT |= dict.fromkeys(
        [f"test_arith_series_with_array[__{n}__]" for n in ("add", "radd")], _ADD
    )
    EXEMPT |= {"test_combine_add": _DTYPE}


#: The same for columns of arrays.
ARRAYS = dict.fromkeys(
    (
        *("test_copy", "test_view", "test_tolist", "test_get", "test_take_sequence", "test_take"),
        *("test_item", "test_ravel", "test_transpose", "test_array_interface"),
        *("test_series_constructor_scalar_with_index", "test_is_immutable"),
        *("test_fillna_no_op_returns_copy", "test_fillna_series", "test_fillna_frame"),
    ),
    _ARRAYS,
)
if YOUNG:
    ARRAYS |= dict.fromkeys(
        (
            *("test_merge_on_extension_array", "test_merge_on_extension_array_duplicates"),
            *("test_fillna_readonly", "test_array_item", "test_array_item_with_index"),
        ),
        _ARRAYS,
    )


def _exempt(request: pytest.FixtureRequest, reasons: Mapping[str, str]) -> None:
    """Mark a test that does not hold as one that must fail."""
    reason = reasons.get(request.node.name) or reasons.get(request.node.originalname)
    if reason is not None:
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))


def _column(values: list[Any]) -> Any:
    return pd.array(values, dtype=JSON)


@pytest.fixture
def dtype() -> Any:
    """Return the dtype."""
    return JSON


@pytest.fixture
def data() -> Any:
    """Return different values; the suite expects their number, which releases differ in."""
    return _column([f"text {i}" for i in range(10 if YOUNG else 100)])


@pytest.fixture
def data_missing() -> Any:
    """Return a missing value and another."""
    return _column([None, "b"])


@pytest.fixture
def data_for_sorting() -> Any:
    """Return three different values."""
    return _column(["b", "c", "a"])


@pytest.fixture
def data_missing_for_sorting() -> Any:
    """Return two values, and a missing one between them."""
    return _column(["b", None, "a"])


@pytest.fixture
def data_for_grouping() -> Any:
    """Return values that are repeated, some of them missing."""
    return _column(["b", "b", None, None, "a", "a", "b", "c"])


# Older releases match with an empty text, which pytest discourages.
@pytest.mark.filterwarnings("ignore:matching against an empty string")
class TestDocuments(base.ExtensionTests):  # type: ignore[misc] # pandas has no types
    @pytest.fixture(autouse=True)
    def _exempt(self, request: pytest.FixtureRequest) -> None:
        _exempt(request, EXEMPT)


@pytest.mark.filterwarnings("ignore:matching against an empty string")
class TestMatrices(
    base.BaseConstructorsTests,  # type: ignore[misc] # as above
    base.BaseDtypeTests,  # type: ignore[misc] # as above
    base.BaseGetitemTests,  # type: ignore[misc] # as above
    base.BaseInterfaceTests,  # type: ignore[misc] # as above
    base.BaseMissingTests,  # type: ignore[misc] # as above
    base.BasePrintingTests,  # type: ignore[misc] # as above
    base.BaseReshapingTests,  # type: ignore[misc] # as above
):
    @pytest.fixture(autouse=True)
    def _exempt(self, request: pytest.FixtureRequest) -> None:
        _exempt(request, ARRAYS | EXEMPT)

    @pytest.fixture
    def dtype(self) -> Any:
        """Return the dtype."""
        return MATRIX

    @pytest.fixture
    def data(self) -> Any:
        """Return matrices of different shapes."""
        count = 10 if YOUNG else 100
        return pd.array([np.full((1 + i % 3, 2), i, "f4") for i in range(count)], dtype=MATRIX)

    @pytest.fixture
    def data_missing(self) -> Any:
        """Return a missing value and another."""
        return pd.array([None, np.ones((2, 2), "f4")], dtype=MATRIX)
