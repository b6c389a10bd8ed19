"""Test the data set for loaders of PyTorch: batches, workers, states, epochs and ranks."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

import dasklake
from dasklake.exceptions import InvalidInputError
from dasklake.torch import LakeDataset

pytestmark = [
    # A machine with fewer cores than the test has workers.
    pytest.mark.filterwarnings("ignore:This DataLoader will create .* worker:UserWarning"),
    # torchdata calls a function that newer releases of PyTorch warn of.
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),
]

SAMPLES = 23


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> dasklake.Lake:
    """Return a lake with a number, boxes and a text for each sample."""
    made = dasklake.empty(tmp_path_factory.mktemp("torch") / "lake")
    made.create_tensor("x", dtype="int64", shape=())
    made.create_tensor("boxes", dtype="float32", shape=(None, 4))
    made.create_tensor("text", "text")
    made.extend(
        [
            {"x": i, "boxes": np.full((i % 4, 4), i, "float32"), "text": f"t{i}"}
            for i in range(SAMPLES)
        ]
    )
    return made


def _loader(dataset: LakeDataset, workers: int = 0, **options: Any) -> DataLoader[Any]:
    context = "fork" if workers else None
    return DataLoader(
        dataset, batch_size=None, num_workers=workers, multiprocessing_context=context, **options
    )


def _numbers(batches: Any) -> list[int]:
    return [number for batch in batches for number in batch["x"].tolist()]


def _once(batches: Any) -> list[int]:
    """Return the samples that are no padding."""
    return [
        number
        for batch in batches
        for number, padding in zip(batch["x"].tolist(), batch["is_padding"].tolist(), strict=True)
        if not padding
    ]


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_a_loader_yields_the_batches_of_an_epoch_in_order(
    lake: dasklake.Lake, workers: int
) -> None:
    """The batches, and their order, do not depend on the number of workers."""
    dataset = lake.torch(batch_size=4, shuffle=True, seed=5)
    expected = [batch["x"].tolist() for batch in lake.batches(4, shuffle=True, seed=5)]
    loader = _loader(dataset, workers)
    assert len(loader) == 6
    batches = list(loader)
    assert [batch["x"].tolist() for batch in batches] == expected
    assert batches[0]["x"].dtype == torch.int64
    assert [len(boxes) for boxes in batches[0]["boxes"]] == [x % 4 for x in expected[0]]
    assert batches[0]["text"] == [f"t{x}" for x in expected[0]]


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_can_make_batches_of_single_samples(lake: dasklake.Lake, workers: int) -> None:
    """Without a batch size, the data set yields samples, for the loader's own batches."""
    dataset = lake.torch(columns=["x"], shuffle=True)
    assert len(dataset) == SAMPLES
    context = "fork" if workers else None
    loader = DataLoader(dataset, batch_size=4, num_workers=workers, multiprocessing_context=context)
    batches = [batch["x"] for batch in loader]
    assert batches[0].shape == (4,)
    assert sorted(torch.cat(batches).tolist()) == list(range(SAMPLES))


@pytest.mark.parametrize(
    ("first", "second"), [((4, 0), (4, 2)), ((4, 2), (3, 0)), ((4, 2), (5, 3))]
)
def test_a_stopped_epoch_continues_with_one_integer(
    lake: dasklake.Lake, first: tuple[int, int], second: tuple[int, int]
) -> None:
    """The state after the used batches continues with the next sample, in any arrangement."""
    dataset = lake.torch(batch_size=first[0], columns=["x"], shuffle=True, seed=1, epoch=4)
    used = list(itertools.islice(_loader(dataset, first[1]), 3))
    state = dataset.state_after(len(used))
    assert state["position"] == 12
    fresh = lake.torch(batch_size=second[0], columns=["x"], shuffle=True, seed=1)
    fresh.load_state_dict(state)
    assert fresh.epoch == 4
    rest = list(_loader(fresh, second[1]))
    whole = _numbers(lake.batches(4, columns=["x"], shuffle=True, seed=1, epoch=4))
    assert _numbers(used) + _numbers(rest) == whole


def test_a_state_can_be_given_when_the_data_set_is_made(lake: dasklake.Lake) -> None:
    """``state`` is the same as loading it, and also brings seed and epoch."""
    dataset = lake.torch(batch_size=4, shuffle=True, seed=9, epoch=2)
    loaded = lake.torch(batch_size=4, shuffle=True, state=dataset.state_after(2))
    assert _numbers(loaded) == _numbers(dataset)[8:]
    assert loaded.epoch == 2


def test_state_dict_follows_a_loop_without_workers(lake: dasklake.Lake) -> None:
    """In the main process, the state is that after the last batch."""
    dataset = lake.torch(batch_size=4, shuffle=True)
    assert dataset.state_dict()["position"] == 0
    batches = iter(_loader(dataset))
    next(batches)
    next(batches)
    assert dataset.state_dict() == dataset.state_after(2)
    assert len(list(batches)) == 4
    assert dataset.state_dict()["position"] == SAMPLES


