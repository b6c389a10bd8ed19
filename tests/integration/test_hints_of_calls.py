"""Follow the proposals of errors about calls: frames, schemas, runs, and methods of lakes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import dasklake
from dasklake import Schema, TensorSpec
from tests.support.hints import follows, refused

SYNC = dasklake.WriteOptions(scheduler="sync")
X = {"x": "int64"}


@pytest.fixture(autouse=True)
def one_process() -> Iterator[None]:
    """Compute in this process, and keep columns of objects."""
    with dask.config.set({"scheduler": "sync", "dataframe.convert-string": False}):
        yield


@pytest.fixture
def url() -> str:
    """Return the URL of a new lake."""
    return f"memory://{uuid4().hex}"


def bag(*values: int, partitions: int = 1) -> Any:
    """Return a bag of samples."""
    return db.from_sequence([{"x": value} for value in values], npartitions=partitions)


def frame(**columns: Any) -> Any:
    """Return a frame of one partition."""
    return dd.from_pandas(pd.DataFrame(columns), npartitions=1)


def fail_at(sample: dict[str, Any], wrong: int | None = None) -> dict[str, Any]:
    """Return a sample, or fail at one of them."""
    if sample["x"] == wrong:
        raise RuntimeError("wrong")
    return sample


write = partial(dasklake.to_lake, progress=False)


def interrupted(url: str, run: str | None = None) -> str:
    """Write a run that ends after its first sample; return the message."""
    return refused(
        write, bag(1, 2, 3, partitions=3), url, schema=X, run=run, transform=fail_at,
        transform_kwargs={"wrong": 2}, checkpoint_every=1,
    )  # fmt: skip


def resumed(url: str, run: str | None = None, **options: Any) -> Any:
    """Continue the run of :func:`interrupted`."""
    return write(
        bag(1, 2, 3, partitions=3), url, schema=X, run=run, transform=fail_at,
        transform_kwargs={"wrong": options.pop("wrong", None)}, mode="resume", **options,
    )  # fmt: skip


@follows(
    "Wrap the data with dask.bag.from_sequence(), dask.dataframe.from_pandas() or dask.array.from_array().",
)
def test_data_is_wrapped(url: str) -> None:
    """Lists, frames and arrays are written after the call that the error names."""
    refused(write, [{"x": 1}], url, schema=X)
    write(db.from_sequence([{"x": 1}]), url, schema=X)
    write(dd.from_pandas(pd.DataFrame({"x": [1]}), npartitions=1), url, mode="append")
    write({"x": da.from_array(np.array([1]))}, url, mode="append")
    assert len(dasklake.open(url)) == 3


@follows("Call compute_chunk_sizes() on both.")
def test_chunk_sizes_are_computed(url: str) -> None:
    """Arrays of unknown length are aligned after their sizes are computed."""
    x, y = (da.arange(6, chunks=n) for n in (3, 2))
    x, y = x[x >= 0], y[y >= 0]
    refused(write, {"x": x, "y": y}, url)
    write({"x": x.compute_chunk_sizes(), "y": y.compute_chunk_sizes()}, url)
    assert len(dasklake.open(url)) == 6


@follows(
    "Join them, such as with frame.columns = ['/'.join(map(str, name)) for name in frame.columns]."
)
def test_levels_of_columns_are_joined(url: str) -> None:
    """Joined names are tensors."""
    levels = pd.DataFrame({("a", "b"): [1], ("a", "c"): [2]})
    f = dd.from_pandas(levels, npartitions=1)
    refused(write, f, url)
    f.columns = ["/".join(map(str, name)) for name in f.columns]
    write(f, url)
    assert list(dasklake.open(url).schema) == ["a/b", "a/c"]


@follows(
    "Use frame.columns = [str(name) for name in frame.columns].",
    "Remove it with frame.rename_axis(columns=None).",
    "Use frame.rename_axis(index=",
)
def test_names_of_frames_are_made_valid(url: str) -> None:
    """Names of columns, of their axis and of the index are changed as the errors say."""
    f = dd.from_pandas(pd.DataFrame({1: [1]}), npartitions=1)
    refused(write, f, url)
    f.columns = [str(name) for name in f.columns]
    write(f, url)
    f = dd.from_pandas(pd.DataFrame({"1": [1]}).rename_axis(columns="c"), npartitions=1)
    refused(write, f, url, mode="append")
    f = f.rename_axis(columns=None)
    write(f, url, mode="append")
    f = dd.from_pandas(pd.DataFrame({"1": [1]}).rename_axis(index=5), npartitions=1)
    assert "frame.rename_axis(index='5')" in refused(write, f, url, mode="append")
    write(f.rename_axis(index="5"), url, mode="overwrite")
    assert "5" in dasklake.open(url).schema


@follows(
    " To drop it, write frame.reset_index(drop=True).",
    "Set the index with frame.set_index(...), or add a column ",
)
def test_an_index_is_dropped_set_or_added(url: str) -> None:
    """An index that the schema lacks is dropped, kept, or set as the errors say."""
    f = frame(x=[1], k=[7]).set_index("k")
    message = refused(write, f, url, schema=X)
    write(f.reset_index(drop=True), url, schema=X)
    code = message.partition("To keep it, add 'k': ")[2].partition(" to the schema")[0]
    spec = eval(code, {"dasklake": dasklake})  # noqa: S307 # the proposal
    other = f"{url}-kept"
    write(f, other, schema={"x": "int64", "k": spec})
    plain = frame(x=[1], k=[8])
    refused(write, frame(x=[1]), other, mode="append")
    write(plain.set_index("k"), other, mode="append")
    write(plain, other, mode="append")
    assert list(dasklake.open(other)["k"]) == [7, 8, 8]


@follows(
    "add tensors to the schema (lake.create_tensor(...) if the lake exists), or fill missing columns with None."
)
def test_columns_become_tensors(url: str) -> None:
    """A column is dropped or gets a tensor; a missing column is filled."""
    write(frame(x=[1]), url)
    refused(write, frame(x=[1], y=[2.5]), url, mode="append")
    write(frame(x=[1], y=[2.5])[["x"]], url, mode="append")
    dasklake.open(url).create_tensor("y", dtype="float64", shape=())
    write(frame(x=[1], y=[2.5]), url, mode="append")
    refused(write, frame(y=[2.5]), url, mode="append")
    write(frame(y=[2.5]).assign(x=None), url, mode="append", schema=dasklake.open(url).schema)
    assert len(dasklake.open(url)) == 4


@follows(
    "its categories are not known; column.cat.as_known() computes them",
    "Drop the order with column.cat.as_unordered(), or declare the tensor with class_names in this order and ordered=True.",
)
def test_categories_are_known_and_ordered(url: str) -> None:
    """Categories are computed, and their order is dropped or declared."""
    f = frame(x=["b", "a"]).astype("category")
    unknown = f.assign(x=f.x.cat.as_unknown())
    refused(write, unknown, url)
    write(unknown.assign(x=unknown.x.cat.as_known()), url)
    ordered = frame(x=pd.Categorical(["a"], ["b", "a"], ordered=True))
    refused(write, ordered, url, mode="append")
    write(ordered.assign(x=ordered.x.cat.as_unordered()), url, mode="append")
    spec = TensorSpec("class_label", shape=(), class_names=["b", "a"], ordered=True)
    write(ordered, f"{url}-ordered", schema={"x": spec})


@follows("Pass meta=... to the operation that made it, or drop it with reset_index(drop=True).")
def test_metadata_name_the_index(url: str) -> None:
    """An index that the metadata do not show is declared, or dropped."""
    named = partial(pd.DataFrame.set_index, keys="k", drop=False)
    f = frame(x=[1], k=["a"])
    meta = pd.DataFrame({"x": [1], "k": ["a"]}).iloc[:0]
    refused(write, f.map_partitions(named, meta=meta), url, schema={"x": "int64", "k": "text"})
    right = f.map_partitions(
        lambda part: named(part).rename_axis("key"),
        meta=meta.set_index("k").rename_axis("key").assign(k=""),
    )
    write(right.reset_index(drop=True), url, schema={"x": "int64", "k": "text"}, mode="overwrite")


@follows(
    "Give a schema: that of the lake that the samples were read from, schema=lake.schema, that of some samples, "
    "schema=dasklake.Schema.infer(samples), or one such as schema={'image': "
    "dasklake.TensorSpec('image', compression='jpeg'), 'label': "
    "dasklake.TensorSpec('class_label', class_names=[...])}."
)
def test_a_bag_gets_a_schema(url: str) -> None:
    """The schema of a lake or of samples is enough, and the example fits pictures with labels."""
    write(bag(1), url, schema=X)
    lake = dasklake.open(url)
    samples = lake.to_dask_bag().map(dict)
    message = refused(write, samples, f"{url}-copy")
    write(samples, f"{url}-copy", schema=lake.schema)
    write(samples, f"{url}-inferred", schema=dasklake.Schema.infer(samples.take(1)))
    code = message.rpartition("such as schema=")[2].rstrip(".").replace("[...]", "['cat']")
    schema = eval(code, {"dasklake": dasklake})  # noqa: S307 # the proposal
    pictures = db.from_sequence([{"image": np.zeros((2, 2, 3), "uint8"), "label": [0]}])
    write(pictures, f"{url}-pictures", schema=schema)


@follows("Give some of its samples, such as bag.take(100).", "Use series.rename('x').")
def test_samples_are_taken_and_a_series_is_named(url: str) -> None:
    """Some samples of a bag have a schema, and a Series gets the name of its tensor."""
    samples = bag(1, 2)
    refused(Schema.infer, samples)
    with pytest.warns(UserWarning, match="Insufficient"):
        assert list(Schema.infer(samples.take(100))) == ["x"]
    series = dd.from_pandas(pd.Series([1.5]), npartitions=1)
    refused(write, series, url)
    write(series.rename("x"), url)
    assert list(dasklake.open(url).schema) == ["x"]


@follows("The lake has no tensors yet. Add some with lake.create_tensor(...).")
def test_an_empty_lake_gets_tensors(url: str) -> None:
    """A write to a lake without tensors works after one is created."""
    lake = dasklake.empty(url)
    refused(lake.write, bag(1))
    lake.create_tensor("x", dtype="int64", shape=())
    assert lake.write(bag(1), progress=False).samples == 1


@follows(
    "Use options=dasklake.WriteOptions(...).",
    "Use links=dasklake.LinkPolicy(...).",
    "Use LinkPolicy(",
)
def test_options_are_made_by_their_classes(url: str) -> None:
    """The values and classes that errors name are valid."""
    refused(write, bag(1), url, schema=X, options={"retries": 1})
    write(bag(1), url, schema=X, options=dasklake.WriteOptions())
    refused(write, bag(1), url, schema=X, links=5, mode="append")
    write(bag(1), url, schema=X, links=dasklake.LinkPolicy(), mode="append")
    refused(dasklake.WriteOptions, retries=-1)
    dasklake.WriteOptions(retries=3)
    for name in ("retries", "per_host"):
        message = refused(dasklake.LinkPolicy, **{name: -1})
        eval(message.partition("Use ")[2].rstrip("."), vars(dasklake))  # noqa: S307 # the proposal


@follows(
    "Give the type itself, such as pyarrow.decimal128(10, 2) or pyarrow.list_(pyarrow.string())."
)
def test_arrow_types_are_given_as_types() -> None:
    """Types whose names cannot be parsed are dtypes themselves."""
    refused(TensorSpec, dtype="decimal128(10, 2)[pyarrow]")
    TensorSpec(dtype=pa.decimal128(10, 2))
    TensorSpec(dtype=pa.list_(pa.string()))


@follows(
    "Use dasklake.TensorSpec('class_label', shape=(), class_names=[...]).",
    "ordered=True needs all class_names, in their order. Give class_names.",
    " must be strings. Convert them with str().",
    " must be valid text. Decode them with errors='replace'.",
    "discover=True needs htype ",
    "An index must have one value per sample. Use shape=(), or no index.",
    "Use Schema(...).",
    " needs a dtype, such as TensorSpec(dtype='float32').",
)
def test_specs_are_corrected() -> None:
    """A spec is valid after the correction that its error names."""
    refused(Schema, {"x": pd.CategoricalDtype()})
    TensorSpec("class_label", shape=(), class_names=["a"])
    refused(TensorSpec, "class_label", shape=(), ordered=True)
    TensorSpec("class_label", shape=(), ordered=True, class_names=["a"])
    refused(TensorSpec, "class_label", class_names=[1])
    TensorSpec("class_label", class_names=[str(1)])
    refused(TensorSpec, "class_label", class_names=["\ud800"])
    TensorSpec("class_label", class_names=[b"\xff".decode(errors="replace")])
    refused(TensorSpec, "class_label", discover=True, compression="lz4")
    TensorSpec("class_label", discover=True)
    TensorSpec("class_label", compression="lz4", class_names=["a"])
    refused(TensorSpec, dtype="int64", shape=(2,), index=True)
    TensorSpec(dtype="int64", shape=(), index=True)
    TensorSpec(dtype="int64", shape=(2,))
    refused(Schema(X).differences, X)
    assert Schema(X).differences(Schema(X)) == []
    refused(TensorSpec, "generic")
    TensorSpec(dtype="float32")


@follows("give None, or declare it with optional=True")
def test_a_missing_tensor_is_optional(url: str) -> None:
    """A sample without a tensor is written with None, or if the tensor is optional."""
    schema: dict[str, Any] = {"x": "int64", "y": "int64"}
    refused(write, bag(1), url, schema=schema)
    write(bag(1).map(lambda sample: sample | {"y": None}), url, schema=schema)
    spec = TensorSpec(dtype="int64", shape=(), optional=True)
    write(bag(1), url, schema={"x": "int64", "y": spec}, mode="overwrite")


@follows("Use mode='append', 'overwrite' or 'resume', or another URL.")
@pytest.mark.parametrize("mode", ["append", "overwrite", "resume"])
def test_an_existing_lake_is_written_in_another_mode(url: str, mode: Any) -> None:
    """Each mode that the error names works, and so does another URL."""
    write(bag(1), url, schema=X, run="a")
    refused(write, bag(1), url, schema=X)
    write(bag(1), url, schema=X, mode=mode)
    write(bag(1), f"{url}-other", schema=X)


@follows(
    "Run again with mode='resume', run=",
    "To skip the samples that cause errors, use on_error='skip'.",
    "Continue it with mode='resume', run=",
    "; or delete its leftovers with dasklake.open(url).reset() and start over with mode='overwrite'.",
)
@pytest.mark.parametrize("way", ["fix", "skip", "over"])
def test_an_interrupted_run_is_continued_or_replaced(url: str, way: str) -> None:
    """The run continues after a fix or with skipped samples; or it is reset and overwritten."""
    interrupted(url, "a")
    refused(write, bag(1), url, schema=X)
    if way == "fix":
        assert resumed(url, "a").samples == 3
    elif way == "skip":
        report = resumed(url, "a", wrong=2, on_error="skip", max_failures=None)
        assert (report.samples, report.failures) == (2, 1)
    else:
        dasklake.open(url).reset()
        assert write(bag(1), url, schema=X, mode="overwrite").samples == 1


@follows(
    "Fix the cause and call again. If you give run=, give another name, or mode='resume' if schema and input are the same."
)
def test_a_run_without_samples_is_called_again(url: str) -> None:
    """The same call works, also with another name or as a resume."""

    def first(wrong: int | None, **options: Any) -> Any:
        return write(
            bag(1), url, schema=X, transform=fail_at, transform_kwargs={"wrong": wrong}, **options
        )

    refused(first, 1)
    refused(first, 1, run="a")
    assert first(None, run="a", mode="resume").samples == 1
    refused(first, 1, run="b", mode="append")
    assert first(None, run="c", mode="append").samples == 1


@follows(
    " samples failed, more than max_failures=",
    " allows. Fix the input or the function, or pass a higher max_failures=; None means no limit.",
)
@pytest.mark.parametrize("most", [1, None])
def test_more_failures_are_allowed(url: str, most: int | None) -> None:
    """A higher limit, or none, ends the run."""

    def attempt(most: int | None, **options: Any) -> Any:
        return write(
            bag(1, 2, 3, partitions=3), url, schema=X, transform=fail_at, on_error="skip",
            transform_kwargs={"wrong": 2}, max_failures=most, checkpoint_every=1, **options,
        )  # fmt: skip

    refused(attempt, 0)
    assert attempt(most, mode="resume").failures == 1


@follows("Write the lake's tensors, or replace the lake with mode='overwrite'.")
def test_another_schema_replaces_the_lake(url: str) -> None:
    """The lake's schema is written, or the lake is replaced."""
    write(bag(1), url, schema=X)
    refused(write, bag(1), url, schema={"x": "float64"}, mode="append")
    write(bag(1), url, schema=X, mode="append")
    assert write(bag(1), url, schema={"x": "float64"}, mode="overwrite").samples == 1


