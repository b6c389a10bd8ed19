"""The partitions that a resume recovers from storage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dasklake._format import object_keys
from dasklake._model.receipt import Failure, Receipt
from dasklake._run.recovery import find_recoverable
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._storage.store import ObjectStore
from dasklake._write.chunk_writer import ChunkWriter, RunLocation, write_lost

SCHEMA = Schema({"x": TensorSpec(dtype="int64", shape=())})
HOME = "main/job"


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    """Make an empty store on a local disk."""
    return ObjectStore(f"file://{tmp_path_factory.mktemp('lake')}")


def write(store: ObjectStore, partition: int, rows: Sequence[int], epoch: int = 1) -> Receipt:
    """Write a partition in chunks of a few samples."""
    chunks = ChunkWriter(RunLocation(store, HOME, "job", epoch), SCHEMA, partition, 64)
    for x in rows:
        chunks.add({"x": x})
    return chunks.finish(len(rows))


def keys(receipt: Receipt) -> list[str]:
    """Return the keys of a receipt's chunks."""
    return [
        object_keys.chunk_key(HOME, receipt.partition, receipt.epoch, receipt.attempt, chunk.chunk)
        for chunk in receipt.chunks
    ]


def test_complete_partitions_are_recovered_as_their_receipts(store: ObjectStore) -> None:
    """The receipt read from the chunks of a partition equals the receipt of its task."""
    receipts = [write(store, 0, range(40)), write(store, 3, []), write(store, 5, [7])]
    assert len(receipts[0].chunks) > 1
    assert find_recoverable(store, HOME, range(10), SCHEMA, closed=0) == receipts


def test_partitions_with_failures_are_left(store: ObjectStore) -> None:
    """Partitions with uncommitted failures are not recovered: the function may have been fixed."""
    failure = Failure("job", 2, None, None, None, None, "ValueError", "no", "trace")
    write_lost(RunLocation(store, HOME, "job", 1), SCHEMA, failure)
    assert find_recoverable(store, HOME, [2], SCHEMA, closed=0) == []


@pytest.mark.parametrize("number", [0, 1, -1])
def test_incomplete_attempts_are_left(store: ObjectStore, number: int) -> None:
    """An attempt with a missing chunk is not recovered."""
    receipt = write(store, 0, range(40))
    store.delete([keys(receipt)[number]])
    assert find_recoverable(store, HOME, [0], SCHEMA, closed=0) == []


def test_damaged_attempts_are_left_and_another_is_taken(store: ObjectStore) -> None:
    """An attempt with a damaged chunk is not recovered; a second, complete attempt is."""
    damaged, whole = sorted(
        (write(store, 0, range(40)), write(store, 0, range(40))), key=lambda r: r.attempt
    )
    key = keys(damaged)[1]
    data = bytearray(store.get(key))
    data[-100] ^= 0xFF
    store.put(key, bytes(data))
    assert find_recoverable(store, HOME, [0], SCHEMA, closed=0) == [whole]


def test_closed_epochs_and_committed_partitions_are_left(store: ObjectStore) -> None:
    """Chunks of closed epochs and of committed partitions are not recovered."""
    write(store, 0, [1], epoch=1)
    second = write(store, 1, [2], epoch=2)
    write(store, 2, [3], epoch=2)
    assert find_recoverable(store, HOME, [0, 1], SCHEMA, closed=1) == [second]


def test_chunks_under_a_wrong_name_are_left(store: ObjectStore) -> None:
    """A chunk whose header names another owner than its key is not recovered."""
    receipt = write(store, 0, [1])
    (key,) = keys(receipt)
    store.put(object_keys.chunk_key(HOME, 1, 1, receipt.attempt, 0), store.get(key))
    assert find_recoverable(store, HOME, [1], SCHEMA, closed=0) == []


def test_discovered_names_are_recovered(store: ObjectStore) -> None:
    """The class names of a receipt are read from the heads of the chunks."""
    spec = TensorSpec("class_label", shape=(), discover=True)
    schema = Schema({"label": spec})
    chunks = ChunkWriter(RunLocation(store, HOME, "job", 1), schema, 0, 1)
    for name in ("b", "a", "b", "c"):
        chunks.add(chunks.encoder.encode({"label": name}))
    receipt = chunks.finish(4)
    assert len(receipt.chunks) == 4
    assert receipt.names == {"label": ("b", "a", "c")}
    assert find_recoverable(store, HOME, [0], schema, closed=0) == [receipt]


@pytest.mark.parametrize(
    ("labels", "names"),
    [(["b", "a"], {"label": ("b", "a")}), ([3, 1], {"label": ()}), ([[], []], {}), ([], {})],
)
@pytest.mark.parametrize("shape", [None, ()])
def test_kind_of_labels_is_recovered(
    store: ObjectStore, labels: list[Any], names: dict[str, Any], shape: Any
) -> None:
    """A recovered receipt says, like the first one, if labels without given names are indices."""
    schema = Schema({"label": TensorSpec("class_label", shape=shape)})
    chunks = ChunkWriter(RunLocation(store, HOME, "job", 1), schema, 0, 1)
    for label in labels if shape is None or names else []:
        chunks.add(chunks.encoder.encode({"label": label}))
    receipt = chunks.finish(len(labels))
    assert receipt.names == names
    assert find_recoverable(store, HOME, [0], schema, closed=0) == [receipt]
    decided = (
        Schema({"label": TensorSpec("class_label", shape=shape, discover=not names["label"])})
        if names
        else schema
    )
    assert bool(find_recoverable(store, HOME, [0], decided, closed=0)) == (not names)


def test_labels_of_two_kinds_are_not_recovered(store: ObjectStore) -> None:
    """Partitions of names and of indices are computed again, because no commit may have both."""
    schema = Schema({"label": TensorSpec("class_label")})
    for partition, label in enumerate(["a", 3, [], "b"]):
        chunks = ChunkWriter(RunLocation(store, HOME, "job", 1), schema, partition, 1)
        chunks.add(chunks.encoder.encode({"label": label}))
        chunks.finish(1)
    recovered = find_recoverable(store, HOME, [0, 1, 2, 3], schema, closed=0)
    assert [receipt.partition for receipt in recovered] == [2]
    names = find_recoverable(store, HOME, [0, 2, 3], schema, closed=0)
    assert [receipt.partition for receipt in names] == [0, 2, 3]
