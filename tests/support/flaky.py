"""Writers that take turns, on a storage that loses requests and answers; all of it repeatable.

A :class:`FlakyStore` is a real store over ``memory://`` with something in between. Alone it does as
it is told, once: :meth:`FlakyStore.at` runs something in the middle of somebody's call,
:meth:`FlakyStore.fail` loses one. Under :class:`Turns` each writer is a thread that waits before
every operation until a decider says that it is its turn, and what becomes of the operation;
:func:`every_schedule` yields the deciders that try all there is.
"""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from dasklake._store.files import Files
from dasklake._store.log import Log
from dasklake._store.objects import ObjectStore

#: Operations that change something.
WRITES = ("put", "create", "delete")


class Fault(Enum):
    """What becomes of an operation."""

    NONE = "none"
    #: The request is lost: nothing happens.
    BEFORE = "before"
    #: The answer is lost: it happened.
    AFTER = "after"
    #: The request is held up: it may arrive later, or never.
    LATE = "late"


class Step(NamedTuple):
    """An operation that waits for its turn; ``writer`` is empty for a request that was held up."""

    writer: str
    operation: str
    key: str


#: Chooses one of the steps, and what becomes of it; None where requests held up shall never arrive.
Decide = Callable[[Sequence[Step]], tuple[int, Fault] | None]


class Lost(OSError):  # noqa: N818 # a connection that is lost, as storages raise it
    """No answer came."""


@dataclass
class _Order:
    """Something that happens at one operation to come."""

    operation: str
    key: str
    skip: int
    fault: Fault
    action: Callable[[], object] | None = None

    def meant(self, operation: str, key: str) -> bool:
        if operation != self.operation or self.key not in key:
            return False
        self.skip -= 1
        return self.skip < 0


class _FlakyFiles:
    """The backend, with something in between."""

    def __init__(self, inner: Files, store: FlakyStore) -> None:
        self.inner = inner
        self.store = store
        self.exclusive = inner.exclusive
        self.writable = inner.writable
        self.shared = inner.shared

    def put(self, key: str, data: memoryview) -> None:
        self._do("put", key, lambda: self.inner.put(key, data), bytes(data))

    def create(self, key: str, data: memoryview, *, single_writer: bool) -> None:
        def create() -> None:
            self.inner.create(key, data, single_writer=single_writer)

        self._do("create", key, create, bytes(data))

    def delete(self, key: str) -> None:
        self._do("delete", key, lambda: self.inner.delete(key))

    def sync(self, key: str) -> None:
        self._do("sync", key, lambda: self.inner.sync(key))

    def get(self, key: str) -> bytes:
        return bytes(self._do("get", key, lambda: self.inner.get(key)))

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return list(self._do("get", key, lambda: self.inner.get_ranges(key, ranges)))

    def size(self, key: str) -> int:
        return int(self._do("size", key, lambda: self.inner.size(key)))

    def names(self, prefix: str) -> list[str]:
        return list(self._do("names", prefix, lambda: self.inner.names(prefix)))

    def walk(self, prefix: str) -> list[tuple[str, int]]:
        return list(self._do("walk", prefix, lambda: self.inner.walk(prefix)))

    def _do(self, operation: str, key: str, action: Callable[[], Any], data: bytes = b"") -> Any:
        fault = self.store.meet(operation, key)

        def act() -> Any:
            done = action()
            if operation in WRITES:
                self.store.landed.append((operation, key, data))
            return done

        self.store.sent.append((operation, key, data))
        if fault is Fault.LATE:
            self.store.held.append((Step("", operation, key), act))
        elif fault is not Fault.BEFORE:
            done = act()
            if fault is Fault.NONE:
                return done
        raise Lost(f"no answer to {operation} {key}")


class FlakyStore(ObjectStore):
    """A store in memory whose requests and answers may be lost.

    Attributes
    ----------
    sent, landed : list of (str, str, bytes)
        Every operation that was asked for, and every change that was made: its name, the key and
        what was written, in order.
    held : list
        Requests that are held up; :meth:`arrive` lets one through.
    broken : str
        While it is not empty, whatever is asked of a key with it in it is lost.
    """

    def __init__(self, url: str = "", **options: Any) -> None:
        super().__init__(url or f"memory://{uuid.uuid4().hex}", **options)
        self.sent: list[tuple[str, str, bytes]] = []
        self.landed: list[tuple[str, str, bytes]] = []
        self.held: list[tuple[Step, Callable[[], Any]]] = []
        self.broken = ""
        self.turns: Turns | None = None
        self._orders: list[_Order] = []

    def _connect(self) -> tuple[Files, dict[str, Any]]:
        files, options = super()._connect()
        return _FlakyFiles(files, self), options

    def at(
        self, operation: str, action: Callable[[], object], key: str = "", *, skip: int = 0
    ) -> None:
        """Run ``action`` before an operation to come on a key with ``key`` in it, once."""
        self._orders.append(_Order(operation, key, skip, Fault.NONE, action))

    def fail(self, operation: str, fault: Fault, key: str = "", *, skip: int = 0) -> None:
        """Lose an operation to come on a key with ``key`` in it, once."""
        self._orders.append(_Order(operation, key, skip, fault))

    def meet(self, operation: str, key: str) -> Fault:
        """Wait for the turn of an operation; return what becomes of it."""
        if self.broken and self.broken in key:
            return Fault.BEFORE
        for order in self._orders:
            if order.meant(operation, key):
                self._orders.remove(order)
                if order.action is None:
                    return order.fault
                order.action()
                break
        return self.turns.wait(operation, key) if self.turns else Fault.NONE

    def arrive(self, number: int = 0) -> None:
        """Let a request that was held up through; nobody hears what becomes of it."""
        _, act = self.held.pop(number)
        try:
            act()
        except OSError:
            return

    def arrive_all(self) -> None:
        """Let everything that was held up through."""
        while self.held:
            self.arrive()

    def count(self, operation: str, key: str = "") -> int:
        """Count the operations that were asked for."""
        return sum(op == operation and key in at for op, at, _ in self.sent)

    def clear(self) -> None:
        """Give the memory back, which all stores of the process share."""
        files = super()._connect()[0]
        for key, _ in files.walk(""):
            files.delete(key)


