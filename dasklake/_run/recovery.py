"""Recover complete partitions that are on storage but in no commit, so that none is computed twice.

A coordinator that died may have had receipts that it did not commit. The chunk heads hold the same
facts: run, epoch, partition, attempt, chunk number, and whether the chunk is the last of its
partition. Partitions with failed samples are not recovered but computed again, because the function
may have been fixed.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from dasklake._format import object_keys
from dasklake._format.chunk import ChunkHead
from dasklake._format.class_names import read_class_names
from dasklake._format.statistics import encode_statistics
from dasklake._model.receipt import ChunkRef, Receipt
from dasklake._schema.schema import Schema
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import CorruptionError, ObjectNotFoundError

_LOGGER = logging.getLogger(__name__)

#: Number of attempts read at the same time.
_READERS = 8

#: Partition, epoch and attempt.
_Attempt = tuple[int, int, str]


def find_recoverable(
    store: ObjectStore, home: str, missing: Collection[int], schema: Schema, *, closed: int
) -> list[Receipt]:
    """Return a receipt for each missing partition that is complete on storage.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    home : str
        ``<branch>/<run>``.
    missing : collection of int
        Partitions that are not in the version of the epoch's entry.
    schema : Schema
        Schema of the run.
    closed : int
        Newest epoch closed by a reset; chunks of closed epochs are never recovered.

    Returns
    -------
    list of Receipt
        At most one for each partition, of a single attempt; every byte of its chunks was checked.
    """
    attempts = _attempts(store.walk(object_keys.data_prefix(home)), set(missing), closed)
    by_partition: dict[int, list[_Attempt]] = {}
    for attempt in sorted(attempts):
        by_partition.setdefault(attempt[0], []).append(attempt)

    def first_complete(candidates: Sequence[_Attempt]) -> Receipt | None:
        receipts = (
            _receipt(store, home, attempt, attempts[attempt], schema) for attempt in candidates
        )
        return next((receipt for receipt in receipts if receipt is not None), None)

    with ThreadPoolExecutor(max_workers=_READERS) as pool:
        results = pool.map(first_complete, by_partition.values())
        receipts = _of_one_kind([r for r in results if r is not None], schema)
    for receipt in receipts:
        _LOGGER.debug("Run %r: recovered partition %d", receipt.run, receipt.partition)
    return receipts


def _attempts(
    objects: Iterable[tuple[str, int]], missing: set[int], closed: int
) -> Mapping[_Attempt, dict[int, str]]:
    """Return the chunks of each attempt that may be recovered, by number."""
    attempts: dict[_Attempt, dict[int, str]] = {}
    for key, _ in objects:
        name = object_keys.parse_chunk_key(key)
        if name is not None and name.partition in missing and name.epoch > closed:
            attempt = (name.partition, name.epoch, name.attempt)
            attempts.setdefault(attempt, {})[name.chunk] = key
    return attempts


def _receipt(
    store: ObjectStore, home: str, attempt: _Attempt, chunks: Mapping[int, str], schema: Schema
) -> Receipt | None:
    """Return the receipt of an attempt's write task; None if the attempt is incomplete."""
    if sorted(chunks) != list(range(len(chunks))):
        return None
    heads, refs = [], []
    for number in sorted(chunks):
        head = _checked(store, chunks[number])
        if head is None or head.header.last != (number == len(chunks) - 1):
            return None
        header = head.header
        owner = (f"{header.branch}/{header.run}", header.partition, header.epoch, header.attempt)
        if owner != (home, *attempt) or header.chunk != number:
            return None
        heads.append(head)
        refs.append(_ref(head, schema))
    last = heads[-1].header
    if last.failed:
        return None  # its samples may succeed this time, with a fixed function
    names = _names(heads, schema)
    if names is None:
        return None  # no commit would take its labels
    return Receipt(
        run=last.run,
        epoch=last.epoch,
        partition=last.partition,
        attempt=last.attempt,
        chunks=tuple(refs),
        inputs=last.inputs,
        names=names,
    )


def _ref(head: ChunkHead, schema: Schema) -> ChunkRef:
    """Return the reference to a chunk, as its write task did.

    Statistics are measured again. They are not in the chunk: its bytes are in memory anyway, and
    every read of a chunk would fetch them.
    """
    ref = head.ref()
    columns = zip(head.batch.schema, head.batch.columns, strict=True)
    statistics = encode_statistics(columns, schema, trusted=False) if ref.rows else None
    return replace(ref, statistics=statistics)


def _names(heads: Sequence[ChunkHead], schema: Schema) -> dict[str, tuple[str, ...]] | None:
    """Return the class names of a partition, by tensor, in the order of their first samples.

    The receipt of the write task has the same ones: no names mark labels that are indices and could
    have been names. The result is None if the schema has decided on the other kind of labels.
    """
    names: dict[str, tuple[str, ...]] = {}
    for tensor, spec in schema.items():
        if spec.kind.name != "class_label":
            continue
        if any(tensor not in head.batch.schema.names for head in heads):
            return None
        lists = [read_class_names(head.batch.schema.field(tensor)) for head in heads]
        values = tuple(dict.fromkeys(name for names_of in lists for name in names_of or ()))
        are_indices = any(
            own is None and spec.may_discover and _has_labels(head, tensor)
            for own, head in zip(lists, heads, strict=True)
        )
        if (spec.discover is True and are_indices) or (spec.discover is False and values):
            return None
        if values or are_indices:
            names[tensor] = values
    return names


def _of_one_kind(receipts: Sequence[Receipt], schema: Schema) -> list[Receipt]:
    """Leave out receipts whose labels are names, and those with indices, if nothing was decided.

    No commit can contain both, and it is not known which of them the fixed function will return.
    """
    undecided = [name for name, spec in schema.items() if spec.discover is None]
    mixed = {
        name
        for name in undecided
        if len({bool(r.names[name]) for r in receipts if name in r.names}) > 1
    }
    return [receipt for receipt in receipts if mixed.isdisjoint(receipt.names)]


def _has_labels(head: ChunkHead, name: str) -> bool:
    """Return whether a chunk has a label of a tensor; a list of labels may be empty."""
    column = head.batch.column(name)
    if not pa.types.is_large_binary(column.type):
        return bool(column.null_count < len(column))
    return bool(pc.sum(pc.binary_length(column)).as_py())


def _checked(store: ObjectStore, key: str) -> ChunkHead | None:
    try:
        data = store.get(key)
        head = ChunkHead.parse(data, len(data), key)
        head.check(head.length, memoryview(data)[head.length :])
    except (CorruptionError, ObjectNotFoundError):
        return None  # not recovered: computed again
    return head
