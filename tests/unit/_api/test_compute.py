"""Test functions that fill a lake: decoration, arguments, composition and pickling."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped] # it has no types
import pandas as pd
import pytest

import dasklake
import dasklake.exceptions
from dasklake._api.compute import ComputeFunction
from dasklake.exceptions import InvalidInputError


@dasklake.compute
def double(sample_in: int, sample_out: dasklake.SampleOut) -> None:
    """Write the double."""
    sample_out.x.append(2 * sample_in)


@dasklake.compute(name="a name of its own")
def named(sample_in: int, sample_out: dasklake.SampleOut, add: int) -> None:
    """Write a sum."""
    sample_out.x.append(sample_in + add)


@pytest.fixture
def lake(tmp_path: Path) -> dasklake.Lake:
    """Make a lake of one tensor."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("x", dtype="int64", shape=())
    return lake


def values(lake: dasklake.Lake) -> list[int]:
    """Return the values of a lake."""
    return [int(row["x"]) for row in lake]


class TestMaking:
    """Decorator and composition."""

    def test_decorated(self) -> None:
        """The function keeps its name and its docstring; called, it is a pipeline."""
        assert isinstance(double, ComputeFunction)
        assert (double.function.__name__, double.__doc__) == ("double", "Write the double.")
        assert repr(double) == "<compute double>"
        assert (double().name, named(1).name) == ("double", "a name of its own")
        with pytest.raises(InvalidInputError, match="function must be callable"):
            dasklake.compute(3)  # type: ignore[call-overload] # the mistake that is tested

    def test_composed(self) -> None:
        """Pipelines are joined; an element that is not a pipeline is an error that names its position."""
        both = dasklake.compose([double(), named(add=1)])
        assert repr(both) == "<pipeline double | a name of its own>"
        assert len(dasklake.compose([both, double()]).stages) == 3
        with pytest.raises(InvalidInputError, match="at least one"):
            dasklake.compose([])
        with pytest.raises(InvalidInputError, match="Element 1"):
            dasklake.compose([double(), named])  # type: ignore[list-item] # the mistake

    @pytest.mark.parametrize("library", [pickle, cloudpickle])
    def test_pickled_by_name(self, library: Any) -> None:
        """A function of a module is pickled by reference."""
        assert library.loads(library.dumps(double)) is double

    def test_pickled_by_value(self) -> None:
        """A function that is not in a module is pickled by value."""

        @dasklake.compute
        def inner(sample_in: int, sample_out: dasklake.SampleOut) -> None:
            sample_out.x.append(sample_in)

        copy = cloudpickle.loads(cloudpickle.dumps(inner))
        assert isinstance(copy, ComputeFunction)
        assert copy.name == "inner"
        out = dasklake.SampleOut()
        copy.function(3, out)
        assert out.samples() == [{"x": 3}]


