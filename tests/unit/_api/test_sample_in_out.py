"""Test the arguments of a function of a pipeline."""

from __future__ import annotations

import numpy as np
import pytest

from dasklake._api.sample_in_out import SampleIn, SampleOut
from dasklake.exceptions import SampleError


class TestSampleOut:
    """Output samples of a function."""

    def test_tensor_by_tensor(self) -> None:
        """Values are added to tensors by attribute, by name and in groups."""
        out = SampleOut()
        out.x.append(1)
        out["x"].append(2)
        out["a/b"].extend([3, 4])
        out.a.c.append(None)
        out["a"]["c"].append(5)
        assert out.tensors == ["x", "a/b", "a/c"]
        assert out.samples() == [
            {"x": 1, "a/b": 3, "a/c": None},
            {"x": 2, "a/b": 4, "a/c": 5},
        ]

    def test_sample_by_sample(self) -> None:
        """Whole samples are added one by one or column by column."""
        out = SampleOut()
        assert out.samples() == []
        out.append({"x": 1, "y": 2})
        out.extend({"x": [3, 5], "y": [4, 6]})
        assert [list(sample.values()) for sample in out.samples()] == [[1, 2], [3, 4], [5, 6]]

    def test_lengths_differ(self) -> None:
        """Tensors with different numbers of values are an error, so that samples stay aligned."""
        out = SampleOut()
        out.x.extend([1, 2])
        out.y.append(1)
        with pytest.raises(SampleError, match="'x': 2, 'y': 1"):
            out.samples()
        with pytest.raises(SampleError, match="same number of values"):
            SampleOut().extend({"x": [1], "y": []})

    def test_other_tensors(self) -> None:
        """A sample with other tensors than the one before is an error without append_empty."""
        out = SampleOut()
        out.append({"x": 1})
        with pytest.raises(SampleError, match="append_empty"):
            out.append({"y": 2})
        out.append({"y": 2}, append_empty=True)
        assert out.samples() == [{"x": 1, "y": None}, {"x": None, "y": 2}]

    def test_no_mapping(self) -> None:
        """A sample that is not a mapping is an error."""
        with pytest.raises(SampleError, match="got int"):
            SampleOut().append(3)  # type: ignore[arg-type] # the mistake that is tested

    def test_private_names(self) -> None:
        """Special attributes do not create tensors."""
        out = SampleOut()
        with pytest.raises(AttributeError):
            _ = out._ipython_display_
        with pytest.raises(AttributeError):
            _ = out.x._repr_html_
        assert out.tensors == []


class TestSampleIn:
    """Input samples of a function."""

    def test_values(self) -> None:
        """Values are accessible by name, and as attributes with ``numpy()``, also in groups."""
        sample = SampleIn({"x": [1, 2], "a/b": 3})
        assert sample["x"] == [1, 2]
        np.testing.assert_array_equal(sample.x.numpy(), np.array([1, 2]))
        assert sample.a.b.numpy() == 3
        with pytest.raises(AttributeError, match="has no tensor 'z'"):
            sample.z  # noqa: B018 # the lookup is tested

    def test_hands_on(self) -> None:
        """A value that is passed on as an attribute is unwrapped."""
        out = SampleOut()
        out.append({"y": SampleIn({"x": "text"}).x})
        out.y.append(SampleIn({"x": None}).x)
        assert out.samples() == [{"y": "text"}, {"y": None}]
