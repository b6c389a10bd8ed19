"""Every htype goes into a lake and comes back, by sample, by column and as Dask collections."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask.bag as db
import numpy as np
import pytest

import dasklake
from dasklake import File, Link, Schema, TensorSpec
from dasklake._schema.htypes import HTYPES
from dasklake.exceptions import InvalidInputError, TransformError
from tests.support import media
from tests.support.htypes import FITTING

SYNC = dasklake.WriteOptions(scheduler="sync")


def rows(name: str) -> list[Any]:
    """Return the values of an htype, none of them included, at places that are not the ends."""
    values = FITTING[name][1]
    return [values[0], None, *values[1:], values[0]]


def wanted(value: Any, spec: TensorSpec) -> Any:
    """Return what a value is to come back as."""
    if value is None:
        return None
    if spec.sequence:
        return [wanted(each, spec.item) for each in value]
    if spec.linked:
        return value if isinstance(value, Link) else dasklake.link(value)
    if spec.kind.name == "tag":
        return [value] if isinstance(value, str) else value
    if spec.kind.codec in ("json", "text"):
        return value
    if spec.class_names and spec.kind.name == "class_label":
        names = list(spec.class_names)
        found = [names.index(v) if isinstance(v, str) else v for v in np.ravel(value)]
        return np.array(found, "u4").reshape(np.shape(value))
    if isinstance(value, bytes):
        return File(value).numpy() if spec.kind.codec == "image" else File(value)
    return np.asarray(value, spec.dtype)


def same(found: Any, meant: Any) -> bool:
    """Whether a value is the one that was meant."""
    if isinstance(meant, list) and not isinstance(found, np.ndarray):
        return len(found) == len(meant) and all(map(same, found, meant))
    if isinstance(meant, File):
        return isinstance(found, File) and found.bytes() == meant.bytes()
    if isinstance(meant, Link):
        return (found.url, found.creds_key) == (meant.url, meant.creds_key)
    if isinstance(meant, np.ndarray):
        return found.dtype == meant.dtype and np.array_equal(found, meant)
    return type(found) is type(meant) and bool(found == meant)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> dasklake.Lake:
    """Write one tensor for each htype and each way to hold it."""
    url = tmp_path_factory.mktemp("htypes") / "lake"
    most = max(len(rows(name)) for name in FITTING)
    samples = [
        {name: (rows(name) + [None] * most)[place] for name in FITTING} for place in range(most)
    ]
    schema = {name: spec for name, (spec, _) in FITTING.items()}
    bag = db.from_sequence(samples, npartitions=2)
    dasklake.to_lake(bag, url, schema=schema, options=SYNC, input_id="all htypes")
    return dasklake.open(url)


def test_every_htype_is_tried() -> None:
    """No row of the table is missing here."""
    assert {spec.kind.name for spec, _ in FITTING.values()} == set(HTYPES)


@pytest.mark.parametrize("name", FITTING)
def test_values_come_back(lake: dasklake.Lake, name: str) -> None:
    """A value comes back by range, from the whole column, and through a Bag."""
    spec = FITTING[name][0]
    assert lake.schema[name] == spec
    meant = [wanted(value, spec) for value in rows(name)]
    count = len(meant)
    ways: dict[str, list[Any]] = {
        "one": [lake[place][name] for place in range(count)],
        "column": list(lake[name][:count]),
        "bag": [s[name] for s in lake.to_dask_bag(columns=[name]).compute(scheduler="sync")],
    }
    for way, found in ways.items():
        assert all(map(same, found[:count], meant)), way


@pytest.mark.parametrize("name", FITTING)
def test_values_are_columns_of_frames(lake: dasklake.Lake, name: str) -> None:
    """A column of a frame has the dtype that its metadata promise, no object, and the same rows."""
    lazy = lake.to_dask_dataframe(columns=[name])
    found = lazy.compute(scheduler="sync")[name]
    assert found.dtype == lazy.dtypes[name]
    assert found.dtype != object
    assert found.isna().tolist()[: len(rows(name))] == [v is None for v in rows(name)]
    first, meant = found.iloc[0], wanted(rows(name)[0], FITTING[name][0])
    if isinstance(meant, File):
        assert first == meant.bytes()
    elif isinstance(meant, list) and isinstance(meant[0], str):
        assert list(first) == meant
    elif isinstance(meant, list) and isinstance(meant[0], np.ndarray) and meant[0].ndim == 1:
        assert np.array_equal(np.stack(list(first)), np.stack(meant))


def test_shapes_need_no_decoding(lake: dasklake.Lake) -> None:
    """Shapes of files are those of their content; a list has the number of its items."""
    assert lake["video"].shapes()[0] == (12, 48, 64, 3)
    assert lake["video"].shapes()[1] is None
    assert lake["nifti"].shapes()[0] == (2, 3, 4)
    assert lake["sequence[image]"].shapes()[0] == (2,)
    assert lake["polygon"].shapes()[0] == (2,)


def test_files_are_returned_as_they_were(lake: dasklake.Lake) -> None:
    """Bytes of files come from the tensor unchanged; a tensor of numbers has none."""
    assert lake["video"].bytes(0) == media.video("mp4")
    assert lake["image"].bytes(0) == media.picture("jpeg")
    assert lake["image"].bytes(1) is None
    for name in ("bbox", "sequence[image]"):
        with pytest.raises(InvalidInputError, match="does not contain files"):
            lake[name].bytes(0)


def test_files_are_read_in_the_write_task(tmp_path: Path) -> None:
    """``dasklake.read`` of a path or URL is a value: its bytes are fetched by the task."""
    for place in range(4):
        (tmp_path / f"{place}.flac").write_bytes(media.sound("flac", channels=place + 1))
    lazy = [dasklake.read(tmp_path / f"{place}.flac") for place in range(4)]
    bag = db.from_sequence(range(4), npartitions=2)
    url = tmp_path / "lake"
    dasklake.to_lake(
        bag,
        url,
        schema={"sound": TensorSpec("audio", compression="flac")},
        transform=lambda place: {"sound": lazy[place]},
        options=SYNC,
    )
    lake = dasklake.open(url)
    assert [lake[i]["sound"].shape for i in range(4)] == [(8000, n + 1) for n in range(4)]
    assert lake[3]["sound"].bytes() == lazy[3].bytes()


def test_a_file_that_is_not_there_is_a_failure_of_its_sample(tmp_path: Path) -> None:
    """A missing file is skipped like any other failing sample; files identify the input."""
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
    ("sample", "tensor", "word", "strict"),
    [
        ({"boxes": [[0, 0, -1, 1]], "labels": [0]}, "boxes", "-1", True),
        ({"boxes": [[0, 0, float("nan"), 1]], "labels": [0]}, "boxes", "nan", True),
        ({"boxes": [[0, 0, 1, 1]], "labels": [2]}, "labels", "2", False),
        ({"boxes": [[0, 0, 1, 1]] * 2, "labels": [0]}, "labels", "same_length", False),
    ],
)
def test_an_error_names_sample_tensor_and_value(
    tmp_path: Path, sample: Mapping[str, Any], tensor: str, word: str, *, strict: bool
) -> None:
    """What strict or basic validation finds ends the run with sample, tensor and value."""
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
    assert word in str(raised.value)
    if strict:
        _write(tmp_path / "basic", sample, schema, "basic")
        assert len(dasklake.open(tmp_path / "basic")) == 3
    else:
        with pytest.raises(TransformError, match=word):
            _write(tmp_path / "basic", sample, schema, "basic")
    with pytest.raises(InvalidInputError, match="validate"):
        _write(tmp_path / "other", sample, schema, "loose")
