"""Every way from a lake to a lake keeps what is stored, byte for byte, for every htype."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Literal

import dask
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from distributed import Client

import dasklake
from dasklake import Lake, TensorSpec, masks
from dasklake._schema.values import Blob
from dasklake.exceptions import (
    InvalidInputError,
    LakeError,
    PlanMismatchError,
    SchemaError,
    TransformError,
)
from dasklake.sources import coco
from tests.support import media
from tests.support.htypes import FITTING

SYNC = dasklake.WriteOptions(scheduler="sync")


def _noise(form: str) -> bytes:
    """Make a picture that no format keeps exactly when it is encoded again."""
    return media.picture(form, size=(40, 30))


#: Further forms of storage: every format of pictures, compressions, layouts and Arrow types.
_FORMS: dict[str, tuple[TensorSpec, list[Any]]] = {
    **{
        f"image as {form}": (TensorSpec("image", compression=form), [_noise(form)])
        for form in media.PICTURES
    },
    "image in lz4": (TensorSpec("image", compression="lz4"), [media.pixels(4, 5, 3)]),
    "a list of jpegs": (TensorSpec("sequence[image]", compression="jpeg"), [[_noise("jpeg")] * 2]),
    **{
        f"mask in {form}": (
            TensorSpec("binary_mask", compression=form),
            [np.random.default_rng(1).random((7, 5, 2)) > 0.5],
        )
        for form in ("none", "lz4", "zstd", "packbits-zstd", "rle")
    },
    "run lengths that are not the shortest": (
        TensorSpec("binary_mask", compression="rle"),
        [masks.from_rle([{"counts": [2, 0, 1, 3]}], size=(2, 3))],
    ),
    "a list of run lengths": (
        TensorSpec("sequence[binary_mask]", compression="rle"),
        [[masks.from_rle([{"counts": [2, 0, 1, 3]}], size=(2, 3))]],
    ),
    **{
        f"array in {form}": (
            TensorSpec(dtype="float32", shape=(None, 3), compression=form),
            [np.array([[np.nan, -0.0, np.inf]], "f4"), np.zeros((0, 3), "f4")],
        )
        for form in ("none", "lz4", "zstd")
    },
    "any rank": (TensorSpec(dtype="int16"), [np.arange(6, dtype="i2").reshape(1, 2, 3), 5]),
    "fixed shape": (TensorSpec(dtype="float64", shape=(2, 2)), [np.eye(2)]),
    "complex": (TensorSpec(dtype="complex64", shape=(None,)), [np.array([1 + 2j, -1j], "c8")]),
    "one complex number": (TensorSpec(dtype="complex128", shape=()), [1 - 2j]),
    "times": (
        TensorSpec(dtype="datetime64[ns]", shape=(None,)),
        [np.array(["2026-01-01T00:00:00.000000001", "NaT"], "M8[ns]")],
    ),
    "one time": (TensorSpec(dtype="datetime64[ns]", shape=()), [np.datetime64("NaT", "ns")]),
    "days": (TensorSpec(dtype="datetime64[D]", shape=()), [np.datetime64("2026-01-01")]),
    "one bool": (TensorSpec(dtype="bool", shape=()), [True, False]),
    "bools": (TensorSpec(dtype="bool", shape=(None,)), [np.array([True, False])]),
    "half": (TensorSpec(dtype="float16", shape=()), [np.float16("nan")]),
    "binary": (TensorSpec(dtype="binary"), [b"\x00\xff", b""]),
    "decimal": (TensorSpec(dtype=pa.decimal128(10, 2)), [Decimal("1.25")]),
    "nested": (TensorSpec(dtype=pa.list_(pa.float64())), [[1.0, float("nan")], []]),
    "record": (TensorSpec(dtype=pa.struct([("a", pa.int64())])), [{"a": 1}, {"a": None}]),
    "zone": (
        TensorSpec(dtype=pa.timestamp("ns", "Europe/Berlin")),
        [pd.Timestamp("2026-01-01 00:00:00.000000001", tz="Europe/Berlin")],
    ),
    "string": (TensorSpec(dtype="string"), ["a", ""]),
    "one label": (
        TensorSpec("class_label", class_names=["a", "b"], shape=()),
        ["b", 0],
    ),
    "discovered label": (TensorSpec("class_label", discover=True, shape=()), ["x", "y"]),
    "discovered labels": (TensorSpec("class_label", discover=True), [["x", "z"], []]),
    "point_cloud in lz4": (TensorSpec("point_cloud", compression="lz4"), [np.ones((2, 3), "f4")]),
    "audio as flac": (TensorSpec("audio", compression="flac"), [media.sound("flac")]),
    "a link with a key": (
        TensorSpec("link[video]", compression="mp4", verify=False),
        [dasklake.link("s3://bucket/a.mp4")],
    ),
}
VALUES = FITTING | _FORMS
ROWS = 5


def stored(lake: Lake) -> list[dict[str, Any]]:
    """Return the stored values of all samples, with the names of collected labels."""
    names = list(lake.schema)
    rows = [lake._reader.stored(row, names) for row in range(lake.max_len)]
    return [
        {
            name: _comparable(value, lake.schema[name])
            for name, value in zip(names, row, strict=True)
        }
        for row in rows
    ]


def _comparable(value: Any, spec: TensorSpec) -> Any:
    if value is None:
        return None
    if spec.discover:
        numbers = np.frombuffer(value.data, "u4") if isinstance(value, Blob) else [value]
        return [spec.class_names[i] for i in numbers]
    if isinstance(value, Blob):
        return bytes(value.data), tuple(value.shape)
    return repr(value.tobytes()) if hasattr(value, "tobytes") else repr(value)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Write one tensor for each htype and form of storage, some without a value."""
    columns = {
        name: [([None, *values] * ROWS)[row] for row in range(ROWS)]
        for name, (_, values) in VALUES.items()
    }
    samples = [
        {"row": row, **{name: values[row] for name, values in columns.items()}}
        for row in range(ROWS)
    ]
    schema = {name: spec for name, (spec, _) in VALUES.items()}
    url = tmp_path_factory.mktemp("copies") / "source"
    dasklake.to_lake(
        db.from_sequence(samples, npartitions=2),
        url,
        schema={"row": TensorSpec(dtype="int64", shape=()), **schema},
        options=SYNC,
        input_id="copies",
    )
    return dasklake.open(url)


