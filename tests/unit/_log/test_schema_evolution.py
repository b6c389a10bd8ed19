"""Tests of schema changes, alone and in races."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from dasklake._format.documents import commit_bytes, read_commit
from dasklake._log import schema_evolution
from dasklake._log.heartbeat import is_alive
from dasklake._log.log import Log
from dasklake._log.run_entries import abort, resume
from dasklake._log.schema_evolution import (
    add_class_names,
    add_tensors,
    drop_tensor,
    empty_lake,
    rename_tensor,
)
from dasklake._model.commit import Commit, Kind
from dasklake._model.tensor_history import TensorHistory
from dasklake._schema.schema import Schema, TensorSpec
from dasklake.exceptions import (
    ConflictError,
    RunActiveError,
    SchemaError,
    VersionNotFoundError,
)
from tests.support.flaky import FlakyStore
from tests.support.lakes import SCHEMA, SmallLake
from tests.support.unsteady import LOG

NEW = {"y": TensorSpec("text")}


def written(lake: SmallLake, run: str = "run") -> Commit:
    """Write a run of three samples to its end."""
    writer = lake.begin(run, 1)
    return writer.commit([lake.write(writer, 0)], [])


class TestChanges:
    """Changes without concurrent writers."""

    def test_add_to_an_empty_lake(self, small_lake: SmallLake) -> None:
        """In a lake without samples, an added tensor is like an initial one."""
        made = add_tensors(small_lake.log, small_lake.head, NEW)
        assert (made.kind, list(made.schema), made.histories) == (Kind.SCHEMA, ["x", "y"], {})
        assert made.entry == {"add": ["y"]}
        assert small_lake.head == made

    def test_add_after_samples(self, small_lake: SmallLake) -> None:
        """A tensor that is added later begins after the existing samples."""
        made = add_tensors(small_lake.log, written(small_lake), NEW)
        assert made.histories == {"y": TensorHistory(since=3)}
        assert small_lake.head.histories == made.histories

    def test_add_what_is_there(self, small_lake: SmallLake) -> None:
        """A taken name is refused; the same tensor may be declared again."""
        head = small_lake.head
        with pytest.raises(SchemaError, match="delete_tensor"):
            add_tensors(small_lake.log, head, {"x": TensorSpec("text")}, exist_ok=True)
        with pytest.raises(SchemaError, match="already"):
            add_tensors(small_lake.log, head, dict(SCHEMA))
        assert add_tensors(small_lake.log, head, dict(SCHEMA), exist_ok=True) == head
        assert small_lake.head == head

    def test_rename_twice(self, small_lake: SmallLake) -> None:
        """Each former name is kept for the chunks that were written under it."""
        first = rename_tensor(small_lake.log, written(small_lake), "x", "a")
        assert (list(first.schema), first.histories) == (
            ["a"],
            {"a": TensorHistory(former=((3, "x"),))},
        )
        again = rename_tensor(small_lake.log, first, "a", "b")
        assert again.histories == {"b": TensorHistory(former=((3, "x"), (3, "a")))}

    def test_rename_keeps_its_place(self, small_lake: SmallLake) -> None:
        """The order of the tensors stays; without samples no history is kept."""
        head = add_tensors(small_lake.log, small_lake.head, NEW)
        made = rename_tensor(small_lake.log, head, "x", "z")
        assert (list(made.schema), made.histories) == (["z", "y"], {})

    def test_names_that_cannot_be(self, small_lake: SmallLake) -> None:
        """A missing tensor, a taken name and an invalid name are refused."""
        head = add_tensors(small_lake.log, small_lake.head, NEW)
        with pytest.raises(VersionNotFoundError, match="'x', 'y'"):
            rename_tensor(small_lake.log, head, "q", "z")
        with pytest.raises(VersionNotFoundError, match="no tensor"):
            drop_tensor(small_lake.log, head, "q")
        with pytest.raises(SchemaError, match="already"):
            rename_tensor(small_lake.log, head, "x", "y")
        with pytest.raises(SchemaError, match="non-empty"):
            rename_tensor(small_lake.log, head, "x", "")
        assert small_lake.head == head

    def test_drop(self, small_lake: SmallLake) -> None:
        """A dropped tensor loses its history, and a new one may have its name."""
        head = add_tensors(small_lake.log, written(small_lake), NEW)
        head = drop_tensor(small_lake.log, head, "y")
        assert (list(head.schema), head.histories) == (["x"], {})
        assert add_tensors(small_lake.log, head, NEW).histories == {"y": TensorHistory(since=3)}

    def test_drop_the_only_one(self, small_lake: SmallLake) -> None:
        """The only tensor of existing samples cannot be dropped; that of an empty lake can."""
        made = drop_tensor(small_lake.log, small_lake.head, "x")
        assert made.schema == Schema({})
        head = written(SmallLake(FlakyStore()))
        with pytest.raises(SchemaError, match="only tensor of 3 samples"):
            drop_tensor(small_lake.log, head, "x")

    def test_groups(self, small_lake: SmallLake) -> None:
        """Same-length tensors stay a group, under the name of an existing tensor."""
        boxes = Schema(dict.fromkeys("abc", "bbox"), same_length=["a", "b", "c"])
        head = add_tensors(small_lake.log, small_lake.head, boxes)
        head = rename_tensor(small_lake.log, head, "a", "z")
        assert head.schema.same_length == (("z", "b", "c"),)
        head = drop_tensor(small_lake.log, head, "z")
        assert head.schema.same_length == (("b", "c"),)
        head = drop_tensor(small_lake.log, head, "b")
        assert head.schema == Schema({"x": SCHEMA["x"], "c": "bbox"})

    def test_an_overwrite_forgets_the_past(self, small_lake: SmallLake) -> None:
        """After an overwrite all chunks are of the new schema."""
        rename_tensor(small_lake.log, written(small_lake), "x", "a")
        writer = small_lake.begin("other", 1, overwrite=True)
        made = writer.commit([small_lake.write(writer, 0)], [])
        assert (made.schema, made.histories) == (SCHEMA, {})

    def test_document(self, small_lake: SmallLake) -> None:
        """Histories are part of the commit's bytes only if there are any."""
        head = written(small_lake)
        assert b'"past"' not in commit_bytes(head)
        made = add_tensors(small_lake.log, head, NEW)
        assert read_commit(commit_bytes(made), "key", lambda _: SCHEMA) == made