class NoPause(threading.Event):
    """Stands for a log's ``stop``: a pause between two tries takes no time."""

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 # as in the base
        """Return at once."""
        return self.is_set()


def quick_log(store: ObjectStore, branch: str = "main", *, patience: float = 600.0) -> Log:
    """Make a log that does not sleep between two tries."""
    log = Log(store, branch, patience=patience)
    log.stop = NoPause()
    return log


class _AbandonedError(BaseException):
    """Ends a writer whose turn will never come, because something is wrong."""


#: Kept, for a new thread costs more than all else that a writer does.
_THREADS = ThreadPoolExecutor(8, thread_name_prefix="writer")


class Turns:
    """Runs writers one operation at a time.

    Parameters
    ----------
    store : FlakyStore
        The storage between them.
    decide : callable
        Chooses whose turn it is.
    gated : callable
        Whether a writer waits before an operation on a key; it goes on at once before the others.
    """

    def __init__(
        self,
        store: FlakyStore,
        decide: Decide,
        gated: Callable[[str, str], bool] = lambda *_: True,
    ) -> None:
        self.store = store
        self.decide = decide
        self.gated = gated
        self._arrived = threading.Semaphore(0)
        self._waiting: dict[str, tuple[Step, threading.Semaphore, list[Fault]]] = {}
        self._names: dict[threading.Thread, str] = {}

    def run(self, writers: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """Run all writers to their ends.

        Returns
        -------
        dict of str to object
            What each returned, or the exception it raised.
        """
        results: dict[str, Any] = {}

        def run(name: str, action: Callable[[], Any]) -> None:
            self._names[threading.current_thread()] = name
            try:
                results[name] = action()
            except (Exception, _AbandonedError) as error:  # noqa: BLE001 # its end is its result
                results[name] = error
            finally:
                del self._names[threading.current_thread()]
                self._arrived.release()

        self.store.turns = self
        try:
            for name, action in writers.items():
                _THREADS.submit(run, name, action)
                self._meet()
            while self._turn():
                pass
        finally:
            self.store.turns = None
            for _, go, _ in self._waiting.values():
                go.release()
        return results

    def _turn(self) -> bool:
        late = [step for step, _ in self.store.held]
        waiting = list(self._waiting)
        steps = [self._waiting[name][0] for name in waiting] + late
        chosen = self.decide(steps) if steps else None
        if chosen is None:
            return False
        index, fault = chosen
        if index >= len(waiting):
            self.store.arrive(index - len(waiting))
            return True
        _, go, answer = self._waiting.pop(waiting[index])
        answer.append(fault)
        go.release()
        self._meet()
        return True

    def _meet(self) -> None:
        """Wait until the writer whose turn it is waits again, or has ended."""
        assert self._arrived.acquire(timeout=30), "a writer neither waits nor ends"

    def wait(self, operation: str, key: str) -> Fault:
        """Wait for the turn of an operation; return what becomes of it."""
        name = self._names.get(threading.current_thread())
        if name is None or not self.gated(operation, key):
            return Fault.NONE
        go, answer = threading.Semaphore(0), list[Fault]()
        self._waiting[name] = (Step(name, operation, key), go, answer)
        self._arrived.release()
        go.acquire()
        if not answer:
            raise _AbandonedError
        return answer[0]


@dataclass
class Schedule:
    """One way in which things may go: the first choices are given, all others are the first.

    Parameters
    ----------
    choices : list of int
        The choices that are given.
    faults : int
        How many operations may be lost.
    kinds : sequence of Fault
        How.
    """

    choices: list[int]
    faults: int = 0
    kinds: Sequence[Fault] = (Fault.AFTER, Fault.LATE)
    trail: list[tuple[int, int]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def __call__(self, steps: Sequence[Step]) -> tuple[int, Fault] | None:
        """Choose."""
        options: list[tuple[int, Fault] | None] = [(i, Fault.NONE) for i in range(len(steps))]
        if self.faults:
            options += [
                (i, kind)
                for (i, step), kind in itertools.product(enumerate(steps), self.kinds)
                if step.operation == "create" and step.writer
            ]
        if not any(step.writer for step in steps):
            options.append(None)
        place = len(self.trail)
        chosen = self.choices[place] if place < len(self.choices) else 0
        self.trail.append((chosen, len(options)))
        option = options[chosen]
        if option is not None:
            self.faults -= option[1] is not Fault.NONE
            self.told.append(f"{' '.join(steps[option[0]])} {option[1].value}")
        return option


def every_schedule(faults: int = 0, **kwargs: Any) -> Iterator[Schedule]:
    """Yield all ways in which things may go; each has to be run before the next is asked for."""
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
