"""Test that samples are divided by hashes, and never change their part."""

from __future__ import annotations

import datetime as dt
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dasklake
from dasklake import Lake, Schema, TensorSpec
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import InvalidInputError, VersionNotFoundError
from tests.support.samples import Make, Writing

SCHEMA = Schema({"id": TensorSpec(dtype="int64", shape=())})
FRACTIONS = {"train": 0.7, "val": 0.2, "test": 0.1}


def _parts(lake: Lake, **arguments: Any) -> dict[int, str]:
    """Return the part of each sample by its id, after checking that each is in exactly one."""
    parts = lake.split(FRACTIONS, **arguments)
    of_ids = {int(i): name for name, view in parts.items() for i in view["id"].numpy()}
    assert sum(map(len, parts.values())) == len(lake) == len(of_ids)
    return of_ids


def test_the_sizes_are_close_to_the_fractions(make_lake: Make) -> None:
    """A part has about its fraction of the samples, in the order of the lake."""
    chunks = [[{"id": i} for i in range(at, at + 500)] for at in range(0, 20_000, 500)]
    lake = dasklake.open(make_lake(SCHEMA, [chunks[:7], chunks[7:]]).url)
    parts = lake.split(FRACTIONS)
    assert list(parts) == list(FRACTIONS)
    for name, fraction in FRACTIONS.items():
        # Five standard deviations of a random choice.
        spread = 5 * (20_000 * fraction * (1 - fraction)) ** 0.5
        assert abs(len(parts[name]) - 20_000 * fraction) < spread
        assert (np.diff(parts[name].rows) > 0).all()
    again = lake.split(FRACTIONS)
    assert again == parts
    other = lake.split(FRACTIONS, seed=1)["test"]
    common = np.intersect1d(other.rows, parts["test"].rows)
    assert abs(len(common) - 200) < 100


def test_parts_are_those_of_every_release() -> None:
    """The hash is part of the format: the parts of a lake are the same with every release."""
    lake = dasklake.empty("memory://split-fixed", overwrite=True)
    lake.create_tensor("id", dtype="int64", shape=())
    lake.create_tensor("group", "text")
    lake.extend({"id": range(16), "group": [f"g{i % 8}" for i in range(16)]})
    halves = {"a": 0.5, "b": 0.5}
    assert lake.split(halves)["a"].rows.tolist() == [1, 3, 6, 7, 9, 11, 12]
    assert lake.split(halves, seed=7)["a"].rows.tolist() == [4, 5, 6, 7]
    assert lake.split(halves, by="group")["a"].rows.tolist() == [0, 4, 5, 6, 8, 12, 13, 14]


def test_no_sample_changes_its_part_while_a_lake_grows(tmp_path: Path) -> None:
    """Checkpoints in any order, resumed runs and appended samples change no part."""
    store = ObjectStore(tmp_path / "lake")
    writing = Writing(store, SCHEMA, 6)
    parts: dict[int, str] = {}
    for partition in (4, 0, 5, 2, 3, 1):
        first = 100 * partition
        samples = [{"id": i} for i in range(first, first + 100)]
        writing.commit(partition, [samples[:30], samples[30:31], samples[31:]])
        now = _parts(dasklake.open(store.url))
        assert now.items() >= parts.items()
        parts = now
    lake = dasklake.open(store.url)
    lake.extend({"id": range(1_000, 1_200)})
    lake.extend({"id": range(2_000, 2_200)})
    now = _parts(lake)
    assert len(now) == 1_000
    assert now.items() >= parts.items()
    lake.create_tensor("new", dtype="int8", shape=())
    lake.extend({"id": [5_000], "new": [1]})
    assert _parts(lake).items() >= now.items()


def test_samples_of_one_group_stay_together(make_lake: Make) -> None:
    """With ``by``, samples with equal values are in one part, wherever they are stored."""
    schema = Schema({"id": SCHEMA["id"], "group": TensorSpec("text")})
    samples = [{"id": i, "group": f"g{i * 7 % 60}" if i % 10 else None} for i in range(600)]
    lake = dasklake.open(
        make_lake(schema, [[samples[:250], samples[250:300]], [samples[300:]]]).url
    )
    part_of: dict[Any, str] = {}
    for name, view in lake.split(FRACTIONS, by="group").items():
        for group in set(view["group"]):
            assert part_of.setdefault(group, name) == name
    assert len(part_of) == 61 - 6
    assert set(part_of.values()) == set(FRACTIONS)
    backwards = lake.select(slice(None, None, -1))
    for name, view in backwards.split(FRACTIONS, by="group").items():
        assert all(part_of[group] == name for group in view["group"])
        assert (np.diff(view.rows) < 0).all()


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        ({"dtype": "int8"}, [1, 2, 1]),
        ({"dtype": "uint64"}, [1, 2, 1]),
        ({"dtype": "float32"}, [0.5, 2.0, -0.0]),
        ({"dtype": "float64"}, [0.5, 2.0, 0.0]),
        ({"dtype": "bool"}, [True, False, True]),
        ({"dtype": "datetime64[s]"}, [dt.datetime(2024, 1, d) for d in (1, 2, 1)]),  # noqa: DTZ001 # tensors have no zones
        ({"dtype": "datetime64[ns]"}, [dt.datetime(2024, 1, d) for d in (1, 2, 1)]),  # noqa: DTZ001 # tensors have no zones
        ({"htype": "class_label", "class_names": ["a", "b"]}, [0, 1, 0]),
        ({"htype": "class_label", "class_names": ["b", "a"]}, [1, 0, 1]),
    ],
    ids=str,
)
def test_equal_values_have_equal_hashes(spec: Mapping[str, Any], values: list[Any]) -> None:
    """The part of a group depends on its value: not on the dtype, the unit or the order of classes."""
    kinds: dict[str, list[Any]] = {}
    for number, (other, stored) in enumerate(
        ((spec, values), (_sibling(spec), _sibling_values(spec, values)))
    ):
        lake = dasklake.empty(f"memory://split-values-{number}", overwrite=True)
        lake.create_tensor("x", **other)
        lake.extend({"x": stored})
        many = {f"part {i}": 1 / 64 for i in range(64)}
        kinds[str(number)] = [view.rows.tolist() for view in lake.split(many, by="x").values()]
    assert kinds["0"] == kinds["1"]