@follows(
    "Choose one with run='...'.",
    "Continue it with mode='resume', or give the new run another name.",
    "Give the new run another name, or continue it with mode='resume'.",
)
def test_a_run_is_named(url: str) -> None:
    """With several runs, a resume names one; a new run takes another name."""
    for run in ("a", "b"):
        write(bag(1), url, schema=X, run=run, mode="append")
    refused(write, bag(1), url, schema=X, mode="resume")
    write(bag(1), url, schema=X, mode="resume", run="a")
    for lazy in (False, True):
        refused(write, bag(1), url, schema=X, mode="append", run="a", compute=not lazy)
    write(bag(1), url, schema=X, mode="append", run="c")
    write(bag(1), url, schema=X, mode="resume", run="a")
    assert len(dasklake.open(url)) == 3


@follows(
    "Give the same input, or write the new input as another run with mode='append'. ",
    "If the lake has no samples yet, mode='create' with another run= starts over.",
)
def test_another_input_is_another_run(url: str) -> None:
    """Another input is appended as another run; without samples, the lake is created again."""
    interrupted(url, "a")
    refused(write, bag(7), url, schema=X, mode="resume", run="a")
    resumed(url, "a")
    assert write(bag(7), url, schema=X, mode="append", run="b").samples == 1
    other = f"{url}-other"
    refused(
        write, bag(2), other, schema=X, run="a", transform=fail_at, transform_kwargs={"wrong": 2}
    )
    refused(write, bag(5, 6), other, schema=X, mode="resume", run="a")
    assert write(bag(5, 6), other, schema=X, run="b").samples == 2


