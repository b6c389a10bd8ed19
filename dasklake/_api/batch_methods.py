"""Methods of ``Lake`` that read many samples at once."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dasklake._api.sample_set import SampleSet
from dasklake._read.batch_options import BatchOptions, Forms, Shuffle, forms_of
from dasklake._read.batches import Batches, take
from dasklake._read.collate import Transform
from dasklake._read.order import Order, class_weights
from dasklake._read.row_index import resolve_rows
from dasklake._read.rows import Rows
from dasklake._read.shards import parse_state
from dasklake._run.options import parse_size
from dasklake._schema.argument_types import check_arguments
from dasklake.exceptions import InvalidInputError

#: Largest number that the state of a loader of PyTorch holds.
_LARGEST = 2**63 - 1

#: Form of all values, or of those of some tensors.
Decode = bool | Mapping[str, bool | Literal["bytes"]]


@check_arguments
class BatchMethods(SampleSet):
    """Read many samples at once, as columns."""

    def take(
        self,
        rows: slice | Sequence[int] | npt.NDArray[Any],
        columns: Sequence[str] | None = None,
        *,
        decode: Decode = True,
    ) -> dict[str, Any]:
        """Return some samples as columns.

        The samples are grouped by chunk, and neighbouring bytes are read together. Chunks on other
        storage than a disk are read at the same time.

        Parameters
        ----------
        rows : slice, sequence of int, or numpy.ndarray
            The samples, in any order, also repeatedly; or a mask of all samples.
        columns : sequence of str, optional
            Tensors to read. By default, all.
        decode : bool or mapping of str to bool or "bytes", default True
            With False, files and compressed values are not decoded: they are returned as
            ``memoryview``, and values of other tensors as with True. A mapping decides for single
            tensors; ``"bytes"`` gives files as ``bytes`` objects. The others are decoded.

        Returns
        -------
        dict of str to numpy.ndarray or list
            The values of each tensor, in the order of ``rows``: an array with the samples along
            axis 0 if the tensor has a fixed shape and no value is missing, otherwise a list with
            None for no value.

        Raises
        ------
        VersionNotFoundError
            The lake does not have a tensor of ``columns``.
        InvalidInputError
            ``rows`` or ``decode`` is invalid.
        IndexError
            A sample is out of range.
        CorruptionError
            A chunk is damaged.

        Examples
        --------
        >>> import dasklake
        >>> lake = dasklake.empty("memory://take")
        >>> lake.create_tensor("label", dtype="int64", shape=())
        >>> lake.create_tensor("boxes", dtype="float32", shape=(None, 4))
        >>> lake.extend([{"label": i, "boxes": [[i, i, 1, 1]] * i} for i in range(5)])
        >>> batch = lake.take([4, 0, 2])
        >>> batch["label"]
        array([4, 0, 2])
        >>> [boxes.shape for boxes in batch["boxes"]]
        [(4, 4), (0, 4), (2, 4)]
        """
        self.flush()
        forms = self._forms(columns, decode)
        return take(self._reader, self._row_numbers(rows), forms)

    def batches(  # noqa: PLR0913 # most calls give few of them
        self,
        batch_size: int,
        rows: slice | Sequence[int] | npt.NDArray[Any] | None = None,
        columns: Sequence[str] | None = None,
        *,
        decode: Decode = True,
        shuffle: bool | int | None = None,
        window: int | None = None,
        weights: str | npt.ArrayLike | None = None,
        seed: int | None = None,
        epoch: int | None = None,
        shard: tuple[int, int] = (0, 1),
        transform: Transform | None = None,
        drop_last: bool = False,
        read_ahead: int | str = "256 MiB",
        decode_threads: int | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Batches:
        """Return the samples batch by batch, read and decoded ahead of their use.

        Parameters
        ----------
        batch_size : int
            Samples of a batch. The last batch may have fewer.
        rows : slice, sequence of int, or numpy.ndarray, optional
            The samples, in reading order. By default, all.
        columns : sequence of str, optional
            Tensors to read. By default, all.
        decode : bool or mapping of str to bool or "bytes", default True
            As for :meth:`take`.
        shuffle : bool or int, optional
            Shuffle the samples. By default, only if ``weights`` are given. A number is the block:
            consecutive samples that are read together. ``True`` means 1 on a disk, so that all
            samples are permuted, and about 1 MiB of samples on other storage.
        window : int, optional
            Blocks whose samples are mixed. By default, at least 4,096 samples and 64 blocks; on other
            storage than a disk, at most as many as take an eighth of ``read_ahead``.
        weights : str or array_like, optional
            Weight of each sample: an array, or the name of a tensor with one number for each sample.
            The name of a ``class_label`` tensor means that each class is read equally often. An epoch
            has as many samples as without weights.
        seed : int, optional
            Seed of the shuffle. By default 0, or that of ``state``.
        epoch : int, optional
            Number of the epoch: each has another order. By default 0, or that of ``state``.
        shard : (int, int), default (0, 1)
            Rank of this process, and number of processes. Each batch of all processes together has
            the next samples of the order. All processes have equally many batches and samples: at the
            end, :attr:`Batches.padding` samples may repeat others.
        transform : callable, optional
            Called with each sample, a dict of its values, in the threads that decode. It returns
            the sample to use instead. Numbers, and arrays of one shape and dtype, are joined to
            arrays; other values become lists.
        drop_last : bool, default False
            Leave out a last batch with fewer samples.
        read_ahead : int or str, default "256 MiB"
            Maximum bytes of samples that are read ahead, including the samples in use.
        decode_threads : int, optional
            Threads that decode. By default, one for each core, at most 4.
        state : mapping, optional
            :attr:`Batches.state` of an earlier iteration over the same samples: continue after them,
            also with another batch size or another number of processes.

        Returns
        -------
        Batches
            An iterable of dicts as of :meth:`take`, whose length is the number of batches.

        Raises
        ------
        VersionNotFoundError
            The lake does not have a tensor of ``columns``.
        InvalidInputError
            An argument is invalid.
        IndexError
            A sample of ``rows`` is out of range.

        Examples
        --------
        >>> import dasklake
        >>> lake = dasklake.empty("memory://batches")
        >>> lake.create_tensor("x", dtype="float32", shape=(2,))
        >>> lake.extend([{"x": [i, i]} for i in range(5)])
        >>> [batch["x"].shape for batch in lake.batches(2)]
        [(2, 2), (2, 2), (1, 2)]
        >>> batches = lake.batches(2, shuffle=True, seed=1)
        >>> first = next(iter(batches))
        >>> rest = lake.batches(4, shuffle=True, state=batches.state)
        >>> sorted(x[0] for batch in [first, *rest] for x in batch["x"].tolist())
        [0.0, 1.0, 2.0, 3.0, 4.0]
        """
        self.flush()
        if transform is not None and not callable(transform):
            raise InvalidInputError(f"transform must be a function, got {transform!r}.")
        forms = self._forms(columns, decode)
        selected = self._rows if rows is None else self._row_numbers(rows)
        saved = None if state is None else parse_state(state)
        for name, given in {"seed": seed, "epoch": epoch}.items():
            if saved is not None and given is not None and given != saved[name]:  # type: ignore[literal-required] # both are keys
                raise InvalidInputError(
                    f"{name} must be that of the state, {saved[name]}, got {given!r}. Leave it out."  # type: ignore[literal-required] # as above
                )
        block = shuffle if type(shuffle) is not bool and shuffle is not None else None
        order = Shuffle(
            shuffle=bool(shuffle) if shuffle is not None else weights is not None,
            seed=0 if seed is None else _integer(seed, "seed"),
            epoch=0 if epoch is None else _integer(epoch, "epoch", 0),
            block=None if block is None else _positive(block, "shuffle"),
            window=None if window is None else _positive(window, "window"),
            weights=None if weights is None else self._weights(weights, selected),
        )
        rank, ranks = _shard(shard)
        options = BatchOptions(
            _positive(batch_size, "batch_size"),
            forms,
            order,
            rank=rank,
            ranks=ranks,
            transform=transform,
            drop_last=bool(drop_last),
            read_ahead=parse_size(read_ahead, "read_ahead"),
            threads=0 if decode_threads is None else _positive(decode_threads, "decode_threads"),
        )
        batches = Batches(self._reader, selected, options)
        return batches if saved is None else batches.resumed(saved)

    def _weights(self, weights: Any, rows: Rows) -> npt.NDArray[np.float64]:
        """Return the weight of each sample."""
        if isinstance(weights, str):
            (name,) = self._reader.names([weights])
            spec = self.schema[name]
            numbers = np.asarray(rows, np.int64)
            values = take(self._reader, numbers, forms_of(self.schema, [name], decode=True))[name]
            if not isinstance(values, np.ndarray) or values.ndim != 1:
                raise InvalidInputError(
                    f"weights must be a tensor with one number in each sample, but {name!r} "
                    "has other shapes, or samples without a value. Give an array."
                )
            if spec.kind.name == "class_label":
                return class_weights(values)
            weights = values
        # Validates them; the order is computed again when the block is known.
        Order(len(rows), weights=weights)
        return np.asarray(weights, np.float64)

    def _forms(self, columns: Sequence[str] | None, decode: Decode) -> Forms:
        names = self._columns(columns)
        return forms_of(self.schema, list(dict.fromkeys(names)), decode)

    def _row_numbers(self, rows: slice | Sequence[int] | npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the numbers of samples in the version, from their positions in this set."""
        positions = _positions(rows, len(self._rows))
        base = self._rows
        if isinstance(base, range):
            return positions + base.start if base.start else positions
        return base[positions]


