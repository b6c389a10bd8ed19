"""What a run commits: its beginning, its epochs, its data; and the abort that closes epochs.

Each function makes a ``build`` for :meth:`Log.publish`. A build sees the head and every commit that
came in between, checks each of them for what concerns its run, and computes everything else from
the head alone, so that nothing that was decided before a lost race survives it.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dasklake._format import layout
from dasklake._format.documents import now
from dasklake._format.segment import (
    failures_bytes,
    join,
    manifest_of,
    read_failures,
    read_segment,
    segment_bytes,
    table_ref,
)
from dasklake._model.commit import Commit, Kind, Plan, Progress, RunState, SegmentRef, Totals
from dasklake._model.receipt import Failure, Receipt
from dasklake._model.schema import Schema
from dasklake._store.log import Draft, Log
from dasklake.exceptions import (
    ConflictError,
    LakeExistsError,
    RunAbortedError,
    RunSupersededError,
)

__all__ = ["RunWriter", "abort", "begin", "create_lake", "resume"]

#: So many segments of one level become one of the next.
_MERGE = 16


def author() -> str:
    """Return the name of the user, as commits carry it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def create_lake(log: Log, schema: Schema, *, single_writer: bool = False) -> tuple[Commit, bool]:
    """Make the first version of a lake, or open the one that is there.

    The storage is probed first: it must refuse to create an object twice.

    Returns
    -------
    head : Commit
        The newest version.
    ours : bool
        Whether the lake was made by this call.
    """
    head = log.head()
    if head is not None:
        return head, False
    log.store.probe()
    drafted: set[str] = set()

    def build(known: Commit | None, _: Sequence[Commit], commit_id: str) -> Draft | None:
        if known is not None:
            return None
        drafted.add(commit_id)
        return Draft(
            Commit(
                version=0,
                id=commit_id,
                parent=None,
                branch=log.branch,
                kind=Kind.INIT,
                time=now(),
                author=author(),
                message="Create the lake",
                schema=schema,
                single_writer=single_writer,
            )
        )

    made = log.publish(None, build)
    if made is None:
        raise ConflictError("The lake vanished while it was made. Try again.")
    return made, made.id in drafted


def _next(head: Commit, commit_id: str, kind: Kind, message: str, **changes: Any) -> Commit:
    """Return the commit after ``head`` that carries everything over but ``changes``."""
    return replace(
        head,
        version=head.version + 1,
        id=commit_id,
        parent=head.id,
        kind=kind,
        time=now(),
        author=author(),
        message=message,
        **{"entry": {}, "progress": None, **changes},
    )


def _with_run(head: Commit, run: str, state: RunState) -> Mapping[str, RunState]:
    return {**head.runs, run: state}


def begin(
    log: Log,
    head: Commit,
    run: str,
    plan: Plan,
    *,
    check: Callable[[Commit], None] = lambda _: None,
) -> Commit:
    """Commit the beginning of a run: its plan and epoch 1.

    Parameters
    ----------
    log : Log
        The run's home branch.
    head : Commit
        The newest commit the caller knows.
    run : str
        Its name.
    plan : Plan
        What it sets out to write.
    check : callable, optional
        Raises where the run must not begin on a version; called for each that it is tried on.

    Raises
    ------
    LakeExistsError
        The branch has a run of that name already.
    ConflictError
        The branch was closed.
    """
    layout.valid_name("run", run)

    def build(known: Commit | None, since: Sequence[Commit], commit_id: str) -> Draft:
        known = known or head
        _refuse_closed(known, since)
        check(known)
        if run in known.runs:
            raise LakeExistsError(
                f"The lake has a run {run!r} already. Continue it with mode='resume', or give "
                "the new run another name."
            )
        order = 1 + max((state.order for state in known.runs.values()), default=-1)
        state = RunState(plan=plan, order=order)
        entry = {"run": run, "epoch": 1}
        runs = _with_run(known, run, state)
        message = f"Begin run {run}"
        return Draft(_next(known, commit_id, Kind.BEGIN, message, entry=entry, runs=runs))

    return _published(log, head, build)


