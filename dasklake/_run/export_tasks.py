"""Compute the tasks that write the files of an export, with a progress bar and errors of dasklake."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from dask.base import compute, get_scheduler
from dask.callbacks import Callback
from dask.delayed import Delayed
from distributed import Client, as_completed

from dasklake._dask import KilledWorker
from dasklake._run.clients import asynchronous_client, client_of
from dasklake._run.progress_bar import make_count_bar
from dasklake._schema.printable import safe_str
from dasklake._storage.hidden import raise_without_context, safe_text, without_secrets
from dasklake.exceptions import (
    InvalidInputError,
    LakeError,
    RunFailedError,
    RunLostError,
    StoreError,
)

__all__ = ["run_export"]

_AGAIN = "Files that were written are kept. Call again with the same arguments for the others."

_Show = Callable[[int, int], None]


def run_export(
    tasks: Sequence[Delayed],
    total: int,
    title: str,
    progress: bool | Literal["auto"],  # noqa: FBT001 # the option's own type
) -> None:
    """Compute tasks that write a file each, on the cluster of the current client if there is one.

    Parameters
    ----------
    tasks : sequence of dask.delayed.Delayed
        Tasks of the files that are missing.
    total : int
        Number of files, with those that exist.
    title : str
        Title of the progress bar.
    progress : bool or "auto"
        Whether to show the bar.

    Raises
    ------
    InvalidInputError
        The current client is asynchronous.
    RunLostError
        The connection to the cluster is lost.
    StoreError
        The storage failed.
    RunFailedError
        A file cannot be written for another reason, such as workers that die.
    MissingExtraError
        ``progress`` is True and tqdm is not installed.
    """
    if asynchronous_client(None) is not None:
        raise InvalidInputError(
            "An export waits for its files, which an asynchronous client cannot do. Call it with a "
            "client that is not asynchronous."
        )
    with make_count_bar(progress, title, "files") as show:
        done = total - len(tasks)
        show(done, total)
        if not tasks:
            return
        client = client_of(get_scheduler())
        with _lake_errors(client):
            if client is None:
                _compute_here(tasks, lambda count: show(done + count, total))
            else:
                _compute_on(client, tasks, lambda count: show(done + count, total))


def _compute_here(tasks: Sequence[Delayed], show: Callable[[int], None]) -> None:
    keys = {task.key for task in tasks}
    written: set[Any] = set()

    def count(key: Any, *_: Any) -> None:
        if key in keys:
            written.add(key)
            show(len(written))

    # Most of the time is spent on storage, and processes would not see ``memory://``.
    scheduler = "threads" if get_scheduler() is None else None
    with Callback(posttask=count):
        compute(*tasks, scheduler=scheduler)


def _compute_on(client: Client, tasks: Sequence[Delayed], show: Callable[[int], None]) -> None:
    futures: list[Any] = client.compute(list(tasks))
    try:
        for count, future in enumerate(as_completed(futures), 1):
            future.result()
            show(count)
    except BaseException:
        # Files that are being written appear whole, or not at all.
        with contextlib.suppress(Exception):
            client.cancel(futures)
        raise


@contextlib.contextmanager
def _lake_errors(client: Client | None) -> Iterator[None]:
    """Raise every error of a task, a worker or the cluster as an error of dasklake."""
    try:
        yield
    except LakeError:
        raise
    except KilledWorker as error:
        raise RunFailedError(
            "The export ended, because several workers died while they wrote the same file. Give "
            f"workers more memory, or write smaller files. {_AGAIN}"
        ) from error
    except asyncio.CancelledError as error:
        raise RunLostError(f"The cluster cancelled the export. {_AGAIN}") from error
    except OSError as error:
        if client is not None and client.status != "running":
            raise RunLostError(
                f"The connection to the cluster is lost ({safe_str(error)}). {_AGAIN}"
            ) from error
        text = safe_text(safe_str(error))
        stored = StoreError(f"A file cannot be written: {text}. {_AGAIN}")
        raise_without_context(stored, without_secrets(error))
    except Exception as error:  # noqa: BLE001 # raised as an error of dasklake
        text = safe_text(f"{type(error).__name__}: {safe_str(error)}")
        failed = RunFailedError(f"A file cannot be written: {text}. {_AGAIN}")
        raise_without_context(failed, without_secrets(error))