@dasklake.compute
def whole(sample_in: dasklake.SampleIn, sample_out: dasklake.SampleOut) -> None:
    """Copy a sample."""
    sample_out.append(sample_in)


@dasklake.compute
def by_tensor(sample_in: dasklake.SampleIn, sample_out: dasklake.SampleOut) -> None:
    """Copy a sample, tensor by tensor."""
    for name in sample_in:
        sample_out[name].append(sample_in[name])


def _filled(source: Lake, url: Path) -> Lake:
    """Make a lake without samples that has the tensors of another."""
    out = dasklake.empty(url)
    out._edit(partial(out._add_tensors, dict(source.schema)))
    return out


def by_bag(source: Lake, url: Path) -> None:
    """Copy with a bag."""
    dasklake.to_lake(source.to_dask_bag(), url, schema=source.schema, options=SYNC)


def by_decoded_bag(source: Lake, url: Path) -> None:
    """Copy with plain dicts of decoded values."""
    bag = source.to_dask_bag().map(dict)
    bag.to_lake(url, schema=source.schema, options=SYNC)


def by_filtered_bag(source: Lake, url: Path) -> None:
    """Copy with a bag whose filter looks at every value."""
    bag = source.to_dask_bag().filter(lambda s: len(list(s.values())) and s["row"] >= 0)
    bag.to_lake(url, schema=source.schema, options=SYNC)


def by_pickles(source: Lake, url: Path) -> None:
    """Copy samples that another process has pickled, some after decoding."""
    bag = source.to_dask_bag().map(lambda s: (s, s["image"])[0]).map(pickle.dumps)
    bag.map(pickle.loads).to_lake(url, schema=source.schema, options=SYNC)


def by_eval(source: Lake, url: Path) -> None:
    """Copy with a function of samples."""
    whole().eval(source, _filled(source, url), scheduler="sync")


def by_eval_of_tensors(source: Lake, url: Path) -> None:
    """Copy with a function that takes each value out of its sample."""
    by_tensor().eval(source, _filled(source, url), scheduler="sync")


def by_append(source: Lake, url: Path) -> None:
    """Copy with a loop."""
    out = _filled(source, url)
    for sample in source:
        out.append(sample)


def by_block(source: Lake, url: Path) -> None:
    """Copy with a loop in a ``with`` block, as plain dicts."""
    with _filled(source, url) as out:
        for sample in source:
            out.append({**sample})


def by_copy_to(source: Lake, url: Path) -> None:
    """Copy without decoding."""
    source.copy_to(url, options=SYNC)


def by_row_numbers(source: Lake, url: Path) -> None:
    """Copy all samples by their numbers."""
    source.copy_to(url, rows=range(ROWS), options=SYNC)


def by_bag_without_schema(source: Lake, url: Path) -> None:
    """Copy with a bag that is filtered and repartitioned, and that knows its schema."""
    bag = source.to_dask_bag().filter(lambda s: s["row"] >= 0).repartition(3)
    dasklake.to_lake(bag, url, options=SYNC)


