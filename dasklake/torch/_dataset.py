"""A data set for ``torch.utils.data.DataLoader`` whose state is a position."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from dasklake._read.batches import Batches
from dasklake._read.fetched import Form
from dasklake._read.shards import LoaderState, parse_state
from dasklake._schema.schema import TensorSpec
from dasklake.exceptions import InvalidInputError
from dasklake.torch._tensors import make_conversion

#: Key of the flags of samples that repeat others, see ``LakeDataset``.
PADDING = "is_padding"

#: Entries of the numbers that the processes of a loader share.
_EPOCH, _POSITION, _WORKERS = range(3)


class LakeDataset(IterableDataset[Any]):
    """Batches of tensors of a lake or a view, as returned by :meth:`Lake.torch`.

    Use it with ``DataLoader(dataset, batch_size=None, num_workers=...)``: each worker reads whole
    batches, and the loader yields them in the order of the epoch. Its length is the number of
    batches, or of samples with ``batch_size=None``.

    The state is a small dict with the number of samples that all ranks have used. It is saved in the
    main process, and does not depend on ranks, workers or the batch size:

    - :meth:`state_after` works with any loader: give it the number of batches that were used;
    - :meth:`state_dict` works without workers, and in ``torchdata``'s ``StatefulDataLoader``, which
      calls it by itself.

    Call :meth:`set_epoch` before each epoch. It also reaches persistent workers.

    With several ranks, all of them have equally many batches, of equal sizes. If the samples cannot
    be divided evenly, at most one sample for each rank is repeated at the end of the epoch. The
    tensor ``batch["is_padding"]`` is True for such samples. With one rank, or ``drop_last=True``,
    this tensor does not exist.

    Parameters
    ----------
    batches : Batches
        Of :meth:`Lake.batches`.
    schema : mapping of str to TensorSpec
        The tensors.
    single : bool
        Whether single samples are yielded; the batches then have one sample.
    ragged, layout, collate
        As for :meth:`Lake.torch`.

    Examples
    --------
    >>> import dasklake
    >>> lake = dasklake.empty("memory://dataset")
    >>> lake.create_tensor("x", dtype="int64", shape=())
    >>> lake.extend({"x": range(10)})
    >>> dataset = lake.torch(batch_size=2, shuffle=True, seed=3)
    >>> len(dataset)
    5
    >>> state = dataset.state_after(batches=3)
    >>> state["position"]
    6
    >>> dataset.load_state_dict(state)
    >>> len(dataset)
    2
    """

    def __init__(
        self,
        batches: Batches,
        schema: Mapping[str, TensorSpec],
        *,
        single: bool,
        ragged: str,
        layout: str,
        collate: Callable[[dict[str, Any]], Any] | None,
    ) -> None:
        super().__init__()
        if collate is not None and not callable(collate):
            raise InvalidInputError(f"collate must be a function, got {collate!r}.")
        self._single = single
        self._collate = collate
        self._base = batches
        options = batches.options
        specs = {name: schema[name] for name in options.forms}
        decoded = [name for name, form in options.forms.items() if form is Form.DECODED]
        self._conversion = make_conversion(specs, decoded, ragged, layout)
        self._flagged = options.ranks > 1 and not options.drop_last
        if self._flagged and PADDING in specs:
            raise InvalidInputError(
                f"A tensor named {PADDING!r} hides the flags of padding. Leave it out with columns, "
                "or use drop_last=True."
            )
        # Loaders copy data sets to their workers. Persistent workers read the next epoch from here.
        self._shared = torch.zeros(3, dtype=torch.int64)
        self._shared.share_memory_()  # type: ignore[no-untyped-call] # of PyTorch
        self._shared[_EPOCH] = options.shuffle.epoch
        self._shared[_POSITION] = options.start
        #: State that a loader has restored in this worker, for the next iteration.
        self._restored: LoaderState | None = None
        self._running: Batches | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_running": None}

    def __repr__(self) -> str:
        size = self._base.options.batch_size
        unit = "samples" if self._single else f"batches of {size} samples"
        return f"LakeDataset({len(self)} {unit})"

    def __len__(self) -> int:
        return len(self._batches())

    @property
    def epoch(self) -> int:
        """Number of the epoch."""
        return int(self._shared[_EPOCH])

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration, which begins with its first sample.

        If it is the epoch of a state that was loaded, it continues at the position of the state.

        Parameters
        ----------
        epoch : int
            Number of the epoch, at least 0.

        Raises
        ------
        InvalidInputError
            ``epoch`` is not an integer, or negative.
        """
        epoch = _number(epoch, "epoch")
        self._running = None
        self._shared[_WORKERS] = 0
        if epoch != self.epoch:
            self._shared[_POSITION] = 0
            self._shared[_EPOCH] = epoch

    def state_after(self, batches: int) -> dict[str, Any]:
        """Return the state after some batches of this epoch.

        Parameters
        ----------
        batches : int
            Batches that this rank has used since the loader's iteration began; samples with
            ``batch_size=None``.

        Returns
        -------
        dict
            The state, for :meth:`load_state_dict` or ``lake.torch(state=...)``. It is the same on
            all ranks.
        """
        return self._batches().state_after(_number(batches, "batches"))

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the last batch that was yielded.

        Raises
        ------
        InvalidInputError
            The batches are yielded in workers, which are ahead of the loop that uses them.
        """
        if self._running is not None:
            return self._running.state
        if get_worker_info() is None and self._shared[_WORKERS] > 0:
            raise InvalidInputError(
                f"The {int(self._shared[_WORKERS])} workers of a loader are ahead of the batches in "
                "use. Call state_after(batches) with the number of batches that were used, or use "
                "torchdata.stateful_dataloader.StatefulDataLoader."
            )
        return self._batches().state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue at a state in the next iteration.

        Parameters
        ----------
        state_dict : mapping
            Of :meth:`state_dict` or :meth:`state_after`, also of a data set with another batch size
            or other ranks.

        Raises
        ------
        InvalidInputError
            The state is of another version, other samples or another order.
        """
        state = parse_state(state_dict)
        # Checks it.
        restored = self._base.resumed(state)
        if get_worker_info() is not None:
            self._restored = state
            return
        self._base = restored
        self._running = None
        self._shared[_EPOCH], self._shared[_POSITION] = state["epoch"], state["position"]
        self._shared[_WORKERS] = 0

    def __iter__(self) -> Iterator[Any]:
        # Not a generator: a stateful loader asks for the state before the first batch.
        worker, restored = get_worker_info(), self._restored
        self._restored = None
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        if worker is not None:
            self._shared[_WORKERS] = workers
        batches = self._batches(number, workers, restored)
        self._running = batches
        return self._yielded(batches)

    def _yielded(self, batches: Batches) -> Iterator[Any]:
        for columns in batches:
            yield self._tensors(columns, batches.padding)

    def _tensors(self, columns: Mapping[str, Any], padding: int) -> Any:
        """Return the tensors of a batch or a sample."""
        if self._single:
            batch = self._conversion.sample(columns)
            if self._flagged:
                batch[PADDING] = torch.tensor(padding > 0)
        else:
            # What a function of the user replaces is not copied for the main process.
            shared = self._collate is None and get_worker_info() is not None
            batch = self._conversion.batch(columns, shared=shared)
            if self._flagged:
                size = len(next(iter(columns.values())))
                batch[PADDING] = torch.arange(size) >= size - padding
        return batch if self._collate is None else self._collate(batch)

    def _batches(
        self, worker: int = 0, workers: int = 1, restored: LoaderState | None = None
    ) -> Batches:
        """Return the batches that begin at the position of the epoch, or at a restored state."""
        base, threads = self._base, None
        epoch, start = int(self._shared[_EPOCH]), int(self._shared[_POSITION])
        if restored is not None:
            base, epoch, start = base.resumed(restored), restored["epoch"], restored["position"]
        if workers > 1 and not base.options.threads:
            threads = max(1, len(os.sched_getaffinity(0)) // workers)
        return base.part(epoch, start, worker, workers, threads)


def _number(value: Any, name: str) -> int:
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = -1
    if number < 0:
        raise InvalidInputError(f"{name} must be an integer of at least 0, got {value!r}.")
    return number


def resolve_shard(shard: Any) -> Any:
    """Return the rank of this process and the number of ranks.

    Parameters
    ----------
    shard : "auto" or (int, int)
        ``"auto"`` means those of ``torch.distributed``, or of the variables RANK and WORLD_SIZE of
        the environment, or (0, 1).

    Raises
    ------
    InvalidInputError
        The variables are not integers.
    """
    if not (isinstance(shard, str) and shard == "auto"):
        return shard
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    rank, ranks = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None or ranks is None:
        return 0, 1
    try:
        return int(rank), int(ranks)
    except ValueError:
        raise InvalidInputError(
            f"RANK and WORLD_SIZE of the environment must be integers, got {rank!r} and {ranks!r}. "
            "Set them, or give shard=(rank, ranks)."
        ) from None
