"""Test shuffled, sharded and resumed batches."""

from __future__ import annotations

import json
from typing import Any

import dask.bag as db
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dasklake
from dasklake._api.lake import Lake
from dasklake.exceptions import InvalidInputError

SAMPLES = 101


@pytest.fixture(scope="module")
def lake(tmp_path_factory: Any) -> Lake:
    """Write a lake of several chunks, with classes of different sizes."""
    url = tmp_path_factory.mktemp("lakes") / "lake"
    bag = db.from_sequence(range(SAMPLES), npartitions=7)
    schema = {
        "id": dasklake.TensorSpec(dtype="int64", shape=()),
        "label": dasklake.TensorSpec("class_label", shape=(), class_names=["rare", "common"]),
        "weight": dasklake.TensorSpec(dtype="float32", shape=()),
    }

    def make(number: int) -> dict[str, Any]:
        return {"id": number, "label": int(number % 10 > 0), "weight": number == 7}

    options = dasklake.WriteOptions(scheduler="sync")
    dasklake.to_lake(bag, url, schema=schema, transform=make, progress=False, options=options)
    return dasklake.open(url)


def numbers(batches: Any) -> list[int]:
    """Return the numbers of all samples of some batches."""
    return [number for batch in batches for number in batch["id"].tolist()]


def test_an_epoch_has_each_sample_once(lake: Lake) -> None:
    """A shuffled epoch is a permutation; each epoch and seed has its own, always the same."""
    epochs = {
        (seed, epoch): numbers(lake.batches(8, shuffle=True, seed=seed, epoch=epoch))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert all(sorted(epoch) == list(range(SAMPLES)) for epoch in epochs.values())
    assert len(set(map(tuple, epochs.values()))) == 4
    assert epochs[1, 1] == numbers(lake.batches(32, shuffle=1, seed=1, epoch=1))


def test_blocks_stay_within_their_window(lake: Lake) -> None:
    """With blocks, the samples of a window are those of whole blocks."""
    order = numbers(lake.batches(8, shuffle=5, window=4, seed=3))
    assert sorted(order) == list(range(SAMPLES))
    assert len({number // 5 for number in order[:20]}) in (4, 5)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_resumed_epoch_continues(lake: Lake, data: Any) -> None:
    """After any batch, other processes with another batch size read exactly the other samples."""
    shuffle = data.draw(st.sampled_from([None, True, 3, 16]))
    arguments = {
        "shuffle": shuffle,
        "window": data.draw(st.none() | st.integers(1, 9)),
        "columns": ["id"],
    }
    order = {"seed": data.draw(st.integers(0, 3)), "epoch": data.draw(st.integers(0, 3))}
    size, ranks = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 4))
    shards = [lake.batches(size, shard=(r, ranks), **order, **arguments) for r in range(ranks)]
    assert len({len(shard) for shard in shards}) == 1
    stop = data.draw(st.integers(0, len(shards[0])))
    used = []
    for shard in shards:
        for number, batch in enumerate(shard):
            if number == stop:
                break
            size_without_padding = len(batch["id"]) - shard.padding
            used += batch["id"].tolist()[:size_without_padding]
            saved = json.dumps(shard.state)
    state = json.loads(saved) if stop else None
    arguments |= {} if stop else order
    size, ranks = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 4))
    for rank in range(ranks):
        batches = lake.batches(size, shard=(rank, ranks), state=state, **arguments)
        for batch in batches:
            used += batch["id"].tolist()[: len(batch["id"]) - batches.padding]
    assert sorted(used) == list(range(SAMPLES))


def test_the_state_follows_the_batches_that_were_yielded(lake: Lake) -> None:
    """The state counts samples that were handed out, not those that were read ahead."""
    batches = lake.batches(8, shuffle=True, transform=dict)
    assert batches.state["position"] == 0
    iteration = iter(batches)
    for number in range(1, 4):
        next(iteration)
        assert batches.state["position"] == 8 * number
    numbers(iteration)
    assert batches.state["position"] == SAMPLES
    assert len(lake.batches(8, shuffle=True, state=batches.state)) == 0


def test_weights_draw_samples_more_often(lake: Lake) -> None:
    """Weights are an array, a tensor of numbers, or classes that are read equally often."""
    weights = np.zeros(SAMPLES)
    weights[[3, 4]] = 1
    drawn = numbers(lake.batches(8, weights=weights))
    assert len(drawn) == SAMPLES
    assert {drawn.count(3), drawn.count(4)} == {50, 51}
    assert numbers(lake.batches(8, weights="weight")) == [7] * SAMPLES
    labels = [label for batch in lake.batches(8, weights="label") for label in batch["label"]]
    assert abs(sum(labels) - SAMPLES / 2) <= 1


def test_selected_rows_are_shuffled(lake: Lake) -> None:
    """The order is one of the selected rows, also if they are not in order."""
    rows = [50, 3, 9, 100, 7]
    assert sorted(numbers(lake.batches(2, rows, shuffle=True))) == sorted(rows)
    batches = lake.batches(2, rows, shuffle=True)
    next(iter(batches))
    with pytest.raises(InvalidInputError, match="of other samples"):
        lake.batches(2, rows[:-1], shuffle=True, state=batches.state)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"shuffle": 0}, "shuffle must be a positive integer, got 0"),
        ({"shuffle": "yes"}, "shuffle must be"),
        ({"window": 0}, "window must be"),
        ({"seed": 1.5}, "seed must be an integer or None, got 1.5"),
        ({"epoch": -1}, "epoch must be an integer of at least 0, got -1"),
        ({"shard": 3}, "shard must be the rank"),
        ({"shard": (2, 2)}, r"shard must be .* got \(2, 2\)"),
        ({"weights": [1, 2]}, "weights must have one number for each of the 101 samples"),
        ({"weights": np.full(SAMPLES, -1)}, "not negative"),
        ({"state": {"position": 1}}, "state must be a dict"),
    ],
)
def test_wrong_orders_are_refused(lake: Lake, arguments: dict[str, Any], match: str) -> None:
    """Wrong arguments are refused when ``batches`` is called."""
    with pytest.raises(InvalidInputError, match=match):
        lake.batches(8, **arguments)


def test_states_belong_to_their_order(lake: Lake) -> None:
    """A state of another seed, shuffle or version is refused."""
    state = lake.batches(8, shuffle=True, seed=1).state
    with pytest.raises(InvalidInputError, match="seed must be that of the state, 1, got 2"):
        lake.batches(8, shuffle=True, seed=2, state=state)
    with pytest.raises(InvalidInputError, match="another order"):
        lake.batches(8, state=state)
    with pytest.raises(InvalidInputError, match="The state is of version"):
        lake.batches(8, shuffle=True, state={**state, "version": 77})
