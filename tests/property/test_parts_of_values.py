"""Test parts of values against NumPy, for random shapes, specs and indices."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import dasklake
from dasklake import Schema, Tensor, TensorSpec
from dasklake._read.axis_index import AxisIndex, as_slices, selected_ranges
from dasklake._storage.store import ObjectStore
from tests.support.samples import Writing, same

lengths = st.integers(0, 7)
shapes = st.lists(lengths, min_size=0, max_size=4).map(tuple)


def indices(shape: tuple[int, ...]) -> Any:
    """Return a strategy of basic indices that fit a shape."""
    return arrays.basic_indices(shape, allow_newaxis=False).map(
        lambda index: index if isinstance(index, tuple) else (index,)
    )


@given(st.data(), shapes, st.sampled_from([1, 2, 8]), st.sampled_from([1, 7, 40_000]))
def test_ranges_hold_the_selected_elements(
    data: st.DataObject, shape: tuple[int, ...], width: int, stretch: int
) -> None:
    """The bytes of every selected element are fetched, and no larger gap than a page."""
    # A long last axis separates the elements by more than a page.
    shape = (*shape, stretch) if len(shape) < 4 else shape
    index = data.draw(indices(shape))
    offsets = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape) * width
    positions = AxisIndex.parse(index).resolve(shape, "x")
    chosen = np.unique(offsets[index])
    assert np.array_equal(np.unique(offsets[as_slices(positions)]), chosen)
    ranges = selected_ranges(positions, shape, width)
    begins, ends = (
        (np.array(part, np.int64) for part in zip(*ranges, strict=True))
        if ranges
        else (
            np.zeros(0, np.int64),
            np.zeros(0, np.int64),
        )
    )
    assert (begins[1:] > ends[:-1]).all()
    inside = np.searchsorted(begins, chosen, side="right") - 1
    assert (inside >= 0).all()
    assert (chosen + width <= ends[inside]).all()
    if chosen.size:
        # Each range begins and ends with a selected element, and has no larger gap.
        assert np.isin(begins, chosen).all()
        assert np.isin(ends - width, chosen).all()
        steps = np.diff(chosen)[np.diff(inside) == 0]
        assert (steps <= 16 * 2**10 + width).all()


SPECS: dict[str, TensorSpec] = {
    "fixed": TensorSpec(dtype="int16", shape=(5, 3, 4)),
    "complex": TensorSpec(dtype="complex64", shape=(3, 2)),
    "times": TensorSpec(dtype="datetime64[s]", shape=(4,)),
    "bools": TensorSpec(dtype="bool", shape=(2, 9)),
    "scalar": TensorSpec(dtype="float32", shape=()),
    "ragged": TensorSpec(dtype="float64", shape=(None, None, 2)),
    "any": TensorSpec(dtype="uint8"),
    "packed": TensorSpec(dtype="uint8", shape=(None, None), compression="zstd"),
    "masks": TensorSpec("binary_mask"),
    "plain masks": TensorSpec("binary_mask", compression="none"),
    "run lengths": TensorSpec("binary_mask", compression="rle"),
    "picture": TensorSpec("image", compression="png"),
}
SHAPES: dict[str, list[tuple[int, ...]]] = {
    "ragged": [(3, 4, 2), (0, 5, 2), (6, 1, 2)],
    "any": [(3,), (2, 5, 1), ()],
    "packed": [(7, 3), (1, 1), (0, 2)],
    "masks": [(4, 5, 3), (6, 7, 0), (2, 3, 1)],
    "plain masks": [(4, 5, 3), (6, 7, 0), (2, 3, 1)],
    "run lengths": [(4, 5, 3), (6, 7, 0), (2, 3, 1)],
    "picture": [(4, 5, 3), (6, 7, 1), (2, 3, 3)],
}


@functools.cache
def _values(name: str) -> list[Any]:
    spec, random = SPECS[name], np.random.default_rng(7)
    values: list[Any] = []
    for shape in SHAPES.get(name, [spec.shape] * 3):
        numbers = random.integers(0, 2 if "mask" in name or name == "run lengths" else 200, shape)
        values.append(np.asarray(numbers).astype("i8").astype(spec.numpy_dtype))
    return [*values, None, *values[::-1]]


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """Write a lake of two chunks."""
    rows = range(len(_values("fixed")))
    samples = [{name: _values(name)[row] for name in SPECS} for row in rows]
    store = ObjectStore("memory://parts-of-values")
    Writing(store, Schema(SPECS), 1).commit(0, [samples[:2], samples[2:]])
    lake = dasklake.open(store.url)
    return {name: lake[name] for name in SPECS}


@given(st.data(), st.sampled_from(sorted(SPECS)))
def test_a_part_of_a_sample_is_that_of_numpy(
    tensors: dict[str, Tensor], data: st.DataObject, name: str
) -> None:
    """``tensor[i, index]`` is ``value[index]``, of the same dtype, and can be changed."""
    values = _values(name)
    row = data.draw(st.integers(-len(values), len(values) - 1))
    if values[row] is None:
        assert tensors[name][row, ...] is None
        return
    index = data.draw(indices(values[row].shape))
    part, expected = tensors[name][row, *index], values[row][index]
    assert same(part, expected)
    assert np.asarray(part).dtype == SPECS[name].numpy_dtype
    assert isinstance(part, np.ndarray) or not np.ndim(expected)
    if isinstance(part, np.ndarray):
        part[...] = 1
        assert same(tensors[name][row], values[row])


@given(st.data(), st.sampled_from(["fixed", "complex", "times", "bools", "scalar"]))
def test_parts_of_several_samples_are_stacked(
    tensors: dict[str, Tensor], data: st.DataObject, name: str
) -> None:
    """``tensor[rows, index]`` is one array if no value is missing."""
    values = _values(name)
    rows = data.draw(
        st.one_of(
            st.slices(len(values)),
            st.lists(st.integers(-len(values), len(values) - 1), max_size=5),
        )
    )
    chosen = values[rows] if isinstance(rows, slice) else [values[row] for row in rows]
    index = data.draw(indices(SPECS[name].shape))
    parts = tensors[name][rows, *index]
    if any(value is None for value in chosen):
        assert all(
            same(part, None if value is None else value[index])
            for part, value in zip(parts, chosen, strict=True)
        )
        return
    stacked = np.array(chosen, SPECS[name].numpy_dtype).reshape(-1, *SPECS[name].shape)
    assert isinstance(parts, np.ndarray)
    assert same(parts, stacked[:, *index])
    assert parts.dtype == stacked.dtype
