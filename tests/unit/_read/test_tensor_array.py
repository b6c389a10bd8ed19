"""Test columns of stored values: what they decode, copy, show and refuse."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from dask.base import tokenize
from dask.dataframe.dispatch import meta_nonempty
from dask.sizeof import sizeof

from dasklake import File, Link, TensorDtype, TensorSpec
from dasklake._codecs import image
from dasklake._codecs.registry import codec_for
from dasklake._read.dtype_names import spec_of_name
from dasklake._read.linked_values import LinkedImage
from dasklake._read.tensor_array import TensorArray
from dasklake.exceptions import CorruptionError, InvalidInputError, SampleError, SchemaError
from tests.support import media
from tests.support.htypes import FITTING

MATRIX = TensorDtype(TensorSpec(dtype="float32", shape=(None, None)))
JPEG = TensorDtype(TensorSpec("image", compression="jpeg"))
JSON = TensorDtype("json")


#: Operations that older releases of pandas apply to decoded values.
_YOUNG = pytest.mark.skipif(
    int(pd.__version__.split(".")[0]) < 3, reason="pandas before 3 decodes here"
)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the size of each picture that is decoded."""
    sizes: list[int] = []
    decode = image.ImageCodec.decode

    def counted(self: image.ImageCodec, stored: Any) -> object:
        sizes.append(len(stored.data))
        return decode(self, stored)

    monkeypatch.setattr(image.ImageCodec, "decode", counted)
    return sizes


def _pictures(count: int = 6) -> pd.Series:
    files = [media.picture("jpeg", size=(40 + i, 30)) for i in range(count)]
    return pd.Series([None if i == 1 else file for i, file in enumerate(files)], dtype=JPEG)


def _files(column: Any) -> list[bytes | None]:
    """Return the stored files, and None for missing ones."""
    return [value and bytes(value.stored.data) for value in column.array.stored()]


def _matrices() -> pd.Series:
    return pd.Series([np.full((i, 2), i, "f4") for i in range(4)], dtype=MATRIX)


@pytest.mark.parametrize("name", FITTING)
def test_items_are_decoded_values(name: str) -> None:
    """An item is the value that the codec of the htype returns; links can be read, too."""
    spec, values = FITTING[name]
    codec = codec_for(spec)
    column = pd.array([None, *values], dtype=TensorDtype(spec))
    assert column.isna().tolist() == [True, *[False] * len(values)]
    assert column[0] is pd.NA
    for item, value in zip(column[1:], values, strict=True):
        assert _equal(item, codec.decode(codec.encode(value)))
    assert isinstance(column[1], column.dtype.type)
    if spec.linked:
        assert isinstance(column[1], LinkedImage)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, File):
        return bool(one.bytes() == other.bytes())
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, Link):
        return (one.url, one.creds_key) == (other.url, other.creds_key)
    return bool(one == other)


@pytest.mark.parametrize("name", FITTING)
def test_columns_travel_unchanged(name: str) -> None:
    """Pickles, Arrow arrays and Parquet keep what is stored, the dtype, and the missing values."""
    spec, values = FITTING[name]
    column = pd.Series([*values, None, values[0]], dtype=TensorDtype(spec), name="x")
    again = [
        pickle.loads(pickle.dumps(column, 5)),
        pa.table({"x": pa.array(column)}).to_pandas()["x"],
        pd.concat([column[:1], column[1:]]),
        column.take([len(values), *range(len(values)), len(values) + 1]).sort_index(),
        column[::-1][::-1],
    ]
    for other in again:
        assert other.dtype == column.dtype
        assert other.equals(column)
        assert tokenize(other.array) == tokenize(column.array)
    assert not column.equals(column.shift(1))


def test_parquet_keeps_columns(tmp_path: Path) -> None:
    """A frame is the same after Parquet, with missing values and shapes."""
    frame = pd.DataFrame({"image": _pictures(), "json": pd.Series([{"a": i} for i in range(6)])})
    frame = frame.astype({"json": JSON})
    frame.to_parquet(tmp_path / "file.parquet")
    again = pd.read_parquet(tmp_path / "file.parquet")
    assert again.dtypes.tolist() == [JPEG, JSON]
    assert _files(again["image"]) == _files(frame["image"])
    assert again["json"].tolist() == frame["json"].tolist()