@follows("Finish it with mode='resume', run=", ", or close it with reset(); then try again.")
@pytest.mark.parametrize("finish", [True, False])
def test_the_schema_changes_after_the_run(url: str, finish: bool) -> None:  # noqa: FBT001 # a parameter
    """A tensor is created after the run has ended or was closed."""
    interrupted(url, "a")
    lake = dasklake.open(url)
    refused(lake.create_tensor, "y", dtype="int64", shape=())
    _ = resumed(url, "a") if finish else lake.reset()
    lake.refresh()
    lake.create_tensor("y", dtype="int64", shape=())


@follows(
    " already exists. Choose another name, or remove the tensor with delete_tensor(",
    "Start over with dasklake.empty(url, overwrite=True).",
    "Open it with dasklake.open(url), or remove its contents with overwrite=True.",
)
def test_tensors_and_lakes_that_exist_are_replaced(url: str) -> None:
    """A tensor is deleted and created again; a lake is opened or emptied."""
    write(bag(1), url, schema=X)
    refused(dasklake.empty, url)
    lake = dasklake.open(url)
    refused(lake.create_tensor, "x", dtype="int64", shape=())
    lake.create_tensor("y", dtype="int64", shape=())
    lake.delete_tensor("y")
    lake.create_tensor("y", dtype="float64", shape=())
    lake.delete_tensor("y")
    refused(lake.delete_tensor, "x")
    assert len(dasklake.empty(url, overwrite=True).schema) == 0


