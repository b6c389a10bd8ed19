"""Retry the failed items of a run, as a run of their own."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import dask.bag as db

from dasklake._api.other_words import unknown_argument
from dasklake._api.write import to_lake
from dasklake._log.log import Log
from dasklake._model.commit import Commit
from dasklake._model.receipt import Failure
from dasklake._storage.store import ObjectStore
from dasklake._write.caller_warning import warn_caller
from dasklake.exceptions import (
    ConflictError,
    CorruptionError,
    InvalidInputError,
    VersionNotFoundError,
)

#: Source of items that are not kept with the failures.
Items = Callable[[Mapping[str, Any]], Any] | Sequence[Any] | None

_RETRY = re.compile(r"(?P<base>.+)-retry-[1-9][0-9]*")

#: Arguments of ``to_lake`` that a retry sets itself.
_OWN = {"compute", "input_id", "mode", "run", "schema", "storage_options", "transform", "url"}

#: Most partitions of a retry.
_PARTITIONS = 64


def retry(
    store: ObjectStore,
    log: Log,
    fn: Callable[..., Any],
    items: Items,
    run: str | None,
    write: Mapping[str, Any],
) -> Any:
    """Write the failed items of a run again; return None if no failed items are left.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    log : Log
        Its log.
    fn : callable
        Makes a sample from an item.
    items : callable, sequence or None
        Source of the items that are not kept with the failures.
    run : str or None
        The run; None for the only run with failures.
    write : mapping
        Further arguments of ``to_lake``.
    """
    if own := sorted(_OWN & write.keys()):
        raise InvalidInputError(f"{own[0]} cannot be given: a retry appends to this lake.")
    allowed = [name for name in inspect.signature(to_lake).parameters if name not in _OWN]
    for name in write:
        if name not in allowed:
            raise unknown_argument("retry_failures", name, ["fn", "items", "run", *allowed])
    head = log.require_head()
    rows: dict[str, list[Failure]] = {}
    for failure in log.failures(head):
        rows.setdefault(failure.run, []).append(failure)
    chain = _chain(head, rows, run)
    if chain is None:
        return None
    newest = head.runs[chain.runs[-1]]
    continues = len(chain.runs) > 1 and not newest.finished
    if not continues and not newest.finished:
        raise ConflictError(
            f"Run {chain.runs[0]!r} is not finished. Finish it with mode='resume', then try again."
        )
    lost = sum(row.position is None for row in rows.get(chain.runs[0], ()))
    if lost and len(chain.runs) == 1:
        warn_caller(
            f"{lost} partitions of run {chain.runs[0]!r} failed as a whole, so their items are "
            "unknown and are not retried. Write them in a separate run."
        )
    failed = chain.failed(len(chain.runs) - (2 if continues else 1))
    if not failed:
        return None
    name = chain.runs[-1] if continues else f"{chain.runs[0]}-retry-{len(chain.runs)}"
    values = [_item(failure, items) for failure in failed]
    return to_lake(
        db.from_sequence(values, partition_size=_partition_size(len(values))),
        store,
        transform=fn,
        mode="resume" if continues else "append",
        run=name,
        **{"on_error": "skip", "max_failures": None, **write},
    )


class _Chain:
    """A run and its retries so far, with their failures."""

    def __init__(self, runs: list[str], rows: Mapping[str, list[Failure]]) -> None:
        self.runs = runs
        self._rows = rows

    def failed(self, number: int) -> list[Failure]:
        """Return the failures of a run of the chain, as failures of the first run, in its order."""
        rows = self._rows.get(self.runs[number], [])
        if not number:
            items = [(row.partition, row.position, row) for row in rows if row.position is not None]
            return [row for _, _, row in sorted(items, key=lambda item: item[:2])]
        inputs = self.failed(number - 1)
        size = _partition_size(len(inputs))
        indices: set[int] = set()
        for row in rows:
            start = row.partition * size
            if row.position is None:
                indices.update(range(start, min(start + size, len(inputs))))
            else:
                indices.add(start + row.position)
        return [inputs[index] for index in sorted(indices)]


def _partition_size(items: int) -> int:
    return max(1, -(-items // _PARTITIONS))


def _chain(head: Commit, rows: Mapping[str, list[Failure]], run: str | None) -> _Chain | None:
    """Return the chain of a run, or of the only run with failures if ``run`` is None."""
    if run is not None and run not in head.runs:
        names = ", ".join(map(repr, head.runs)) or "none"
        raise VersionNotFoundError(f"The lake has no run {run!r}. Its runs: {names}.")
    bases = sorted({_base(head, name) for name in ([run] if run is not None else rows)})
    chains = [_Chain(_runs(head, base), rows) for base in bases]
    if run is None:
        # Without the chains whose last retry left no failures.
        chains = [c for c in chains if rows.get(c.runs[-1]) or not head.runs[c.runs[-1]].finished]
    if len(chains) > 1:
        names = ", ".join(repr(chain.runs[0]) for chain in chains)
        raise InvalidInputError(f"Several runs have failures: {names}. Choose one with run='...'.")
    return chains[0] if chains else None


def _base(head: Commit, run: str) -> str:
    """Return the run that a run retries, or the run itself if it is not a retry."""
    match = _RETRY.fullmatch(run)
    return match["base"] if match and match["base"] in head.runs else run


def _runs(head: Commit, base: str) -> list[str]:
    names = [base]
    while (name := f"{base}-retry-{len(names)}") in head.runs:
        names.append(name)
    return names


def _item(failure: Failure, items: Items) -> Any:
    """Return the item that failed."""
    label = f"Item {failure.item} (run {failure.run!r}, index {failure.index})"
    if callable(items):
        return items(asdict(failure))
    if items is not None:
        try:
            if failure.index is not None:
                return items[failure.index]
        except (LookupError, TypeError) as error:
            raise InvalidInputError(
                f"{label} is not in items, which must be the whole input. Give all items, or a "
                "function of the row of failures()."
            ) from error
    if failure.value is not None:
        try:
            return json.loads(failure.value)
        except (ValueError, RecursionError) as error:
            raise CorruptionError(f"{label} cannot be decoded. Give the input as items.") from error
    raise InvalidInputError(
        f"{label} was not kept: only numbers, texts, and small lists and dicts of them are kept. "
        "Give the input as items, or a function of the row of failures()."
    )
