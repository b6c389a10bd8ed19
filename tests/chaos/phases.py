"""Hold a process at a named phase, so that it can be killed there.

A hold is a file in a folder that driver and processes share. It names a phase, and how often the
phase is passed first. The process that reaches it reports that and waits until it is killed or
released. Everything else is the real code: only the calls of a phase read the file first.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dasklake._log import heartbeat
from dasklake._run import coordinator
from dasklake._run.coordinator import Coordinator
from dasklake._storage.store import ObjectStore

#: Factor by which heartbeats are faster than usual, so that a resume checks for only a second.
HASTE = 5

#: Seconds after which a held process continues by itself.
PATIENCE = 120.0

LOG, SEGMENT, DATA, BEAT = r"_lake/log/", r"_lake/segments/", r"data/", r"_lake/runs/"


class Phase(NamedTuple):
    """A moment in the life of a run.

    ``operation`` is one of the store, or of the coordinator, and ``key`` the beginning of what
    it is about, as a regular expression. ``amid`` is with half of the bytes written, or with the
    name given and the directory not flushed; where the storage has no such moment, ``before``.
    """

    who: Literal["client", "worker", "scheduler"]
    operation: Literal["put", "create", "walk", "deliver"]
    key: str
    when: Literal["before", "amid", "after"]


PHASES = {
    "before begin": Phase("client", "create", LOG, "before"),
    "begin half made": Phase("client", "create", LOG, "amid"),
    "begun": Phase("client", "create", LOG, "after"),
    "coordinator starting": Phase("scheduler", "put", BEAT, "before"),
    "recovering": Phase("client", "walk", DATA, "after"),
    "first chunk": Phase("worker", "put", DATA + r".*-0\.arrow", "after"),
    "mid-chunk": Phase("worker", "put", DATA, "amid"),
    "last chunk": Phase("worker", "put", DATA + r".*-[1-9]\.arrow", "after"),
    "receipt sent": Phase("scheduler", "deliver", "", "before"),
    "committing: before the segment": Phase("scheduler", "put", SEGMENT, "before"),
    "committing: segment half written": Phase("scheduler", "put", SEGMENT, "amid"),
    "committing: before the commit": Phase("scheduler", "create", LOG, "before"),
    "committing: commit half made": Phase("scheduler", "create", LOG, "amid"),
    "committing: after the commit": Phase("scheduler", "create", LOG, "after"),
}

#: Phases of every start; all other phases recur while the job runs.
STARTING = {name for name, at in PHASES.items() if at.who == "client" or at.key == BEAT}

#: Names of a client's phases from its second start on.
RESUMING = {
    "before begin": "resuming: before the epoch",
    "begin half made": "resuming: epoch half made",
    "begun": "resuming: after the epoch",
}


class Holds:
    """The hold that a driver orders.

    Parameters
    ----------
    folder : str or Path
        The folder that driver and processes share.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._file = self._folder / "hold"

    def order(self, name: str, phase: str, passes: int) -> None:
        """Hold a process at a phase after the given number of passes."""
        new = self._folder / "hold.new"
        new.write_text(json.dumps([name, phase, passes]))
        new.replace(self._file)

    def reached(self, name: str) -> bool:
        """Return whether a process is held."""
        return (self._folder / f"{name}.held").exists()

    def let_go(self, name: str) -> None:
        """Release the process, and hold no other."""
        (self._folder / f"{name}.go").touch()
        self._file.unlink(missing_ok=True)

    def current(self) -> tuple[str, str, int] | None:
        """Return the hold that is ordered."""
        try:
            name, phase, passes = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return None
        return name, phase, passes

    def wait(self, name: str) -> None:
        """Wait here, unless another process is held."""
        try:
            os.close(os.open(self._folder / f"{name}.held", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        deadline = time.monotonic() + PATIENCE
        while not (self._folder / f"{name}.go").exists() and time.monotonic() < deadline:
            time.sleep(0.005)


class _Door:
    """Check before the calls of one process whether they are to be held."""

    def __init__(self, who: str, holds: Holds) -> None:
        self._who = who
        self._holds = holds
        self._passed: dict[str, int] = {}
        self._lock = threading.Lock()
        #: What this thread is to be held in the middle of: operation and name of the hold.
        self._amid = threading.local()

    def call(
        self, operation: str, key: str, action: Callable[[], Any], *, local: bool = False
    ) -> Any:
        """Make a call, held if ordered; only calls on a local disk can be held in the middle."""
        name, when = self._due(operation, key)
        if name and (when == "before" or (when == "amid" and not local)):
            self._holds.wait(name)
        self._amid.at = (operation, name) if when == "amid" and local else (None, None)
        try:
            result = action()
        finally:
            self._amid.at = (None, None)
        if name and when == "after":
            self._holds.wait(name)
        return result

    def _due(self, operation: str, key: str) -> tuple[str | None, str]:
        order = self._holds.current()
        if order is None:
            return None, ""
        name, phase, passes = order
        at = PHASES[phase]
        if (at.who, at.operation) != (self._who, operation) or not re.match(at.key, key):
            return None, ""
        with self._lock:
            passed = self._passed.get(name, 0)
            self._passed[name] = passed + 1
        return (name if passed >= passes else None), at.when

    def amid(self, operation: str) -> str | None:
        """Return the name of the hold if this thread is to be held in the middle, once."""
        held, name = getattr(self._amid, "at", (None, None))
        if held != operation:
            return None
        self._amid.at = (None, None)
        return name

    def wait(self, name: str | None) -> None:
        """Wait at the hold, if there is one."""
        if name:
            self._holds.wait(name)


def install(who: str, folder: str) -> None:
    """Make this process holdable; called once, before anything else.

    Parameters
    ----------
    who : {"client", "worker", "scheduler"}
        The kind of process.
    folder : str
        The folder that driver and processes share.
    """
    door = _Door(who, Holds(folder))
    _hurry()
    _wrap_store(door)
    _wrap_system(door)
    deliver = Coordinator.deliver

    def held_deliver(self: Coordinator, outcome: Any) -> None:
        door.call("deliver", "", lambda: deliver(self, outcome))

    setattr(Coordinator, "deliver", held_deliver)  # noqa: B010 # mypy knows it as a method


def _hurry() -> None:
    for module, name in ((heartbeat, "OBSERVE_SECONDS"), (coordinator, "BEAT_SECONDS")):
        setattr(module, name, getattr(module, name) / HASTE)


def _wrap_store(door: _Door) -> None:
    for operation in ("put", "create", "walk"):
        real = getattr(ObjectStore, operation)

        def held(
            self: ObjectStore,
            key: str,
            *args: Any,
            _operation: str = operation,
            _real: Callable[..., Any] = real,
            **kwargs: Any,
        ) -> Any:
            local = "://" not in self.url
            return door.call(
                _operation, key, lambda: _real(self, key, *args, **kwargs), local=local
            )

        setattr(ObjectStore, operation, held)


def _wrap_system(door: _Door) -> None:
    write, link = os.write, os.link

    def half_write(fd: int, data: Any) -> int:
        name = door.amid("put") if len(data) > 1 else None
        written = write(fd, data[: len(data) // 2] if name else data)
        door.wait(name)
        return written

    def held_link(*args: Any, **kwargs: Any) -> None:
        link(*args, **kwargs)
        door.wait(door.amid("create"))

    os.write = half_write
    os.link = held_link