@follows("Write one with to_lake(), or check the URL and the storage options.")
def test_a_missing_lake_is_written(url: str) -> None:
    """A lake can be opened after it was written."""
    refused(dasklake.open, url)
    write(bag(1), url, schema=X)
    dasklake.open(url)


@follows("Call refresh(), or open the newest version.")
def test_an_expired_version_is_refreshed(url: str) -> None:
    """A lake whose version was expired is refreshed, or opened again."""
    write(bag(1), url, schema=X)
    old = dasklake.open(url)
    write(bag(2), url, schema=X, mode="overwrite")
    dasklake.open(url).vacuum(older_than="0d", progress=False)
    refused(lambda: old[0])
    assert old.refresh()[0]["x"] == dasklake.open(url)[0]["x"] == 2


@follows("Pass either quick=True or decode=True.")
def test_one_kind_of_verification_is_chosen(url: str) -> None:
    """Each argument works alone."""
    write(bag(1), url, schema=X)
    lake = dasklake.open(url)
    refused(lake.verify, quick=True, decode=True)
    lake.verify(quick=True)
    lake.verify(decode=True)


@follows(
    "append(), write() and eval() commit their samples. Delete the call; inside a with block, use lake.flush(). ",
    "For a text in the log, pass message= to lake.write() or eval().",
)
def test_a_commit_needs_no_call(url: str) -> None:
    """Samples are committed by their own calls, and by flush() inside of a block."""
    lake = dasklake.empty(url)
    lake.create_tensor("x", dtype="int64", shape=())
    refused(lambda: lake.commit("text"))
    lake.append({"x": 1})
    with lake:
        lake.append({"x": 2})
        lake.flush()
        assert len(dasklake.open(url)) == 2
    lake.write(bag(3), message="text", progress=False)
    assert "text" in str(lake.log())


