"""Commit schema changes: add, rename and drop tensors, add class names, or empty the lake.

A change applies to rows that are written later: chunks are never rewritten. The commit records the
names that older chunks have for a tensor, or that they do not have it
(:class:`~dasklake._model.tensor_history.TensorHistory`). No run may write rows of the old schema
after a change. A change is therefore refused beside an unfinished run, and a run that a reset closed
cannot be resumed after one. Everything is computed again from the new head after a lost race.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from dasklake._log.heartbeat import is_alive
from dasklake._log.log import Log
from dasklake._log.transactions import next_commit, raise_if_closed
from dasklake._model.commit import Commit, Kind, RunState, Totals
from dasklake._model.tensor_history import TensorHistory
from dasklake._schema.schema import Schema, TensorSpec
from dasklake.exceptions import ConflictError, RunActiveError, SchemaError, VersionNotFoundError

#: Number of class names that a message shows.
_SHOWN = 4


class _Change(NamedTuple):
    """A schema, and the histories of its tensors."""

    schema: Schema
    histories: Mapping[str, TensorHistory]


def add_tensors(
    log: Log, head: Commit, tensors: Mapping[str, TensorSpec], *, exist_ok: bool = False
) -> Commit:
    """Commit further tensors of a lake. Existing samples have no values of them.

    Parameters
    ----------
    log : Log
        The branch.
    head : Commit
        Its newest commit that the caller has read.
    tensors : mapping of str to TensorSpec
        The tensors, in order.
    exist_ok : bool, default False
        Whether to accept a tensor that exists already with the same spec.

    Returns
    -------
    Commit
        The commit; or the head, if all tensors exist.

    Raises
    ------
    SchemaError
        A tensor of that name exists.
    ConflictError
        A run is unfinished.
    """

    def change(head: Commit) -> _Change | None:
        new = dict(tensors)
        for name in tensors.keys() & head.schema.keys():
            if not (exist_ok and head.schema[name] == tensors[name]):
                raise SchemaError(
                    f"Tensor {name!r} already exists. Choose another name, or remove the tensor "
                    f"with delete_tensor({name!r})."
                )
            del new[name]
        if not new:
            return None
        history = TensorHistory(since=head.totals.samples)
        added = dict.fromkeys(new, history) if history.since else {}
        return _Change(Schema({**head.schema, **new}), {**head.histories, **added})

    names = list(tensors)
    message = f"Add tensor{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"
    return _publish(log, head, change, message, {"add": names})


def rename_tensor(log: Log, head: Commit, old: str, new: str) -> Commit:
    """Commit another name for a tensor.

    Raises
    ------
    VersionNotFoundError
        The tensor does not exist.
    SchemaError
        ``new`` is taken, or is not a valid tensor name.
    ConflictError
        A run is unfinished.
    """

    def change(head: Commit) -> _Change:
        _require(log, head, old)
        if new in head.schema:
            raise SchemaError(f"Tensor {new!r} already exists. Choose another name.")
        tensors = {
            new if name == old else name: _grouped(spec, new) if spec.same_length == old else spec
            for name, spec in head.schema.items()
        }
        histories = {name: past for name, past in head.histories.items() if name != old}
        if head.totals.samples:
            before = head.histories.get(old, TensorHistory())
            former = (*before.former, (head.totals.samples, old))
            histories[new] = replace(before, former=former)
        return _Change(Schema(tensors), histories)

    return _publish(log, head, change, f"Rename tensor {old!r} to {new!r}", {"rename": [old, new]})


def drop_tensor(log: Log, head: Commit, name: str) -> Commit:
    """Commit that a tensor is removed. Older versions keep it.

    Raises
    ------
    VersionNotFoundError
        The tensor does not exist.
    SchemaError
        It is the only tensor of existing samples.
    ConflictError
        A run is unfinished.
    """

    def change(head: Commit) -> _Change:
        _require(log, head, name)
        if len(head.schema) == 1 and head.totals.samples:
            raise SchemaError(
                f"{name!r} is the only tensor of {head.totals.samples} samples. Start over "
                "with dasklake.empty(url, overwrite=True)."
            )
        tensors = {other: spec for other, spec in head.schema.items() if other != name}
        histories = {other: past for other, past in head.histories.items() if other != name}
        return _Change(Schema(_regrouped(tensors)), histories)

    return _publish(log, head, change, f"Remove tensor {name!r}", {"drop": name})


def add_class_names(log: Log, head: Commit, name: str, names: Sequence[str]) -> Commit:
    """Commit further class names of a tensor. Existing names keep their indices.

    Parameters
    ----------
    log : Log
        The branch.
    head : Commit
        Its newest commit that the caller has read.
    name : str
        The tensor.
    names : sequence of str
        All its class names, or only the new ones.

    Raises
    ------
    VersionNotFoundError
        The tensor does not exist.
    SchemaError
        The tensor is not a class_label, or the names conflict with its existing ones.
    ConflictError
        A run is unfinished.
    """

    def change(head: Commit) -> _Change | None:
        _require(log, head, name)
        spec = head.schema[name]
        if spec.htype != "class_label":
            raise SchemaError(
                f"Class names need a tensor of htype class_label, got {name!r} of htype "
                f"{spec.htype}. Choose another tensor."
            )
        existing = spec.class_names or ()
        # Given explicitly, because the default compression depends on the htype.
        compression = spec.compression or "none"
        given = replace(spec, class_names=names, compression=compression).class_names
        if given[: len(existing)] != existing:
            repeated = [repr(label) for label in given if label in set(existing)]
            if repeated:
                raise SchemaError(
                    f"Tensor {name!r} has the class names {', '.join(repeated[:_SHOWN])} already, and "
                    f"the order of its {len(existing)} names never changes. Give the new names alone, "
                    "or all names with the new ones last."
                )
            given = (*existing, *given)
        if given == existing:
            return None
        changed = replace(spec, class_names=given, compression=compression)
        return _Change(Schema({**head.schema, name: changed}), head.histories)

    return _publish(log, head, change, f"Add class names of tensor {name!r}", {"names": name})


def empty_lake(log: Log, head: Commit) -> Commit:
    """Commit that a lake is empty: without samples and tensors. Older versions stay.

    Raises
    ------
    RunActiveError
        A run is being written.
    ConflictError
        Samples were committed concurrently.
    """

    def build(head: Commit, since: Sequence[Commit], commit_id: str) -> Commit:
        raise_if_closed(head, since)
        for commit in since:
            if commit.kind in (Kind.DATA, Kind.OVERWRITE, Kind.RESTORE):
                raise ConflictError(
                    f"Version {commit.version} was committed while the lake was about to be "
                    "emptied. Check that version, then try again."
                )
        for run, state in _open(head).items():
            if is_alive(log.store, log.branch, run, state.epoch):
                raise RunActiveError(
                    f"Run {run!r} is being written. Wait for it to end (`dasklake watch` shows it), "
                    "or stop it, then try again."
                )
        return next_commit(
            head,
            commit_id,
            Kind.OVERWRITE,
            "Empty the lake",
            schema=Schema({}),
            histories={},
            runs=_replaced(head, head.runs),
            segments=(),
            failures=(),
            totals=Totals(),
        )

    return log.publish(head, build)


def _publish(
    log: Log,
    head: Commit,
    change: Callable[[Commit], _Change | None],
    message: str,
    entry: Mapping[str, Any],
) -> Commit:
    def build(head: Commit, since: Sequence[Commit], commit_id: str) -> Commit | None:
        raise_if_closed(head, since)
        # Discovered names keep their indices: runs that could move them are replaced below.
        head = replace(head, schema=head.schema.with_all_names_settled)
        changed = change(head)
        if changed is None:
            return None
        _raise_if_runs_open(head)
        return next_commit(
            head,
            commit_id,
            Kind.SCHEMA,
            message,
            entry=dict(entry),
            schema=changed.schema,
            histories=changed.histories,
            # Runs that a reset closed were planned with the old schema.
            runs=_replaced(head, _unfinished(head)),
        )

    return log.publish(head, build)


def _regrouped(tensors: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """Name same-length groups after one of their tensors; drop groups of a single tensor."""
    groups: dict[str, list[str]] = {}
    for name, spec in tensors.items():
        if spec.same_length is not None:
            groups.setdefault(spec.same_length, []).append(name)
    regrouped = dict(tensors)
    for label, names in groups.items():
        group = label if label in names else names[0]
        for name in names:
            regrouped[name] = _grouped(regrouped[name], group if len(names) > 1 else None)
    return regrouped


def _grouped(spec: TensorSpec, group: str | None) -> TensorSpec:
    # Given explicitly, because the default compression depends on the htype.
    return replace(spec, compression=spec.compression or "none", same_length=group)


def _unfinished(head: Commit) -> dict[str, RunState]:
    # A compaction adds no rows, and joins no chunks across a schema change.
    return {
        name: state
        for name, state in head.runs.items()
        if not (state.finished or state.replaced or state.plan.compaction)
    }


def _open(head: Commit) -> dict[str, RunState]:
    """Return the runs that may still write rows."""
    return {run: state for run, state in _unfinished(head).items() if state.closed < state.epoch}


def _replaced(head: Commit, runs: Mapping[str, RunState]) -> Mapping[str, RunState]:
    """Return the run table with some runs marked as replaced, so that they cannot continue."""
    replaced = {run: replace(state, replaced=True, names=None) for run, state in runs.items()}
    return {**head.runs, **replaced}


def _raise_if_runs_open(head: Commit) -> None:
    runs = list(_open(head))
    if runs:
        raise ConflictError(
            f"Run {runs[0]!r} is unfinished, and the schema cannot change while it may write rows. "
            f"Finish it with mode='resume', run={runs[0]!r}, or close it with reset(); then try "
            "again."
        )


def _require(log: Log, head: Commit, name: str) -> None:
    if name not in head.schema:
        names = ", ".join(map(repr, head.schema)) or "none"
        raise VersionNotFoundError(f"{log.store.url} has no tensor {name!r}. Its tensors: {names}.")
