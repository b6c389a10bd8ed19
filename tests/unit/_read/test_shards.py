"""Test the division of an epoch among ranks and workers, and its state."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from dasklake._read.order import Order
from dasklake._read.shards import (
    Shards,
    batch_rows,
    check_state,
    make_state,
    order_digest,
    parse_state,
)
from dasklake.exceptions import InvalidInputError


def _all(**arguments: Any) -> list[list[int]]:
    shards = Shards(**arguments)
    order = Order(shards.samples, shuffle=False)
    return [batch.rows.tolist() for batch in batch_rows(order, shards)]


def test_a_single_rank_reads_each_sample_once() -> None:
    """Without ranks, the last batch is short, and nothing is padding."""
    assert _all(samples=5, batch_size=2) == [[0, 1], [2, 3], [4]]
    assert _all(samples=5, batch_size=2, drop_last=True) == [[0, 1], [2, 3]]
    assert _all(samples=0, batch_size=2) == []


def test_ranks_divide_each_global_batch() -> None:
    """The parts of a global batch are consecutive, and the last one is divided evenly."""
    ranks = [_all(samples=17, batch_size=3, rank=rank, ranks=2) for rank in range(2)]
    assert ranks[0] == [[0, 1, 2], [6, 7, 8], [12, 13, 14]]
    # 17 samples are padded by the first one.
    assert ranks[1] == [[3, 4, 5], [9, 10, 11], [15, 16, 0]]


@pytest.mark.parametrize("samples", range(14))
@pytest.mark.parametrize("drop_last", [True, False])
def test_all_ranks_have_equal_batches(samples: int, *, drop_last: bool) -> None:
    """The ranks have as many batches, of the same sizes, as each other, so that no rank waits."""
    sizes = {
        tuple(map(len, _all(samples=samples, batch_size=2, rank=r, ranks=5, drop_last=drop_last)))
        for r in range(5)
    }
    assert len(sizes) == 1


def test_padding_goes_round_a_tiny_epoch() -> None:
    """With more ranks than samples, each rank has a sample, and the flag says which are padding."""
    order = Order(2, shuffle=False)
    batches = [list(batch_rows(order, Shards(2, 4, rank, ranks=5))) for rank in range(5)]
    assert [[(b.rows.tolist(), b.padding) for b in rank] for rank in batches] == [
        [([0], 0)],
        [([1], 0)],
        [([0], 1)],
        [([1], 1)],
        [([0], 1)],
    ]


def test_workers_take_turns() -> None:
    """Worker ``k`` of ``K`` has every ``K``-th batch: asked in turn, they yield all in order."""
    workers = [_all(samples=10, batch_size=2, worker=k, workers=3) for k in range(3)]
    assert workers == [[[0, 1], [6, 7]], [[2, 3], [8, 9]], [[4, 5]]]


def test_a_worker_can_skip_batches() -> None:
    """A worker whose first batches were used continues with the next one."""
    shards = Shards(10, 2, worker=1, workers=2)
    rest = batch_rows(Order(10, shuffle=False), shards, skip=1)
    assert [batch.rows.tolist() for batch in rest] == [[6, 7]]


def test_the_position_counts_the_samples_of_all_ranks() -> None:
    """After a batch of each rank, the position is that of the next global batch, up to the end."""
    shards = Shards(20, 3, rank=1, ranks=2, start=4)
    assert [shards.position_after(batches) for batches in range(4)] == [4, 10, 16, 20]
    assert shards.total == 3


def test_many_batches_are_computed_together() -> None:
    """Batches beyond those that are computed in one call follow without a gap."""
    rows = [r for batch in _all(samples=10_000, batch_size=3) for r in batch]
    assert rows == list(range(10_000))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"ranks": 0}, "ranks must be at least 1"),
        ({"rank": 2, "ranks": 2}, "rank must be from 0 to 1, got 2"),
        ({"worker": -1}, "worker must be from 0 to 0, got -1"),
        ({"start": 11}, "position must be from 0 to 10, got 11"),
    ],
)
def test_invalid_divisions_are_refused(arguments: dict[str, Any], message: str) -> None:
    """A rank or position that does not exist is an error."""
    with pytest.raises(InvalidInputError, match=message):
        Shards(**{"samples": 10, "batch_size": 2, **arguments})


def test_a_state_survives_json() -> None:
    """The state is a small dict of integers and one string."""
    order = Order(10, seed=3, epoch=2, block=4)
    state = make_state(7, order, 6, order_digest(order, range(10)))
    loaded = parse_state(json.loads(json.dumps(state)))
    assert loaded == state
    check_state(loaded, 7, order, order_digest(order, range(10)))


def test_a_digest_is_that_of_the_samples_and_their_order() -> None:
    """Other samples, shuffling or weights have another digest; seed and epoch do not count."""

    def digest(rows: Any, **options: Any) -> str:
        return order_digest(Order(len(rows), **options), rows)

    same = [
        digest(range(3, 6)),
        digest(np.arange(3, 6)),
        digest(range(3, 6), seed=4, epoch=9),
        digest(range(3, 6), block=2),
    ]
    assert len(set(same)) == 1
    others = [
        digest(range(3)),
        digest(range(3, 7)),
        digest(np.array([3, 5, 4])),
        digest(range(3, 6), shuffle=False),
        digest(range(3, 6), weights=[1, 1, 1]),
        digest(range(3, 6), weights=[1, 2, 1]),
        digest(range(0)),
        digest(np.array([0, 2])),
    ]
    assert len({*same, *others}) == 1 + len(others)
    assert digest(range(0)) == digest(np.empty(0, np.int64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 8}, r"version 8 of the lake, but version 7 is read.*version=8"),
        ({"digest": "0"}, "other samples"),
        ({"position": 11}, "at most 10, got 11"),
    ],
)
def test_a_state_of_something_else_is_refused(change: dict[str, Any], message: str) -> None:
    """A state continues only the order that it was saved in."""
    order = Order(10)
    digest = order_digest(order, range(10))
    state = parse_state({**make_state(7, order, 6, digest), **change})
    with pytest.raises(InvalidInputError, match=message):
        check_state(state, 7, order, digest)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (5, "must be a dict with the keys version"),
        ({}, "must be a dict"),
        ({"version": "x"}, r"state\['version'\] is not valid: 'x'"),
        ({"position": -1}, r"state\['position'\] is not valid"),
        ({"digest": 5}, r"state\['digest'\] is not valid"),
        ({"epoch": True}, r"state\['epoch'\] is not valid"),
    ],
)
def test_invalid_states_are_refused(state: Any, message: str) -> None:
    """A state that was not made by a loader is an error that says what is wrong."""
    if state and isinstance(state, dict):
        state = {**make_state(7, Order(10), 6, "d"), **state}
    with pytest.raises(InvalidInputError, match=message):
        parse_state(state)