def by_frame(source: Lake, url: Path) -> None:
    """Copy with a frame."""
    dasklake.to_lake(source.to_dask_dataframe(), url, options=SYNC)


def by_frame_with_schema(source: Lake, url: Path) -> None:
    """Copy with a frame, and the schema of the lake."""
    frame = source.to_dask_dataframe()
    dasklake.to_lake(frame, url, schema=source.schema, options=SYNC)


def by_filtered_frame(source: Lake, url: Path) -> None:
    """Copy with a frame that is filtered by columns of several kinds and repartitioned."""
    frame = source.to_dask_dataframe()
    has_document = frame["json"].map(lambda value: value is not None, meta=("json", "bool"))
    frame = frame[(frame["row"] >= 0) & (frame["json"].isna() | has_document)]
    frame = frame.assign(more=frame["row"] + 1).rename(columns={"text": "renamed"})
    frame = frame.rename(columns={"renamed": "text"}).repartition(npartitions=1)
    frame = frame[list(source.schema)].partitions[[0]]
    dasklake.to_lake(frame, url, options=SYNC)


WAYS = [
    *(by_frame, by_frame_with_schema, by_filtered_frame),
    *(by_copy_to, by_row_numbers, by_bag_without_schema),
    *(by_bag, by_decoded_bag, by_filtered_bag, by_pickles),
    *(by_eval, by_eval_of_tensors, by_append, by_block),
]


@pytest.mark.parametrize("way", WAYS)
def test_every_stored_value_is_equal(
    source: Lake, tmp_path: Path, way: Callable[[Lake, Path], None]
) -> None:
    """Every htype and form of storage is copied byte for byte."""
    way(source, tmp_path / "copy")
    copy = dasklake.open(tmp_path / "copy")
    assert list(copy.schema) == list(source.schema)
    for before, after in zip(stored(source), stored(copy), strict=True):
        assert {n for n in before if before[n] != after[n]} == set()


def _pair(tmp_path: Path, spec: TensorSpec, values: list[Any]) -> Lake:
    schema = {"x": spec, "y": TensorSpec(dtype="int64", shape=())}
    bag = db.from_sequence([{"x": v, "y": i} for i, v in enumerate(values)], npartitions=2)
    bag.to_lake(tmp_path / "a", schema=schema, options=SYNC, input_id="pair")
    return dasklake.open(tmp_path / "a")


def _through(lake: Lake, url: Path, change: Callable[[Any], Any], **schema: TensorSpec) -> Lake:
    bag = lake.to_dask_bag().map(change)
    bag.to_lake(url, schema={**lake.schema, **schema}, options=SYNC)
    return dasklake.open(url)


def _darkened(sample: Any) -> Any:
    sample["x"][:] = 0
    return sample


def _boxes(sample: Any) -> Any:
    sample["x"][0, 0] = -7
    return sample


def _documents(sample: Any) -> Any:
    sample["x"]["seen"].append(True)
    return sample


@pytest.mark.parametrize("wrap", [lambda s: s, dict, lambda s: pickle.loads(pickle.dumps(s))])
@pytest.mark.parametrize(
    ("spec", "value", "change", "expected"),
    [
        (TensorSpec("image", compression="png"), media.picture("png"), _darkened, 0),
        (TensorSpec("binary_mask", compression="rle"), np.ones((2, 3, 1), bool), _darkened, False),
        (TensorSpec("binary_mask"), np.ones((2, 3, 1), bool), _darkened, False),
        (TensorSpec(dtype="int16", shape=(2,)), [1, 2], _darkened, 0),
        (TensorSpec("json"), {"seen": []}, _documents, {"seen": [True]}),
    ],
)
def test_values_changed_in_place_are_written_as_changed(
    tmp_path: Path, spec: TensorSpec, value: Any, change: Any, expected: Any, wrap: Any
) -> None:
    """A decoded value that was changed in place is encoded again, also after pickling."""
    lake = _pair(tmp_path, spec, [value, value])
    copy = _through(lake, tmp_path / "b", lambda s: wrap(change(s)))
    result = copy["x"][0]
    assert result == expected if isinstance(expected, dict) else np.all(result == expected)
    assert copy["y"][:].tolist() == [0, 1]


def test_values_changed_in_place_are_checked(tmp_path: Path) -> None:
    """A change in place that breaks a constraint is refused, although nothing else was replaced."""
    spec = TensorSpec("bbox", coords="fractional-ltrb")
    lake = _pair(tmp_path, spec, [np.array([[0, 0, 1, 1]], "f4")])
    with pytest.raises(TransformError, match="box 0 must be valid"):
        _through(lake, tmp_path / "b", _boxes)


