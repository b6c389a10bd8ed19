"""Changes of the schema as commits of their own: add, rename and drop tensors, or start over.

A change is for rows that come later: chunks are never rewritten. The commit notes what older chunks
call a tensor, or that they do not have it
(:class:`~dasklake._model.tensor_history.TensorHistory`). That only holds while no run can write rows of the old schema any more: beside an unfinished run a change is refused,
and a run that a reset has closed cannot be resumed after one. As for every entry, all of it is
computed again from the new head after a lost race.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from dasklake._log.heartbeat import is_alive
from dasklake._log.log import Draft, Log
from dasklake._log.transactions import next_commit, raise_if_closed
from dasklake._model.commit import Commit, Kind, RunState, Totals
from dasklake._model.tensor_history import TensorHistory
from dasklake._schema.schema import Schema, TensorSpec
from dasklake.exceptions import ConflictError, RunActiveError, SchemaError, VersionNotFoundError

__all__ = ["add_class_names", "add_tensors", "drop_tensor", "empty_lake", "rename_tensor"]


#: Class names that a message shows.
_SHOWN = 4


class _Change(NamedTuple):
    """A schema, and what its tensors were before."""

    schema: Schema
    histories: Mapping[str, TensorHistory]


def add_tensors(
    log: Log, head: Commit, tensors: Mapping[str, TensorSpec], *, exist_ok: bool = False
) -> Commit:
    """Commit that a lake has further tensors; samples that are there have no value of them.

    Parameters
    ----------
    log : Log
        The branch.
    head : Commit
        Its newest commit that the caller knows.
    tensors : mapping of str to TensorSpec
        The tensors, in order.
    exist_ok : bool, default False
        Whether to take a tensor that is there already, and is the same, for added.

    Returns
    -------
    Commit
        The commit; or the head, where all tensors are there.

    Raises
    ------
    SchemaError
        There is a tensor of that name.
    ConflictError
        A run is unfinished.
    """

    def change(head: Commit) -> _Change | None:
        new = dict(tensors)
        for name in tensors.keys() & head.schema.keys():
            if not (exist_ok and head.schema[name] == tensors[name]):
                raise SchemaError(
                    f"There is a tensor {name!r} already. Choose another name, or remove that one "
                    f"with delete_tensor({name!r})."
                )
            del new[name]
        if not new:
            return None
        past = TensorHistory(since=head.totals.samples)
        added = dict.fromkeys(new, past) if past.since else {}
        return _Change(Schema({**head.schema, **new}), {**head.histories, **added})

    names = list(tensors)
    message = f"Add tensor{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"
    return _publish(log, head, change, message, {"add": names})


def rename_tensor(log: Log, head: Commit, old: str, new: str) -> Commit:
    """Commit that a tensor has another name.

    Raises
    ------
    VersionNotFoundError
        There is no such tensor.
    SchemaError
        The new name is taken, or is none.
    ConflictError
        A run is unfinished.
    """

    def change(head: Commit) -> _Change:
        _require(log, head, old)
        if new in head.schema:
            raise SchemaError(f"There is a tensor {new!r} already. Choose another name.")
        tensors = {
            new if name == old else name: _grouped(spec, new) if spec.same_length == old else spec
            for name, spec in head.schema.items()
        }
        past = {name: each for name, each in head.histories.items() if name != old}
        if head.totals.samples:
            before = head.histories.get(old, TensorHistory())
            former = (*before.former, (head.totals.samples, old))
            past[new] = replace(before, former=former)
        return _Change(Schema(tensors), past)

    return _publish(log, head, change, f"Rename tensor {old!r} to {new!r}", {"rename": [old, new]})


def drop_tensor(log: Log, head: Commit, name: str) -> Commit:
    """Commit that a tensor is gone; older versions keep it.

    Raises
    ------
    VersionNotFoundError
        There is no such tensor.
    SchemaError
        The samples have no other one.
    ConflictError
        A run is unfinished.
    """

    def change(head: Commit) -> _Change:
        _require(log, head, name)
        if len(head.schema) == 1 and head.totals.samples:
            raise SchemaError(
                f"{name!r} is the only tensor of {head.totals.samples} samples. Make the lake "
                "anew with dasklake.empty(url, overwrite=True)."
            )
        left = {each: spec for each, spec in head.schema.items() if each != name}
        past = {each: past for each, past in head.histories.items() if each != name}
        return _Change(Schema(_regrouped(left)), past)

    return _publish(log, head, change, f"Remove tensor {name!r}", {"drop": name})


def add_class_names(log: Log, head: Commit, name: str, names: Sequence[str]) -> Commit:
    """Commit that a class label has further names; those that it has keep their indices.

    Parameters
    ----------
    log : Log
        The branch.
    head : Commit
        Its newest commit that the caller knows.
    name : str
        The tensor.
    names : sequence of str
        All its names, or only the new ones.

    Raises
    ------
    VersionNotFoundError
        There is no such tensor.
    SchemaError
        It is no class label, or the names cannot be added to those that it has.
    ConflictError
        A run is unfinished.
    """

    def change(head: Commit) -> _Change | None:
        _require(log, head, name)
        spec = head.schema[name]
        if spec.htype != "class_label":
            raise SchemaError(f"Tensor {name!r} is no class_label; only these have class names.")
        had = spec.class_names or ()
        # Said again, for left out a compression is the htype's default.
        compression = spec.compression or "none"
        given = replace(spec, class_names=names, compression=compression).class_names
        if given[: len(had)] != had:
            twice = [repr(each) for each in given if each in set(had)]
            if twice:
                raise SchemaError(
                    f"Tensor {name!r} has the class names {', '.join(twice[:_SHOWN])} already, and "
                    f"the order of its {len(had)} names never changes. Give the new names alone, "
                    "or all names with the new ones last."
                )
            given = (*had, *given)
        if given == had:
            return None
        made = replace(spec, class_names=given, compression=compression)
        return _Change(Schema({**head.schema, name: made}), head.histories)

    return _publish(log, head, change, f"Add class names of tensor {name!r}", {"names": name})


def empty_lake(log: Log, head: Commit) -> Commit:
    """Commit that a lake holds nothing any more: no samples, no tensors; older versions stay.

    Raises
    ------
    RunActiveError
        A run is being written.
    ConflictError
        Samples were committed meanwhile.
    """

    def build(head: Commit, since: Sequence[Commit], commit_id: str) -> Draft:
        raise_if_closed(head, since)
        for commit in since:
            if commit.kind in (Kind.DATA, Kind.OVERWRITE, Kind.RESTORE):
                raise ConflictError(
                    f"Version {commit.version} was committed while the lake was about to be "
                    "emptied. Look at it, then try again."
                )
        for run, state in _open(head).items():
            if is_alive(log.store, log.branch, run, state.epoch):
                raise RunActiveError(
                    f"Run {run!r} is being written. Wait for it (`dasklake watch` shows it), or "
                    "stop it and try again."
                )
        return Draft(
            next_commit(
                head,
                commit_id,
                Kind.OVERWRITE,
                "Empty the lake",
                schema=Schema({}),
                histories={},
                runs=_given_up(head, head.runs),
                segments=(),
                failures=(),
                totals=Totals(),
            )
        )

    return log.publish(head, build)


def _publish(
    log: Log,
    head: Commit,
    change: Callable[[Commit], _Change | None],
    message: str,
    entry: Mapping[str, Any],
) -> Commit:
    def build(head: Commit, since: Sequence[Commit], commit_id: str) -> Draft | None:
        raise_if_closed(head, since)
        # What was discovered stays where it is: those that could move it are given up below.
        head = replace(head, schema=head.schema.settled)
        made = change(head)
        if made is None:
            return None
        _refuse_beside_runs(head)
        return Draft(
            next_commit(
                head,
                commit_id,
                Kind.SCHEMA,
                message,
                entry=dict(entry),
                schema=made.schema,
                histories=made.histories,
                # What a reset has closed was planned with the old schema.
                runs=_given_up(head, _unfinished(head)),
            )
        )

    return log.publish(head, build)


def _regrouped(tensors: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """Name groups of as many objects after a tensor that is there; one alone is no group."""
    groups: dict[str, list[str]] = {}
    for name, spec in tensors.items():
        if spec.same_length is not None:
            groups.setdefault(spec.same_length, []).append(name)
    found = dict(tensors)
    for label, names in groups.items():
        kept = label if label in names else names[0]
        for name in names:
            found[name] = _grouped(found[name], kept if len(names) > 1 else None)
    return found


def _grouped(spec: TensorSpec, group: str | None) -> TensorSpec:
    # Said again, for left out a compression is the htype's default.
    return replace(spec, compression=spec.compression or "none", same_length=group)


def _unfinished(head: Commit) -> dict[str, RunState]:
    # A compaction adds no row, and joins nothing over the place where a schema changed.
    return {
        name: each
        for name, each in head.runs.items()
        if not (each.finished or each.replaced or each.plan.compaction)
    }


def _open(head: Commit) -> dict[str, RunState]:
    """Return the runs that may still write rows."""
    return {name: each for name, each in _unfinished(head).items() if each.closed < each.epoch}


def _given_up(head: Commit, runs: Mapping[str, RunState]) -> Mapping[str, RunState]:
    """Return the run table with some runs that cannot go on."""
    gone = {name: replace(each, replaced=True, names=None) for name, each in runs.items()}
    return {**head.runs, **gone}


def _refuse_beside_runs(head: Commit) -> None:
    runs = list(_open(head))
    if runs:
        raise ConflictError(
            f"Run {runs[0]!r} is unfinished, and the schema cannot change while it may write rows. "
            f"Finish it with mode='resume', run={runs[0]!r}, or close it with reset(); then try "
            "again."
        )


def _require(log: Log, head: Commit, name: str) -> None:
    if name not in head.schema:
        has = ", ".join(map(repr, head.schema)) or "none"
        raise VersionNotFoundError(f"{log.store.url} has no tensor {name!r}. It has {has}.")
