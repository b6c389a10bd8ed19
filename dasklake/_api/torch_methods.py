"""Methods of ``Lake`` that PyTorch calls, or that return a data set for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from dasklake._api.batch_methods import BatchMethods, Decode
from dasklake._schema.argument_types import check_arguments

if TYPE_CHECKING:
    from dasklake.torch import LakeDataset


@check_arguments
class TorchMethods(BatchMethods):
    """Read the samples with PyTorch."""

    def torch(  # noqa: PLR0913 # most calls give few of them
        self,
        batch_size: int | None = None,
        columns: Sequence[str] | None = None,
        *,
        decode: Decode = True,
        shuffle: bool | int | None = None,
        window: int | None = None,
        weights: str | npt.ArrayLike | None = None,
        seed: int | None = None,
        epoch: int | None = None,
        shard: Literal["auto"] | tuple[int, int] = "auto",
        transform: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
        ragged: Literal["list", "pad", "nested"] = "list",
        layout: Literal["HWC", "CHW"] = "HWC",
        collate: Callable[[dict[str, Any]], Any] | None = None,
        drop_last: bool = False,
        read_ahead: int | str = "256 MiB",
        decode_threads: int | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> LakeDataset:
        """Return the samples as an iterable data set for ``torch.utils.data.DataLoader``.

        Give the loader ``batch_size=None``: the data set itself makes batches, which is faster. Its
        workers divide the batches among them, and yield them in the order of the epoch.

        Parameters
        ----------
        batch_size : int, optional
            Samples of a batch of this rank. By default, the data set yields single samples, for
            loaders that make batches themselves.
        columns : sequence of str, optional
            Tensors to read. By default, all.
        decode : bool or mapping of str to bool or "bytes", default True
            As for :meth:`take`. Values that are not decoded are uint8 tensors of shape ``(n,)``, as
            ``torchvision.io.decode_jpeg`` takes them; ``"bytes"`` gives objects of type ``bytes``.
        shuffle : bool or int, optional
            Shuffle the samples, as for :meth:`batches`. A number is the block.
        window : int, optional
            Blocks whose samples are mixed, as for :meth:`batches`.
        weights : str or array_like, optional
            Weight of each sample, as for :meth:`batches`.
        seed : int, optional
            Seed of the shuffle. By default 0, or that of ``state``.
        epoch : int, optional
            Number of the epoch. By default 0, or that of ``state``. Call
            :meth:`LakeDataset.set_epoch` before each epoch.
        shard : "auto" or (int, int), default "auto"
            Rank and number of ranks. By default, those of ``torch.distributed`` if it is initialized,
            else the variables RANK and WORLD_SIZE of the environment, else one rank.
        transform : callable, optional
            Called with each sample, a dict of NumPy values, in threads of the worker. It must be
            picklable if the loader spawns its workers.
        ragged : "list", "pad" or "nested", default "list"
            Result for values of different shapes: a :class:`~dasklake.torch.TensorList`; one tensor
            with zeros after shorter values, and a bool tensor ``NAME_mask`` which is True at values;
            or a nested tensor, jagged if only axis 0 differs.
        layout : "HWC" or "CHW", default "HWC"
            Order of the axes of images: height, width and channels, or channels first. Pixels stay
            uint8.
        collate : callable, optional
            Called with each batch, a dict of tensors, such as
            :class:`~dasklake.torch.DetectionCollate`. It returns the batch to yield.
        drop_last : bool, default False
            Leave out a last batch with fewer samples.
        read_ahead : int or str, default "256 MiB"
            Maximum bytes of samples that each worker reads ahead.
        decode_threads : int, optional
            Threads of each worker that decode. By default, its share of the cores.
        state : mapping, optional
            State at which to continue, as for :meth:`LakeDataset.load_state_dict`.

        Returns
        -------
        LakeDataset
            The data set.

        Raises
        ------
        MissingExtraError
            PyTorch is not installed.
        VersionNotFoundError
            The lake does not have a tensor of ``columns``.
        InvalidInputError
            An argument is invalid.

        Examples
        --------
        >>> import dasklake
        >>> from torch.utils.data import DataLoader
        >>> lake = dasklake.empty("memory://lake-torch")
        >>> lake.create_tensor("label", dtype="int64", shape=())
        >>> lake.create_tensor("boxes", dtype="float32", shape=(None, 4))
        >>> lake.extend([{"label": i, "boxes": [[i, i, 1, 1]] * i} for i in range(4)])
        >>> loader = DataLoader(lake.torch(batch_size=4), batch_size=None)
        >>> batch = next(iter(loader))
        >>> batch["label"]
        tensor([0, 1, 2, 3])
        >>> [len(boxes) for boxes in batch["boxes"]]
        [0, 1, 2, 3]
        >>> padded = next(iter(lake.torch(batch_size=4, ragged="pad")))
        >>> padded["boxes"].shape, padded["boxes_mask"].sum(1)
        (torch.Size([4, 3, 4]), tensor([0, 1, 2, 3]))
        """
        # A layer above this one, imported only if it is used: PyTorch takes a second.
        module = import_module("dasklake.torch._dataset")
        batches = self.batches(
            1 if batch_size is None else batch_size,
            columns=columns,
            decode=decode,
            shuffle=shuffle,
            window=window,
            weights=weights,
            seed=seed,
            epoch=epoch,
            shard=module.resolve_shard(shard),
            transform=transform,
            drop_last=drop_last,
            read_ahead=read_ahead,
            decode_threads=decode_threads,
            state=state,
        )
        dataset: LakeDataset = module.LakeDataset(
            batches,
            self.schema,
            single=batch_size is None,
            ragged=ragged,
            layout=layout,
            collate=collate,
        )
        return dataset

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return the samples of a batch: a loader of PyTorch calls it once for each batch."""
        columns = self.take(np.asarray(indices, np.int64))
        return [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]
