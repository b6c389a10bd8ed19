"""Writes in the order of the input that a test kills; run in processes of their own."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.bag as db

import dasklake
from dasklake._log import heartbeat

ITEMS = 60

#: Partitions of the input of a named run.
PARTITIONS = 20

SCHEMA = {"x": dasklake.TensorSpec(dtype="int64", shape=())}


def _pause(item: int, seed: int) -> None:
    """Take a random time, with some stragglers."""
    pick = random.Random(f"{seed}-{item}").random()  # noqa: S311 # a repeatable pause
    time.sleep(0.5 if pick > 0.97 else 0.02 * pick)


def make(item: int, seed: int) -> dict[str, int]:
    """Make the sample of an item."""
    _pause(item, seed)
    return {"x": item}


@dasklake.compute
def append(item: int, sample_out: Any, seed: int) -> None:
    """Append the sample of an item."""
    _pause(item, seed)
    sample_out.append({"x": item})


def resume(url: str, seed: int, folder: str) -> None:
    """Begin or continue a named run, in the order of the input."""

    def act() -> None:
        dasklake.to_lake(
            db.from_sequence(range(ITEMS), npartitions=PARTITIONS),
            url,
            schema=SCHEMA,
            transform=make,
            transform_kwargs={"seed": seed},
            checkpoint_every=3,
            mode="resume",
            run="r",
            progress=False,
            options=dasklake.WriteOptions(commit_order="input"),
        )

    _run(act, folder)


def rest(url: str, seed: int, folder: str) -> None:
    """Follow the recipe of Deep Lake: reset, count the rows, and write the rest of the items."""

    def act() -> None:
        begun = Path(url).exists()
        lake = dasklake.load(url, reset=True) if begun else dasklake.empty(url)
        if not lake.schema:
            lake.create_tensor("x", dtype="int64", shape=())
        items = list(range(ITEMS))[len(lake) :]
        append(seed).eval(items, lake, scheduler="threads", checkpoint_interval=3)

    _run(act, folder)


def _run(act: Callable[[], None], folder: str) -> None:
    """Report the begin and the end of an action by files."""
    heartbeat.OBSERVE_SECONDS = 0.0  # the previous process was killed for certain
    (Path(folder) / "began").touch()
    with dask.config.set(scheduler="threads", num_workers=4):
        act()
    (Path(folder) / "ended").touch()
