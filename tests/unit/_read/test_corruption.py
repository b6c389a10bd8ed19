"""Test damaged chunks: an error, or skipped with a warning and unchanged indices."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dasklake
from dasklake._read import corruption
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import CorruptionError, CorruptionWarning, InvalidInputError
from tests.support.samples import Writing

SCHEMA = Schema(
    {"x": TensorSpec(dtype="float64", shape=(2,)), "n": TensorSpec(dtype="int64", shape=())}
)
LEFT = [0, 1, 4, 5]


@pytest.fixture
def damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write three chunks of two samples each, and break the second."""
    monkeypatch.setattr(corruption, "_reported", set())
    writing = Writing(ObjectStore(tmp_path / "lake"), SCHEMA, 3)
    samples: list[Any] = [{"x": np.full(2, i), "n": i} for i in range(6)]
    receipts = [writing.commit(i, [samples[2 * i : 2 * i + 2]]) for i in range(3)]
    [key] = writing.keys(receipts[1])
    file = tmp_path / "lake" / key
    data = bytearray(file.read_bytes())
    data[-200] ^= 1
    file.write_bytes(data)
    return str(tmp_path / "lake")


def skipping(url: str) -> dasklake.Lake:
    """Open a lake that may be damaged."""
    return dasklake.open(url, on_corrupt="skip")


def test_damage_is_an_error_by_default(damaged: str) -> None:
    """By default nothing is skipped."""
    lake = dasklake.open(damaged)
    for read in (
        lambda: list(lake),
        lambda: lake[1:3],
        lambda: lake["n"][:],
        lambda: lake.to_dask_bag().compute(scheduler="sync"),
        lambda: lake.to_dask_array("x").compute(scheduler="sync"),
    ):
        with pytest.raises(CorruptionError, match="Samples 2 to 3"):
            read()


def _check_left_out(lake: dasklake.Lake) -> None:
    assert [int(sample["n"]) for sample in lake] == LEFT
    assert [int(sample["n"]) for sample in lake[1:6]] == [1, 4, 5]
    assert [int(sample["n"]) for sample in lake[[5, 2, 0]]] == [5, 0]
    assert lake["n"][:].tolist() == LEFT
    assert np.shape(lake["x"].numpy()) == (4, 2)
    bag = lake.to_dask_bag().compute(scheduler="sync")
    assert [int(sample["n"]) for sample in bag] == LEFT
    for blocksize in (None, "1 GB"):
        frame = lake.to_dask_dataframe(blocksize=blocksize).compute(scheduler="sync")
        assert frame["n"].tolist() == frame.index.tolist() == LEFT


def test_damaged_samples_are_skipped(damaged: str) -> None:
    """Loops, slices, lists, columns, bags and frames continue after the damaged chunk."""
    with pytest.warns(CorruptionWarning):
        _check_left_out(skipping(damaged))


def test_indices_are_unchanged(damaged: str) -> None:
    """Length and indices are those of an undamaged lake; reading a damaged sample by index fails."""
    lake = skipping(damaged)
    assert len(lake) == len(lake["n"]) == 6
    assert int(lake[4]["n"]) == 4
    for read in (lambda: lake[2], lambda: lake["n"][3]):
        with pytest.raises(CorruptionError, match="Samples 2 to 3"):
            read()


def test_arrays_keep_their_shape(damaged: str) -> None:
    """An array has NaN for damaged samples, and is an error if its dtype has no missing value."""
    lake = skipping(damaged)
    array = lake.to_dask_array("x")
    with pytest.warns(CorruptionWarning):
        values = array.compute(scheduler="sync")
    assert values.shape == array.shape == (6, 2)
    assert np.flatnonzero(np.isnan(values[:, 0])).tolist() == [2, 3]
    with pytest.raises(CorruptionError):
        lake.to_dask_array("n").compute(scheduler="sync")


def test_one_warning_for_each_chunk(damaged: str) -> None:
    """The warning names the chunk and its samples, and is issued once per process."""
    lake = skipping(damaged)
    with pytest.warns(CorruptionWarning) as warnings_:
        assert [len(list(lake)), len(lake[:]), len(list(lake))] == [4, 4, 4]
    assert len(warnings_) == 1
    assert "Samples 2 to 3" in str(warnings_[0].message)
    assert "data/main/run/1-" in str(warnings_[0].message)


def test_the_choice_is_pickled(damaged: str) -> None:
    """A lake that is sent to another process still skips damaged chunks."""
    lake = pickle.loads(pickle.dumps(skipping(damaged)))  # our own
    with pytest.warns(CorruptionWarning):
        assert len(list(lake)) == 4
    assert lake.to_dask_bag().name != dasklake.open(damaged).to_dask_bag().name


def test_a_missing_chunk_is_damage(damaged: str) -> None:
    """A missing chunk is skipped like a changed one."""
    [file] = Path(damaged).glob("data/main/run/0-*.arrow")
    file.unlink()
    with pytest.warns(CorruptionWarning, match="missing"):
        assert [int(sample["n"]) for sample in skipping(damaged)] == [4, 5]


def test_unknown_choices_are_refused() -> None:
    """An unknown choice is refused before any read."""
    with pytest.raises(InvalidInputError, match="one of 'raise', 'skip', got 'ignore'"):
        dasklake.open("memory://nowhere", on_corrupt="ignore")  # type: ignore[arg-type] # a mistake
