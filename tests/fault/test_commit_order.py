"""With ``commit_order="input"`` every version is a prefix of the input, whenever the writer is killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.bag as db
import pytest

import dasklake
from tests.support import _ordered
from tests.support.clusters import wait_until

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"

#: Number of kills of each recipe.
KILLS = 200 if DEEP else 4


def kill_until_it_ends(
    job: Callable[[str, int, str], None],
    folder: Path,
    seed: int,
    check: Callable[[str], None],
) -> int:
    """Run a job in processes that are killed at random times until one ends; return the kills."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support._ordered"])
    pick, kills = random.Random(seed), 0  # noqa: S311 # a repeatable time
    url = str(folder / "lake")
    while True:
        signals = folder / f"attempt-{kills}"
        signals.mkdir(parents=True)
        process = context.Process(target=job, args=(url, seed + kills, str(signals)))
        process.start()
        wait_until((signals / "began").exists, "the job has begun")
        process.join(pick.uniform(0.1, 1.5))
        process.kill()
        process.join()
        if (signals / "ended").exists():
            check(url)
            return kills
        kills += 1
        if Path(url).exists():
            check(url)


def check_versions(url: str) -> None:
    """Check that each version has a prefix of the items."""
    try:
        lake = dasklake.open(url)
    except dasklake.exceptions.LakeNotFoundError:
        return  # killed before the lake was created
    for version in range(1, lake.version + 1):
        older = dasklake.open(url, version=version)
        items = older["x"][:].tolist() if "x" in older.schema and len(older) else []
        assert items == list(range(len(items))), version


@pytest.mark.parametrize("job", [_ordered.resume, _ordered.rest], ids=["resume", "recipe"])
def test_kills(tmp_path: Path, job: Callable[[str, int, str], None]) -> None:
    """Each version is a prefix, and resume and "reset, len, slice" write each sample once."""
    kills, seed, began = 0, 0, time.monotonic()
    while kills < KILLS:
        folder = tmp_path / str(seed)
        kills += kill_until_it_ends(job, folder, 1000 * seed, check_versions)
        lake = dasklake.open(folder / "lake")
        assert lake["x"][:].tolist() == list(range(_ordered.ITEMS))
        seed += 1
    print(f"{kills} kills, {seed} lakes, {time.monotonic() - began:.0f} s")  # noqa: T201 # with -s


def test_receipts_behind_a_gap_are_recovered(tmp_path: Path) -> None:
    """Partitions that waited for a gap are stored, and a resume does not compute them again."""
    executions = tmp_path / "executions"
    failing = tmp_path / "failing"
    failing.touch()

    def make(item: int) -> dict[str, int]:
        with executions.open("a") as file:
            file.write(f"{item}\n")
        if item == 3 and failing.exists():
            wait_until(lambda: len(executions.read_text().split()) >= 6, "later items are written")
            raise ValueError("not yet")
        return {"x": item}

    def write() -> None:
        dasklake.to_lake(
            db.from_sequence(range(8), npartitions=8),
            tmp_path / "lake",
            schema=_ordered.SCHEMA,
            transform=make,
            checkpoint_every=1,
            mode="resume",
            run="r",
            options=dasklake.WriteOptions(scheduler="threads", commit_order="input"),
        )

    with pytest.raises(dasklake.exceptions.TransformError):
        write()
    assert dasklake.open(tmp_path / "lake")["x"][:].tolist() == [0, 1, 2]
    before = set(executions.read_text().split())
    executions.write_text("")
    failing.unlink()
    write()
    assert dasklake.open(tmp_path / "lake")["x"][:].tolist() == list(range(8))
    again = set(executions.read_text().split())
    assert "3" in again
    assert not again & (before - {"3"})


def test_eval_is_in_the_order_of_the_input(tmp_path: Path) -> None:
    """``eval`` commits a prefix by default; in completion order a sliced append warns."""
    failing = {"first", "second"}

    @dasklake.compute
    def one(item: int, sample_out: Any) -> None:
        if item == 10 and failing:
            time.sleep(0.3)
            raise ValueError("not yet")
        sample_out.append({"x": item})

    def run(folder: str, **arguments: Any) -> dasklake.Lake:
        lake = dasklake.empty(tmp_path / folder)
        lake.create_tensor("x", dtype="int64", shape=())
        with pytest.raises(dasklake.exceptions.TransformError):
            one().eval(range(40), lake, scheduler="threads", checkpoint_interval=1, **arguments)
        return dasklake.load(tmp_path / folder, reset=True)

    lake = run("input")
    assert lake["x"][:].tolist() == list(range(10))
    gaps = run("completion", options=dasklake.WriteOptions(commit_order="completion"))
    assert gaps["x"][:].tolist() != list(range(len(gaps)))
    failing.clear()
    one().eval(range(40)[len(lake) :], lake)
    assert lake["x"][:].tolist() == list(range(40))
    with pytest.warns(UserWarning, match=r"interrupted run 'one-.*mode='resume', run='one-"):
        one().eval(range(40)[len(gaps) :], gaps)


def test_unknown_order() -> None:
    """An unknown order is refused where it is given."""
    with pytest.raises(dasklake.exceptions.InvalidInputError, match="commit_order must be one of"):
        dasklake.WriteOptions(commit_order="random")  # type: ignore[arg-type] # on purpose