@follows("Use append() for one sample.")
def test_one_sample_is_appended(url: str) -> None:
    """extend() takes many samples, append() one."""
    lake = dasklake.empty(url)
    lake.create_tensor("x", dtype="int64", shape=())
    refused(lake.extend, {"x": 1})
    refused(lake.extend, 1)
    lake.append({"x": 1})
    assert len(lake) == 1


@follows("Use to_dask_bag() or to_dask_dataframe().")
def test_values_without_an_array_are_read_otherwise(url: str) -> None:
    """Text and missing values are read as a bag or a frame."""
    write(
        db.from_sequence([{"t": "a", "n": 1}, {"t": "b", "n": None}], npartitions=1),
        url,
        schema={"t": "text", "n": "int64"},
    )
    lake = dasklake.open(url)
    refused(lake.to_dask_array, "t")
    refused(lambda: lake.to_dask_array("n").compute())
    assert lake.to_dask_bag().pluck("t").compute() == ["a", "b"]
    assert lake.to_dask_dataframe()["n"].compute().isna().tolist() == [False, True]


@follows("Use shapes().")
def test_shapes_are_listed(url: str) -> None:
    """The shapes of a ragged tensor show which index is valid."""
    values = [np.zeros(2), np.zeros((1, 3))]
    items = db.from_sequence([{"x": value} for value in values], npartitions=1)
    write(items, url, schema={"x": TensorSpec(dtype="float64")})
    tensor = dasklake.open(url)["x"]
    with pytest.raises(IndexError, match=r"Use a smaller index; Tensor.shapes\(\) has the shapes"):
        _ = tensor[0, 5]
    refused(lambda: tensor.shape)
    shapes: Any = tensor.shapes()
    assert [tuple(shape) for shape in shapes] == [(2,), (1, 3)]
    assert tensor[0, shapes[0][0] - 1] == 0


