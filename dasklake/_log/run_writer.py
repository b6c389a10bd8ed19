"""Commit the data of a run: the receipts of its partitions, one checkpoint after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dasklake._format import object_keys
from dasklake._format.segment import build_manifest
from dasklake._log.log import Draft, Log
from dasklake._log.run_entries import replace_unfinished, with_run
from dasklake._log.segments import add_failures, add_segment
from dasklake._log.transactions import next_commit
from dasklake._model.commit import Commit, Kind, Progress, RunState, Totals
from dasklake._model.discovered_names import (
    apply_discovered_names,
    decide_discovery,
    merge_discovered_names,
)
from dasklake._model.receipt import Failure, Receipt
from dasklake._schema.schema import Schema
from dasklake.exceptions import ConflictError, RunAbortedError, RunSupersededError


@dataclass(slots=True)
class RunWriter:
    """Commits the receipts of one epoch of a run.

    Parameters
    ----------
    log : Log
        The run's home branch.
    run : str
        Name of the run.
    epoch : int
        The epoch that this coordinator leads.
    head : Commit
        The newest examined commit; initially the coordinator's own ``begin`` or epoch entry.
    schema : Schema
        The schema that an overwrite gives the lake.
    message : str or None
        First line of commit messages.
    """

    log: Log
    run: str
    epoch: int
    head: Commit
    schema: Schema
    message: str | None = None

    @property
    def home(self) -> str:
        """The run's name with its branch."""
        return object_keys.home_of(self.log.branch, self.run)

    @property
    def state(self) -> RunState:
        """The state of the run in the newest examined commit."""
        return self.head.runs[self.run]

    def commit(
        self,
        receipts: Sequence[Receipt],
        failures: Sequence[Failure] | Callable[[], Sequence[Failure]],
    ) -> Commit:
        """Commit receipts of this epoch, or of earlier ones that are not closed.

        Parameters
        ----------
        receipts : sequence of Receipt
            One for each partition. None was committed before.
        failures : sequence of Failure, or callable
            The failures in these partitions; or a callable that reads them from storage, which is
            called again after each lost race.

        Returns
        -------
        Commit
            The commit that holds them; or the head, if another coordinator finished the run.

        Raises
        ------
        RunAbortedError, RunSupersededError, ConflictError
            Another writer closed, continued or replaced the run. Nothing was committed.
        """

        def build(head: Commit, since: Sequence[Commit], commit_id: str) -> Draft | None:
            if head.runs[self.run].finished:
                return None
            for commit in since:
                self._examine(commit, head)
            failed = failures() if callable(failures) else failures
            return self._data(head, commit_id, receipts, failed)

        self.head = self.log.publish(self.head, build)
        return self.head

    def _examine(self, commit: Commit, head: Commit) -> None:
        """Raise if a concurrent commit ends this coordinator's epoch."""
        kind, entry = commit.kind, commit.entry
        if kind is Kind.ABORT and entry["closed"].get(self.run, 0) >= self.epoch:
            raise RunAbortedError(
                f"Run {self.run!r} was reset (version {commit.version}). Continue it with "
                "mode='resume'."
            )
        if kind in (Kind.BEGIN, Kind.EPOCH, Kind.DATA, Kind.OVERWRITE) and (
            entry.get("run") == self.run
        ):
            raise RunSupersededError(
                f"Another writer has taken over run {self.run!r} (version {commit.version}). "
                "This writer stops; the data that it committed is kept."
            )
        if kind in (Kind.OVERWRITE, Kind.RESTORE, Kind.CLOSED):
            raise ConflictError(
                f"Version {commit.version} ({kind}) replaced the lake's content while run "
                f"{self.run!r} was writing. Write again under a new run name."
            )
        first = self.state.plan.overwrite and not head.runs[self.run].overwrote
        if first and kind is Kind.DATA:
            raise ConflictError(
                f"Version {commit.version} was committed while run {self.run!r} was about to "
                "overwrite the lake. Check that version, then write again under a new run name."
            )

    def _data(
        self,
        head: Commit,
        commit_id: str,
        receipts: Sequence[Receipt],
        failures: Sequence[Failure],
    ) -> Draft:
        before = head.runs[self.run]
        replaces = before.plan.overwrite and not before.overwrote
        taken = [r for r in receipts if before.closed < r.epoch <= self.epoch]
        partitions = {r.partition for r in taken}
        failures = [f for f in failures if f.partition in partitions]
        state = _advance(before, taken, len(failures))
        base = replace(head, segments=(), failures=(), totals=Totals()) if replaces else head
        new = build_manifest(self.home, state.order, taken)
        segments, chunks = add_segment(self.log, base, commit_id, new)
        failed, table = add_failures(self.log, base, commit_id, failures)
        schema = self.schema if replaces else head.schema
        runs = with_run(head, self.run, state)
        if replaces:
            runs = replace_unfinished(runs, but=self.run)
        schema, runs = apply_discovered_names(decide_discovery(schema, taken), runs)
        progress = _progress(self.run, state)
        commit = next_commit(
            head,
            commit_id,
            Kind.OVERWRITE if replaces else Kind.DATA,
            _message(self.run, progress, self.message),
            entry={"run": self.run, "epoch": self.epoch},
            schema=schema,
            runs=runs,
            segments=segments,
            failures=failed,
            totals=Totals(
                base.totals.samples + sum(r.samples for r in taken),
                base.totals.chunks + sum(len(r.chunks) for r in taken),
                base.totals.failures + len(failures),
                base.totals.size + sum(r.size for r in taken),
            ),
            progress=progress,
            **({"histories": {}} if replaces else {}),
        )
        return Draft(commit, [*chunks, *table])


def _advance(state: RunState, receipts: Sequence[Receipt], failures: int) -> RunState:
    partitions = state.partitions + len(receipts)
    return replace(
        state,
        partitions=partitions,
        inputs=state.inputs + sum(r.inputs for r in receipts),
        samples=state.samples + sum(r.samples for r in receipts),
        failures=state.failures + failures,
        size=state.size + sum(r.size for r in receipts),
        names=merge_discovered_names(state.names, receipts),
        overwrote=state.plan.overwrite,
        finished=partitions >= state.plan.partitions,
    )


def _progress(run: str, state: RunState) -> Progress:
    plan = state.plan
    share = state.partitions / plan.partitions
    if plan.inputs and not state.finished:
        share = min(state.inputs / plan.inputs, 1.0)
    percent = round(100 * share, 2)
    return Progress(run, state.partitions, plan.partitions, state.inputs, percent)


def _message(run: str, progress: Progress, first: str | None) -> str:
    return (
        (f"{first}\n" if first else "")
        + f"Auto-commit during to_lake of {run} after {progress.percent:g}% progress\n"
        f"Total samples processed: {progress.inputs}"
    )