def _positions(rows: Any, length: int) -> npt.NDArray[np.int64]:
    """Return the positions of some samples among ``length``, as an int64 array."""
    if isinstance(rows, np.ndarray) and rows.dtype.kind in "iu":
        if rows.ndim != 1:
            raise InvalidInputError(f"rows must have one axis, got the shape {rows.shape}.")
        wrong = np.flatnonzero((rows < -length) | (rows >= length))
        if len(wrong):
            raise IndexError(f"Sample {rows[wrong[0]]} is out of range for {length} samples.")
        positions = rows.astype(np.int64)
        positions[positions < 0] += length
        return positions
    if not isinstance(rows, slice | list | tuple | range | np.ndarray):
        raise InvalidInputError(
            f"rows must be a slice, a list of integers or a mask, got {rows!r}. Use [{rows!r}] for "
            "one sample."
        )
    if isinstance(rows, range):
        rows = np.arange(rows.start, rows.stop, rows.step, dtype=np.int64)
        return _positions(rows, length)
    return np.array(resolve_rows(rows, length), np.int64)


def _positive(value: Any, name: str) -> int:
    return _integer(value, name, 1)


def _integer(value: Any, name: str, least: int | None = None) -> int:
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or (least is not None and number < least):
        kinds = {None: "an integer", 0: "an integer of at least 0", 1: "a positive integer"}
        raise InvalidInputError(f"{name} must be {kinds[least]}, got {value!r}.")
    if abs(number) > _LARGEST:
        raise InvalidInputError(f"{name} must be an integer of 64 bits, got {value!r}.")
    return number


def _shard(shard: Any) -> tuple[int, int]:
    """Parse the argument ``shard``."""
    if isinstance(shard, tuple | list) and len(shard) == 2:
        ranks = _integer(shard[1], "shard[1]", 1)
        rank = _integer(shard[0], "shard[0]", 0)
        if rank < ranks:
            return rank, ranks
    raise InvalidInputError(
        f"shard must be the rank of the process and the number of processes, such as (0, 8), got "
        f"{shard!r}."
    )
