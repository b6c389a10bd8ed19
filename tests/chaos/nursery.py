"""Start processes fast: ``python -m tests.chaos.nursery`` imports everything, then forks.

A scheduler, a worker and a client need two seconds of imports each, and chaos starts hundreds of
them. The nursery only imports: it opens nothing, connects nowhere and starts no thread of its own.
Its forks run the same ``main`` as ``dask scheduler`` and ``dask worker`` do. It reaps a child only on
request, so that no other process gets its pid before. It kills its children when its standard input
ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any, Self

import s3fs  # noqa: F401 # imported once for all
from distributed.cli import dask_scheduler, dask_worker

from tests.chaos import job, phases

ROOT = Path(__file__).parents[2]


def _scheduler(arguments: list[str]) -> None:
    dask_scheduler.main(arguments, standalone_mode=False)


def _worker(arguments: list[str]) -> None:
    dask_worker.main(arguments, standalone_mode=False)


def _client(arguments: list[str]) -> None:
    job.main(**json.loads(arguments[0]))


MAINS = {"scheduler": _scheduler, "worker": _worker, "client": _client}


def _become(what: str, arguments: list[str], log: str, folder: str) -> None:
    """Run the requested process; never return."""
    code = 1
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for theirs, ours in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(theirs, ours)
        phases.install(what, folder)
        MAINS[what](arguments)
        code = 0
    except SystemExit as error:
        sys.stderr.write(f"{error.code}\n")
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 # the process ends here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Fork and reap as the lines of standard input say, until they end."""
    children: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            pid = os.fork()
            if not pid:
                _become(request["start"], request["arguments"], request["log"], request["folder"])
            children.add(pid)
            answer: int | None = pid
        else:
            pid, status = os.waitpid(request["reap"], os.WNOHANG)
            children.discard(pid)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        print(json.dumps(answer), flush=True)  # noqa: T201 # the answer
    for pid in children:
        os.kill(pid, signal.SIGKILL)


class Child:
    """A process that the nursery has started.

    Attributes
    ----------
    what : str
        Scheduler, worker or client.
    pid : int
        Its number.
    log : Path
        What it prints.
    code : int or None
        Exit code as of :class:`subprocess.Popen`, or None while it runs.
    """

    def __init__(self, nursery: Nursery, what: str, pid: int, log: Path) -> None:
        self._nursery = nursery
        self.what = what
        self.pid = pid
        self.log = log
        self.code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        if self.code is None:
            self.code = self._nursery.ask(reap=self.pid)
        return self.code

    def kill(self) -> None:
        """Send SIGKILL; :meth:`poll` then returns the exit code."""
        # Not reaped yet, so the number is still its own.
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)


class Nursery:
    """The nursery, seen from the process that drives it; a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.chaos.nursery"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def ask(self, **request: Any) -> Any:
        """Send a request and return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(request)}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the nursery has died"
        return json.loads(answer)

    def start(self, what: str, arguments: list[str], log: Path, folder: Path) -> Child:
        """Start a scheduler, a worker or a client.

        Parameters
        ----------
        what : {"scheduler", "worker", "client"}
            The kind of process.
        arguments : list of str
            Its command line arguments.
        log : Path
            File for its output.
        folder : Path
            Folder of the hold file.
        """
        more = {"arguments": arguments, "log": str(log), "folder": str(folder)}
        return Child(self, what, self.ask(start=what, **more), log)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # the driver ends us
        main()