def test_replaced_values_are_written_and_the_others_kept(tmp_path: Path) -> None:
    """A replaced tensor is encoded; the picture beside it keeps its bytes."""
    lake = _pair(tmp_path, TensorSpec("image", compression="jpeg"), [_noise("jpeg")])
    for number, change in enumerate(
        (lambda s: {**s, "y": 5}, lambda s: s | {"y": 5}, lambda s: {"x": s["x"], "y": 5})
    ):
        copy = _through(lake, tmp_path / str(number), change)
        assert copy["x"].bytes(0) == _noise("jpeg")
        assert copy["y"][0] == 5


@pytest.mark.parametrize(
    ("spec", "value", "target"),
    [
        ("image", "jpeg", TensorSpec("image", compression="png")),
        ("image", "jpeg", TensorSpec("image", compression="zstd")),
        ("image", "png", TensorSpec("image.gray", compression="png")),
        ("image", "png", TensorSpec("image", compression="webp")),
    ],
)
def test_another_format_is_encoded(
    tmp_path: Path, spec: str, value: str, target: TensorSpec
) -> None:
    """A picture is encoded again if the target has another format or number of channels."""
    lake = _pair(tmp_path, TensorSpec(spec, compression=value), [_noise(value)])
    copy = _through(lake, tmp_path / "b", lambda s: s, x=target)
    before, after = lake["x"][0], copy["x"][0]
    if target.kind.name == "image.gray":
        assert after.shape == (*before.shape[:2], 1)
    else:
        assert np.abs(before.astype(int) - after).max() <= (
            8 if target.compression == "webp" else 0
        )


def test_a_file_of_the_same_format_is_kept_for_another_htype(tmp_path: Path) -> None:
    """A JPEG of three channels stays the same file in ``image.rgb``, and of a fixed shape."""
    lake = _pair(tmp_path, TensorSpec("image", compression="jpeg"), [_noise("jpeg")])
    for number, target in enumerate(
        (
            TensorSpec("image.rgb", compression="jpeg"),
            TensorSpec("image", compression="jpeg", shape=(30, 40, 3)),
        )
    ):
        copy = _through(lake, tmp_path / str(number), lambda s: s, x=target)
        assert copy["x"].bytes(0) == _noise("jpeg")
    other = TensorSpec("image", compression="jpeg", shape=(None, 9, 3))
    with pytest.raises(TransformError, match="axis 1 must have length 9"):
        _through(lake, tmp_path / "c", lambda s: s, x=other)


@pytest.mark.parametrize("shape", [(), None, (2,)])
@pytest.mark.parametrize("discover", [True, False])
def test_labels_keep_their_names(tmp_path: Path, shape: Any, *, discover: bool) -> None:
    """Labels get the target's index of the same name; a name that it lacks is refused."""
    spec = TensorSpec("class_label", class_names=["cat", "dog"], shape=shape)
    values: list[Any] = ["dog", "cat"] if shape == () else [["dog", "cat"], ["cat", "cat"]]
    lake = _pair(tmp_path, spec, values)
    target = TensorSpec(
        "class_label", class_names=["bird", "dog", "cat"], shape=shape, discover=discover
    )
    copy = _through(lake, tmp_path / "b", lambda s: s, x=target)
    names = np.array(copy.schema["x"].class_names, object)
    assert [np.array(names[copy["x"][i]]).tolist() for i in range(2)] == values
    lacking = TensorSpec("class_label", class_names=["cat"], shape=shape)
    with pytest.raises(TransformError, match="'dog' must be one of the class names 'cat'"):
        _through(lake, tmp_path / "c", lambda s: s, x=lacking)


def test_boxes_of_other_coordinates_are_refused(tmp_path: Path) -> None:
    """Numbers are not copied to a tensor in which they mean something else."""
    lake = _pair(tmp_path, TensorSpec("bbox", coords="pixel-ltwh"), [[[1, 2, 3, 4]]])
    target = TensorSpec("bbox", coords="pixel-ltrb")
    with pytest.raises(TransformError, match="must have the tensor's coords pixel-ltrb"):
        _through(lake, tmp_path / "b", lambda s: s, x=target)
    converted = _through(lake, tmp_path / "c", lambda s: {**s}, x=target)
    assert converted["x"][0].tolist() == [[1, 2, 3, 4]]


def test_links_keep_the_properties_of_their_targets(tmp_path: Path) -> None:
    """A verified link is copied with its fingerprint, although its target is gone."""
    target = tmp_path / "picture.jpg"
    target.write_bytes(_noise("jpeg"))
    lake = _pair(tmp_path, TensorSpec("link[image]"), [str(target)] * 2)
    target.unlink()
    for number, change in enumerate((lambda s: s, dict)):
        copy = _through(lake, tmp_path / str(number), change)
        assert stored(copy) == stored(lake)
        assert copy["x"][0].size == len(_noise("jpeg"))
    decoded = TensorSpec("link[image]", verify="decode")
    with pytest.raises(TransformError, match="is dead"):
        _through(lake, tmp_path / "c", lambda s: s, x=decoded)


