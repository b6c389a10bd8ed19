"""Changes of the schema as commits, alone and in races."""

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
    """One writer, alone."""

    def test_add_to_an_empty_lake(self, small_lake: SmallLake) -> None:
        """Where there are no samples, an added tensor is like one that was there from the start."""
        made = add_tensors(small_lake.log, small_lake.head, NEW)
        assert (made.kind, list(made.schema), made.histories) == (Kind.SCHEMA, ["x", "y"], {})
        assert made.entry == {"add": ["y"]}
        assert small_lake.head == made

    def test_add_after_samples(self, small_lake: SmallLake) -> None:
        """A tensor that is added later begins behind the samples that are there."""
        made = add_tensors(small_lake.log, written(small_lake), NEW)
        assert made.histories == {"y": TensorHistory(since=3)}
        assert small_lake.head.histories == made.histories

    def test_add_what_is_there(self, small_lake: SmallLake) -> None:
        """A name that is taken is refused; the very same tensor may be declared again."""
        head = small_lake.head
        with pytest.raises(SchemaError, match="delete_tensor"):
            add_tensors(small_lake.log, head, {"x": TensorSpec("text")}, exist_ok=True)
        with pytest.raises(SchemaError, match="already"):
            add_tensors(small_lake.log, head, dict(SCHEMA))
        assert add_tensors(small_lake.log, head, dict(SCHEMA), exist_ok=True) == head
        assert small_lake.head == head

    def test_rename_twice(self, small_lake: SmallLake) -> None:
        """Each name is kept for the chunks that were written under it."""
        first = rename_tensor(small_lake.log, written(small_lake), "x", "a")
        assert (list(first.schema), first.histories) == (
            ["a"],
            {"a": TensorHistory(former=((3, "x"),))},
        )
        again = rename_tensor(small_lake.log, first, "a", "b")
        assert again.histories == {"b": TensorHistory(former=((3, "x"), (3, "a")))}

    def test_rename_keeps_its_place(self, small_lake: SmallLake) -> None:
        """The order of the tensors stays; without samples nothing has to be remembered."""
        head = add_tensors(small_lake.log, small_lake.head, NEW)
        made = rename_tensor(small_lake.log, head, "x", "z")
        assert (list(made.schema), made.histories) == (["z", "y"], {})

    def test_names_that_cannot_be(self, small_lake: SmallLake) -> None:
        """A tensor that is not there, and a name that is taken or none, are refused."""
        head = add_tensors(small_lake.log, small_lake.head, NEW)
        with pytest.raises(VersionNotFoundError, match="'x', 'y'"):
            rename_tensor(small_lake.log, head, "q", "z")
        with pytest.raises(VersionNotFoundError, match="no tensor"):
            drop_tensor(small_lake.log, head, "q")
        with pytest.raises(SchemaError, match="already"):
            rename_tensor(small_lake.log, head, "x", "y")
        with pytest.raises(SchemaError, match="not empty"):
            rename_tensor(small_lake.log, head, "x", "")
        assert small_lake.head == head

    def test_drop(self, small_lake: SmallLake) -> None:
        """A tensor that is dropped is gone with its past, and a new one may have its name."""
        head = add_tensors(small_lake.log, written(small_lake), NEW)
        head = drop_tensor(small_lake.log, head, "y")
        assert (list(head.schema), head.histories) == (["x"], {})
        assert add_tensors(small_lake.log, head, NEW).histories == {"y": TensorHistory(since=3)}

    def test_drop_the_only_one(self, small_lake: SmallLake) -> None:
        """Samples without any tensor cannot be; a lake without samples may lose its last one."""
        made = drop_tensor(small_lake.log, small_lake.head, "x")
        assert made.schema == Schema({})
        head = written(SmallLake(FlakyStore()))
        with pytest.raises(SchemaError, match="only tensor of 3 samples"):
            drop_tensor(small_lake.log, head, "x")

    def test_groups(self, small_lake: SmallLake) -> None:
        """Tensors with as many objects stay a group, under names that are there."""
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
        """What tensors were before is part of the commit's bytes, and only where there is any."""
        head = written(small_lake)
        assert b'"past"' not in commit_bytes(head)
        made = add_tensors(small_lake.log, head, NEW)
        assert read_commit(commit_bytes(made), "key", lambda _: SCHEMA) == made


class TestBesideRuns:
    """Who was there first goes on."""

    def test_unfinished(self, small_lake: SmallLake) -> None:
        """Beside an unfinished run each change is refused, and the run commits on."""
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
        """A run that wins the race fails the change, not the other way round."""
        lake = SmallLake(flaky_store)
        flaky_store.at("create", lambda: lake.begin("busy", 1), LOG)
        with pytest.raises(ConflictError, match="'busy' is unfinished"):
            add_tensors(Log(flaky_store), lake.head, NEW)

    def test_closed_run_cannot_go_on(self, small_lake: SmallLake) -> None:
        """A run that a reset has closed does not keep the schema, and is not resumed after."""
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
        """Of two changes at once both are there; the same name twice is refused."""
        lake = SmallLake(flaky_store)
        other = {"z": TensorSpec("text")}
        flaky_store.at("create", lambda: add_tensors(Log(flaky_store), lake.head, other), LOG)
        assert list(add_tensors(Log(flaky_store), lake.head, NEW).schema) == ["x", "z", "y"]
        flaky_store.at("create", lambda: drop_tensor(Log(flaky_store), lake.head, "z"), LOG)
        with pytest.raises(VersionNotFoundError, match="no tensor 'z'"):
            rename_tensor(Log(flaky_store), lake.head, "z", "q")

    def test_samples_that_came_meanwhile(self, flaky_store: FlakyStore) -> None:
        """The place from which on a tensor is there is that of the head the commit builds on."""
        lake = SmallLake(flaky_store)
        flaky_store.at("create", lambda: written(lake), LOG)
        assert add_tensors(Log(flaky_store), lake.head, NEW).histories == {
            "y": TensorHistory(since=3)
        }


class TestEmptyLake:
    """Start over."""

    def test_holds_nothing(self, small_lake: SmallLake) -> None:
        """The new version holds nothing, the old one all; no run of before goes on."""
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
        """Samples that were committed meanwhile are not thrown away unseen."""
        lake = SmallLake(flaky_store)
        flaky_store.at("create", lambda: written(lake), LOG)
        with pytest.raises(ConflictError, match="committed while"):
            empty_lake(Log(flaky_store), lake.head)

    def test_beside_a_living_run(
        self, small_lake: SmallLake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A run that is being written is not thrown away."""
        small_lake.begin("busy", 1)
        assert not is_alive(small_lake.store, "main", "busy", 1)
        monkeypatch.setattr(schema_evolution, "is_alive", lambda *_: True)
        with pytest.raises(RunActiveError, match="'busy' is being written"):
            empty_lake(small_lake.log, small_lake.head)

    def test_closed_branch(self, small_lake: SmallLake) -> None:
        """A deleted branch takes no change."""
        head = replace(small_lake.head, kind=Kind.CLOSED)
        with pytest.raises(ConflictError, match="deleted"):
            empty_lake(small_lake.log, head)
        with pytest.raises(ConflictError, match="deleted"):
            add_tensors(small_lake.log, head, NEW)


def test_names_are_settled_by_a_change(small_lake: SmallLake) -> None:
    """A change of the schema leaves discovered names where they are, and closed runs drop theirs."""
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
