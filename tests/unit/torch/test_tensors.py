"""Test the conversion of batches to tensors: shapes, dtypes, ragged values and images."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import dasklake
from dasklake.exceptions import SampleError
from dasklake.torch import TensorList
from dasklake.torch._tensors import Conversion, _in_shared_memory, to_tensor

#: Nested tensors are a prototype of PyTorch.
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")


def _first(lake: dasklake.Lake, workers: int = 0, **options: Any) -> dict[str, Any]:
    dataset = lake.torch(**{"batch_size": 8, **options})
    context = "fork" if workers else None
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size=None, num_workers=workers, multiprocessing_context=context
    )
    batch: dict[str, Any] = next(iter(loader))
    return batch


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> dasklake.Lake:
    """Return a lake of 0, 2 and 3 boxes."""
    lake = dasklake.empty(tmp_path_factory.mktemp("boxes") / "lake")
    lake.create_tensor("boxes", dtype="float32", shape=(None, 4))
    lake.extend([{"boxes": np.full((n, 4), n + 1, "float32")} for n in (0, 2, 3)])
    return lake


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dasklake.Lake:
    """Return a lake of two JPEG files of different sizes."""
    lake = dasklake.empty(tmp_path_factory.mktemp("images") / "lake")
    lake.create_tensor("image", "image", compression="jpeg")
    for size in ((6, 4), (3, 5)):
        file = io.BytesIO()
        Image.new("RGB", size, (200, 10, 10)).save(file, "JPEG")
        lake.append({"image": file.getvalue()})
    return lake


@pytest.mark.parametrize("workers", [0, 1])
def test_ragged_values_are_lists(boxes: dasklake.Lake, workers: int) -> None:
    """By default, values of different shapes are a list of tensors, also from workers."""
    column = _first(boxes, workers)["boxes"]
    assert isinstance(column, TensorList)
    assert [tuple(tensor.shape) for tensor in column] == [(0, 4), (2, 4), (3, 4)]
    assert torch.equal(column[2], torch.full((3, 4), 4.0))


@pytest.mark.parametrize("workers", [0, 1])
def test_ragged_values_are_padded_with_a_mask(boxes: dasklake.Lake, workers: int) -> None:
    """Padding has zeros after the values, and the mask covers the axes without a fixed length."""
    batch = _first(boxes, workers, ragged="pad")
    assert batch["boxes"].shape == (3, 3, 4)
    assert batch["boxes_mask"].tolist() == [[False] * 3, [True, True, False], [True] * 3]
    assert batch["boxes"][1, 2].tolist() == [0, 0, 0, 0]
    assert batch["boxes"].sum() == 2 * 4 * 3 + 3 * 4 * 4


def test_ragged_values_are_nested(boxes: dasklake.Lake) -> None:
    """A nested tensor holds the values without padding."""
    nested = _first(boxes, ragged="nested")["boxes"]
    assert nested.is_nested
    assert nested.layout == torch.jagged
    assert [tuple(tensor.shape) for tensor in nested.unbind()] == [(0, 4), (2, 4), (3, 4)]


def test_images_are_uint8_with_channels_last_or_first(images: dasklake.Lake) -> None:
    """Pixels stay uint8; ``layout`` is the order of the axes."""
    assert [tuple(i.shape) for i in _first(images)["image"]] == [(4, 6, 3), (5, 3, 3)]
    first = _first(images, layout="CHW")["image"]
    assert [tuple(i.shape) for i in first] == [(3, 4, 6), (3, 5, 3)]
    assert first[0].dtype == torch.uint8
    assert first[0][0].min() > 150
    assert first[0][1].max() < 50


def test_padded_images_have_a_mask_of_pixels(images: dasklake.Lake) -> None:
    """The mask of padded images says where each image is."""
    batch = _first(images, layout="CHW", ragged="pad")
    assert batch["image"].shape == (2, 3, 5, 6)
    assert batch["image_mask"][:, 0].sum((1, 2)).tolist() == [4 * 6, 5 * 3]
    last = _first(images, ragged="pad")
    assert last["image"].shape == (2, 5, 6, 3)


def test_images_of_one_channel_get_an_axis() -> None:
    """With channels first, an image without channels has one."""
    lake = dasklake.empty("memory://torch-gray")
    lake.create_tensor("image", "image.gray", compression="png")
    lake.append({"image": np.zeros((2, 3), np.uint8)})
    lake.append({"image": np.zeros((2, 3), np.uint8)})
    assert [tuple(i.shape) for i in _first(lake, layout="CHW")["image"]] == [(1, 2, 3)] * 2
    sample = next(iter(lake.torch(layout="CHW")))
    assert sample["image"].shape == (1, 2, 3)


@pytest.mark.parametrize("workers", [0, 1])
def test_files_are_bytes_or_tensors_of_bytes(images: dasklake.Lake, workers: int) -> None:
    """Files that are not decoded are uint8 tensors, or ``bytes`` objects if these are asked for."""
    files = _first(images, workers, decode=False)["image"]
    names = _first(images, workers, decode={"image": "bytes"})["image"]
    assert [type(file) for file in names] == [bytes, bytes]
    assert [bytes(file.numpy()) for file in files] == names
    assert Image.open(io.BytesIO(names[0])).size == (6, 4)


def test_missing_values_stay_none(tmp_path: Path) -> None:
    """No value is None in a list, and refused where a tensor would need one."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("x", dtype="float32", shape=(2,))
    lake.extend([{"x": [1, 2]}, {"x": None}])
    column = _first(lake)["x"]
    assert column[0].tolist() == [1, 2]
    assert column[1] is None
    for ragged in ("pad", "nested"):
        with pytest.raises(SampleError, match=r"'x' .* sample 1 of the batch has no array"):
            _first(lake, ragged=ragged)