@follows("Open it with dasklake.open(url, version=")
def test_a_state_is_used_with_its_version(url: str) -> None:
    """The version of a state of batches is opened."""
    write(bag(1, 2), url, schema=X)
    state = dasklake.open(url).batches(1).state
    write(bag(3), url, mode="append", schema=X)
    message = refused(dasklake.open(url).batches, 1, state=state)
    version = int(message.rpartition("version=")[2].rstrip(")."))
    assert len(list(dasklake.open(url, version=version).batches(1, state=state))) == 2


@follows(
    "compose() takes a list of pipelines, got ",
    "compose() needs at least one pipeline, got none. Give [f(), g()].",
    " of compose() must be a pipeline, got ",
    ". Give [f(), g()].",
    "Decorate the function with @dasklake.compute, and call it with its arguments: compose([f(), g()]).",
    "Open one with dasklake.open(url), or create one with dasklake.empty(url).",
    "Use num_workers=0 for this process, or num_workers=2.",
    "give None for no value, or append_empty=True",
    "the argument of sample_out.append() must be a mapping of tensor names to values, got ",
)
def test_pipelines_are_composed_and_called(url: str) -> None:
    """Functions are decorated and called, and fill a lake that exists."""

    def plain(sample_in: Any, sample_out: Any) -> None:
        sample_out.append({"x": sample_in})

    f = dasklake.compute(plain)
    for wrong in (5, [], [plain]):
        refused(dasklake.compose, wrong)
    both = dasklake.compose([f()])
    refused(both.eval, [1], url)
    lake = dasklake.empty(url)
    lake.create_tensor("x", dtype="int64", shape=())
    refused(both.eval, [1], lake, num_workers=-1)
    assert both.eval([1], dasklake.open(url), num_workers=0, progressbar=False).samples == 1
    lake.refresh()
    lake.create_tensor("y", dtype="int64", shape=())

    @dasklake.compute
    def uneven(sample_in: Any, sample_out: Any, *, empty: bool) -> None:
        sample_out.append({"x": 1, "y": 2})
        sample_out.append({"x": 1}, append_empty=empty)

    refused(uneven(empty=False).eval, [1], lake, progressbar=False)
    assert uneven(empty=True).eval([1], lake, progressbar=False).samples == 2

    @dasklake.compute
    def bare(sample_in: Any, sample_out: Any) -> None:
        sample_out.append(sample_in)

    refused(bare().eval, [1], lake, progressbar=False)
    assert bare().eval([{"x": 1, "y": 1}], lake, progressbar=False).samples == 1