@pytest.mark.parametrize(
    "select",
    [
        lambda f: f.iloc[2:4],
        lambda f: f[f["n"] % 2 == 0],
        lambda f: f.sort_values("n", ascending=False),
        lambda f: pd.concat([f, f.iloc[:2]]),
        lambda f: f.merge(f[["n"]].iloc[::2], on="n"),
        lambda f: f.set_index("n").reindex([5, 7, 1]),
        pytest.param(lambda f: f.groupby("n").first(), marks=_YOUNG),
        lambda f: f.drop_duplicates("n"),
        lambda f: f.drop_duplicates("image"),
        lambda f: f.dropna(),
        lambda f: f.shift(1),
        pytest.param(lambda f: f.melt(id_vars="n"), marks=_YOUNG),
        lambda f: f.fillna({"image": media.picture("jpeg", size=(9, 9))}),
        lambda f: pickle.loads(pickle.dumps(f)),
        lambda f: (repr(f), f.to_html(), f._repr_html_(), repr(f["image"].array), f.info(buf=None)),
        lambda f: (tokenize(f), sizeof(f), f.memory_usage()),
    ],
)
def test_nothing_is_decoded(select: Any, decoded: list[int]) -> None:
    """Operations on rows, and the display of a frame, decode no value."""
    frame = pd.DataFrame({"n": range(6), "image": _pictures()})
    decoded.clear()
    select(frame)
    assert decoded == []


def test_a_value_is_decoded_alone(decoded: list[int]) -> None:
    """Access to one value decodes one value, and a function sees one value at a time."""
    column = _pictures()
    assert column[3].shape == (30, 43, 3)
    assert len(decoded) == 1
    means = column.map(lambda pixels: pixels.mean(), na_action="ignore")
    assert means.isna().tolist() == [False, True, *[False] * 4]
    assert means.dropna().dtype == float or means.dtype == object
    assert column.map(lambda pixels: 0 if pixels is pd.NA else len(pixels)).tolist() == [
        *(30, 0, 30, 30, 30, 30)
    ]
    assert len(column.to_numpy()) == 6
    assert column.to_numpy()[3].shape == (30, 43, 3)


def test_encoded_files_keep_their_bytes() -> None:
    """A decoded picture that is put back is the same file; a picture of pixels is encoded."""
    column = _pictures()
    files = _files(column)
    assert _files(pd.Series(list(column), dtype=JPEG)) == files
    column[1] = column[0]
    assert _files(column) == [files[0], files[0], *files[2:]]
    column[0] = np.zeros((3, 3, 3), np.uint8)
    assert column[0].shape == (3, 3, 3)


def test_a_display_shows_shapes() -> None:
    """The repr of a column has the shape of each value."""
    column = _pictures(3)
    assert repr(column).splitlines()[:3] == [
        "0    <image 30x40x3>",
        "1               <NA>",
        "2    <image 30x42x3>",
    ]
    assert "<float32 3x2>" in repr(_matrices())
    masks = pd.array([np.ones((4, 5, 2), bool)], dtype=TensorDtype("binary_mask"))
    assert "<binary_mask 4x5x2>" in repr(masks)
    lists = pd.array([["a", "b"], []], dtype=TensorDtype("sequence[text]"))
    assert "[<sequence[text] of 2>, <sequence[text] of 0>]" in repr(lists)
    documents = pd.array([{"key": "x" * 99}, 5], dtype=JSON)
    assert '[{"key":"xxxxxxxxxxxxxxx…, 5]' in repr(documents)
    links = pd.array(["s3://bucket/a.jpg"], dtype=TensorDtype("link[image]"))
    assert "[s3://bucket/a.jpg]" in repr(links)
    assert repr(pd.Series(range(30)).map(lambda i: {"i": i}).astype(JSON).array).count("...") == 1
    assert "img" in pd.DataFrame({"a": column}).to_string(
        formatters={"a": lambda v: f"img{v.ndim}"}
    )


def test_slices_are_pickled_alone() -> None:
    """A pickled slice has the bytes of its rows, out of band as buffers."""
    column = pd.Series([np.zeros((1000, 10), "f4")] * 100, dtype=MATRIX)
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(column[10:12].array, 5, buffer_callback=buffers.append)
    assert len(data) < 2000
    assert 80_000 < sum(buffer.raw().nbytes for buffer in buffers) < 82_000
    again = pickle.loads(data, buffers=buffers)
    assert [value.shape for value in again] == [(1000, 10)] * 2
    assert column[10:12].array.nbytes < 81_000
    assert 4_000_000 < sizeof(column) < 4_100_000
    assert sizeof(column.to_frame("a")) > 4_000_000


def test_tokens_are_those_of_what_is_stored() -> None:
    """Equal columns have equal tokens however they are cut; other values and dtypes have others."""
    column = _matrices()
    cut = pd.concat([column[:1], column[1:]]).array
    other = pd.Series([*list(column)[:3], np.ones((3, 2), "f4")], dtype=MATRIX).array
    double = column.astype(TensorDtype(TensorSpec(dtype="float64", shape=(None, None)))).array
    assert tokenize(column.array) == tokenize(cut)
    assert len({tokenize(array) for array in (column.array, other, double)}) == 3
    names = [TensorDtype(TensorSpec("segment_mask", class_names=[n, "x"])) for n in "ab"]
    assert names[0].name == names[1].name
    assert names[0] != names[1]
    assert tokenize(names[0]) != tokenize(names[1])


