"""Train on a lake with PyTorch.

:meth:`Lake.torch` returns a :class:`LakeDataset`, which yields batches of tensors to a
``torch.utils.data.DataLoader``. A lake or a view itself is a map-style data set. This package needs
the extra ``torch``.

Examples
--------
>>> import dasklake
>>> from torch.utils.data import DataLoader
>>> lake = dasklake.empty("memory://torch")
>>> lake.create_tensor("x", dtype="float32", shape=(2,))
>>> lake.extend([{"x": [i, i]} for i in range(5)])
>>> dataset = lake.torch(batch_size=2, shuffle=True, seed=1)
>>> [batch["x"].shape for batch in DataLoader(dataset, batch_size=None)]
[torch.Size([2, 2]), torch.Size([2, 2]), torch.Size([1, 2])]
"""

from __future__ import annotations

from dasklake.exceptions import MissingExtraError

try:
    import torch  # noqa: F401 # the modules below need it
except ImportError as error:  # pragma: no cover # the extra is not installed
    raise MissingExtraError("dasklake.torch", "torch") from error

from dasklake.torch._dataset import LakeDataset
from dasklake.torch._detection import DetectionCollate
from dasklake.torch._tensors import TensorList

__all__ = ["DetectionCollate", "LakeDataset", "TensorList"]

for _public in (DetectionCollate, LakeDataset, TensorList):
    _public.__module__ = __name__