class TestEval:
    """Samples that are written in this process."""

    @pytest.mark.parametrize(
        "data", [[1, 2, 3], (1, 2, 3), range(1, 4), pd.array([1, 2, 3]).to_numpy(int)]
    )
    def test_sequences(self, lake: dasklake.Lake, data: Any) -> None:
        """Any sequence is an input, and the lake is at the new version afterwards."""
        report = double().eval(data, lake)
        assert (report.samples, report.version) == (3, lake.version)
        assert values(lake) == [2, 4, 6]
        assert double().eval(data, lake).run != report.run
        assert values(lake) == [2, 4, 6, 2, 4, 6]

    def test_frame(self, lake: dasklake.Lake) -> None:
        """Rows of a DataFrame are dicts."""

        @dasklake.compute
        def add(sample_in: dict[str, Any], sample_out: dasklake.SampleOut) -> None:
            sample_out.append({"x": sample_in["a"] + len(sample_in["b"])})

        add().eval(pd.DataFrame({"a": [1, 2], "b": ["", "xy"]}), lake)
        assert values(lake) == [1, 4]

    @pytest.mark.parametrize("part", [slice(None), slice(1, 3), None])
    def test_lake(self, lake: dasklake.Lake, part: slice | None, tmp_path: Path) -> None:
        """Samples of another lake, and of slices of it, are inputs."""
        double().eval(range(4), lake)
        other = dasklake.empty(tmp_path / "other")
        other.create_tensor("x", dtype="int64", shape=())

        @dasklake.compute
        def copy(sample_in: Any, sample_out: dasklake.SampleOut) -> None:
            sample_out.append({"x": sample_in.x.numpy() + sample_in["x"]})

        copy().eval(lake if part is None else lake[part], other)
        assert values(other) == [0, 4, 8, 12][part or slice(None)]

    @pytest.mark.parametrize("data", [[], pd.DataFrame({"a": []}), range(0)])
    def test_empty(self, lake: dasklake.Lake, data: Any) -> None:
        """An empty input writes nothing, and is not an error."""
        version = lake.version
        report = double().eval(data, lake, run="empty")
        assert (report.samples, report.commits, report.version) == (0, 0, version)
        assert lake.refresh().version == version

    @pytest.mark.parametrize("data", [iter([1]), {1: 2}, 7])
    def test_no_sequence(self, lake: dasklake.Lake, data: Any) -> None:
        """An input that is not a sequence is an error."""
        with pytest.raises(InvalidInputError, match="must be a sequence of items"):
            double().eval(data, lake)

    def test_arguments(self, lake: dasklake.Lake) -> None:
        """Unknown arguments, and a target that is not a lake, are errors before anything is written."""
        with pytest.raises(InvalidInputError, match="no argument 'cache_size'"):
            double().eval([1], lake, cache_size=16)
        with pytest.raises(InvalidInputError, match=r"must be a dasklake\.Lake, got list"):
            double().eval([1], [])  # type: ignore[arg-type] # the mistake that is tested

    def test_stages(self, lake: dasklake.Lake) -> None:
        """Each stage may make no, one or several samples; the order is that of the input."""

        @dasklake.compute
        def repeat(sample_in: int, sample_out: dasklake.SampleOut) -> None:
            sample_out.extend({"x": [sample_in] * sample_in})

        @dasklake.compute
        def odd(sample_in: Any, sample_out: dasklake.SampleOut) -> None:
            if sample_in["x"] % 2:
                sample_out.extend({"x": [sample_in["x"], -sample_in["x"]]})

        report = dasklake.compose([repeat(), odd()]).eval([1, 2, 0, 3], lake)
        assert (report.samples, report.failures) == (8, 0)
        assert values(lake) == [1, -1, 3, -3, 3, -3, 3, -3]
        run = lake.commit.runs[report.run]
        assert (run.inputs, run.samples) == (4, 8)

    def test_failures(self, lake: dasklake.Lake, tmp_path: Path) -> None:
        """All samples of a failing item are skipped, and the item is listed once."""

        @dasklake.compute
        def three(sample_in: int, sample_out: dasklake.SampleOut) -> None:
            sample_out.extend({"x": [sample_in, "no number" if sample_in == 2 else 0]})

        with pytest.raises(dasklake.exceptions.TransformError) as caught:
            three().eval([1, 2, 3], lake)
        assert caught.value.index == 1
        lake = dasklake.empty(tmp_path / "lake", overwrite=True)
        lake.create_tensor("x", dtype="int64", shape=())
        report = three().eval([1, 2, 3], lake, ignore_errors=True)
        assert (report.samples, report.failures) == (4, 1)
        assert values(lake) == [1, 0, 3, 0]
        assert lake.failures()["index"].tolist() == [1]

    def test_failures_at_the_beginning(
        self, lake: dasklake.Lake, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The run continues if its first items all fail; one line at the end counts them."""

        @dasklake.compute
        def late(sample_in: int, sample_out: dasklake.SampleOut) -> None:
            sample_out.append({"x": sample_in if sample_in >= 150 else "no number"})

        report = late().eval(list(range(160)), lake, ignore_errors=True, checkpoint_interval=20)
        assert (report.samples, report.failures) == (10, 150)
        assert len(lake.failures()) == 150
        lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len(lines) == 1
        assert "skipped 150 failures, wrote 10 samples. lake.failures()" in lines[0]

    def test_everything_fails(self, lake: dasklake.Lake) -> None:
        """A run in which all items fail is not a success, even if errors are ignored."""
        with pytest.raises(
            dasklake.exceptions.TooManyFailuresError,
            match=r"2 of 2 samples failed, more than max_failures=1.0 allows. .*higher max_failures=",
        ):
            named("no number").eval([1, 2], lake, ignore_errors=True)

    def test_left_out(self, lake: dasklake.Lake) -> None:
        """A tensor that is omitted in an item is an error, unless skip_ok is set."""
        lake.create_tensor("y", htype="text")
        with pytest.raises(dasklake.exceptions.TransformError, match="'y'"):
            double().eval([1], lake)
        lake.reset()
        double().eval([1], lake, skip_ok=True)
        assert lake[0] == {"x": 2, "y": None}

    def test_resumed(self, lake: dasklake.Lake) -> None:
        """A named run continues after an interruption, and does nothing once it is finished."""
        seen: list[int] = []

        @dasklake.compute
        def fragile(sample_in: int, sample_out: dasklake.SampleOut, bad: int) -> None:
            seen.append(sample_in)
            sample_out.x.append(1 // (sample_in != bad) * sample_in)

        with pytest.raises(dasklake.exceptions.TransformError):
            fragile(bad=5).eval(range(8), lake, run="job", checkpoint_interval=2)
        assert len(lake) == 5
        seen.clear()
        report = fragile(bad=-1).eval(range(8), lake, run="job", checkpoint_interval=3)
        assert (report.samples, seen) == (8, [5, 6, 7])
        assert values(lake) == list(range(8))
        assert fragile(bad=-1).eval(range(8), lake, run="job").commits == 0
        with pytest.raises(dasklake.exceptions.PlanMismatchError):
            fragile(bad=-1).eval(range(9), lake, run="job")

    def test_after_it_was_emptied(self, lake: dasklake.Lake, tmp_path: Path) -> None:
        """The same script fills a lake again after it was emptied."""
        assert double().eval([1, 2], lake, run="job").run == "job"
        again = dasklake.empty(tmp_path / "lake", overwrite=True)
        again.create_tensor("x", dtype="int64", shape=())
        assert double().eval([1, 2], again, run="job").run == "job-2"
        assert double().eval([1, 2], again, run="job").commits == 0
        assert values(again) == [2, 4]

    @pytest.mark.parametrize("scheduler", ["serial", "threaded", "threads", "sync"])
    def test_schedulers(self, lake: dasklake.Lake, scheduler: str) -> None:
        """Local schedulers have the names of Dask and those of other libraries."""
        named(add=1).eval(range(20), lake, scheduler=scheduler, num_workers=2)
        assert values(lake) == list(range(1, 21))