def resume(log: Log, head: Commit, run: str, *, take_over: bool = False) -> Commit:
    """Commit the next epoch of a run.

    Parameters
    ----------
    log : Log
        The run's home branch.
    head : Commit
        A version that has the run.
    run : str
        Its name.
    take_over : bool, default False
        Whether to go on when another epoch of the run was committed meanwhile.

    Returns
    -------
    Commit
        The entry, from whose version what is missing has to be computed; or the head, where the
        run is finished.

    Raises
    ------
    ConflictError
        Another writer replaced the run's rows, or the branch was closed.
    RunSupersededError
        Another resume of the run was faster.
    """

    def build(known: Commit | None, since: Sequence[Commit], commit_id: str) -> Draft | None:
        known = known or head
        _refuse_closed(known, since)
        state = known.runs[run]
        if state.finished:
            return None
        if state.replaced:
            raise ConflictError(
                f"Run {run!r} was overwritten by another writer. Write with a new run name."
            )
        for commit in since:
            if commit.kind is Kind.EPOCH and commit.entry["run"] == run and not take_over:
                raise RunSupersededError(
                    f"Another writer has just resumed run {run!r} (version {commit.version}). "
                    "Wait for it, or try again when it has ended."
                )
        epoch = 1 + max(1, state.epoch, state.closed)
        entry = {"run": run, "epoch": epoch}
        runs = _with_run(known, run, replace(state, epoch=epoch))
        message = f"Resume run {run} as epoch {epoch}"
        return Draft(_next(known, commit_id, Kind.EPOCH, message, entry=entry, runs=runs))

    return _published(log, head, build)


def abort(log: Log, head: Commit, runs: Iterable[str]) -> Commit | None:
    """Commit an abort that closes all epochs so far of the unfinished ones of some runs.

    Returns
    -------
    Commit or None
        The abort, whose entry maps each run to the epoch up to which it is closed; None where
        every run is finished.
    """
    names = sorted(set(runs))

    def build(known: Commit | None, _: Sequence[Commit], commit_id: str) -> Draft | None:
        known = known or head
        open_runs = {
            name: known.runs[name]
            for name in names
            if name in known.runs and not known.runs[name].finished
        }
        if not open_runs:
            return None
        closed = {name: max(s.epoch, s.closed) for name, s in open_runs.items()}
        states = {name: replace(s, closed=closed[name]) for name, s in open_runs.items()}
        message = f"Close {', '.join(f'run {name} up to epoch {e}' for name, e in closed.items())}"
        return Draft(
            _next(
                known,
                commit_id,
                Kind.ABORT,
                message,
                entry={"closed": closed},
                runs={**known.runs, **states},
            )
        )

    drafted: set[str] = set()

    def noted(known: Commit | None, since: Sequence[Commit], commit_id: str) -> Draft | None:
        drafted.add(commit_id)
        return build(known, since, commit_id)

    made = log.publish(head, noted)
    return made if made is not None and made.id in drafted else None


def _published(log: Log, head: Commit, build: Callable[..., Draft | None]) -> Commit:
    made = log.publish(head, build)
    return head if made is None else made


def _refuse_closed(known: Commit, since: Sequence[Commit]) -> None:
    if any(commit.kind is Kind.CLOSED for commit in (known, *since)):
        raise ConflictError(
            f"The branch {known.branch!r} was deleted. Write to another branch or make it again."
        )


