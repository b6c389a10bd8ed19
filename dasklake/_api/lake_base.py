"""The properties and the history of one version of a lake."""

from __future__ import annotations

from dataclasses import asdict, fields
from itertools import islice
from typing import Self

import pandas as pd

from dasklake._api.formatting import History
from dasklake._api.sample_set import SampleSet
from dasklake._log.log import Log
from dasklake._model.commit import Commit
from dasklake._model.receipt import Failure
from dasklake._read.corruption import OnCorrupt
from dasklake._read.reader import make_reader
from dasklake._run.options import LinkPolicy, parse_links
from dasklake._schema.argument_types import check_arguments
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import InvalidInputError


@check_arguments
class LakeBase(SampleSet):
    """One version of a lake.

    Parameters
    ----------
    store : ObjectStore
        Objects of the lake.
    log : Log
        Log of the lake.
    commit : Commit
        Commit of the version.
    on_corrupt : "raise" or "skip", default "raise"
        Handling of damaged chunks, as for :func:`dasklake.open`.
    links : LinkPolicy, optional
        Limits for reading the targets of links.
    """

    def __init__(
        self,
        store: ObjectStore,
        log: Log,
        commit: Commit,
        on_corrupt: OnCorrupt = "raise",
        links: LinkPolicy | None = None,
    ) -> None:
        self._store = store
        self._log = log
        self._on_corrupt: OnCorrupt = on_corrupt
        self._links = links
        self._limits = parse_links(links)
        self._pin(commit)

    def _pin(self, commit: Commit) -> None:
        self._commit = commit
        self._reader = make_reader(self._log, commit, self._on_corrupt, self._limits)

    def _discard_collected(self) -> None:
        """Discard the changes that a ``with`` block has collected."""

    @property
    def url(self) -> str:
        """Root URL of the lake, without secrets."""
        return self._store.url

    @property
    def version(self) -> int:
        """Number of the version."""
        return self._commit.version

    @property
    def commit(self) -> Commit:
        """Commit of the version."""
        return self._commit

    @property
    def is_complete(self) -> bool:
        """True if no run is unfinished; while one is, samples may still be inserted."""
        return all(
            run.finished or run.replaced or run.closed >= run.epoch or run.plan.compaction
            for run in self._commit.runs.values()
        )

    def refresh(self) -> Self:
        """Move to the newest version.

        Returns
        -------
        Lake
            This object.

        Raises
        ------
        StoreError
            The storage failed.
        """
        head = self._log.require_head()
        if head.id != self._commit.id:
            self._pin(head)
        return self

    def log(self, *, entries: bool = False, max_count: int | None = None) -> History:
        """Return the commits up to this version, newest first.

        Parameters
        ----------
        entries : bool, default False
            Include commits that add no samples, such as the begin and the reset of a run.
        max_count : int, optional
            Return at most this many commits, and read no older ones.

        Returns
        -------
        History
            A list of commits that prints like ``git log``.

        Raises
        ------
        InvalidInputError
            ``max_count`` is negative.
        CorruptionError
            A commit is damaged.
        """
        most = self.version + 1 if max_count is None else max_count
        if most < 0:
            raise InvalidInputError(f"max_count must not be negative, got {most}. Omit it for all.")
        commits = map(self._log.read, range(self.version, -1, -1))
        selected = (commit for commit in commits if entries or commit.kind.is_data)
        return History(islice(selected, min(most, self.version + 1)))

    def failures(self) -> pd.DataFrame:
        """Return the skipped samples and partitions with their errors, in the order of the input.

        Returns
        -------
        pandas.DataFrame
            One row per failure: run, partition, position, index, item, tensor, exception, message,
            traceback, and value: the item as JSON, if it is small and plain.

        Raises
        ------
        CorruptionError
            The table of failures is damaged.
        """
        names = [field.name for field in fields(Failure)]
        runs = self._commit.runs

        def position(failure: Failure) -> tuple[int, int, int]:
            # A partition that failed as a whole has no position.
            order = runs[failure.run].order if failure.run in runs else -1
            return order, failure.partition, failure.position or 0

        rows = [
            asdict(failure) for failure in sorted(self._log.failures(self._commit), key=position)
        ]
        frame = pd.DataFrame(rows, columns=pd.Index(names))
        integers = {"partition": "int64", "position": "Int64", "index": "Int64"}
        return frame.astype({name: integers.get(name, "string") for name in names})
