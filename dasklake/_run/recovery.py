"""Complete partitions that lie on storage and that no commit names: nothing is computed twice.

A coordinator that died had receipts it never committed. The chunks say everything the receipts said:
run, epoch, partition, attempt, chunk number, and whether they are the last of their partition.
Partitions of which samples failed are left and computed again, since the function may have been
mended.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from dasklake._format import object_keys
from dasklake._format.chunk import ChunkHead
from dasklake._format.columns import read_class_names
from dasklake._model.receipt import Receipt
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import CorruptionError, ObjectNotFoundError

__all__ = ["find_recoverable"]

#: Attempts read at the same time.
_READERS = 8

#: Partition, epoch and attempt.
_Attempt = tuple[int, int, str]


def find_recoverable(
    store: ObjectStore, home: str, missing: Collection[int], *, closed: int
) -> list[Receipt]:
    """Return a receipt for each missing partition that is complete on storage.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    home : str
        ``<branch>/<run>``.
    missing : collection of int
        Partitions that the version of the epoch's entry does not hold.
    closed : int
        Chunks of epochs up to this one were given up by a reset and are never recovered.

    Returns
    -------
    list of Receipt
        At most one for each partition, always of one attempt; every byte of it was checked.
    """
    attempts = _attempts(store.walk(object_keys.data_prefix(home)), set(missing), closed)
    by_partition: dict[int, list[_Attempt]] = {}
    for attempt in sorted(attempts):
        by_partition.setdefault(attempt[0], []).append(attempt)

    def first_complete(candidates: Sequence[_Attempt]) -> Receipt | None:
        receipts = (_receipt(store, home, each, attempts[each]) for each in candidates)
        return next((receipt for receipt in receipts if receipt is not None), None)

    with ThreadPoolExecutor(max_workers=_READERS) as pool:
        found = pool.map(first_complete, by_partition.values())
        return [receipt for receipt in found if receipt is not None]


def _attempts(
    objects: Iterable[tuple[str, int]], missing: set[int], closed: int
) -> Mapping[_Attempt, dict[int, str]]:
    """Return the chunks of each attempt that may be recovered, by number."""
    found: dict[_Attempt, dict[int, str]] = {}
    for key, _ in objects:
        name = object_keys.parse_chunk_key(key)
        if name is not None and name.partition in missing and name.epoch > closed:
            attempt = (name.partition, name.epoch, name.attempt)
            found.setdefault(attempt, {})[name.chunk] = key
    return found


def _receipt(
    store: ObjectStore, home: str, attempt: _Attempt, chunks: Mapping[int, str]
) -> Receipt | None:
    """Return what the attempt's write task would have handed back; None where it is incomplete."""
    if sorted(chunks) != list(range(len(chunks))):
        return None
    heads = []
    for number in sorted(chunks):
        head = _checked(store, chunks[number])
        if head is None or head.header.last != (number == len(chunks) - 1):
            return None
        about = head.header
        said = (f"{about.branch}/{about.run}", about.partition, about.epoch, about.attempt)
        if said != (home, *attempt) or about.chunk != number:
            return None
        heads.append(head)
    last = heads[-1].header
    if last.failed:
        return None  # its samples may succeed this time: people resume after mending the function
    return Receipt(
        run=last.run,
        epoch=last.epoch,
        partition=last.partition,
        attempt=last.attempt,
        chunks=tuple(head.ref() for head in heads),
        inputs=last.inputs,
        names=_names(heads),
    )


def _names(heads: Sequence[ChunkHead]) -> dict[str, tuple[str, ...]]:
    """Return the class names of a partition, by tensor, in the order of their first samples."""
    found: dict[str, dict[str, None]] = {}
    for head in heads:
        for column in head.batch.schema:
            found.setdefault(column.name, {}).update(dict.fromkeys(read_class_names(column) or ()))
    return {tensor: tuple(names) for tensor, names in found.items() if names}


def _checked(store: ObjectStore, key: str) -> ChunkHead | None:
    try:
        data = store.get(key)
        head = ChunkHead.parse(data, len(data), key)
        head.check(head.length, memoryview(data)[head.length :])
    except (CorruptionError, ObjectNotFoundError):
        return None  # not recovered: computed again
    return head
