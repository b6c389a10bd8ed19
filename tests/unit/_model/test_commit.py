"""Commits are plain frozen values."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import UTC, datetime

import pytest

from dasklake._model.commit import Commit, Kind, Plan, RunState, Totals
from dasklake._schema.schema import Schema, TensorSpec

DATA_KINDS = {Kind.INIT, Kind.SCHEMA, Kind.DATA, Kind.OVERWRITE, Kind.RESTORE}


def commit() -> Commit:
    """Create the smallest commit."""
    schema = Schema({"x": TensorSpec("text")})
    time = datetime(2026, 1, 1, tzinfo=UTC)
    return Commit(0, "0" * 16, None, "main", Kind.INIT, time, "me", "made", schema)


@pytest.mark.parametrize("kind", Kind)
def test_data_kinds(kind: Kind) -> None:
    """By default, the log shows exactly the kinds that change schema or samples."""
    assert kind.is_data == (kind in DATA_KINDS)


def test_a_commit_never_changes() -> None:
    """A commit is immutable."""
    created = commit()
    with pytest.raises(FrozenInstanceError):
        created.version = 1  # type: ignore[misc]  # the point of the test


def test_a_new_lake_is_empty() -> None:
    """By default, a commit does not have samples, runs or segments."""
    created = commit()
    assert (created.totals, dict(created.runs), created.segments) == (Totals(0, 0, 0, 0), {}, ())


def test_a_run_starts_with_epoch_one() -> None:
    """A new run is in epoch 1 and open, and has not committed anything."""
    state = RunState(Plan(4, 100, "digest", None), order=0)
    assert (state.epoch, state.closed, state.finished, state.partitions) == (1, 0, False, 0)