@follows(
    "Leave it out with columns=.",
    "Leave one of them out with columns=.",
    "Leave it out with where(), or write more tensors.",
)
def test_tensors_and_samples_are_left_out_of_tar_files(url: str, tmp_path: Path) -> None:
    """Names that tar files cannot have, and samples without values, are left out."""
    items = db.from_sequence(
        [{"a/b": 1, "x": 2, "X": None}, {"a/b": 1, "x": None, "X": None}], npartitions=1
    )
    write(items, url, schema=dict.fromkeys(("a/b", "x", "X"), "int64"))
    lake = dasklake.open(url)
    refused(lake.to_webdataset, tmp_path / "a", progress=False)
    refused(lake.to_webdataset, tmp_path / "b", columns=["x", "X"], progress=False)
    refused(lake.to_webdataset, tmp_path / "c", columns=["x"], progress=False)
    view = lake.where([("x", "is not", None)])
    view.to_webdataset(tmp_path / "d", columns=["x"], progress=False)
    assert list((tmp_path / "d").glob("*.tar"))


@follows(
    "Use equals() to compare what is stored",
    "Use isna(), or map() with a condition",
    "Sort by a number that map() returns; group with sort=False",
    "Give dtype=dasklake.TensorDtype(spec).",
)
def test_columns_of_tensors_are_compared_and_sorted(url: str) -> None:
    """The calls that errors name compare, select and sort stored values."""
    items = db.from_sequence([{"x": np.array([[i]])} for i in (2, 1)], npartitions=1)
    spec = TensorSpec(dtype="int64", shape=(None, 1))
    write(items, url, schema={"x": spec})
    column = dasklake.read_lake(url).compute()["x"]
    refused(lambda: column == column)  # noqa: PLR0124 # the error is the point
    assert column.array.equals(column.array)
    refused(lambda: np.zeros(1) in column.array)
    refused(column.sort_values)
    numbers = column.map(lambda value: int(value[0, 0]))
    assert numbers.sort_values().tolist() == [1, 2]
    assert column[numbers > 1].isna().tolist() == [False]
    refused(type(column.array)._from_sequence, list(column))
    assert (
        type(column.array)
        ._from_sequence(list(column), dtype=dasklake.TensorDtype(spec))
        .equals(column.array)
    )


