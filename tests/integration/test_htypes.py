"""Every htype is written and read back by sample, by column and as Dask collections."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask.bag as db
import numpy as np
import pandas as pd
import pytest

import dasklake
from dasklake import File, Link, Schema, TensorDtype, TensorSpec
from dasklake._schema.htypes import HTYPES
from dasklake.exceptions import InvalidInputError, TransformError
from tests.support import media
from tests.support.htypes import FITTING

SYNC = dasklake.WriteOptions(scheduler="sync")


def rows(name: str) -> list[Any]:
    """Return the values of an htype, with None at inner positions."""
    values = FITTING[name][1]
    return [values[0], None, *values[1:], values[0]]


def expected(value: Any, spec: TensorSpec) -> Any:
    """Return the value that is expected after reading."""
    if value is None:
        return None
    if spec.sequence:
        return [expected(item, spec.item) for item in value]
    if spec.linked:
        return value if isinstance(value, Link) else dasklake.link(value)
    if spec.kind.name == "tag":
        return [value] if isinstance(value, str) else value
    if spec.kind.codec in ("json", "text"):
        return value
    if spec.class_names and spec.kind.name == "class_label":
        names = list(spec.class_names)
        indices = [names.index(v) if isinstance(v, str) else v for v in np.ravel(value)]
        return np.array(indices, "u4").reshape(np.shape(value))
    if isinstance(value, bytes):
        return File(value).numpy() if spec.kind.codec == "image" else File(value)
    return np.asarray(value, spec.dtype)


def same(actual: Any, meant: Any) -> bool:
    """Return whether a value equals the expected one."""
    if isinstance(meant, list) and not isinstance(actual, np.ndarray):
        return len(actual) == len(meant) and all(map(same, actual, meant))
    if isinstance(meant, File):
        return isinstance(actual, File) and actual.bytes() == meant.bytes()
    if isinstance(meant, Link):
        return (actual.url, actual.creds_key) == (meant.url, meant.creds_key)
    if isinstance(meant, np.ndarray):
        return actual.dtype == meant.dtype and np.array_equal(actual, meant)
    return type(actual) is type(meant) and bool(actual == meant)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> dasklake.Lake:
    """Write one tensor for each htype and layout."""
    url = tmp_path_factory.mktemp("htypes") / "lake"
    most = max(len(rows(name)) for name in FITTING)
    samples = [
        {name: (rows(name) + [None] * most)[position] for name in FITTING}
        for position in range(most)
    ]
    schema = {name: spec for name, (spec, _) in FITTING.items()}
    bag = db.from_sequence(samples, npartitions=2)
    dasklake.to_lake(bag, url, schema=schema, options=SYNC, input_id="all htypes")
    return dasklake.open(url)


def test_every_htype_is_tested() -> None:
    """Every htype of the table is tested."""
    assert {spec.kind.name for spec, _ in FITTING.values()} == set(HTYPES)


@pytest.mark.parametrize("name", FITTING)
def test_values_are_read_back(lake: dasklake.Lake, name: str) -> None:
    """A value is read back by range, from the whole column, and through a Bag."""
    spec = FITTING[name][0]
    assert lake.schema[name] == spec
    meant = [expected(value, spec) for value in rows(name)]
    count = len(meant)
    ways: dict[str, list[Any]] = {
        "one": [lake[row][name] for row in range(count)],
        "column": list(lake[name][:count]),
        "bag": [s[name] for s in lake.to_dask_bag(columns=[name]).compute(scheduler="sync")],
    }
    for way, actual in ways.items():
        assert all(map(same, actual[:count], meant)), way


@pytest.mark.parametrize("name", FITTING)
def test_values_are_columns_of_frames(lake: dasklake.Lake, name: str) -> None:
    """A column of a frame has the dtype of its metadata, and the values of the samples."""
    lazy = lake.to_dask_dataframe(columns=[name])
    column = lazy.compute(scheduler="sync")[name]
    assert column.dtype == lazy.dtypes[name]
    assert column.dtype != object
    assert column.isna().tolist()[: len(rows(name))] == [v is None for v in rows(name)]
    if isinstance(column.dtype, TensorDtype):
        values = [None if value is pd.NA else value for value in column]
        meant_values = [expected(value, FITTING[name][0]) for value in rows(name)]
        assert all(map(same, values, meant_values))


@pytest.mark.parametrize("name", FITTING)
def test_values_are_columns_of_arrow(lake: dasklake.Lake, name: str) -> None:
    """With ``tensors="arrow"``, a column has a type of pandas or Arrow, and the same rows."""
    lazy = lake.to_dask_dataframe(columns=[name], tensors="arrow")
    column = lazy.compute(scheduler="sync")[name]
    assert column.dtype == lazy.dtypes[name]
    assert column.dtype != object
    assert not isinstance(column.dtype, TensorDtype)
    assert column.isna().tolist()[: len(rows(name))] == [v is None for v in rows(name)]
    first, meant = column.iloc[0], expected(rows(name)[0], FITTING[name][0])
    if isinstance(meant, File):
        assert first == meant.bytes()
    elif isinstance(meant, list) and isinstance(meant[0], str):
        assert list(first) == meant
    elif isinstance(meant, list) and isinstance(meant[0], np.ndarray) and meant[0].ndim == 1:
        assert np.array_equal(np.stack(list(first)), np.stack(meant))


def test_shapes_need_no_decoding(lake: dasklake.Lake) -> None:
    """The shape of a file is that of its content; the shape of a list is its length."""
    assert lake["video"].shapes()[0] == (12, 48, 64, 3)
    assert lake["video"].shapes()[1] is None
    assert lake["nifti"].shapes()[0] == (2, 3, 4)
    assert lake["sequence[image]"].shapes()[0] == (2,)
    assert lake["polygon"].shapes()[0] == (2,)


def test_files_are_returned_unchanged(lake: dasklake.Lake) -> None:
    """File tensors return unchanged bytes; numeric tensors have no bytes."""
    assert lake["video"].bytes(0) == media.video("mp4")
    assert lake["image"].bytes(0) == media.picture("jpeg")
    assert lake["image"].bytes(1) is None
    for name in ("bbox", "sequence[image]"):
        with pytest.raises(InvalidInputError, match="does not contain files"):
            lake[name].bytes(0)


def test_files_are_read_in_the_write_task(tmp_path: Path) -> None:
    """``dasklake.read`` accepts a path or URL; the write task fetches the bytes."""
    for number in range(4):
        (tmp_path / f"{number}.flac").write_bytes(media.sound("flac", channels=number + 1))
    lazy = [dasklake.read(tmp_path / f"{number}.flac") for number in range(4)]
    bag = db.from_sequence(range(4), npartitions=2)
    url = tmp_path / "lake"
    dasklake.to_lake(
        bag,
        url,
        schema={"sound": TensorSpec("audio", compression="flac")},
        transform=lambda number: {"sound": lazy[number]},
        options=SYNC,
    )
    lake = dasklake.open(url)
    assert [lake[i]["sound"].shape for i in range(4)] == [(8000, n + 1) for n in range(4)]
    assert lake[3]["sound"].bytes() == lazy[3].bytes()


def test_a_missing_file_is_a_failure_of_its_sample(tmp_path: Path) -> None:
    """A missing file is skipped like other failing samples; files identify the input."""
    (tmp_path / "a.wav").write_bytes(media.sound("wav"))
    samples = [{"sound": dasklake.read(tmp_path / name)} for name in ("a.wav", "b.wav")]
    report = dasklake.to_lake(
        db.from_sequence(samples, npartitions=1),
        tmp_path / "lake",
        schema={"sound": TensorSpec("audio", compression="wav")},
        on_error="skip",
        max_failures=None,
        options=SYNC,
    )
    assert (report.samples, report.failures) == (1, 1)


def _write(url: Path, sample: Mapping[str, Any], schema: Any, validate: Any) -> None:
    bag = db.from_sequence(range(3), npartitions=1)
    good = {"boxes": [[0, 0, 1, 1]], "labels": [0]}
    dasklake.to_lake(
        bag,
        url,
        schema=schema,
        transform=lambda i: sample if i == 1 else good,
        options=dasklake.WriteOptions(scheduler="sync", validate=validate),
    )


@pytest.mark.parametrize(
    ("sample", "tensor", "message", "strict"),
    [
        ({"boxes": [[0, 0, -1, 1]], "labels": [0]}, "boxes", "-1", True),
        ({"boxes": [[0, 0, float("nan"), 1]], "labels": [0]}, "boxes", "nan", True),
        ({"boxes": [[0, 0, 1, 1]], "labels": [2]}, "labels", "2", False),
        ({"boxes": [[0, 0, 1, 1]] * 2, "labels": [0]}, "labels", "same_length", False),
    ],
)
def test_an_error_names_sample_tensor_and_value(
    tmp_path: Path, sample: Mapping[str, Any], tensor: str, message: str, *, strict: bool
) -> None:
    """A validation error ends the run and names the sample, the tensor and the value."""
    schema = Schema(
        {
            "boxes": TensorSpec("bbox", coords="pixel-ltwh"),
            "labels": TensorSpec("class_label", shape=(None,), class_names=["a", "b"]),
        },
        same_length=["boxes", "labels"],
    )
    with pytest.raises(TransformError) as raised:
        _write(tmp_path / "strict", sample, schema, "strict")
    assert raised.value.index == 1
    assert repr(tensor) in str(raised.value)
    assert message in str(raised.value)
    if strict:
        _write(tmp_path / "basic", sample, schema, "basic")
        assert len(dasklake.open(tmp_path / "basic")) == 3
    else:
        with pytest.raises(TransformError, match=message):
            _write(tmp_path / "basic", sample, schema, "basic")
    with pytest.raises(InvalidInputError, match="validate"):
        _write(tmp_path / "other", sample, schema, "loose")
