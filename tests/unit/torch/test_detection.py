"""Test the targets for the detection models of torchvision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import dasklake
from dasklake.exceptions import InvalidInputError, SampleError
from dasklake.torch import DetectionCollate


def _lake(name: str, coords: str | None = "pixel-ltwh") -> dasklake.Lake:
    lake = dasklake.empty(f"memory://detection-{name}", overwrite=True)
    lake.create_tensor("image", dtype="uint8", shape=(None, None, 3))
    lake.create_tensor("boxes", "bbox", coords=coords)
    lake.create_tensor("labels", "class_label", shape=(None,), class_names=["cat", "dog"])
    lake.create_tensor("masks", "binary_mask")
    return lake


def _sample(n: int, box: Any = (2, 1, 3, 2)) -> dict[str, Any]:
    return {
        "image": np.zeros((5, 10, 3), np.uint8),
        "boxes": np.array([box] * n, "float32").reshape(n, 4),
        "labels": np.ones(n, "uint32"),
        "masks": np.ones((5, 10, n), bool),
    }


def test_targets_are_as_torchvision_expects() -> None:
    """Boxes are corners in pixels, labels int64, and masks have the objects first."""
    lake = _lake("targets")
    lake.extend(
        [_sample(2), _sample(0), {**_sample(1), "boxes": None, "labels": None, "masks": None}]
    )
    collate = DetectionCollate(lake.schema, masks="masks", first_label=1)
    images, targets = next(iter(lake.torch(batch_size=3, collate=collate)))
    assert [tuple(image.shape) for image in images] == [(3, 5, 10)] * 3
    assert targets[0]["boxes"].tolist() == [[2, 1, 5, 3]] * 2
    assert targets[0]["labels"].tolist() == [2, 2]
    assert targets[0]["labels"].dtype == torch.int64
    assert targets[0]["masks"].shape == (2, 5, 10)
    assert targets[0]["masks"].dtype == torch.uint8
    for target in targets[1:]:
        assert target["boxes"].shape == (0, 4)
        assert target["boxes"].dtype == torch.float32
        assert target["labels"].shape == (0,)
        assert target["masks"].shape == (0, 5, 10)


@pytest.mark.parametrize(
    ("coords", "box"),
    [
        ("pixel-ltwh", (2, 1, 4, 2)),
        ("pixel-ltrb", (2, 1, 6, 3)),
        ("pixel-ccwh", (4, 2, 4, 2)),
        ("fractional-ltwh", (0.2, 0.2, 0.4, 0.4)),
        ("fractional-ltrb", (0.2, 0.2, 0.6, 0.6)),
        ("fractional-ccwh", (0.4, 0.4, 0.4, 0.4)),
    ],
)
def test_every_format_of_boxes_gives_corners(coords: str, box: tuple[float, ...]) -> None:
    """The same box has the same corners, whatever its format, in an image of 10 × 5 pixels."""
    lake = _lake(coords, coords)
    lake.append(_sample(1, box))
    collate = DetectionCollate(lake.schema)
    _, targets = next(iter(lake.torch(batch_size=1, collate=collate)))
    assert torch.allclose(targets[0]["boxes"], torch.tensor([[2.0, 1, 6, 3]]))


def test_boxes_without_a_format_are_refused() -> None:
    """The format is not guessed: it comes from the tensor or the caller."""
    lake = _lake("unknown", None)
    with pytest.raises(InvalidInputError, match="format of the boxes 'boxes' must be one of"):
        DetectionCollate(lake.schema)
    assert DetectionCollate(lake.schema, coords="pixel-ltrb") is not None


def test_images_have_their_channels_last() -> None:
    """Images whose channels were moved, or are missing, are an error that says what to do."""
    collate = DetectionCollate(_lake("axes").schema)
    batch = {"boxes": [None], "labels": [None]}
    with pytest.raises(SampleError, match="Use layout='HWC'"):
        collate({"image": [torch.zeros(3, 5, 10)], **batch})
    with pytest.raises(SampleError, match="has no image in 'image'"):
        collate({"image": [None], **batch})
    images, _ = collate({"image": [torch.zeros(5, 10)], **batch})
    assert images[0].shape == (1, 5, 10)


def test_unknown_tensors_are_refused() -> None:
    """A name that the lake does not have is an error when the function is made."""
    lake = _lake("names")
    with pytest.raises(InvalidInputError, match=r"no tensor 'img'\. Use one of: image, boxes"):
        DetectionCollate(lake.schema, image="img")


def test_different_numbers_of_boxes_and_labels_are_refused() -> None:
    """A target has one label for each box."""
    lake = _lake("numbers")
    collate = DetectionCollate(lake.schema)
    batch = {
        "image": [torch.zeros(5, 10, 3)],
        "boxes": [torch.zeros(2, 4)],
        "labels": [torch.zeros(1)],
    }
    with pytest.raises(SampleError, match="2 boxes in 'boxes', but 1 labels in 'labels'"):
        collate(batch)