class TestBesideRuns:
    """Changes concurrent with runs and other changes."""

    def test_unfinished(self, small_lake: SmallLake) -> None:
        """Beside an unfinished run each change is refused, and the run continues."""
        add_tensors(small_lake.log, written(small_lake, "first"), NEW)
        writer = small_lake.begin("busy", 2)
        writer.commit([small_lake.write(writer, 0)], [])
        head = small_lake.head
        changes: list[Callable[[], Commit]] = [
            lambda: add_tensors(small_lake.log, head, {"z": TensorSpec("text")}),
            lambda: rename_tensor(small_lake.log, head, "x", "z"),
            lambda: drop_tensor(small_lake.log, head, "y"),
        ]
        for change in changes:
            with pytest.raises(ConflictError, match="'busy' is unfinished"):
                change()
        assert small_lake.head == head
        assert writer.commit([small_lake.write(writer, 1)], []).runs["busy"].finished

    def test_run_begun_meanwhile(self, flaky_store: FlakyStore) -> None:
        """A run that begins first makes the change fail."""
        lake = SmallLake(flaky_store)
        flaky_store.at("create", lambda: lake.begin("busy", 1), LOG)
        with pytest.raises(ConflictError, match="'busy' is unfinished"):
            add_tensors(Log(flaky_store), lake.head, NEW)

    def test_closed_run_cannot_go_on(self, small_lake: SmallLake) -> None:
        """A run that a reset closed does not block the change, and cannot be resumed after it."""
        written(small_lake, "first")
        small_lake.begin("closed", 2)
        assert abort(small_lake.log, small_lake.head, ["closed"]) is not None
        made = add_tensors(small_lake.log, small_lake.head, NEW)
        assert {name: run.replaced for name, run in made.runs.items()} == {
            "first": False,
            "closed": True,
        }
        with pytest.raises(ConflictError, match="schema was changed"):
            resume(small_lake.log, made, "closed")

    def test_resume_wins(self, flaky_store: FlakyStore) -> None:
        """A closed run that is resumed just before the change is unfinished again."""
        lake = SmallLake(flaky_store)
        lake.begin("closed", 1)
        abort(lake.log, lake.head, ["closed"])
        flaky_store.at("create", lambda: lake.resume("closed"), LOG)
        with pytest.raises(ConflictError, match="'closed' is unfinished"):
            add_tensors(Log(flaky_store), lake.head, NEW)

    def test_two_changes(self, flaky_store: FlakyStore) -> None:
        """Two concurrent changes both apply; the same name twice is refused."""
        lake = SmallLake(flaky_store)
        other = {"z": TensorSpec("text")}
        flaky_store.at("create", lambda: add_tensors(Log(flaky_store), lake.head, other), LOG)
        assert list(add_tensors(Log(flaky_store), lake.head, NEW).schema) == ["x", "z", "y"]
        flaky_store.at("create", lambda: drop_tensor(Log(flaky_store), lake.head, "z"), LOG)
        with pytest.raises(VersionNotFoundError, match="no tensor 'z'"):
            rename_tensor(Log(flaky_store), lake.head, "z", "q")

    def test_samples_that_came_meanwhile(self, flaky_store: FlakyStore) -> None:
        """An added tensor begins at the number of samples of the head that the commit builds on."""
        lake = SmallLake(flaky_store)
        flaky_store.at("create", lambda: written(lake), LOG)
        assert add_tensors(Log(flaky_store), lake.head, NEW).histories == {
            "y": TensorHistory(since=3)
        }


