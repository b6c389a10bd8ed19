"""Test partitions that are a part of a chunk, and samples that are decoded one at a time."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pyarrow as pa
import pytest

import dasklake
from dasklake import Schema, TensorSpec
from dasklake._codecs.mask import MaskCodec
from dasklake.masks import from_polygons
from tests.support.htypes import FITTING
from tests.support.samples import Make, same

#: Arrow types of several levels, each with values.
NESTED: dict[str, tuple[pa.DataType, list[Any]]] = {
    "binary": (pa.binary(), [b"", b"abc", b"d" * 50]),
    "large_binary": (pa.large_binary(), [b"e" * 70]),
    "list": (pa.list_(pa.int16()), [[1, 2, 3], []]),
    "list of strings": (pa.list_(pa.string()), [["a", None, "bcd"], []]),
    "large list of lists": (pa.large_list(pa.list_(pa.float64())), [[[1.5], []], [[2.5] * 4]]),
    "fixed list": (pa.list_(pa.int8(), 3), [[1, 2, 3]]),
    "struct": (
        pa.struct([("a", pa.list_(pa.bool_())), ("b", pa.struct([("c", pa.string())]))]),
        [{"a": [True, None], "b": {"c": "x"}}, {"a": [], "b": None}],
    ),
    "map": (pa.map_(pa.string(), pa.int64()), [[("k", 1), ("l", None)], []]),
    "decimal": (pa.decimal128(9, 2), [pa.scalar("12.34").cast(pa.decimal128(9, 2)).as_py()]),
    "fixed binary": (pa.binary(4), [b"abcd"]),
}
SPECS = {f"htype {name}": spec for name, (spec, _) in FITTING.items()} | {
    f"arrow {name}": TensorSpec(dtype=kind) for name, (kind, _) in NESTED.items()
}
VALUES = {f"htype {name}": values for name, (_, values) in FITTING.items()} | {
    f"arrow {name}": values for name, (_, values) in NESTED.items()
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


#: Compressed masks that decode to 400 times their stored size.
MASKS = Schema({"masks": TensorSpec("binary_mask", compression="rle")})


def _masks(count: int) -> dict[str, Any]:
    return {"masks": from_polygons([[[0, 0, 9, 0, 9, 9, 0, 9]]] * count, (100, 100))}


@pytest.fixture
def lake(make_lake: Make) -> dasklake.Lake:
    """Return a lake of every htype and of nested Arrow types, in one chunk too large to be small."""
    samples = []
    for row in range(7):
        sample: dict[str, Any] = {"number": row, "filler": np.full(30_000, row, np.uint8)}
        for name, values in VALUES.items():
            value = [*values, None][(row + len(name)) % (len(values) + 1)]
            sample[name] = value
        samples.append(sample)
    schema = Schema(
        {
            "number": TensorSpec(dtype="int64", shape=()),
            "filler": TensorSpec(dtype="uint8", shape=(None,)),
            **SPECS,
        }
    )
    return dasklake.open(make_lake(schema, [[samples], [samples[:2]]]).url)


def test_parts_have_the_values_of_whole_chunks(lake: dasklake.Lake) -> None:
    """Each row of its own partition has the same value as in a whole chunk, in bag and frame."""
    bag, frame = lake.to_dask_bag(), lake.to_dask_dataframe()
    parts, rows = lake.to_dask_bag(blocksize=1), lake.to_dask_dataframe(blocksize=1)
    assert (bag.npartitions, parts.npartitions, rows.npartitions) == (2, 9, 9)
    for whole, part in zip(bag.compute(), parts.compute(), strict=True):
        assert list(whole) == list(part)
        for name in whole:
            assert _equal(part[name], whole[name]), name
    expected, actual = frame.compute(), rows.compute()
    assert actual.index.equals(expected.index)
    assert rows.divisions == (*range(9), 8)
    for name in expected.columns:
        assert actual[name].dtype == frame.dtypes[name], name
        assert pa.array(actual[name]).equals(pa.array(expected[name])), name


def _equal(actual: Any, expected: Any) -> bool:
    """Compare values, the items of lists, and the bytes or URLs of files."""
    if isinstance(expected, list):
        return len(actual) == len(expected) and all(map(_equal, actual, expected))
    if getattr(expected, "url", None) is not None:
        return bool(actual.url == expected.url)
    if isinstance(expected, dasklake.File):
        return bool(actual.bytes() == expected.bytes())
    return same(actual, expected)


def test_parts_of_single_tensors(lake: dasklake.Lake) -> None:
    """A part of one tensor reads that tensor only; numbers of fixed shape are split exactly."""
    assert lake.to_dask_bag(["number"], blocksize=16).npartitions == 5
    array = lake.to_dask_array("number", blocksize=24)
    assert array.chunks == ((2, 2, 3, 2),)
    assert array.compute().tolist() == [*range(7), 0, 1]
    assert lake.to_dask_dataframe(["number"], blocksize="1 kB").npartitions == 1
    assert lake.to_dask_bag([], blocksize=1).compute() == [{}] * 9


@pytest.mark.parametrize("compute", ["map", "to_lake", "eval"])
def test_samples_are_decoded_one_at_a_time(
    compute: str, make_lake: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task over a chunk of many masks holds one decoded sample at a time."""
    lake = dasklake.open(make_lake(MASKS, [[[_masks(3)] * 20]]).url)
    alive: set[int] = set()
    most = 0
    decode = MaskCodec.decode

    def counted(self: MaskCodec, stored: Any) -> Any:
        nonlocal most
        array = decode(self, stored)
        alive.add(id(array))
        weakref.finalize(array, alive.discard, id(array))
        most = max(most, len(alive))
        return array

    monkeypatch.setattr(MaskCodec, "decode", counted)
    if compute == "map":
        pixels = lake.to_dask_bag().map(lambda sample: int(sample["masks"].sum())).compute()
    else:
        other = dasklake.empty(tmp_path / "other")
        other.create_tensor("pixels", dtype="int64", shape=())
        if compute == "to_lake":
            other.write(lake.to_dask_bag(), transform=_pixels, progress=False)
        else:
            _count().eval(lake, other, scheduler="sync", progress=False)
        other.refresh()
        pixels = [int(sample["pixels"]) for sample in other]
    assert pixels == [243] * 20
    assert most == 1


