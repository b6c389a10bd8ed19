"""Divide an epoch among ranks and loader workers, and keep its state as a position.

A *global batch* has the next ``batch_size`` samples of each rank. Rank ``r`` takes the ``r``-th part
of it; worker ``k`` of ``K`` loads every ``K``-th batch of its rank, so that a loader which asks its
workers in turn yields the batches in order. After a global batch, all ranks together have used a
prefix of the order. Its length, the *position*, is all that is needed to continue, also with another
number of ranks or workers, or another batch size.

The last global batch may have fewer samples. They are divided evenly, so that all ranks have the
same number of batches, and batches of the same size: a collective operation never waits for a rank
that has finished. If the division leaves a remainder, some ranks repeat the epoch's first samples,
at most one for each rank, at the end of their last batch. Such samples are *padding*. A single rank
never has any.

Interface
---------
``Shards(samples, batch_size, rank=0, ranks=1, start=0, drop_last=False, worker=0, workers=1)``
``len(shards)``                      batches of this worker
``shards.total``                     batches of each rank
``shards.positions(first, last)``    positions in the order, and padding, of some batches
``shards.position_after(batches)``   the position after some batches of a rank
``batch_rows(order, shards, skip)``  iterate: ``BatchRows(rows, padding)`` of each batch
``order_digest(order, rows)``        digest of all that the order depends on, but seed and epoch
``make_state``, ``parse_state``, ``check_state``  the state: a small dict for a checkpoint
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple, TypedDict, cast

import numpy as np

from dasklake._read.order import Integers, Order
from dasklake._read.rows import Rows
from dasklake.exceptions import InvalidInputError

__all__ = [
    "BatchRows",
    "LoaderState",
    "Shards",
    "batch_rows",
    "check_state",
    "make_state",
    "order_digest",
    "parse_state",
]

#: Samples whose rows are computed in one call.
_TOGETHER = 4096

#: Smallest value of each entry of a state, or None.
_LEAST = {
    "version": 0,
    "seed": None,
    "epoch": 0,
    "position": 0,
    "block": 1,
    "window": 1,
    "digest": None,
}


class LoaderState(TypedDict):
    """State of an epoch that all ranks and workers share.

    Attributes
    ----------
    version : int
        Version of the lake.
    seed, epoch : int
        Seed of the order, and number of the epoch.
    position : int
        Samples that all ranks together have used.
    block, window : int
        Parameters of the order.
    digest : str
        Digest of the samples and the other parameters of the order.
    """

    version: int
    seed: int
    epoch: int
    position: int
    block: int
    window: int
    digest: str


class BatchRows(NamedTuple):
    """The samples of a batch.

    Attributes
    ----------
    rows : numpy.ndarray
        int64: indices into the list of the samples that are read.
    padding : int
        Samples at the end that repeat others, so that all ranks have equally many.
    """

    rows: Integers
    padding: int


@dataclass(frozen=True, slots=True)
class Shards:
    """The batches of one worker of one rank.

    Attributes
    ----------
    samples : int
        Positions of the epoch.
    batch_size : int
        Samples of a batch of one rank.
    rank, ranks : int
        Number of the rank, from 0, and of all ranks.
    start : int
        Position at which the first batch begins: those before it have been used.
    drop_last : bool
        Leave out the last global batch if it has too few samples. Ranks have equally many batches,
        and no padding.
    worker, workers : int
        Number of the worker of the rank, from 0, and of all of its workers.

    Examples
    --------
    >>> from dasklake._read.shards import Shards
    >>> shards = Shards(samples=10, batch_size=2, rank=1, ranks=2)
    >>> [shards.positions(batch, batch + 1)[0].tolist() for batch in range(len(shards))]
    [[2, 3], [6, 7], [9]]
    >>> shards.position_after(2)
    8
    """

    samples: int
    batch_size: int
    rank: int = 0
    ranks: int = 1
    start: int = 0
    drop_last: bool = False
    worker: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        for name, least in {"batch_size": 1, "ranks": 1, "workers": 1, "samples": 0}.items():
            if getattr(self, name) < least:
                raise InvalidInputError(
                    f"{name} must be at least {least}, got {getattr(self, name)}."
                )
        for name, end in {"rank": self.ranks, "worker": self.workers}.items():
            if not 0 <= getattr(self, name) < end:
                raise InvalidInputError(
                    f"{name} must be from 0 to {end - 1}, got {getattr(self, name)}."
                )
        if not 0 <= self.start <= self.samples:
            raise InvalidInputError(
                f"The position must be from 0 to {self.samples}, got {self.start}."
            )

    @property
    def total(self) -> int:
        """Batches of each rank."""
        whole, rest = divmod(self.samples - self.start, self.batch_size * self.ranks)
        return whole + (rest > 0 and not self.drop_last)

    def __len__(self) -> int:
        return len(range(self.worker, self.total, self.workers))

    def position_after(self, batches: int) -> int:
        """Return the position after the first ``batches`` batches of each rank."""
        return min(self.start + batches * self.batch_size * self.ranks, self.samples)

    def size(self, batch: int) -> int:
        """Return the number of samples of a batch of each rank."""
        rest = self.samples - self.position_after(batch)
        return min(self.batch_size, -(-rest // self.ranks))

    def positions(self, first: int, last: int) -> tuple[Integers, int]:
        """Return the positions of consecutive batches of this worker.

        Parameters
        ----------
        first, last : int
            First batch, and one after the last, from 0 to ``len(self)``.

        Returns
        -------
        positions : numpy.ndarray
            int64.
        padding : int
            How many of the last ones are padding.
        """
        parts = [np.empty(0, np.int64)]
        for index in range(first, last):
            batch = self.worker + index * self.workers
            size = self.size(batch)
            begin = self.position_after(batch) + self.rank * size
            parts.append(np.arange(begin, begin + size, dtype=np.int64))
        positions = np.concatenate(parts)
        padding = int(np.count_nonzero(positions >= self.samples))
        # Padding begins with the epoch's first sample, and goes round in an epoch with fewer samples
        # than ranks.
        return (positions % self.samples if padding else positions), padding


def batch_rows(order: Order, shards: Shards, skip: int = 0) -> Iterator[BatchRows]:
    """Yield the rows of each batch of a worker.

    Parameters
    ----------
    order : Order
        The order of the epoch, with ``shards.samples`` positions.
    shards : Shards
        The batches.
    skip : int, default 0
        Batches of this worker to leave out at the beginning.
    """
    together = max(1, _TOGETHER // shards.batch_size)
    for first in range(skip, len(shards), together):
        last = min(first + together, len(shards))
        positions, padding = shards.positions(first, last)
        rows = order.at(positions)
        begin = 0
        for index in range(first, last):
            size = shards.size(shards.worker + index * shards.workers)
            yield BatchRows(rows[begin : begin + size], padding if index == last - 1 else 0)
            begin += size


def order_digest(order: Order, rows: Rows) -> str:
    """Return a digest of all that an order depends on, except for the seed and the epoch.

    Parameters
    ----------
    order : Order
        The order.
    rows : range or numpy.ndarray
        Numbers of the samples in the version, which the order puts in order.
    """
    digest = blake2b(digest_size=8)
    digest.update(repr((len(rows), order.shuffle)).encode())
    digest.update(order.weights_digest)
    # The same samples have the same digest, as a range and as an array.
    first = int(rows[0]) if len(rows) else 0
    same = range(first, first + len(rows))
    if isinstance(rows, range) or bool((rows == np.arange(same.start, same.stop)).all()):
        digest.update(repr(same).encode())
    else:
        digest.update(np.ascontiguousarray(rows, "<i8").tobytes())
    return digest.hexdigest()


def make_state(version: int, order: Order, position: int, digest: str) -> LoaderState:
    """Return the state at a position of an order.

    Parameters
    ----------
    version : int
        Version of the lake.
    order : Order
        The order.
    position : int
        Samples that all ranks together have used.
    digest : str
        Of :func:`order_digest`.
    """
    return LoaderState(
        version=version,
        seed=order.seed,
        epoch=order.epoch,
        position=position,
        block=order.block,
        window=order.window,
        digest=digest,
    )


def parse_state(state: Any) -> LoaderState:
    """Validate a state that was given by the user.

    Raises
    ------
    InvalidInputError
        ``state`` is not a state of a loader.
    """
    if not isinstance(state, Mapping) or not set(_LEAST) <= set(state):
        raise InvalidInputError(
            f"state must be a dict with the keys {', '.join(_LEAST)}, as the loader returned it, "
            f"got {state!r}."
        )
    for name, least in _LEAST.items():
        value = state[name]
        kind = str if name == "digest" else int
        small = isinstance(value, int) and least is not None and value < least
        if not isinstance(value, kind) or isinstance(value, bool) or small:
            raise InvalidInputError(f"state[{name!r}] is not valid: {value!r}.")
    return cast("LoaderState", {name: state[name] for name in _LEAST})


def check_state(state: LoaderState, version: int, order: Order, digest: str) -> None:
    """Check that a state belongs to an order.

    Parameters
    ----------
    state : LoaderState
        A state that was parsed.
    version : int
        Version of the lake that is read.
    order : Order
        The order, with seed, epoch, block and window of the state.
    digest : str
        Of :func:`order_digest`.

    Raises
    ------
    InvalidInputError
        The state is of another version, other samples or another shuffle.
    """
    if state["version"] != version:
        raise InvalidInputError(
            f"The state is of version {state['version']} of the lake, but version {version} is "
            f"read. Open it with dasklake.open(url, version={state['version']})."
        )
    if state["digest"] != digest:
        raise InvalidInputError(
            "The state is of other samples, or of another order of them: rows, shuffle and weights "
            "must be as when it was saved."
        )
    if state["position"] > len(order):
        raise InvalidInputError(
            f"state['position'] must be at most {len(order)}, got {state['position']}."
        )