def test_samples_stay_as_stored_between_the_processes_of_a_cluster(
    tmp_path: Path, client: Client
) -> None:
    """Samples that are shuffled between workers arrive as stored."""
    lake = _pair(tmp_path, TensorSpec("image", compression="jpeg"), [_noise("jpeg")] * 8)
    shuffled = lake.to_dask_bag().groupby(lambda s: int(s["y"]) % 3).map(lambda pair: pair[1])
    on_cluster = dasklake.WriteOptions(scheduler=client)
    shuffled.flatten().to_lake(tmp_path / "b", schema=lake.schema, options=on_cluster)
    persisted = client.persist(lake.to_dask_bag())
    persisted.to_lake(tmp_path / "c", schema=lake.schema, options=on_cluster, input_id="persisted")
    for name in ("b", "c"):
        copy = dasklake.open(tmp_path / name)
        assert sorted(copy["y"][:].tolist()) == list(range(8))
        assert {copy["x"].bytes(i) for i in range(8)} == {_noise("jpeg")}


def _numbered(tmp_path: Path, count: int = 20) -> Lake:
    """Write pictures beside their numbers, in small chunks."""
    schema = {
        "x": TensorSpec("image", compression="jpeg"),
        "y": TensorSpec(dtype="int64", shape=()),
        "label": TensorSpec("class_label", class_names=["a", "b"], shape=()),
    }
    samples = [{"x": _noise("jpeg"), "y": i, "label": i % 2} for i in range(count)]
    bag = db.from_sequence(samples, npartitions=3)
    dasklake.to_lake(bag, tmp_path / "numbered", schema=schema, options=SYNC, input_id="numbered")
    return dasklake.open(tmp_path / "numbered")


@pytest.mark.parametrize(
    "rows",
    [
        slice(3, 17, 2),
        slice(None, None, -1),
        [5, 5, 0, -1, 19],
        np.arange(20) % 3 == 0,
        [i > 17 for i in range(20)],
        range(2, 9),
        [],
        np.array([7]),
    ],
)
@pytest.mark.parametrize("columns", [None, ["y", "x"]])
def test_copied_rows_and_columns_are_those_of_an_index(
    tmp_path: Path, rows: Any, columns: list[str] | None
) -> None:
    """``copy_to(rows, columns)`` copies the samples of ``lake[rows]`` in the same order."""
    lake = _numbered(tmp_path)
    report = lake.copy_to(tmp_path / "copy", rows, columns, options=SYNC)
    copy = dasklake.open(tmp_path / "copy")
    names = columns or list(lake.schema)
    index = list(rows) if isinstance(rows, range) else rows
    assert {name: copy.schema[name] for name in copy.schema} == {n: lake.schema[n] for n in names}
    assert [int(s["y"]) for s in copy] == [int(s["y"]) for s in lake[index]]
    assert report.samples == len(copy)
    assert all(copy["x"].bytes(i) == _noise("jpeg") for i in range(len(copy)))


@pytest.mark.parametrize("rows", [5, "all", {1, 2}, [20], [1.5]])
def test_rows_that_are_not_an_index_are_refused(tmp_path: Path, rows: Any) -> None:
    """Invalid rows raise an error, and no lake is created."""
    lake = _numbered(tmp_path)
    with pytest.raises((InvalidInputError, IndexError)):
        lake.copy_to(tmp_path / "copy", rows=rows)
    with pytest.raises(InvalidInputError, match="at least one tensor"):
        lake.copy_to(tmp_path / "copy", columns=[])
    assert not (tmp_path / "copy").exists()


