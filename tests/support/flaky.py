"""Writers that take turns on a storage that loses requests and responses; repeatable.

By itself a :class:`FlakyStore` injects each requested fault once. Under :class:`Turns` each writer
is a thread that waits before every operation for its turn and for the fault of the operation.
:func:`every_schedule` yields deciders that cover all schedules.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from dasklake._log.log import Log
from dasklake._storage.store import ObjectStore
from dasklake.testing.faults import Crash, Fault, FaultStore, Step

__all__ = ["Decide", "Fault", "FlakyStore", "Step", "Turns", "every_schedule", "quick_log"]

#: A storage shared by all writers of a test.
FlakyStore = FaultStore

#: Chooses a step and its fault; None if delayed requests shall never arrive.
Decide = Callable[[Sequence[Step]], tuple[int, Fault] | None]


class NoPause(threading.Event):
    """A ``stop`` event for logs that makes the pause between two attempts instant."""

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 # as in the base
        """Return at once."""
        return self.is_set()


def quick_log(
    store: ObjectStore, branch: str = "main", *, retry_seconds: float | None = None
) -> Log:
    """Make a log that does not sleep between two attempts."""
    log = Log(store, branch, retry_seconds=retry_seconds)
    log.stop = NoPause()
    return log


class _AbandonedError(BaseException):
    """Ends a writer that will never get its turn, after an error elsewhere."""


#: Reused, because starting a thread costs more than all other work of a writer.
_THREADS = ThreadPoolExecutor(8, thread_name_prefix="writer")


class Turns:
    """Run writers one operation at a time.

    Parameters
    ----------
    store : FaultStore
        The storage of all writers, or of one of them.
    decide : callable
        Chooses the next writer, for :meth:`run`.
    gated : callable
        Returns whether a writer waits before an operation on a key; other operations do not wait.

    Attributes
    ----------
    waiting : dict of str to Step
        The writers that have not ended, each with its next operation.
    results : dict of str to object
        The result of each ended writer, or the exception that it raised.
    """

    def __init__(
        self,
        store: FaultStore,
        decide: Decide = lambda _: None,
        gated: Callable[[str, str], bool] = lambda *_: True,
    ) -> None:
        self.store = store
        self.decide = decide
        self.gated = gated
        self.waiting: dict[str, Step] = {}
        self.results: dict[str, Any] = {}
        self._arrived = threading.Semaphore(0)
        self._gates: dict[str, tuple[threading.Semaphore, list[Fault]]] = {}
        self._names: dict[threading.Thread, str] = {}

    def run(self, writers: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """Run all writers until they end.

        Returns
        -------
        dict of str to object
            The result of each writer, or the exception that it raised.
        """
        self.store.gate = self.wait
        try:
            for name, action in writers.items():
                self.start(name, action)
            while self._turn():
                pass
        finally:
            self.store.gate = None
            self.abandon()
        return self.results

    def start(self, name: str, action: Callable[[], Any]) -> None:
        """Start a writer, up to its first operation."""

        def run() -> None:
            self._names[threading.current_thread()] = name
            try:
                self.results[name] = action()
            except (Exception, Crash, _AbandonedError) as error:  # noqa: BLE001 # the exception is the writer's result
                self.results[name] = error
            finally:
                del self._names[threading.current_thread()]
                self._arrived.release()

        _THREADS.submit(run)
        self._meet()

    def step(self, name: str, fault: Fault = Fault.NONE) -> None:
        """Execute a writer's next operation; wait until its following operation or its end."""
        del self.waiting[name]
        go, answer = self._gates.pop(name)
        answer.append(fault)
        go.release()
        self._meet()

    def abandon(self) -> None:
        """End all waiting writers."""
        while self.waiting:
            name = next(iter(self.waiting))
            del self.waiting[name]
            self._gates.pop(name)[0].release()
            self._meet()

    def _turn(self) -> bool:
        late = [step for step, _ in self.store.held]
        waiting = list(self.waiting)
        steps = [*self.waiting.values(), *late]
        chosen = self.decide(steps) if steps else None
        if chosen is None:
            return False
        index, fault = chosen
        if index >= len(waiting):
            self.store.arrive(index - len(waiting))
        else:
            self.step(waiting[index], fault)
        return True

    def _meet(self) -> None:
        """Wait until the running writer waits again or has ended."""
        assert self._arrived.acquire(timeout=60), (
            "timed out: the running writer neither waits nor ends"
        )

    def wait(self, operation: str, key: str) -> Fault:
        """Wait for the turn of an operation; return its fault."""
        name = self._names.get(threading.current_thread())
        if name is None or not self.gated(operation, key):
            return Fault.NONE
        go, answer = threading.Semaphore(0), list[Fault]()
        self.waiting[name] = Step(name, operation, key)
        self._gates[name] = (go, answer)
        self._arrived.release()
        go.acquire()
        if not answer:
            raise _AbandonedError
        return answer[0]


@dataclass
class Schedule:
    """One schedule: the first choices are given, every later choice is option 0.

    Parameters
    ----------
    choices : list of int
        The given choices.
    faults : int
        Number of operations that may be lost.
    kinds : sequence of Fault
        The faults to choose from.
    """

    choices: list[int]
    faults: int = 0
    kinds: Sequence[Fault] = (Fault.AFTER, Fault.LATE)
    trail: list[tuple[int, int]] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)

    def __call__(self, steps: Sequence[Step]) -> tuple[int, Fault] | None:
        """Choose the next step."""
        options: list[tuple[int, Fault] | None] = [(i, Fault.NONE) for i in range(len(steps))]
        if self.faults:
            options += [
                (i, kind)
                for (i, step), kind in itertools.product(enumerate(steps), self.kinds)
                if step.operation == "create" and step.writer
            ]
        if not any(step.writer for step in steps):
            options.append(None)
        depth = len(self.trail)
        chosen = self.choices[depth] if depth < len(self.choices) else 0
        self.trail.append((chosen, len(options)))
        option = options[chosen]
        if option is not None:
            self.faults -= option[1] is not Fault.NONE
            self.trace.append(f"{' '.join(steps[option[0]])} {option[1].value}")
        return option


def every_schedule(faults: int = 0, **kwargs: Any) -> Iterator[Schedule]:
    """Yield all schedules; run each one before requesting the next."""
    choices: list[int] = []
    while True:
        schedule = Schedule(choices, faults, **kwargs)
        yield schedule
        trail = schedule.trail
        while trail and trail[-1][0] + 1 >= trail[-1][1]:
            trail.pop()
        if not trail:
            return
        choices = [chosen for chosen, _ in trail]
        choices[-1] += 1