def test_state_dict_is_refused_when_workers_are_ahead(lake: dasklake.Lake) -> None:
    """The main process does not know which batches of its workers are used: it says so."""
    dataset = lake.torch(batch_size=4)
    next(iter(_loader(dataset, 2)))
    with pytest.raises(InvalidInputError, match=r"2 workers .* state_after\(batches\)"):
        dataset.state_dict()
    dataset.set_epoch(1)
    assert dataset.state_dict()["epoch"] == 1


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("stop", [0, 1, 4, 6])
def test_a_stateful_loader_continues(lake: dasklake.Lake, workers: int, stop: int) -> None:
    """``StatefulDataLoader`` saves the states of the workers, and each continues with its own."""
    whole = _numbers(lake.batches(4, shuffle=True, seed=2, epoch=3))

    def loader() -> StatefulDataLoader[Any]:
        return StatefulDataLoader(
            lake.torch(batch_size=4, shuffle=True, seed=2, epoch=3),
            batch_size=None,
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,
        )

    first = loader()
    batches: Iterator[Any] = iter(first)
    used = list(itertools.islice(batches, stop))
    state = pickle.loads(pickle.dumps(first.state_dict()))
    del batches
    second = loader()
    second.load_state_dict(state)
    rest = list(second)
    assert _numbers(used) + _numbers(rest) == whole


def test_epochs_have_other_orders(lake: dasklake.Lake) -> None:
    """``set_epoch`` changes the order, and begins with the first sample."""
    dataset = lake.torch(batch_size=4, shuffle=True)
    dataset.load_state_dict(dataset.state_after(2))
    dataset.set_epoch(0)
    assert len(dataset) == 4
    orders = []
    for epoch in (1, 2, 1):
        dataset.set_epoch(epoch)
        orders.append(_numbers(dataset))
    assert [sorted(order) for order in orders] == [list(range(SAMPLES))] * 3
    assert orders[0] == orders[2] != orders[1]


def test_persistent_workers_read_the_next_epoch(lake: dasklake.Lake) -> None:
    """Workers that live on see the epoch that the main process sets, also after a state."""
    dataset = lake.torch(batch_size=4, columns=["x"], shuffle=True, seed=7)
    dataset.load_state_dict(dataset.state_after(2))
    loader = _loader(dataset, 2, persistent_workers=True)
    read = []
    for epoch in range(3):
        dataset.set_epoch(epoch)
        read.append(_numbers(loader))
    orders = [
        _numbers(lake.batches(4, columns=["x"], shuffle=True, seed=7, epoch=epoch))
        for epoch in range(3)
    ]
    assert read == [orders[0][8:], orders[1], orders[2]]
    del loader


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_divide_an_epoch(lake: dasklake.Lake, workers: int) -> None:
    """Each rank has equally many batches; samples that repeat others are marked."""
    ranks = [
        list(
            _loader(lake.torch(batch_size=3, columns=["x"], shuffle=True, shard=(rank, 5)), workers)
        )
        for rank in range(5)
    ]
    assert {tuple(len(batch["x"]) for batch in rank) for rank in ranks} == {(3, 2)}
    assert sorted(number for rank in ranks for number in _once(rank)) == list(range(SAMPLES))


def test_single_samples_of_ranks_are_marked(lake: dasklake.Lake) -> None:
    """Single samples have the mark of padding as well."""
    ranks = [list(lake.torch(columns=["x"], shard=(rank, 5))) for rank in range(5)]
    once = [int(s["x"]) for rank in ranks for s in rank if not s["is_padding"]]
    assert sorted(once) == list(range(SAMPLES))
    assert {len(rank) for rank in ranks} == {5}