def test_an_interrupted_copy_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that was interrupted after a checkpoint continues, and has each sample once."""
    monkeypatch.setattr("dasklake._read.selection._PARTITION_BYTES", 1)
    lake = _numbered(tmp_path)
    lake.copy_to(tmp_path / "copy", rows=[0], options=SYNC, run="first")
    rows = list(range(19, 0, -1))
    (chunk,) = (tmp_path / "numbered" / "data").rglob("1-1-*.arrow")
    content = chunk.read_bytes()
    chunk.unlink()
    more: dict[str, Any] = {"run": "more", "options": SYNC, "checkpoint_every": 1}
    with pytest.raises(LakeError):
        lake.copy_to(tmp_path / "copy", rows, mode="append", **more)
    chunk.write_bytes(content)
    assert 1 < len(dasklake.open(tmp_path / "copy")) < 20
    with pytest.raises(PlanMismatchError):
        lake.copy_to(tmp_path / "copy", rows[1:], mode="resume", **more)
    lake.copy_to(tmp_path / "copy", rows, mode="resume", **more)
    copy = dasklake.open(tmp_path / "copy")
    assert copy["y"][:].tolist() == [0, *rows]
    assert copy.is_complete


def test_tensors_without_samples_do_not_hide_the_others(tmp_path: Path) -> None:
    """A lake whose new tensor is still empty is copied with all of its samples."""
    lake = _numbered(tmp_path)
    lake.create_tensor("new", htype="text")
    assert len(lake) == 0
    lake.copy_to(tmp_path / "copy", options=SYNC)
    copy = dasklake.open(tmp_path / "copy")
    assert copy["y"][:].tolist() == list(range(20))
    assert copy["new"][:] == [None] * 20


def test_renamed_and_appended_tensors_are_copied(tmp_path: Path) -> None:
    """Tensors have their present names; appended labels get the indices of the same names."""
    lake = _numbered(tmp_path, 4)
    lake.rename_tensor("x", "picture")
    out = dasklake.empty(tmp_path / "copy")
    with out:
        out.create_tensor("picture", htype="image", sample_compression="jpeg")
        out.create_tensor("label", htype="class_label", class_names=["b", "a"], shape=())
    lake.copy_to(tmp_path / "copy", columns=["picture", "label"], mode="append", options=SYNC)
    out.refresh()
    assert out["label"][:].tolist() == [1, 0, 1, 0]
    assert out["picture"].bytes(3) == _noise("jpeg")


def test_a_copy_runs_on_a_cluster(tmp_path: Path, client: Client) -> None:
    """The tasks of a copy run on workers, with a checkpoint for each partition."""
    lake = _numbered(tmp_path)
    on_cluster = dasklake.WriteOptions(scheduler=client)
    report = lake.copy_to(tmp_path / "copy", checkpoint_every=1, options=on_cluster)
    assert report.samples == 20
    assert stored(dasklake.open(tmp_path / "copy")) == stored(lake)


def test_bags_that_may_hold_other_items_need_a_schema(tmp_path: Path) -> None:
    """A bag that was mapped, or joined with another lake's, has no schema; the error names the cure."""
    lake = _numbered(tmp_path, 4)
    other = _pair(tmp_path, TensorSpec("text"), ["a"])
    bag = lake.to_dask_bag()
    for changed in (bag.map(dict), db.concat([bag, other.to_dask_bag()]), bag.pluck("y")):
        with pytest.raises(SchemaError, match=r"schema=lake\.schema"):
            dasklake.to_lake(changed, tmp_path / "copy", options=SYNC)
    with pytest.raises(SchemaError, match="cannot be inferred"):
        dasklake.to_lake(bag, tmp_path / "copy", transform=dict, options=SYNC)
    both = db.concat([bag, lake.to_dask_bag()]).random_sample(1.0, 1)
    dasklake.to_lake(both, tmp_path / "copy", options=SYNC)
    assert dasklake.open(tmp_path / "copy").schema == lake.schema
    assert len(dasklake.open(tmp_path / "copy")) == 8


def test_one_tensor_of_a_group_is_copied_alone(tmp_path: Path) -> None:
    """A tensor leaves its ``same_length`` group if the others are not copied."""
    boxes = TensorSpec("bbox", same_length="objects", compression="none")
    names = TensorSpec("class_label", class_names=["a"], same_length="objects", compression="none")
    bag = db.from_sequence([{"boxes": [[1, 2, 3, 4]], "names": ["a"]}], npartitions=1)
    schema = {"boxes": boxes, "names": names}
    dasklake.to_lake(bag, tmp_path / "a", schema=schema, options=SYNC)
    lake = dasklake.open(tmp_path / "a")
    lake.copy_to(tmp_path / "all", options=SYNC)
    assert dasklake.open(tmp_path / "all").schema == lake.schema
    lake.copy_to(tmp_path / "boxes", columns=["boxes"], options=SYNC)
    assert dasklake.open(tmp_path / "boxes").schema == dasklake.Schema({"boxes": "bbox"})


def _mixed(tmp_path: Path) -> Lake:
    """Write pictures, masks, documents, labels and numbers with gaps."""
    schema = {
        "image": TensorSpec("image", compression="jpeg"),
        "mask": TensorSpec("binary_mask"),
        "document": TensorSpec("json"),
        "label": TensorSpec("class_label", class_names=["a", "b"], shape=()),
        "number": TensorSpec(dtype="float32", shape=()),
        "vector": TensorSpec(dtype="complex64", shape=(2,)),
    }
    samples = [
        {
            "image": _noise("jpeg"),
            "mask": np.ones((2, 3, i % 3), bool),
            "document": {"number": i},
            "label": i % 2,
            "number": None if i == 3 else float("nan") if i == 4 else i,
            "vector": np.array([i, 1j], "c8"),
        }
        for i in range(9)
    ]
    bag = db.from_sequence(samples, npartitions=3)
    dasklake.to_lake(bag, tmp_path / "mixed", schema=schema, options=SYNC, input_id="mixed")
    return dasklake.open(tmp_path / "mixed")


