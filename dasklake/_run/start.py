"""Start a write: choose its run, begin its epoch, and determine its missing partitions."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dasklake._format import object_keys
from dasklake._format.documents import plan_digests
from dasklake._log.creds_keys import check_keys
from dasklake._log.heartbeat import is_alive, newest_heartbeat
from dasklake._log.log import Log
from dasklake._log.run_entries import begin, resume
from dasklake._log.transactions import create_lake
from dasklake._model.commit import Commit, Plan
from dasklake._model.receipt import Receipt
from dasklake._run.recovery import find_recoverable
from dasklake._run.run_spec import Assignment, RunSpec
from dasklake._schema.schema import Schema
from dasklake._write.chunk_writer import RunLocation
from dasklake.exceptions import (
    InvalidInputError,
    LakeExistsError,
    PlanMismatchError,
    RunActiveError,
    SchemaError,
)

_LOGGER = logging.getLogger(__name__)


def start_run(log: Log, spec: RunSpec) -> Assignment:
    """Create the lake if necessary, and begin or continue the run.

    Raises
    ------
    LakeExistsError
        ``mode="create"`` and the lake has data or an unfinished run.
    PlanMismatchError
        The run was begun with another input or schema.
    RunActiveError
        Another coordinator is writing the run.
    SchemaError
        The schema differs from the lake's schema.
    InvalidInputError
        The lake has several runs and ``run`` was not given.
    """
    if spec.run is not None:
        object_keys.valid_name("run", spec.run)
    head, _ = create_lake(log, spec.schema, single_writer=log.store.single_writer)
    run = spec.run or (_only_run(head) if spec.mode == "resume" else None)
    if spec.mode == "resume" and run is not None and run in head.runs:
        return _resume(log, head, run, spec)
    if spec.mode == "overwrite" and run is not None:
        run, is_begun = _name_of_overwrite(log, head, run, spec)
        if is_begun:
            return _resume(log, head, run, spec)
    run = run or f"run-{object_keys.new_id()[:8]}"
    if spec.mode == "append":
        _warn_of_gaps(log, head)
    plan = spec.plan
    failed = _failed_epochs(log, head) if spec.mode == "create" else {}
    if failed:
        # Replacing a lake without samples loses nothing, and allows another schema.
        plan = replace(plan, overwrite=True)

    def check(head: Commit) -> None:
        if not (failed and failed == _epochs(head) and not head.totals.samples):
            _check(head, log, spec)

    try:
        entry = begin(log, head, run, plan, check=check)
    except LakeExistsError:
        # The same script was started twice, and the other process has begun the run.
        if spec.mode == "overwrite" and run != spec.run and spec.run is not None:
            raise _active(run) from None
        if spec.mode != "resume":
            raise
        head = log.require_head()
        return _resume(log, head, spec.run or _only_run(head) or run, spec)
    _LOGGER.info("Run %r begun, version %d, %d partitions", run, entry.version, spec.partitions)
    return _assignment(log, spec, run, entry, tuple(range(spec.partitions)))


def _name_of_overwrite(log: Log, head: Commit, name: str, spec: RunSpec) -> tuple[str, bool]:
    """Return the run of a repeated overwrite, and whether it must be continued.

    Names of runs are unique in the log. A script that overwrites a lake every night under one name
    therefore begins the runs "nightly", "nightly-2", "nightly-3" and so on. An interrupted one is
    continued if its input is known to be the same.

    Raises
    ------
    RunActiveError
        Another coordinator is writing the newest of these runs.
    """
    newest, count = name, 1
    while (following := name if count == 1 else f"{name}-{count}") in head.runs:
        newest, count = following, count + 1
    if newest not in head.runs or not head.runs[name].plan.overwrite:
        return name, False
    state = head.runs[newest]
    if not (state.finished or state.replaced):
        if state.closed < state.epoch and is_alive(log.store, log.branch, newest, state.epoch):
            raise _active(newest)
        if state.plan == spec.plan and spec.input_id is not None:
            return newest, True
    return object_keys.valid_name("run", following), False


def _active(run: str) -> RunActiveError:
    return RunActiveError(
        f"Run {run!r} is being written by another coordinator. Wait until it ends (`dasklake "
        "watch` shows its progress), or stop it and try again."
    )


def _epochs(head: Commit) -> dict[str, int]:
    return {run: state.epoch for run, state in head.runs.items()}


def _failed_epochs(log: Log, head: Commit) -> dict[str, int]:
    """Return the newest epoch of each run if all have failed before their first sample.

    Empty if the lake has samples or failures, or a run is finished, replaced or active.
    """
    if head.totals.samples or head.totals.failures:
        return {}
    for run, state in head.runs.items():
        if state.finished or state.replaced or state.partitions or state.plan.compaction:
            return {}
        # A run without a heartbeat may have begun a moment ago.
        if newest_heartbeat(log.store, log.branch, run) is None or (
            state.closed < state.epoch and is_alive(log.store, log.branch, run, state.epoch)
        ):
            return {}
    return _epochs(head)


def _warn_of_gaps(log: Log, head: Commit) -> None:
    """Warn if the lake has an interrupted run whose partitions are not a prefix of its input."""
    for run, state in head.runs.items():
        plan = state.plan
        if state.finished or state.replaced or plan.compaction:
            continue
        done = _committed(log, head, run)
        if len(done) in (0, plan.partitions) or done[-1] == len(done) - 1:
            continue
        if state.closed < state.epoch and is_alive(log.store, log.branch, run, state.epoch):
            continue
        warnings.warn(
            f"The lake has the interrupted run {run!r}, of which {len(done)} of {plan.partitions} "
            "partitions are committed, not the first ones of its input. If the new input is the rest "
            "of that input, or overlaps it, samples will be missing or doubled. Continue the run with "
            f"its whole input instead: mode='resume', run={run!r} (in eval(): run={run!r}).",
            stacklevel=2,
        )


def _committed(log: Log, entry: Commit, run: str) -> NDArray[np.int64]:
    """Return the partitions of a run that a version has, in ascending order."""
    manifest = log.manifest(entry)
    home = object_keys.home_of(log.branch, run)
    indices = [i for i, name in enumerate(manifest.home) if name == home]
    done: NDArray[np.int64] = np.unique(manifest.partition[np.isin(manifest.run, indices)])
    return done


def _check(head: Commit, log: Log, spec: RunSpec) -> None:
    """Raise if a new run must not begin on a version; called again after each lost race."""
    if spec.mode == "create":
        _refuse_existing(log, head)
    if spec.mode == "resume" and spec.run is None and head.runs:
        raise LakeExistsError("Another writer has begun a run. Continue it with mode='resume'.")
    if spec.mode != "overwrite":
        check_schema(head.schema, spec.schema)
    if any(tensor.linked for tensor in spec.schema.values()):
        check_keys(head, managed=False)


def _resume(log: Log, head: Commit, run: str, spec: RunSpec) -> Assignment:
    state = head.runs[run]
    check_plan(run, state.plan, spec)
    if not state.plan.overwrite or state.overwrote:
        _check_names(head.schema, spec.schema)
    if state.finished:
        return _assignment(log, spec, run, head)
    # A closed epoch has no coordinator, even if an old heartbeat still changes.
    if state.closed < state.epoch and is_alive(log.store, log.branch, run, state.epoch):
        raise _active(run)
    entry = resume(log, head, run)
    if entry.runs[run].finished:
        return _assignment(log, spec, run, entry)
    # Read at the entry's own version: earlier commits are visible there, and no other coordinator
    # commits partitions of the run after it.
    done = _committed(log, entry, run)
    home = object_keys.home_of(log.branch, run)
    missing = np.setdiff1d(np.arange(state.plan.partitions), done).tolist()
    closed = entry.runs[run].closed
    replaces = state.plan.overwrite and not state.overwrote
    schema = spec.schema if replaces else spec.schema.decided_by(entry.schema)
    receipts = find_recoverable(log.store, home, missing, schema, closed=closed)
    # Chunks of a newer epoch belong to a coordinator that has already taken over.
    recovered = tuple(r for r in receipts if r.epoch <= entry.runs[run].epoch)
    missing = sorted({*missing}.difference(receipt.partition for receipt in recovered))
    _LOGGER.info(
        "Run %r resumed, version %d, %d of %d partitions committed, %d recovered, %d missing",
        run,
        entry.version,
        len(done),
        state.plan.partitions,
        len(recovered),
        len(missing),
    )
    return _assignment(log, spec, run, entry, tuple(missing), recovered)


def _assignment(
    log: Log,
    spec: RunSpec,
    run: str,
    entry: Commit,
    missing: tuple[int, ...] = (),
    recovered: tuple[Receipt, ...] = (),
) -> Assignment:
    home = object_keys.home_of(log.branch, run)
    location = RunLocation(log.store, home, run, entry.runs[run].epoch)
    return Assignment(spec, location, entry, missing, recovered)


def _refuse_existing(log: Log, head: Commit) -> None:
    unfinished = [
        name
        for name, state in head.runs.items()
        if not (state.finished or state.replaced or state.plan.compaction)
    ]
    if unfinished:
        raise LakeExistsError(
            f"{log.store.url} has the unfinished run {unfinished[0]!r}. Continue it with "
            f"mode='resume', run={unfinished[0]!r}; or delete its leftovers with "
            "dasklake.open(url).reset() and start over with mode='overwrite'."
        )
    if head.runs or head.totals.samples:
        raise LakeExistsError(
            f"{log.store.url} is a lake of {head.totals.samples} samples. Use mode='append', "
            "'overwrite' or 'resume', or another URL."
        )


def check_schema(have: Schema, want: Schema) -> None:
    """Check that a write has the lake's schema.

    Raises
    ------
    SchemaError
        The schemas differ; the message lists the differences.
    """
    differences = have.differences(want)
    if differences:
        raise SchemaError(
            f"The lake has another schema: {'; '.join(differences)}. Write the lake's tensors, or "
            "replace the lake with mode='overwrite'."
        )


def _check_names(have: Schema, want: Schema) -> None:
    """Check that given class names are the lake's, in the same order."""
    undecided = want.with_undecided_names
    labels = [name for name, spec in undecided.items() if spec.may_discover and name in have]
    schemas = [
        # Without same_length, because the other tensors of the group are not compared.
        Schema({name: replace(schema[name], same_length=None) for name in labels})
        for schema in (have, want)
    ]
    check_schema(*schemas)


def _only_run(head: Commit) -> str | None:
    runs = [name for name, state in head.runs.items() if not state.plan.compaction]
    if len(runs) > 1:
        names = ", ".join(map(repr, runs))
        raise InvalidInputError(f"The lake has several runs: {names}. Choose one with run='...'.")
    return next(iter(runs), None)


def check_plan(run: str, plan: Plan, spec: RunSpec) -> None:
    """Check that a run is continued with the input and schema it was begun with.

    Raises
    ------
    PlanMismatchError
        ``spec`` differs from the plan; the message lists the differences.
    """
    differences = []
    if plan.partitions != spec.partitions:
        differences.append(f"it has {spec.partitions} partitions, not {plan.partitions}")
    if plan.schema not in plan_digests(spec.schema):
        differences.append("it has another schema")
    ids = plan.input_id, spec.input_id
    if None not in ids and ids[0] != ids[1]:
        differences.append(f"its input_id is {spec.input_id}, not {plan.input_id}")
    if differences:
        raise PlanMismatchError(
            f"The input differs from the input of run {run!r}: {'; '.join(differences)}. Give the "
            "same input, or write the new input as another run with mode='append'. If the lake has "
            "no samples yet, mode='create' with another run= starts over."
        )