@follows(
    " exists with managed=",
    ". Change it with update_creds_key(",
    ", managed=",
    "), or use another name.",
    "Use lake.add_creds_key(",
    "), or lake.update_creds_key(",
    ", managed=False).",
    "Give either values or from_environment=True.",
)
def test_credentials_keys_are_added_and_changed(url: str) -> None:
    """A key is added, changed and populated as the errors say."""
    lake = dasklake.empty(url)
    refused(lake.populate_creds, "key", {})
    lake.add_creds_key("key", managed=True)
    refused(lake.add_creds_key, "key")
    refused(lake.populate_creds, "key", {})
    lake.update_creds_key("key", managed=False)
    refused(lake.populate_creds, "key")
    lake.populate_creds("key", from_environment=True)
    lake.populate_creds("key", {"anon": True})


@follows("Choose one with run='...'.")
def test_failures_of_one_run_are_retried(url: str) -> None:
    """With failures of several runs, a retry names one."""
    for run in ("a", "b"):
        write(
            bag(1, 2), url, schema=X, mode="append", run=run, on_error="skip", max_failures=1,
            transform=fail_at, transform_kwargs={"wrong": 2},
        )  # fmt: skip
    lake = dasklake.open(url)
    refused(lake.retry_failures, dict)
    report = lake.retry_failures(dict, run="a", progress=False)
    assert report is not None
    assert report.samples == 1


@follows(" is not finished. Finish it with mode='resume', then try again.")
def test_a_run_is_finished_before_its_retry(url: str) -> None:
    """The failures of a run are retried after it has ended."""

    def attempt(wrong: set[int], **options: Any) -> Any:
        return write(
            bag(1, 2, 3, partitions=3), url, schema=X, run="a", on_error="skip",
            transform=lambda sample: fail_at(sample, 1 if sample["x"] in wrong else -1)
            if sample["x"] not in wrong else 1 / 0, checkpoint_every=1, input_id="i", **options,
        )  # fmt: skip

    refused(attempt, {1, 3}, max_failures=1)
    lake = dasklake.open(url)
    refused(lake.retry_failures, dict)
    attempt({1, 3}, max_failures=None, mode="resume")
    report = lake.refresh().retry_failures(dict, progress=False)
    assert report is not None
    assert report.samples == 2
