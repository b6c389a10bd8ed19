"""Test that a stopped epoch continues without a lost or repeated sample, in any arrangement."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dasklake._read.order import Order
from dasklake._read.shards import (
    Shards,
    batch_rows,
    check_state,
    make_state,
    order_digest,
    parse_state,
)


class Arrangement(NamedTuple):
    """Ranks, workers of each, batch size, and the global batches after which training stops."""

    ranks: int
    workers: int
    batch_size: int
    batches: int


ARRANGEMENTS = st.builds(
    Arrangement, st.integers(1, 5), st.integers(1, 4), st.integers(1, 40), st.integers(0, 6)
)

ORDERS = st.builds(
    Order,
    st.integers(0, 500),
    shuffle=st.booleans(),
    seed=st.integers(-5, 5),
    epoch=st.integers(0, 3),
    block=st.integers(1, 40),
    window=st.none() | st.integers(1, 10),
)


def _same_order(order: Order, epoch: int | None = None) -> Order:
    return Order(
        len(order),
        shuffle=order.shuffle,
        seed=order.seed,
        epoch=order.epoch if epoch is None else epoch,
        block=order.block,
        window=order.window,
    )


def _rank(
    order: Order, arrangement: Arrangement, rank: int, start: int
) -> list[tuple[list[int], int]]:
    """Return the batches of a rank and their padding, as a loader with workers yields them."""
    workers = [
        batch_rows(
            order,
            Shards(
                len(order),
                arrangement.batch_size,
                rank,
                arrangement.ranks,
                start,
                worker=worker,
                workers=arrangement.workers,
            ),
        )
        for worker in range(arrangement.workers)
    ]
    batches = []
    while workers:
        for worker in list(workers):
            batch = next(worker, None)
            if batch is None:
                workers.remove(worker)
            else:
                batches.append((batch.rows.tolist(), batch.padding))
    return batches


@given(ORDERS, st.lists(ARRANGEMENTS, max_size=4), ARRANGEMENTS)
def test_every_sample_is_read_once_in_each_epoch(
    order: Order, stopped: list[Arrangement], last: Arrangement
) -> None:
    """An epoch that stops any number of times reads each sample once, in the order of the seed.

    Each run has other ranks, workers and batch sizes, and knows only the state of the run before.
    """
    rows = range(len(order))
    state = make_state(1, order, 0, order_digest(order, rows))
    read: list[int] = []
    for arrangement, stops in [*((a, True) for a in stopped), (last, False)]:
        fresh = _same_order(order)
        loaded = parse_state(state)
        check_state(loaded, 1, fresh, order_digest(fresh, rows))
        start = loaded["position"]
        ranks = [_rank(fresh, arrangement, rank, start) for rank in range(arrangement.ranks)]
        # All ranks have equal batches, so that none waits for another.
        assert len({tuple(len(batch) for batch, _ in rank) for rank in ranks}) == 1
        batches = arrangement.batches if stops else len(ranks[0])
        for batch in list(zip(*ranks, strict=True))[:batches]:
            read += [row for part, padding in batch for row in part[: len(part) - padding]]
        shards = Shards(len(order), arrangement.batch_size, 0, arrangement.ranks, start)
        state = make_state(1, fresh, shards.position_after(batches), loaded["digest"])
    assert state["position"] == len(order)
    assert read == order.rows(0, len(order)).tolist()
    assert sorted(read) == list(rows)


@given(ORDERS, st.integers(1, 6), st.integers(1, 20))
def test_padding_repeats_less_than_one_sample_for_each_rank(
    order: Order, ranks: int, batch_size: int
) -> None:
    """Padding comes from the epoch's first positions, and only in the last global batch."""
    arrangement = Arrangement(ranks, 1, batch_size, 0)
    batches = [_rank(order, arrangement, rank, 0) for rank in range(ranks)]
    assert all(not padding for rank in batches for _, padding in rank[:-1])
    padded = [row for rank in batches for part, n in rank[-1:] for row in part[len(part) - n :]]
    assert len(padded) < ranks
    expected = np.resize(order.rows(0, len(order)), len(padded)).tolist() if len(order) else []
    assert padded == expected


@given(ORDERS, st.integers(1, 6), st.integers(1, 20), st.integers(0, 500))
def test_dropped_samples_are_fewer_than_a_global_batch(
    order: Order, ranks: int, batch_size: int, start: int
) -> None:
    """With ``drop_last``, all batches are whole, and less than one global batch is left out."""
    start = min(start, len(order))
    shards = [
        Shards(len(order), batch_size, rank, ranks, start, drop_last=True) for rank in range(ranks)
    ]
    batches = [list(batch_rows(order, part)) for part in shards]
    assert all(len(batch.rows) == batch_size for rank in batches for batch in rank)
    used = sum(len(batch.rows) for rank in batches for batch in rank)
    assert 0 <= len(order) - start - used < ranks * batch_size
    assert len({len(rank) for rank in batches}) == 1


@given(ORDERS)
def test_another_epoch_reads_the_same_samples(order: Order) -> None:
    """Each epoch is a permutation of the same rows."""
    n = len(order)
    assert sorted(_same_order(order, epoch=7).rows(0, n).tolist()) == list(range(n))