@pytest.mark.parametrize(
    "dtype",
    [
        "bool",
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float16",
        "float32",
        "float64",
        "complex64",
        "complex128",
    ],
)
def test_every_dtype_keeps_its_values(dtype: str) -> None:
    """A tensor has the dtype and the values of the array."""
    array = np.array([0, 1, 1], dtype)
    tensor = to_tensor(array)
    assert str(tensor.dtype) == f"torch.{dtype}"
    assert np.array_equal(tensor.numpy(), array)


def test_read_only_and_reversed_arrays_are_copied() -> None:
    """A tensor can be written to, and never changes what it was made of."""
    array = np.arange(4)
    array.flags.writeable = False
    tensor = to_tensor(array)
    tensor[0] = 9
    assert array[0] == 0
    assert to_tensor(np.arange(4)[::-1]).tolist() == [3, 2, 1, 0]


def test_values_that_are_no_numbers_are_unchanged() -> None:
    """Texts, times and documents stay what they are; arrays inside of them become tensors."""
    assert to_tensor("a") == "a"
    assert to_tensor(np.array(["a", "b"])) == ["a", "b"]
    times = np.array(["2026-01-01"], "datetime64[ns]")
    assert to_tensor(times) == [times[0]]
    assert to_tensor(np.float32(0.5)).dtype == torch.float32
    assert to_tensor(memoryview(b"")).shape == (0,)
    document = to_tensor({"a": [np.ones(2)], "b": (1, None)})
    assert torch.equal(document["a"][0], torch.ones(2, dtype=torch.float64))
    assert document["b"] == (1, None)


def test_values_of_different_ranks_have_no_padding() -> None:
    """Arrays that differ in dtype or in the number of axes are refused, not converted."""
    conversion = Conversion("pad", frozenset(), {})
    with pytest.raises(SampleError, match="different dtypes or numbers of axes"):
        conversion.batch({"x": [np.ones(2), np.ones((1, 1))]})


def test_a_list_of_tensors_is_sent_as_one() -> None:
    """Pickling joins the tensors, whatever their strides; other lists are pickled as they are."""
    tensors = TensorList([torch.arange(6).reshape(2, 3).T, torch.empty(0, 3, dtype=torch.int64)])
    flat, shapes = tensors.__reduce__()[1]
    assert flat.shape == (6,)
    assert shapes == [(3, 2), (0, 3)]
    for items in (tensors, TensorList(), TensorList([None, torch.ones(2)])):
        loaded = pickle.loads(pickle.dumps(items))
        assert type(loaded) is TensorList
        assert [i if i is None else i.tolist() for i in loaded] == [
            i if i is None else i.tolist() for i in items
        ]
    mixed = TensorList([torch.ones(1), torch.ones(1, dtype=torch.int32)])
    assert [t.dtype for t in pickle.loads(pickle.dumps(mixed))] == [torch.float32, torch.int32]


def test_a_changed_list_from_a_worker_is_sent_as_it_is(boxes: dasklake.Lake) -> None:
    """Tensors in shared memory are sent again without a copy, unless the list was changed."""
    shared = _in_shared_memory([np.ones((2, 3)), np.zeros((1, 3))], channels_first=False)
    assert shared is not None
    flat, _ = copy.copy(shared).__reduce__()[1]
    assert flat.is_shared()
    assert flat is shared.__reduce__()[1][0]
    shared[1] = torch.full((2,), 5.0, dtype=torch.float64)
    for changed in (shared, copy.copy(shared)):
        assert [t.tolist() for t in pickle.loads(pickle.dumps(changed))] == [[[1] * 3] * 2, [5, 5]]


@pytest.mark.parametrize("layout", ["HWC", "CHW"])
def test_workers_give_the_same_tensors(images: dasklake.Lake, layout: Any) -> None:
    """Images from a worker's shared memory are those of the main process."""
    for decode in (True, False):
        here = _first(images, layout=layout, decode=decode)["image"]
        there = _first(images, workers=1, layout=layout, decode=decode)["image"]
        assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
        there[0][0] = 0  # it is memory of its own


def test_a_copy_of_a_list_has_the_same_tensors() -> None:
    """Loaders copy lists of batches; the tensors are not copied."""
    tensors = TensorList([torch.ones(2), torch.ones(3)])
    copied = copy.copy(tensors)
    assert type(copied) is TensorList
    assert copied[0] is tensors[0]
    assert [t.dtype for t in tensors.to(torch.float64)] == [torch.float64] * 2