class TestEmptyLake:
    """Emptying a lake."""

    def test_holds_nothing(self, small_lake: SmallLake) -> None:
        """The new version is empty, the old one unchanged; no earlier run can continue."""
        head = written(small_lake)
        busy = small_lake.begin("busy", 1)
        receipt = small_lake.write(busy, 0)
        made = empty_lake(small_lake.log, head)
        assert (made.kind, made.schema, made.segments) == (Kind.OVERWRITE, Schema({}), ())
        assert made.totals.samples == 0
        assert all(run.replaced for run in made.runs.values())
        assert small_lake.log.read(head.version) == head
        with pytest.raises(ConflictError):
            busy.commit([receipt], [])

    def test_not_what_it_has_not_seen(self, flaky_store: FlakyStore) -> None:
        """Samples that were committed concurrently are not removed."""
        lake = SmallLake(flaky_store)
        flaky_store.at("create", lambda: written(lake), LOG)
        with pytest.raises(ConflictError, match="committed while"):
            empty_lake(Log(flaky_store), lake.head)

    def test_beside_a_living_run(
        self, small_lake: SmallLake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A run that is being written is not removed."""
        small_lake.begin("busy", 1)
        assert not is_alive(small_lake.store, "main", "busy", 1)
        monkeypatch.setattr(schema_evolution, "is_alive", lambda *_: True)
        with pytest.raises(RunActiveError, match="'busy' is being written"):
            empty_lake(small_lake.log, small_lake.head)

    def test_closed_branch(self, small_lake: SmallLake) -> None:
        """A deleted branch accepts no change."""
        head = replace(small_lake.head, kind=Kind.CLOSED)
        with pytest.raises(ConflictError, match="deleted"):
            empty_lake(small_lake.log, head)
        with pytest.raises(ConflictError, match="deleted"):
            add_tensors(small_lake.log, head, NEW)


def test_names_are_settled_by_a_change(small_lake: SmallLake) -> None:
    """A schema change keeps discovered names, and drops those of closed runs."""
    spec = TensorSpec("class_label", class_names=["a"], discover=True)
    head = add_tensors(small_lake.log, small_lake.head, {"label": spec})
    writer = small_lake.begin("r", 2)
    receipt = replace(small_lake.write(writer, 1), names={"label": ("b", "c")})
    assert writer.commit([receipt], []).schema["label"].settled == 1
    with pytest.raises(ConflictError, match="unfinished"):
        add_class_names(small_lake.log, small_lake.head, "label", ["d"])
    abort(small_lake.log, small_lake.head, ["r"])
    head = add_class_names(small_lake.log, small_lake.head, "label", ["d"])
    assert head.schema["label"].class_names == ("a", "b", "c", "d")
    assert head.schema["label"].settled is None
    assert head.runs["r"].names is None
    assert small_lake.head == head
    assert add_class_names(small_lake.log, head, "label", ["a", "b", "c", "d"]) == head
    with pytest.raises(SchemaError, match="htype class_label"):
        add_class_names(small_lake.log, head, "x", ["d"])