def test_equal_bytes_are_equal_values() -> None:
    """Values that are stored with the same bytes are duplicates, and nothing else is compared."""
    column = pd.Series([{"a": 1}, {"a": 2}, None, {"a": 1}, None], dtype=JSON)
    codes, unique = column.factorize()
    assert codes.tolist() == [0, 1, -1, 0, -1]
    assert list(unique) == [{"a": 1}, {"a": 2}]
    assert column.duplicated().tolist() == [False, False, False, True, True]
    assert len(column.unique()) == 3
    assert len(set(pd.util.hash_pandas_object(column, index=False))) == 3
    shapes = [np.zeros((2, 3), "f4"), np.zeros((3, 2), "f4")]
    assert not pd.Series(shapes, dtype=MATRIX).duplicated().any()
    with pytest.raises(InvalidInputError, match=r"cannot be compared.*equals"):
        _ = column == column[::-1].reset_index(drop=True)
    with pytest.raises(InvalidInputError, match=r"cannot be compared.*equals"):
        _ = column != {"a": 1}
    with pytest.raises(InvalidInputError, match=r"cannot be sorted.*map"):
        column.sort_values()
    with pytest.raises(InvalidInputError, match="cannot be searched"):
        _ = {"a": 1} in column.array
    assert pd.NA in column.array


def test_columns_become_types_of_arrow() -> None:
    """A column is converted to types of Arrow and pandas without its dtype."""
    kind = pd.ArrowDtype(pa.large_list(pa.large_list(pa.float32())))
    assert _matrices().astype(kind).tolist()[2] == [[2.0, 2.0], [2.0, 2.0]]
    files = _pictures().astype(pd.ArrowDtype(pa.large_binary()))
    assert files[0] == media.picture("jpeg", size=(40, 30))
    assert files.isna()[1]
    assert pa.array(_pictures(), pa.large_binary()).null_count == 1
    documents = pd.Series([{"a": 1}, None], dtype=JSON).astype("string")
    assert documents[0] == '{"a":1}'
    assert documents.isna()[1]
    links = pd.Series(["s3://bucket/a"], dtype=TensorDtype("link[image]"))
    assert links.astype("string")[0] == "s3://bucket/a"
    assert [value.shape for value in _matrices().astype(object)[1:]] == [(1, 2), (2, 2), (3, 2)]
    assert _matrices()[:0].astype(kind).empty


@pytest.mark.parametrize("name", FITTING)
def test_names_of_dtypes(name: str) -> None:
    """The name of a dtype creates it again, without its class names."""
    dtype = TensorDtype(FITTING[name][0])
    again: Any = pd.api.types.pandas_dtype(dtype.name)
    assert again.name == dtype.name
    assert dtype == dtype.name
    assert (again == dtype) is (dtype.spec.class_names is None)
    assert pickle.loads(pickle.dumps(dtype)) == dtype
    assert hash(pickle.loads(pickle.dumps(dtype))) == hash(dtype)


def test_short_names() -> None:
    """Names show the htype, and only parameters that are not defaults."""
    assert TensorDtype("binary_mask").name == "tensor[binary_mask]"
    assert JPEG.name == "tensor[image, compression='jpeg']"
    assert MATRIX.name == "tensor[generic, dtype='float32', shape=(None, None)]"
    assert repr(JPEG) == "TensorDtype(TensorSpec('image', compression='jpeg'))"
    spec = TensorSpec("bbox", optional=True, same_length="objects", compression="lz4")
    assert TensorDtype(spec).name == "tensor[bbox, compression='lz4']"


