"""Commit the entries of runs that carry no data: begin, epoch and abort."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from dasklake._format import object_keys
from dasklake._log.log import Log
from dasklake._log.transactions import next_commit, raise_if_closed
from dasklake._model.commit import Commit, Kind, Plan, RunState
from dasklake.exceptions import ConflictError, LakeExistsError, RunSupersededError


def with_run(head: Commit, run: str, state: RunState) -> Mapping[str, RunState]:
    """Return the run table of a version with the state of one run replaced."""
    return {**head.runs, run: state}


def replace_unfinished(runs: Mapping[str, RunState], but: str | None = None) -> dict[str, RunState]:
    """Return a run table in which no unfinished run but one can be continued."""
    return {
        name: state if state.finished or name == but else replace(state, replaced=True, names=None)
        for name, state in runs.items()
    }


def next_order(head: Commit) -> int:
    """Return the order number of a new run: its rows come after those of all other runs."""
    return max((head.first_order, *(1 + state.order for state in head.runs.values())))


def begin(
    log: Log,
    head: Commit,
    run: str,
    plan: Plan,
    *,
    check: Callable[[Commit], None] = lambda _: None,
) -> Commit:
    """Commit the begin entry of a run: its plan and epoch 1.

    Parameters
    ----------
    log : Log
        The run's home branch.
    head : Commit
        The newest commit that the caller has read.
    run : str
        Name of the run.
    plan : Plan
        The plan of the run.
    check : callable, optional
        ``check(head)`` raises if the run must not begin on a version. It is called for each
        version that is tried.

    Raises
    ------
    LakeExistsError
        The branch has a run of that name already.
    ConflictError
        The branch was deleted.
    """
    object_keys.valid_name("run", run)

    def build(head: Commit, since: Sequence[Commit], commit_id: str) -> Commit:
        raise_if_closed(head, since)
        check(head)
        if run in head.runs:
            raise LakeExistsError(
                f"The lake has a run {run!r} already. Continue it with mode='resume', or give "
                "the new run another name."
            )
        state = RunState(plan=plan, order=next_order(head))
        entry = {"run": run, "epoch": 1}
        runs = with_run(head, run, state)
        message = f"Begin run {run}"
        return next_commit(head, commit_id, Kind.BEGIN, message, entry=entry, runs=runs)

    return log.publish(head, build)


def resume(log: Log, head: Commit, run: str, *, take_over: bool = False) -> Commit:
    """Commit the next epoch of a run.

    Parameters
    ----------
    log : Log
        The run's home branch.
    head : Commit
        A version that has the run.
    run : str
        Name of the run.
    take_over : bool, default False
        Whether to continue if another epoch of the run was committed concurrently.

    Returns
    -------
    Commit
        The epoch entry: missing partitions must be computed from its version. If the run is
        finished, the head.

    Raises
    ------
    ConflictError
        Another writer replaced the run's rows, or the branch was deleted.
    RunSupersededError
        Another resume of the run committed its epoch first.
    """

    def build(head: Commit, since: Sequence[Commit], commit_id: str) -> Commit | None:
        raise_if_closed(head, since)
        state = head.runs[run]
        if state.finished:
            return None
        if state.replaced:
            raise ConflictError(
                f"Run {run!r} cannot be continued: another writer replaced its rows, or the "
                "schema was changed after the run was closed. Write with a new run name."
            )
        for commit in since:
            if commit.kind is Kind.EPOCH and commit.entry["run"] == run and not take_over:
                raise RunSupersededError(
                    f"Another writer has just resumed run {run!r} (version {commit.version}). "
                    "Wait for it, or try again when it has ended."
                )
        epoch = 1 + max(1, state.epoch, state.closed)
        entry = {"run": run, "epoch": epoch}
        runs = with_run(head, run, replace(state, epoch=epoch))
        message = f"Resume run {run} as epoch {epoch}"
        return next_commit(head, commit_id, Kind.EPOCH, message, entry=entry, runs=runs)

    return log.publish(head, build)


def abort(log: Log, head: Commit, runs: Iterable[str]) -> Commit | None:
    """Commit an abort that closes all epochs so far of the unfinished runs among ``runs``.

    Returns
    -------
    Commit or None
        The abort, whose entry maps each run to the last epoch that it closes. None if every run
        is finished, or the branch was deleted, so that nothing can be committed there.
    """
    names = sorted(set(runs))

    def build(head: Commit, _: Sequence[Commit], commit_id: str) -> Commit | None:
        if head.kind is Kind.CLOSED:
            return None
        open_runs = {
            name: head.runs[name]
            for name in names
            if name in head.runs and not head.runs[name].finished
        }
        if not open_runs:
            return None
        closed = {name: max(s.epoch, s.closed) for name, s in open_runs.items()}
        states = {name: replace(s, closed=closed[name]) for name, s in open_runs.items()}
        message = f"Close {', '.join(f'run {name} up to epoch {e}' for name, e in closed.items())}"
        return next_commit(
            head,
            commit_id,
            Kind.ABORT,
            message,
            entry={"closed": closed},
            runs={**head.runs, **states},
        )

    commit, created = log.try_publish(head, build)
    return commit if created else None