def test_ranks_come_from_the_environment(
    lake: dasklake.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``torchrun`` sets RANK and WORLD_SIZE; an explicit shard comes first."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert next(iter(lake.torch(batch_size=4)))["x"].tolist() == [4, 5, 6, 7]
    assert next(iter(lake.torch(batch_size=4, shard=(0, 1))))["x"].tolist() == [0, 1, 2, 3]
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(InvalidInputError, match=r"RANK and WORLD_SIZE .* '1' and 'two'"):
        lake.torch(batch_size=4)


def test_ranks_come_from_a_process_group(lake: dasklake.Lake, tmp_path: Path) -> None:
    """An initialized ``torch.distributed`` comes before the environment."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1
    )
    try:
        assert len(lake.torch(batch_size=23)) == 1
        assert next(iter(lake.torch(batch_size=4)))["x"].tolist() == [0, 1, 2, 3]
    finally:
        torch.distributed.destroy_process_group()


def test_a_data_set_pickles_small(lake: dasklake.Lake) -> None:
    """A data set is sent to spawned workers as the lake, its options and its position."""
    dataset = lake.torch(batch_size=4, shuffle=True, seed=3)
    dataset.set_epoch(2)
    list(dataset)
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 4096
    assert _numbers(pickle.loads(pickled)) == _numbers(dataset)


def test_a_view_is_a_data_set(lake: dasklake.Lake) -> None:
    """A view is loaded like a lake, pickles as its samples, and is a map-style data set."""
    rows = [20, 3, 11, 3, 0]
    dataset = lake.select(rows).columns(["x"]).torch(batch_size=2)
    assert _numbers(_loader(dataset, 2)) == rows
    assert _numbers(pickle.loads(pickle.dumps(dataset))) == rows
    assert list(next(iter(dataset))) == ["x"]
    half = lake.where([("x", ">=", 12)])
    shuffled = half.torch(batch_size=4, shuffle=True)
    assert sorted(_numbers(shuffled)) == list(range(12, SAMPLES))
    assert [int(sample["x"]) for sample in half.__getitems__([0, 2])] == [12, 14]
    assert list(pickle.loads(pickle.dumps(lake.select([]).torch(batch_size=2)))) == []


def test_weights_by_name_balance_the_batches(lake: dasklake.Lake) -> None:
    """The tensor of weights is read once, and the result is sent to workers."""
    dataset = lake.torch(batch_size=4, columns=["x"], weights="x")
    numbers = _numbers(_loader(dataset, 2))
    counts = np.bincount(numbers, minlength=SAMPLES)
    exact = SAMPLES * np.arange(SAMPLES) / sum(range(SAMPLES))
    assert (np.abs(counts - exact) < 1).all()


def test_collate_gets_tensors(lake: dasklake.Lake) -> None:
    """A function of the user makes the batch that is yielded."""
    dataset = lake.torch(batch_size=4, collate=lambda batch: batch["x"] * 2)
    assert next(iter(dataset)).tolist() == [0, 2, 4, 6]


def test_transforms_get_numpy_values(lake: dasklake.Lake) -> None:
    """A transform changes samples before they are joined."""
    dataset = lake.torch(batch_size=3, transform=lambda s: {"y": s["boxes"].sum() + s["x"]})
    assert next(iter(dataset))["y"].tolist() == [0, 5, 18]


def test_the_lake_is_a_map_style_data_set(lake: dasklake.Lake) -> None:
    """A loader takes a batch of a lake with one call, in the order of its sampler."""
    loader: DataLoader[Any] = DataLoader(
        lake,  # type: ignore[arg-type] # it has the methods of a data set
        batch_size=4,
        sampler=[5, 3, 8, 1, 0],
        collate_fn=list,
    )
    batches = list(loader)
    assert [[int(sample["x"]) for sample in batch] for batch in batches] == [[5, 3, 8, 1], [0]]
    assert batches[0][0]["boxes"].shape == (1, 4)
    assert batches[0][0]["text"] == "t5"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be"),
        ({"ragged": "tensor"}, "ragged must be one of 'list', 'pad', 'nested', got 'tensor'"),
        ({"layout": "NHWC"}, "layout must be one of 'HWC', 'CHW', got 'NHWC'"),
        ({"collate": 5}, "collate must be a function or None, got 5"),
        ({"shard": (2, 2)}, "shard must be"),
        ({"decode": "no"}, "decode must be"),
        ({"state": {}}, "state must be a dict"),
    ],
)
def test_invalid_options_are_refused_at_once(
    lake: dasklake.Lake, options: dict[str, Any], message: str
) -> None:
    """Options are validated when the data set is made, not in a worker."""
    with pytest.raises(InvalidInputError, match=message):
        lake.torch(**{"batch_size": 4, **options})


def test_invalid_numbers_of_batches_and_epochs_are_refused(lake: dasklake.Lake) -> None:
    """An epoch, or a number of batches, is an integer of at least 0."""
    dataset = lake.torch(batch_size=4)
    for wrong in (-1, 1.5, True, "x"):
        with pytest.raises(InvalidInputError, match="epoch must be an integer of at least 0"):
            dataset.set_epoch(wrong)  # type: ignore[arg-type] # the test
        with pytest.raises(InvalidInputError, match="batches must be an integer of at least 0"):
            dataset.state_after(wrong)  # type: ignore[arg-type] # the test


def test_states_of_other_samples_are_refused(lake: dasklake.Lake) -> None:
    """A state continues only the order that it was saved in."""
    dataset = lake.torch(batch_size=4, shuffle=True)
    with pytest.raises(InvalidInputError, match="of other samples, or of another order"):
        dataset.load_state_dict(lake.torch(batch_size=4).state_dict())
    with pytest.raises(InvalidInputError, match="version"):
        dataset.load_state_dict({**dataset.state_dict(), "version": 99})
    assert dataset.state_dict()["position"] == 0


def test_a_tensor_cannot_hide_the_flags_of_padding() -> None:
    """A tensor of that name is refused with several ranks."""
    lake = dasklake.empty("memory://is-padding")
    lake.create_tensor("is_padding", dtype="int64", shape=())
    lake.append({"is_padding": 1})
    with pytest.raises(InvalidInputError, match="hides the flags of padding"):
        lake.torch(batch_size=4, shard=(0, 2))
    assert next(iter(lake.torch(batch_size=4)))["is_padding"].tolist() == [1]