#: Metadata of a column of numbers of documents.
_NUMBERS = ("number", "int64")


def _number(document: Any) -> int:
    return int(document["number"])


@pytest.mark.parametrize(
    ("select", "rows"),
    [
        (lambda f: f[f["label"] == "b"], [1, 3, 5, 7]),
        (lambda f: f[f["document"].map(_number, meta=_NUMBERS) == 5], [5]),
        (lambda f: f.loc[2:4], [2, 3, 4]),
        (lambda f: f.head(2, npartitions=-1, compute=False), [0, 1]),
        (lambda f: f.tail(2, compute=False), [7, 8]),
        (lambda f: f.partitions[1], [3, 4, 5]),
        (lambda f: f.repartition(npartitions=2), list(range(9))),
        (lambda f: f.assign(more=1).drop(columns="more"), list(range(9))),
    ],
)
@pytest.mark.parametrize("given", [True, False])
def test_selected_rows_of_a_frame_are_copied(
    tmp_path: Path, select: Callable[[Any], Any], rows: list[int], *, given: bool
) -> None:
    """A selection of rows keeps the schema and every stored value, also gaps beside NaN."""
    lake = _mixed(tmp_path)
    schema = lake.schema if given else None
    frame = select(lake.to_dask_dataframe())
    dasklake.to_lake(frame, tmp_path / "copy", schema=schema, options=SYNC)
    copy = dasklake.open(tmp_path / "copy")
    assert copy.schema == lake.schema
    before = stored(lake)
    assert stored(copy) == [before[row] for row in rows]


def test_selected_columns_of_a_frame_are_copied(tmp_path: Path) -> None:
    """Projected and renamed columns keep their descriptions; replaced ones get those of their dtype."""
    lake = _mixed(tmp_path)
    frame = lake.to_dask_dataframe()[["document", "image", "number"]]
    frame = frame.rename(columns={"image": "picture"})
    frame["number"] = frame["number"].fillna(0).astype("int64")
    dasklake.to_lake(frame, tmp_path / "copy", options=SYNC)
    copy = dasklake.open(tmp_path / "copy")
    assert copy.schema["picture"] == lake.schema["image"]
    assert copy.schema["document"] == lake.schema["document"]
    assert copy.schema["number"].dtype == "int64"
    assert copy["picture"].bytes(8) == _noise("jpeg")
    assert copy["document"][:] == lake["document"][:]
    assert copy["number"][:].tolist() == [0, 1, 2, 0, 0, 5, 6, 7, 8]


def test_columns_for_another_htype_have_the_values_of_the_frame(tmp_path: Path) -> None:
    """If the schema has text for a document, the text of the frame is written, and nothing else."""
    lake = _mixed(tmp_path)
    frame = lake.to_dask_dataframe()[["document", "image"]]
    schema: dict[str, Any] = {"document": "text", "image": lake.schema["image"]}
    with pytest.raises(TransformError, match="must be a string"):
        dasklake.to_lake(frame, tmp_path / "copy", schema=schema, options=SYNC)
    texts = frame.assign(document=frame["document"].astype("string"))
    plain = dasklake.read_lake(lake.url, ["document", "image"], tensors="arrow")
    for number, given in enumerate((texts, plain)):
        url = tmp_path / f"copy {number}"
        dasklake.to_lake(given, url, schema=schema, options=SYNC)
        copy = dasklake.open(url)
        assert copy["document"][2] == '{"number":2}'
        assert copy["image"].bytes(2) == _noise("jpeg")


def test_transforms_of_a_frame_get_decoded_values(tmp_path: Path) -> None:
    """A transform sees values, and those that it returns unchanged keep their bytes."""
    lake = _mixed(tmp_path)
    dasklake.to_lake(
        lake.to_dask_dataframe(),
        tmp_path / "copy",
        schema={"text": "text", "image": lake.schema["image"]},
        transform=lambda row: {"text": str(row["document"]), "image": row["image"]},
        options=SYNC,
    )
    copy = dasklake.open(tmp_path / "copy")
    assert copy["text"][2] == "{'number': 2}"
    assert copy["image"].bytes(2) == _noise("jpeg")


