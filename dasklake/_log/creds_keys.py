"""Commit the names of credentials keys that links may use. Their values are never stored."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from dasklake import creds
from dasklake._log.log import Log
from dasklake._log.transactions import next_commit, raise_if_closed
from dasklake._model.commit import Commit, Kind
from dasklake._model.creds_key import CredsKey
from dasklake._model.stored_types import NAME_PATTERN
from dasklake.exceptions import InvalidInputError, VersionNotFoundError

_NAME = re.compile(NAME_PATTERN)

_Keys = Mapping[str, CredsKey]


def add_key(log: Log, head: Commit, name: str, *, managed: bool) -> Commit:
    """Commit that links may use a key. A key that exists with the same settings is left as it is.

    Raises
    ------
    InvalidInputError
        ``name`` is not a valid key name, or is taken.
    """
    if name in head.creds and head.creds[name].managed == managed:
        return head

    def change(head: Commit) -> _Keys:
        _raise_if_invalid(name)
        key = head.creds.get(name)
        if key is not None and key.managed != managed:
            raise InvalidInputError(
                f"Credentials key {name!r} exists with managed={key.managed}. Change it with "
                f"update_creds_key({name!r}, managed={managed}), or use another name."
            )
        keys = _without_former(head, name)
        return {**keys, name: key or CredsKey(managed=managed)}

    return _publish(log, head, change, f"Add credentials key {name!r}")


def update_key(
    log: Log, head: Commit, name: str, new: str | None, *, managed: bool | None
) -> Commit:
    """Commit another name for a key, or another source of its values.

    Raises
    ------
    VersionNotFoundError
        The key does not exist.
    InvalidInputError
        ``new`` is not a valid key name, or is taken.
    """

    def change(head: Commit) -> _Keys:
        keys = head.creds
        if name not in keys:
            listing = ", ".join(map(repr, keys)) or "none"
            raise VersionNotFoundError(
                f"Credentials key {name!r} does not exist. Existing keys: {listing}."
            )
        key = keys[name]
        if managed is not None:
            key = replace(key, managed=managed)
        if new is None or new == name:
            return {**keys, name: key}
        _raise_if_invalid(new)
        if new in keys:
            raise InvalidInputError(f"Credentials key {new!r} exists. Use another name.")
        # A key may get its own former name back.
        if new not in key.former:
            keys = _without_former(head, new)
        former = tuple(old for old in (*key.former, name) if old != new)
        changed = replace(key, former=former)
        return {(new if o == name else o): (changed if o == name else k) for o, k in keys.items()}

    message = f"Rename credentials key {name!r} to {new!r}" if new else f"Change key {name!r}"
    return _publish(log, head, change, message)


def check_keys(commit: Commit, *, managed: bool) -> None:
    """Check that this process has the values of a lake's credentials keys.

    Parameters
    ----------
    commit : Commit
        A version of the lake.
    managed : bool
        Whether to check managed keys too, whose values every worker finds by itself.

    Raises
    ------
    PermissionDeniedError
        A value is missing.
    """
    for name, key in commit.creds.items():
        if managed or not key.managed:
            creds.current(name)


def _raise_if_invalid(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"A credentials key must be a name of up to 128 letters, digits, '.', '_' and '-', got "
            f"{name!r}. Give a name, never the credentials themselves."
        )


def _without_former(head: Commit, name: str) -> _Keys:
    """Return the keys of a version, none of which had the name before a rename.

    Raises
    ------
    InvalidInputError
        Samples may have links that were written with the former name.
    """
    renamed = {new: key for new, key in head.creds.items() if name in key.former}
    for new in renamed:
        if head.totals.samples or any(
            not run.finished and not run.replaced for run in head.runs.values()
        ):
            raise InvalidInputError(
                f"Links may use the name {name!r}, which credentials key {new!r} had before it was "
                "renamed. Use another name."
            )
    keys = dict(head.creds)
    for new, key in renamed.items():
        keys[new] = replace(key, former=tuple(old for old in key.former if old != name))
    return keys


def _publish(log: Log, head: Commit, change: Callable[[Commit], _Keys], message: str) -> Commit:
    def build(head: Commit, since: Sequence[Commit], commit_id: str) -> Commit:
        raise_if_closed(head, since)
        return next_commit(head, commit_id, Kind.CREDS, message, creds=change(head))

    return log.publish(head, build)
