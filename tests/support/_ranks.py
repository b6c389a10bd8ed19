"""Processes that train on one lake together, as ranks of ``torch.distributed`` or of the environment."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.utils.data import DataLoader

import dasklake

#: Seconds after which a collective operation that waits for another rank is an error.
TIMEOUT = 90


@dataclass(frozen=True)
class Loop:
    """One pass of all ranks over an epoch, or a part of it.

    Attributes
    ----------
    url : str
        The lake.
    batch_size : int
        Samples of a batch of a rank.
    workers : int
        Workers of the loader of each rank.
    epoch : int
        Number of the epoch.
    stop : int or None
        Batches after which the loop ends; None for the whole epoch.
    state : dict or None
        State at which it continues.
    """

    url: str
    batch_size: int
    workers: int
    epoch: int = 0
    stop: int | None = None
    state: dict[str, Any] | None = None


@dataclass(frozen=True)
class Result:
    """What one rank read.

    Attributes
    ----------
    sizes : list of int
        Samples of each batch.
    samples : list of int
        The samples, without those that repeat others.
    state : dict
        State after the last batch.
    """

    sizes: list[int]
    samples: list[int]
    state: dict[str, Any]


def train(loop: Loop) -> Result:
    """Read batches, and wait for all other ranks after each, as a step of training does."""
    lake = dasklake.open(loop.url)
    dataset = lake.torch(
        loop.batch_size,
        ["x"],
        shuffle=True,
        epoch=None if loop.state else loop.epoch,
        state=loop.state,
    )
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=None,
        num_workers=loop.workers,
        multiprocessing_context="fork" if loop.workers else None,
    )
    sizes: list[int] = []
    samples: list[int] = []
    for batch in loader:
        flags = batch.get("is_padding", torch.zeros(len(batch["x"]), dtype=torch.bool))
        samples += batch["x"][~flags].tolist()
        sizes.append(len(batch["x"]))
        _wait_for_ranks(sizes[-1])
        if len(sizes) == loop.stop:
            break
    state = dataset.state_after(len(sizes))
    if not loop.workers:
        assert dataset.state_dict() == state
    return Result(sizes, samples, state)


def _wait_for_ranks(size: int) -> None:
    """Sum a number over all ranks: it hangs if they have different numbers of batches."""
    if dist.is_initialized():
        total = torch.tensor(size)
        dist.all_reduce(total)
        assert total == size * dist.get_world_size()


def _rank(
    rank: int, ranks: int, source: str, folder: str, number: int, loops: Sequence[Loop]
) -> None:
    """Run the loops of one rank, and write what it read."""
    group = source == "group"
    if group:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/group-{number}",
            rank=rank,
            world_size=ranks,
            timeout=timedelta(seconds=TIMEOUT),
        )
    else:
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks))
    results = [train(loop) for loop in loops]
    if group:
        # Saved by one rank: it is the same on all.
        states: list[Any] = [None] * ranks
        dist.all_gather_object(states, [result.state for result in results])
        assert states == [states[0]] * ranks
        dist.destroy_process_group()
    path = Path(folder) / f"{number}-{rank}.json"
    path.write_text(json.dumps([asdict(result) for result in results]))


def _script(path: str, arguments: Sequence[str], output: str) -> None:
    """Run a script; add what it prints to a file."""
    sys.argv[:] = [path, *arguments]
    with Path(output).open("a") as file, redirect_stdout(file):
        runpy.run_path(path, run_name="__main__")


def _launch(ranks: int, path: str, arguments: Sequence[str], output: str) -> None:
    """Run a script on ranks as torchrun does, but in processes that have imported PyTorch."""
    multiprocessing.set_start_method("fork", force=True)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        start_method="fork",
        run_id=Path(path).parent.name,
        max_restarts=0,
    )
    elastic_launch(config, _script)(path, arguments, output)


class Ranks:
    """Starts ranks as processes, forked from one that has imported PyTorch and nothing else.

    Parameters
    ----------
    folder : Path
        Folder of their results.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])

    def run(self, ranks: int, source: str, loops: Sequence[Loop]) -> list[list[Result]]:
        """Run loops one after the other on all ranks; return the results of all ranks for each loop.

        Parameters
        ----------
        ranks : int
            Number of the ranks.
        source : "group" or "environment"
            Where a data set finds its rank.
        loops : sequence of Loop
            The loops.
        """
        self._number += 1
        arguments = (ranks, source, str(self._folder), self._number, loops)
        with self._started(_rank, [(rank, *arguments) for rank in range(ranks)]) as processes:
            for process in processes:
                process.join(2 * TIMEOUT)
            assert [process.exitcode for process in processes] == [0] * ranks
        paths = [self._folder / f"{self._number}-{rank}.json" for rank in range(ranks)]
        results = [[Result(**read) for read in json.loads(path.read_text())] for path in paths]
        return [list(of_loop) for of_loop in zip(*results, strict=True)]

    def launch(self, ranks: int, path: Path, *arguments: str) -> str:
        """Run a script with the launcher of torchrun; return what its ranks print."""
        output = self._folder / "output"
        output.unlink(missing_ok=True)
        with self._started(_launch, [(ranks, str(path), arguments, str(output))]) as (process,):
            process.join(2 * TIMEOUT)
            assert process.exitcode == 0
        return output.read_text()

    @contextmanager
    def _started(
        self, target: Callable[..., None], arguments: Sequence[tuple[Any, ...]]
    ) -> Iterator[list[Any]]:
        processes = [self._context.Process(target=target, args=part) for part in arguments]
        try:
            for process in processes:
                process.start()
            yield processes
        finally:
            for process in processes:
                if process.is_alive():
                    process.kill()
                process.join()
