"""Further tries of what failed: which items, and as which run."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import dask.bag as db

from dasklake._api.write import to_lake
from dasklake._log.log import Log
from dasklake._model.commit import Commit
from dasklake._model.receipt import Failure
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import (
    ConflictError,
    CorruptionError,
    InvalidInputError,
    VersionNotFoundError,
)

__all__ = ["Items", "retry"]

#: Gives the items that are not kept with the failures.
Items = Callable[[Mapping[str, Any]], Any] | Sequence[Any] | None

_RETRY = re.compile(r"(?P<base>.+)-retry-[1-9][0-9]*")

#: Words of ``to_lake`` that a retry says itself.
_OWN = {"compute", "input_id", "mode", "run", "schema", "storage_options", "transform", "url"}

#: Most partitions of a retry.
_PARTITIONS = 64


def retry(
    store: ObjectStore,
    log: Log,
    fn: Callable[..., Any],
    items: Items,
    run: str | None,
    words: Mapping[str, Any],
) -> Any:
    """Write what failed in a run once more; None where nothing is left.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    log : Log
        Its log.
    fn : callable
        Makes a sample of an item.
    items : callable, sequence or None
        Gives the items that are not kept.
    run : str or None
        The run.
    words : mapping
        Further words of ``to_lake``.
    """
    if own := sorted(_OWN & words.keys()):
        raise InvalidInputError(f"{own[0]} cannot be given: a retry appends to this lake.")
    head = log.require_head()
    rows: dict[str, list[Failure]] = {}
    for failure in log.failures(head):
        rows.setdefault(failure.run, []).append(failure)
    chain = _chain(head, rows, run)
    if chain is None:
        return None
    newest = head.runs[chain.runs[-1]]
    goes_on = len(chain.runs) > 1 and not newest.finished
    if not goes_on and not newest.finished:
        raise ConflictError(
            f"Run {chain.runs[0]!r} is not finished. Finish it with mode='resume', then try again."
        )
    lost = sum(row.position is None for row in rows.get(chain.runs[0], ()))
    if lost and len(chain.runs) == 1:
        warnings.warn(
            f"{lost} partitions of run {chain.runs[0]!r} failed as a whole: which items they had is "
            "not known. Write these as a run of their own.",
            stacklevel=3,
        )
    failed = chain.failed(len(chain.runs) - (2 if goes_on else 1))
    if not failed:
        return None
    name = chain.runs[-1] if goes_on else f"{chain.runs[0]}-retry-{len(chain.runs)}"
    values = [_item(failure, items) for failure in failed]
    return to_lake(
        db.from_sequence(values, partition_size=_partition_size(len(values))),
        store,
        transform=fn,
        mode="resume" if goes_on else "append",
        run=name,
        **{"on_error": "skip", "max_failures": None, **words},
    )


class _Chain:
    """A run and its retries so far, and what failed in each."""

    def __init__(self, runs: list[str], rows: Mapping[str, list[Failure]]) -> None:
        self.runs = runs
        self._rows = rows

    def failed(self, number: int) -> list[Failure]:
        """Return what failed in a run of the chain, as the first run's failures, in its order."""
        rows = self._rows.get(self.runs[number], [])
        if not number:
            items = [(row.partition, row.position, row) for row in rows if row.position is not None]
            return [row for _, _, row in sorted(items, key=lambda item: item[:2])]
        inputs = self.failed(number - 1)
        size = _partition_size(len(inputs))
        places: set[int] = set()
        for row in rows:
            start = row.partition * size
            if row.position is None:
                places.update(range(start, min(start + size, len(inputs))))
            else:
                places.add(start + row.position)
        return [inputs[place] for place in sorted(places)]


def _partition_size(items: int) -> int:
    return max(1, -(-items // _PARTITIONS))


def _chain(head: Commit, rows: Mapping[str, list[Failure]], run: str | None) -> _Chain | None:
    """Return the chain of a run; of the only one with failures, where none is named."""
    if run is not None and run not in head.runs:
        known = ", ".join(map(repr, head.runs)) or "none"
        raise VersionNotFoundError(f"The lake has no run {run!r}. Its runs: {known}.")
    bases = sorted({_base(head, name) for name in ([run] if run is not None else rows)})
    chains = [_Chain(_runs(head, base), rows) for base in bases]
    if run is None:
        # Without those of which everything was made good, or has to be finished first.
        chains = [each for each in chains if rows.get(each.runs[-1]) or _open(head, each)]
    if len(chains) > 1:
        names = ", ".join(repr(each.runs[0]) for each in chains)
        raise InvalidInputError(f"Several runs have failures: {names}. Say which with run='...'.")
    return chains[0] if chains else None


def _open(head: Commit, chain: _Chain) -> bool:
    return not head.runs[chain.runs[-1]].finished


def _base(head: Commit, run: str) -> str:
    """Return the run that a run is a retry of, itself where it is none."""
    match = _RETRY.fullmatch(run)
    return match["base"] if match and match["base"] in head.runs else run


def _runs(head: Commit, base: str) -> list[str]:
    found = [base]
    while (name := f"{base}-retry-{len(found)}") in head.runs:
        found.append(name)
    return found


def _item(failure: Failure, items: Items) -> Any:
    """Return the item that failed."""
    where = f"Item {failure.item} (run {failure.run!r}, index {failure.index})"
    if callable(items):
        return items(asdict(failure))
    if items is not None:
        try:
            if failure.index is not None:
                return items[failure.index]
        except (LookupError, TypeError) as error:
            raise InvalidInputError(
                f"{where} is not in items: they are no list of the whole input. Give a function "
                "of the row of failures() instead."
            ) from error
    if failure.value is not None:
        try:
            return json.loads(failure.value)
        except (ValueError, RecursionError) as error:
            raise CorruptionError(f"{where} cannot be read. Give the input as items.") from error
    raise InvalidInputError(
        f"{where} was not kept: only numbers, texts, and small lists and dicts of them are. Give "
        "the input as items, or a function of the row of failures()."
    )