@dataclass(slots=True)
class RunWriter:
    """The committing end of one epoch of a run.

    Parameters
    ----------
    log : Log
        The run's home branch.
    run : str
        Its name.
    epoch : int
        The epoch this coordinator leads.
    known : Commit
        The newest commit it has examined, at first its own ``begin`` or epoch entry.
    schema : Schema
        What an overwrite puts in the place of the lake's schema.
    label : str
        What commit messages call the run.
    message : str or None
        First line of commit messages.
    """

    log: Log
    run: str
    epoch: int
    known: Commit
    schema: Schema
    label: str
    message: str | None = None

    @property
    def home(self) -> str:
        """The run's name with its branch."""
        return layout.home_of(self.log.branch, self.run)

    @property
    def state(self) -> RunState:
        """What the newest known commit says of the run."""
        return self.known.runs[self.run]

    def commit(
        self,
        receipts: Sequence[Receipt],
        failures: Sequence[Failure] | Callable[[], Sequence[Failure]],
    ) -> Commit:
        """Commit receipts of this epoch, or of earlier ones that are not closed.

        Parameters
        ----------
        receipts : sequence of Receipt
            One for each partition, none of them committed before.
        failures : sequence of Failure, or callable
            The samples that failed in these partitions; or what reads them from storage, asked
            again after each lost race.

        Returns
        -------
        Commit
            The commit that holds them; or the one by which another coordinator finished the run.

        Raises
        ------
        RunAbortedError, RunSupersededError, ConflictError
            Another writer has taken the run's place; nothing was committed.
        """

        def build(known: Commit | None, since: Sequence[Commit], commit_id: str) -> Draft | None:
            known = known or self.known
            if known.runs[self.run].finished:
                return None
            for commit in since:
                self._examine(commit, known)
            found = failures() if callable(failures) else failures
            return self._data(known, commit_id, receipts, found)

        self.known = _published(self.log, self.known, build)
        return self.known

    def _examine(self, commit: Commit, head: Commit) -> None:
        """Stop where a commit that came in between ends this coordinator's turn."""
        kind, entry = commit.kind, commit.entry
        if kind is Kind.ABORT and entry["closed"].get(self.run, 0) >= self.epoch:
            raise RunAbortedError(
                f"Run {self.run!r} was reset (version {commit.version}). Start it again with "
                "mode='resume' to go on."
            )
        if kind in (Kind.BEGIN, Kind.EPOCH, Kind.DATA, Kind.OVERWRITE) and (
            entry.get("run") == self.run
        ):
            raise RunSupersededError(
                f"Another writer has taken over run {self.run!r} (version {commit.version}). "
                "This one stops; what it committed is kept."
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
                "overwrite the lake. Look at it, then write again under a new run name."
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
        segments, chunks = _add_segment(self.log, base, commit_id, self.home, state, taken)
        failed, table = _add_failures(self.log, base, commit_id, failures)
        runs = dict(_with_run(head, self.run, state))
        if replaces:
            runs |= {
                name: replace(other, replaced=True)
                for name, other in head.runs.items()
                if name != self.run and not other.finished
            }
        progress = _progress(self.run, state)
        commit = _next(
            head,
            commit_id,
            Kind.OVERWRITE if replaces else Kind.DATA,
            _message(self.label, progress, self.message),
            entry={"run": self.run, "epoch": self.epoch},
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
            **({"schema": self.schema} if replaces else {}),
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


def _message(label: str, progress: Progress, first: str | None) -> str:
    return (
        (f"{first}\n" if first else "")
        + f"Auto-commit during to_lake of {label} after {progress.percent:g}% progress\n"
        f"Total samples processed: {progress.inputs}"
    )


def _add_segment(
    log: Log,
    base: Commit,
    commit_id: str,
    home: str,
    state: RunState,
    receipts: Sequence[Receipt],
) -> tuple[tuple[SegmentRef, ...], list[tuple[str, bytes]]]:
    """Return the segments of the next version, and the one new object among them."""
    new = manifest_of(home, state.order, receipts)
    if not len(new):
        return base.segments, []
    kept, merged, level = _merge(base.segments)
    # Read once and let go: a run that lasts keeps nothing of what it merged.
    keys = [layout.segment_key(ref.name) for ref in merged]
    found = [read_segment(log.store.get(key), ref) for key, ref in zip(keys, merged, strict=True)]
    manifest = join([*found, new]) if merged else new
    data = segment_bytes(manifest)
    samples = int(manifest.rows.sum())
    ref = table_ref(commit_id, data, rows=len(manifest), samples=samples, level=level)
    return (*kept, ref), [(layout.segment_key(commit_id), data)]


def _add_failures(
    log: Log, base: Commit, commit_id: str, failures: Sequence[Failure]
) -> tuple[tuple[SegmentRef, ...], list[tuple[str, bytes]]]:
    if not failures:
        return base.failures, []
    kept, merged, level = _merge(base.failures)
    earlier: list[Failure] = []
    for ref in merged:
        key = layout.failures_key(ref.name)
        earlier += read_failures(log.store.get(key), ref, key)
    rows = [*earlier, *failures]
    data = failures_bytes(rows)
    ref = table_ref(commit_id, data, rows=len(rows), samples=0, level=level)
    return (*kept, ref), [(layout.failures_key(commit_id), data)]


def _merge(
    refs: tuple[SegmentRef, ...],
) -> tuple[tuple[SegmentRef, ...], tuple[SegmentRef, ...], int]:
    """Split tables into those that stay and those that become one with the next new one.

    Levels never rise from left to right, so the tables to merge are the last ones.
    """
    level = 0
    kept = len(refs)
    while True:
        same = kept
        while same and refs[same - 1].level == level:
            same -= 1
        if kept - same < _MERGE - 1:
            return refs[:kept], refs[kept:], level
        kept, level = same, level + 1
