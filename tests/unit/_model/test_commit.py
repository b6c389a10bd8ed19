"""Commits are plain frozen values."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import UTC, datetime

import pytest

from dasklake._model.commit import Commit, Kind, Plan, RunState, Totals
from dasklake._schema.schema import Schema, TensorSpec

DATA_KINDS = {Kind.INIT, Kind.SCHEMA, Kind.DATA, Kind.OVERWRITE, Kind.RESTORE}


def commit() -> Commit:
    """Make the smallest commit."""
    schema = Schema({"x": TensorSpec("text")})
    time = datetime(2026, 1, 1, tzinfo=UTC)
    return Commit(0, "0" * 16, None, "main", Kind.INIT, time, "me", "made", schema)


@pytest.mark.parametrize("kind", Kind)
def test_data_kinds(kind: Kind) -> None:
    """The log shows by itself exactly the kinds that change schema or samples."""
    assert kind.is_data == (kind in DATA_KINDS)


def test_a_commit_never_changes() -> None:
    """A commit cannot be changed once it is made."""
    made = commit()
    with pytest.raises(FrozenInstanceError):
        made.version = 1  # type: ignore[misc]  # the point of the test


def test_a_new_lake_is_empty() -> None:
    """A commit that says nothing of content has no samples, runs or segments."""
    made = commit()
    assert (made.totals, dict(made.runs), made.segments) == (Totals(0, 0, 0, 0), {}, ())


def test_a_run_starts_with_epoch_one() -> None:
    """A run that has just begun is in epoch 1, open, and has committed nothing."""
    state = RunState(Plan(4, 100, "digest", None), order=0)
    assert (state.epoch, state.closed, state.finished, state.partitions) == (1, 0, False, 0)