def test_frames_are_copied_on_a_cluster(tmp_path: Path, client: Client) -> None:
    """Stored values of a frame reach the workers that write them."""
    lake = _mixed(tmp_path)
    frame = lake.to_dask_dataframe()
    on_cluster = dasklake.WriteOptions(scheduler=client)
    dasklake.to_lake(frame[frame["number"] >= 0], tmp_path / "copy", options=on_cluster)
    before = stored(lake)
    assert stored(dasklake.open(tmp_path / "copy")) == [before[i] for i in (0, 1, 2, 5, 6, 7, 8)]


@pytest.mark.parametrize(
    ("annotations", "images"), [("instances_571", "link"), ("instances_68", "bytes")]
)
def test_real_coco_samples_are_copied(
    tmp_path: Path, coco_dir: Path, annotations: str, images: Literal["link", "bytes"]
) -> None:
    """Masks, boxes and JPEGs of real annotations are the same bytes after every kind of copy."""
    with dask.config.set(scheduler="sync"):
        coco.ingest(
            str(coco_dir / f"{annotations}.json"),
            str(coco_dir / "images"),
            str(tmp_path / "coco"),
            images=images,
            verify=False,
        )
    lake = dasklake.open(tmp_path / "coco")
    before = stored(lake)
    chosen = [row for row, count in enumerate(lake["categories"].shapes()) if count[0] > 3]
    bag = lake.to_dask_bag().filter(lambda s: len(s["categories"]) > 3)
    dasklake.to_lake(bag, tmp_path / "bag", options=SYNC)
    frame = lake.to_dask_dataframe().loc[chosen]
    dasklake.to_lake(frame, tmp_path / "frame", options=SYNC)
    lake.copy_to(tmp_path / "rows", chosen, options=SYNC)
    for name in ("bag", "frame", "rows"):
        copy = dasklake.open(tmp_path / name)
        assert copy.schema == lake.schema
        assert stored(copy) == [before[row] for row in chosen]
    lake.copy_to(tmp_path / "all", options=SYNC)
    assert stored(dasklake.open(tmp_path / "all")) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.sort_values("row", ascending=False),
        lambda f: f.shuffle("row"),
        lambda f: f.query("row > 2"),
        lambda f: dd.concat([f.loc[:1], f.loc[5:]]),
        lambda f: f.merge(f[["row"]].assign(more=1), on="row").drop(columns="more"),
        lambda f: f.map_partitions(lambda part: part.copy()),
        lambda f: f.persist(scheduler="sync"),
        lambda f: f[f["row"] != 4].persist(scheduler="sync").sort_values("row"),
    ],
)
@pytest.mark.parametrize("given", [True, False])
def test_moved_cells_of_a_frame_keep_their_meaning(
    tmp_path: Path, change: Callable[[Any], Any], *, given: bool
) -> None:
    """Sorted, joined and persisted frames keep htypes, shapes, masks, documents and files."""
    lake = _mixed(tmp_path)
    whole = dasklake.read_lake(lake.url, columns=[n for n in lake.schema if n != "number"])
    numbered = whole.assign(row=whole["document"].map(_number, meta=_NUMBERS))
    frame = change(numbered)
    schema = {n: spec for n, spec in lake.schema.items() if n != "number"}
    schema["row"] = TensorSpec(dtype="int64", shape=())
    dasklake.to_lake(frame, tmp_path / "copy", schema=schema if given else None, options=SYNC)
    copy = dasklake.open(tmp_path / "copy")
    assert {n: copy.schema[n] for n in schema} == schema
    before = stored(lake)
    assert len(copy)
    for sample, row in zip(stored(copy), copy["row"][:].tolist(), strict=True):
        assert all(sample[n] == before[row][n] for n in schema if n != "row")


def test_links_keep_their_keys_when_rows_move(tmp_path: Path) -> None:
    """Links of a sorted frame have their credentials keys; those that are URLs need a schema."""
    link = dasklake.link("s3://bucket/a.jpg", "key")
    with dask.config.set({"dasklake.creds.key": {}}):
        lake = _pair(tmp_path, TensorSpec("link[image]", verify=False), [link] * 2)
        frame = lake.to_dask_dataframe()
        dasklake.to_lake(frame[frame["y"] > 0], tmp_path / "selected", options=SYNC)
        assert stored(dasklake.open(tmp_path / "selected")) == stored(lake)[1:]
        dasklake.to_lake(frame.sort_values("y"), tmp_path / "sorted", options=SYNC)
        assert stored(dasklake.open(tmp_path / "sorted")) == stored(lake)
        urls = lake.to_dask_dataframe(tensors="arrow").sort_values("y")
        with pytest.raises(SchemaError, match=r"'x' hold links.*give a schema"):
            dasklake.to_lake(urls, tmp_path / "urls", options=SYNC)
        dasklake.to_lake(urls, tmp_path / "urls", schema=lake.schema, options=SYNC)
        assert dasklake.open(tmp_path / "urls")["x"][0].creds_key is None