def _sibling(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return another spec of the same values."""
    wider = {"int8": "int64", "uint64": "int16", "float32": "float64", "float64": "float32"}
    wider |= {"bool": "bool", "datetime64[s]": "datetime64[us]", "datetime64[ns]": "datetime64[D]"}
    if "dtype" in spec:
        return {"dtype": wider[spec["dtype"]]}
    return {**spec, "class_names": spec["class_names"][::-1]}


def _sibling_values(spec: Mapping[str, Any], values: list[Any]) -> list[Any]:
    return values if "dtype" in spec else [1 - value for value in values]


def test_parts_of_views(make_lake: Make) -> None:
    """A view is divided as the lake is: a sample is in the same part of both."""
    lake = dasklake.open(make_lake(SCHEMA, [[[{"id": i} for i in range(300)]]]).url)
    whole = lake.split(FRACTIONS)
    some = lake.where([("id", "in", list(range(0, 300, 7)))])
    for name, view in some.split(FRACTIONS).items():
        assert view.rows.tolist() == np.intersect1d(whole[name].rows, some.rows).tolist()


def test_parts_are_pickled_as_their_rule(make_lake: Make) -> None:
    """A part of a whole lake is pickled in a few bytes, whatever its size."""
    lake = dasklake.open(make_lake(SCHEMA, [[[{"id": i} for i in range(20_000)]]]).url)
    part = lake.split(FRACTIONS)["val"].columns(["id"])
    data = pickle.dumps(part)
    assert len(data) - len(pickle.dumps(lake.select(slice(9)))) < 200
    assert pickle.loads(data) == part  # our own bytes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([{}], "mapping of names to numbers"),
        ([[0.5, 0.5]], "mapping of names to numbers"),
        ([{"a": 0.5}], "must add up to 1, got 0.5.*Add a part"),
        ([{"a": 0.9, "b": 0.9}], "must add up to 1, got 1.8"),
        ([{"a": 1.5, "b": -0.5}], "part 'a' must be a number above 0 and at most 1, got 1.5"),
        ([{"a": True}], "part 'a' must be a number"),
        ([{"a": float("nan"), "b": 1}], "part 'a' must be a number"),
        ([{"a": "1"}], "part 'a' must be a number"),
        ([{1: 1.0}], "must be a string, got 1"),
        ([{"a": 1.0}, 0.5], "seed must be an integer, got 0.5"),
        ([{"a": 1.0}, True], "seed must be an integer, got True"),
        ([{"a": 1.0}, 0, 5], "by must be a string or None, got 5"),
        ([{"a": 1.0}, 0, "vector"], "one value for each sample"),
    ],
    ids=str,
)
def test_wrong_splits(make_lake: Make, arguments: list[Any], message: str) -> None:
    """Arguments that do not divide the samples are refused at once."""
    schema = Schema({"id": SCHEMA["id"], "vector": TensorSpec("embedding", shape=(2,))})
    lake = dasklake.open(make_lake(schema, [[[{"id": 1, "vector": np.zeros(2, "f4")}]]]).url)
    fractions, *rest = arguments
    named = dict(zip(("seed", "by"), rest, strict=False))
    with pytest.raises(InvalidInputError, match=message):
        lake.split(fractions, **named)
    with pytest.raises(VersionNotFoundError, match=r"'idd'.*Did you mean 'id'"):
        lake.split({"a": 1.0}, by="idd")


def test_nothing_is_divided_into_nothing() -> None:
    """A lake without samples has empty parts."""
    lake = dasklake.empty("memory://split-empty", overwrite=True)
    lake.create_tensor("x", dtype="int64", shape=())
    assert [len(view) for view in lake.split({"a": 0.5, "b": 0.5}).values()] == [0, 0]
    assert [len(view) for view in lake.split({"a": 1.0}, by="x").values()] == [0]


def test_a_compaction_changes_no_part(tmp_path: Path) -> None:
    """Joining chunks of several partitions and runs, also twice, changes no part."""
    store = ObjectStore(tmp_path / "lake")
    writing = Writing(store, SCHEMA, 5)
    for partition in (1, 0, 4, 2, 3):
        first = 100 * partition
        samples = [{"id": i} for i in range(first, first + 40 + partition)]
        writing.commit(partition, [samples[:30], samples[30:31], samples[31:]])
    lake = dasklake.open(store.url)
    lake.extend({"id": range(1_000, 1_050)})
    before = _parts(lake)
    _, partitions, positions = lake._reader.plan.keys(np.arange(len(lake)))
    assert set(partitions.tolist()) == set(range(5))
    for _ in range(2):
        assert lake.compact().into == 1
        assert _parts(lake) == before
        keys = lake._reader.plan.keys(np.arange(len(before)))
        assert keys[1].tolist()[: len(partitions)] == partitions.tolist()
        assert keys[2].tolist()[: len(positions)] == positions.tolist()
        first = 2_000 + len(lake)
        lake.extend({"id": range(first, first + 20)})
        lake.extend({"id": range(first + 100, first + 120)})
        after = _parts(lake)
        assert after.items() > before.items()
        before = after
    lake.vacuum(older_than="0d")
    assert _parts(dasklake.open(store.url)) == before
