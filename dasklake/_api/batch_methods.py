"""Methods of ``Lake`` that read many samples at once."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dasklake._api.sample_set import SampleSet
from dasklake._read.batches import Batches, BatchOptions, Forms, forms_of, take
from dasklake._read.collate import Transform
from dasklake._read.reader import resolve_rows
from dasklake._run.options import parse_size
from dasklake.exceptions import InvalidInputError

#: Form of all values, or of those of some tensors.
Decode = bool | Mapping[str, bool | Literal["bytes"]]


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

    def batches(
        self,
        batch_size: int,
        rows: slice | Sequence[int] | npt.NDArray[Any] | None = None,
        columns: Sequence[str] | None = None,
        *,
        decode: Decode = True,
        transform: Transform | None = None,
        drop_last: bool = False,
        read_ahead: int | str = "256 MiB",
        decode_threads: int | None = None,
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
        """
        self.flush()
        if transform is not None and not callable(transform):
            raise InvalidInputError(f"transform must be a function, got {transform!r}.")
        options = BatchOptions(
            _positive(batch_size, "batch_size"),
            self._forms(columns, decode),
            transform,
            drop_last,
            parse_size(read_ahead, "read_ahead"),
            0 if decode_threads is None else _positive(decode_threads, "decode_threads"),
        )
        selected = self._rows if rows is None else self._row_numbers(rows)
        return Batches(self._reader, selected, options)

    def _forms(self, columns: Sequence[str] | None, decode: Decode) -> Forms:
        names = self._names if columns is None else self._reader.names(columns)
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
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise InvalidInputError(f"{name} must be a positive integer, got {value!r}.")
    return number