def _pixels(sample: Any) -> dict[str, int]:
    return {"pixels": int(sample["masks"].sum())}


@dasklake.compute
def _count(sample_in: Any, samples_out: Any) -> None:
    samples_out.append(_pixels(sample_in))


def test_a_partition_of_a_bag_is_a_sequence(lake: dasklake.Lake) -> None:
    """Functions of partitions can use its length, its items, and iterate twice; results are lists."""
    bag = lake.to_dask_bag(["number"])
    assert bag.map_partitions(lambda part: [len(part)]).compute() == [7, 2]
    assert bag.map_partitions(lambda part: [part[1], part[-1], *part[:2]]).compute()[1] == {
        "number": 6
    }
    assert bag.map_partitions(lambda part: [len([*part, *part])]).compute() == [14, 4]
    assert bag.take(2) == ({"number": 0}, {"number": 1})
    assert bag.count().compute() == 9
    result = bag.to_delayed()[0].compute()
    assert type(result) is list
    assert type(result[0]["number"]) is np.int64


def test_a_frame_of_masks_is_split(make_lake: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that is large once decoded becomes several partitions of frame and bag."""
    lake = dasklake.open(make_lake(MASKS, [[[_masks(n) for n in (1, 9, 1, 1, 0, 3, 20)]]]).url)
    decoded = 100 * 100
    frame = lake.to_dask_dataframe(blocksize=10 * decoded)
    assert frame.map_partitions(len).compute().tolist() == [2, 4, 1]
    assert lake.to_dask_bag(blocksize=3 * decoded).map_partitions(
        lambda part: [len(part)]
    ).compute() == [1, 1, 3, 1, 1]
    monkeypatch.setattr("dasklake._read.reader.DEFAULT_BLOCKSIZE", 10 * decoded)
    assert lake.to_dask_dataframe().npartitions == 3
