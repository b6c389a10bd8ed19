"""Targets for the detection models of torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dasklake._schema.htypes import COORDS
from dasklake._schema.schema import TensorSpec
from dasklake.exceptions import InvalidInputError, SampleError
from dasklake.torch._tensors import TensorList


class DetectionCollate:
    """Joins samples as the detection models of torchvision expect them: images and targets.

    Use it as ``collate`` of :meth:`Lake.torch`. A batch is then a tuple of a list of images and a
    list of dicts: ``"boxes"`` is float32 of shape ``(N, 4)``, left, top, right and bottom in pixels;
    ``"labels"`` is int64 of shape ``(N,)``; ``"masks"`` is uint8 of shape ``(N, H, W)``. A sample
    without a value has ``N = 0``. Images are uint8 tensors with the channels first: divide them by
    255 on the device.

    Parameters
    ----------
    schema : mapping of str to TensorSpec
        Tensors of the lake: ``lake.schema``.
    image, boxes, labels : str
        The tensors.
    masks : str, optional
        A ``binary_mask`` tensor.
    coords : str, optional
        Format of the boxes, such as ``"pixel-ltwh"``. By default, that of the tensor.
    first_label : int, default 0
        Added to each label. The models of torchvision reserve label 0 for the background.

    Raises
    ------
    InvalidInputError
        A tensor does not exist, or the format of its boxes is not known.

    Examples
    --------
    >>> import dasklake, numpy as np
    >>> from dasklake.torch import DetectionCollate
    >>> lake = dasklake.empty("memory://detection")
    >>> lake.create_tensor("image", dtype="uint8", shape=(None, None, 3))
    >>> lake.create_tensor("boxes", "bbox", coords="pixel-ltwh")
    >>> lake.create_tensor("labels", "class_label", shape=(None,), class_names=["cat", "dog"])
    >>> image = np.zeros((4, 6, 3), "uint8")
    >>> lake.append({"image": image, "boxes": [[1, 1, 2, 3]], "labels": [1]})
    >>> collate = DetectionCollate(lake.schema, image="image", boxes="boxes", labels="labels")
    >>> images, targets = next(iter(lake.torch(batch_size=1, collate=collate)))
    >>> targets[0]["boxes"]
    tensor([[1., 1., 3., 4.]])
    """

    def __init__(
        self,
        schema: Mapping[str, TensorSpec],
        *,
        image: str = "image",
        boxes: str = "boxes",
        labels: str = "labels",
        masks: str | None = None,
        coords: str | None = None,
        first_label: int = 0,
    ) -> None:
        for name in filter(None, (image, boxes, labels, masks)):
            if name not in schema:
                raise InvalidInputError(
                    f"There is no tensor {name!r}. Use one of: {', '.join(schema)}."
                )
        coords = coords or schema[boxes].coords
        if coords not in COORDS:
            raise InvalidInputError(
                f"The format of the boxes {boxes!r} must be one of {', '.join(COORDS)}, got "
                f"{coords!r}. Give it as coords."
            )
        self._image, self._boxes, self._labels, self._masks = image, boxes, labels, masks
        unit, mode = str(coords).split("-")
        self._unit, self._mode = unit, mode
        self._first_label = first_label

    def __call__(self, batch: Mapping[str, Any]) -> tuple[TensorList, list[dict[str, Any]]]:
        """Return the images and targets of a batch."""
        images, targets = TensorList(), []
        for number, image in enumerate(batch[self._image]):
            images.append(self._channels_first(image, number))
            height, width = image.shape[:2]
            boxes, labels = batch[self._boxes][number], batch[self._labels][number]
            boxes = _or_empty(boxes, (0, 4))
            labels = _or_empty(labels, (0,))
            if len(boxes) != len(labels):
                raise SampleError(
                    f"Sample {number} of the batch has {len(boxes)} boxes in {self._boxes!r}, but "
                    f"{len(labels)} labels in {self._labels!r}."
                )
            target = {
                "boxes": self._corners(boxes.to(torch.float32), height, width),
                "labels": labels.to(torch.int64) + self._first_label,
            }
            if self._masks is not None:
                masks = _or_empty(batch[self._masks][number], (height, width, 0))
                target["masks"] = masks.movedim(-1, 0).to(torch.uint8).contiguous()
            targets.append(target)
        return images, targets

    def _channels_first(self, image: Any, number: int) -> torch.Tensor:
        if image is None:
            raise SampleError(f"Sample {number} of the batch has no image in {self._image!r}.")
        if image.ndim == 3 and image.shape[-1] > 4 and image.shape[0] <= 4:
            raise SampleError(
                f"Images must have the channels last, got the shape {tuple(image.shape)} in "
                f"{self._image!r}. Use layout='HWC': DetectionCollate moves the channels."
            )
        pixels: torch.Tensor = image.unsqueeze(0) if image.ndim == 2 else image.movedim(-1, 0)
        return pixels.contiguous()

    def _corners(self, boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
        first, size = boxes[:, :2], boxes[:, 2:]
        if self._mode == "ltwh":
            boxes = torch.cat([first, first + size], 1)
        elif self._mode == "ccwh":
            boxes = torch.cat([first - size / 2, first + size / 2], 1)
        if self._unit == "fractional":
            boxes = boxes * boxes.new_tensor([width, height, width, height])
        return boxes


def _or_empty(value: Any, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.zeros(shape) if value is None else value