@pytest.mark.parametrize(
    "name",
    [
        "tensor[]",
        "tensor[nothing]",
        "tensor[image]",
        "tensor[bbox, shape=__import__('os')]",
        "tensor[bbox, shape=(]",
        "tensor[bbox, nothing=1]",
        "tensor[bbox, 5]",
        "tensor[bbox), f(]",
        "int64",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    """A name that is not that of a dtype is refused, and nothing in it is executed."""
    with pytest.raises(ValueError, match="name"):
        spec_of_name(name)
    with pytest.raises(TypeError):
        TensorDtype.construct_from_string(name)


def test_wrong_values_are_refused() -> None:
    """A value that does not fit is refused; a column needs a dtype; an index must exist."""
    with pytest.raises(SampleError, match="shape"):
        pd.Series([np.zeros(3, "f4")], dtype=MATRIX)
    column = _matrices()
    with pytest.raises(SampleError):
        column[0] = "text"
    with pytest.raises(InvalidInputError, match=r"dtype=dasklake\.TensorDtype"):
        TensorArray._from_sequence([1, 2])
    with pytest.raises(SchemaError):
        TensorDtype("nothing")
    with pytest.raises(ValueError, match="cannot set 2 values from a sequence of length 3"):
        column.array[:2] = [column[0]] * 3
    with pytest.raises(IndexError, match="out of bounds"):
        column.array[4]
    with pytest.raises(IndexError, match="out of bounds"):
        column.array.take([0, 7])
    with pytest.raises(ValueError, match="Unable to avoid copy"):
        np.array(column.array, copy=False)


def test_undecodable_values_are_named() -> None:
    """An error names the value that cannot be decoded, and other values are still there."""
    spec = TensorSpec("image", compression="jpeg", verify=False)
    broken = media.picture("jpeg")[:200]
    column = pd.Series([media.picture("jpeg"), broken], dtype=TensorDtype(spec))
    with pytest.raises(SampleError, match=r"value 1 of a column of tensor\[image"):
        _ = column[1]
    assert column[0].ndim == 3
    with pytest.raises(SampleError, match="value 1"):
        column.map(lambda pixels: pixels.shape)
    part = (pa.array([b"{"], pa.large_binary()), pa.array([[]], pa.list_(pa.int64())))
    with pytest.raises(CorruptionError, match=r"Value 0 of a column of tensor\[json\]"):
        _ = TensorArray((part,), JSON)[0]
    link = TensorDtype("link[image]")
    with pytest.raises(CorruptionError, match=r"Value 0 of a column .* does not match its dtype"):
        _ = TensorArray(((pa.array([{"url": "s3://a"}]), None),), link)[0]


def test_dask_has_an_example_of_values() -> None:
    """Dask finds the dtype of a function's results with an example of two values."""
    for dtype, shape in ((JPEG, (1, 1, 3)), (MATRIX, (1, 1)), (TensorDtype("bbox"), (1, 4))):
        example = meta_nonempty(pd.Series([], dtype=dtype))
        assert example.dtype == dtype
        assert [value.shape for value in example] == [shape] * 2
    for name in ("json", "sequence[text]", "polygon"):
        assert meta_nonempty(pd.Series([], dtype=TensorDtype(name))).tolist() == [[], []]
    video = meta_nonempty(pd.Series([], dtype=TensorDtype(TensorSpec("video", compression="mp4"))))
    assert video.isna().tolist() == [True, True]


def test_values_are_copies() -> None:
    """A decoded value may be changed; the column keeps what is stored."""
    column = _matrices()
    column[2][:] = 9
    assert column[2].tolist() == [[2, 2], [2, 2]]


def test_numbers_keep_nan_apart_from_missing_values() -> None:
    """In numbers, NaN is a value and not a missing one."""
    dtype = TensorDtype(TensorSpec(dtype="float32", shape=()))
    column = pd.Series([np.float32("nan"), None, 1], dtype=dtype)
    assert column.isna().tolist() == [False, True, False]
    times = pd.array(
        [np.datetime64("NaT", "ns"), None],
        dtype=TensorDtype(TensorSpec(dtype="datetime64[ns]", shape=())),
    )
    assert times.isna().tolist() == [False, True]
    assert pd.array([float("nan"), 1], dtype=JSON).isna().tolist() == [True, False]


def _chunked() -> Iterator[TensorArray]:
    column = _matrices().array
    yield column
    yield TensorArray._concat_same_type([column[:1], column[1:1], column[1:3], column[3:]])
    yield column[:0]
    yield TensorArray((), MATRIX)


@pytest.mark.parametrize("array", list(_chunked()))
@pytest.mark.parametrize("seed", range(5))
def test_rows_are_taken_from_all_parts(array: TensorArray, seed: int) -> None:
    """Any selection of rows of columns in several parts is that of a list of values."""
    random = np.random.default_rng(seed)
    values = [value.shape for value in array]
    rows = random.integers(-1, len(array), 12) if len(array) else np.array([-1, -1])
    taken = array.take(rows, allow_fill=True)
    expected = [None if row < 0 else values[row] for row in rows]
    assert [None if value is pd.NA else value.shape for value in taken] == expected
    start, stop = sorted(random.integers(-6, 6, 2).tolist())
    for step in (1, 2, -1):
        assert [v.shape for v in array[start:stop:step]] == values[start:stop:step]
    mask = random.random(len(array)) > 0.5
    assert [v.shape for v in array[mask]] == [v for v, ok in zip(values, mask, strict=True) if ok]
