"""Simulate storage failures: requests and answers are lost, processes are killed.

A :class:`FaultStore` is the storage of one process, with fault injection. Several stores with one
root simulate several processes; :meth:`FaultStore.another` returns the next one. A fault is
scheduled for one later operation::

    store = FaultStore()
    store.fail("create", Fault.AFTER)           # the answer to the next create is lost
    store.fail("any", Fault.CRASH_MIDDLE, skip=7)   # the process is killed in its eighth operation
    store.at("walk", other_writer)              # another writer acts before the next listing
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dasklake._format import object_keys
from dasklake._storage.connection import Connection, Opened
from dasklake._storage.fsspec_backend import Backend
from dasklake._storage.memory_pool import Allocate, Check
from dasklake._storage.retry import NO_RETRIES, RetryPolicy
from dasklake._storage.store import ObjectStore

__all__ = ["CRASHES", "LOSSES", "Crash", "Fault", "FaultStore", "Lost", "Step"]

#: Operations that change objects.
_WRITES = ("put", "create", "delete")


class Fault(Enum):
    """Outcome of an operation."""

    NONE = "none"
    #: The request is lost: it has no effect.
    BEFORE = "before"
    #: The request takes effect, and its answer is lost.
    AFTER = "after"
    #: The request takes effect, and its answer arrives after the timeout.
    TIMEOUT = "time-out"
    #: The request is delayed: it may take effect later, or never.
    LATE = "late"
    #: The storage reports a conflicting request (HTTP 409); the request has no effect.
    CONFLICT = "409"
    #: The storage refuses the request (HTTP 412), although no object exists.
    REFUSED = "412"
    #: The storage is busy (HTTP 503); the request has no effect.
    BUSY = "503"
    #: A read returns too few bytes without an error. Other requests are lost as with ``BEFORE``.
    SHORT = "short"
    #: The process is killed before the operation.
    CRASH_BEFORE = "crash before"
    #: The process is killed during a write: a temporary file has half of the data.
    CRASH_MIDDLE = "crash in the middle"
    #: The process is killed after the operation, before it receives the answer.
    CRASH_AFTER = "crash after"


#: Faults of any operation that do not kill the process.
LOSSES = (Fault.BEFORE, Fault.AFTER, Fault.TIMEOUT, Fault.CONFLICT, Fault.REFUSED, Fault.BUSY)

#: Faults that kill the process.
CRASHES = (Fault.CRASH_BEFORE, Fault.CRASH_MIDDLE, Fault.CRASH_AFTER)

_HAPPENED = (Fault.NONE, Fault.AFTER, Fault.TIMEOUT, Fault.SHORT, Fault.CRASH_AFTER)
_STATUS = {Fault.CONFLICT: 409, Fault.REFUSED: 412, Fault.BUSY: 503}


class Step(NamedTuple):
    """Operation that waits for its turn; ``writer`` is empty for a delayed request."""

    writer: str
    operation: str
    key: str


class Lost(OSError):  # noqa: N818 # named like a lost connection
    """The connection was lost before an answer arrived."""


class _Answer(OSError):  # noqa: N818 # named like an answer
    """The storage answered with an HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status} to {text}")
        self.status = status


class Crash(BaseException):
    """The process is killed. No handler catches the error, and later operations have no effect."""


@dataclass
class _Order:
    """A fault or an action that is scheduled for one later operation."""

    operation: str
    key: str
    skip: int
    fault: Fault
    action: Callable[[], object] | None = None

    def matches(self, operation: str, key: str) -> bool:
        if self.operation not in ("any", operation) or self.key not in key:
            return False
        self.skip -= 1
        return self.skip < 0


class _FaultConnection(Connection):
    """A connection whose backend injects the faults of a store."""

    def __init__(self, plain: Connection, store: FaultStore) -> None:
        super().__init__(plain.url, plain.storage_options, confined=plain.confined)
        self._store = store

    def current(self) -> Opened:
        """Return the opened backend with fault injection."""
        opened = super().current()
        return opened._replace(backend=_FaultBackend(opened.backend, self._store))


class _FaultBackend:
    """A backend with fault injection."""

    def __init__(self, inner: Backend, store: FaultStore) -> None:
        self.inner = inner
        self.store = store
        self.creates_exclusively = inner.creates_exclusively
        self.writable = inner.writable
        self.shared = inner.shared
        self.local = inner.local

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

    def get(self, key: str, max_bytes: int | None = None) -> bytes:
        return bytes(self._do("get", key, lambda: self.inner.get(key, max_bytes)))

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return list(self._do("get", key, lambda: self.inner.get_ranges(key, ranges)))

    def get_arrays(
        self, key: str, ranges: Sequence[tuple[int, int]], allocate: Allocate, check: Check
    ) -> list[npt.NDArray[np.uint8]]:
        return list(
            self._do("get", key, lambda: self.inner.get_arrays(key, ranges, allocate, check))
        )

    def size(self, key: str) -> int:
        return int(self._do("size", key, lambda: self.inner.size(key)))

    def names(self, prefix: str) -> list[str]:
        return list(self._do("names", prefix, lambda: self.inner.names(prefix)))

    def walk(self, prefix: str) -> list[tuple[str, int]]:
        return list(self._do("walk", prefix, lambda: self.inner.walk(prefix)))

    def pending_uploads(self, prefix: str) -> list[tuple[str, str]]:
        return self.inner.pending_uploads(prefix)

    def abort_upload(self, key: str, upload: str) -> None:
        self.inner.abort_upload(key, upload)

    def _do(self, operation: str, key: str, action: Callable[[], Any], data: bytes = b"") -> Any:
        fault = self.store.meet(operation, key)

        def act() -> Any:
            done = action()
            if operation in _WRITES:
                self.store.landed.append((operation, key, data))
            return done

        self.store.sent.append((operation, key, data))
        if fault is Fault.SHORT and operation != "get":
            fault = Fault.BEFORE
        if fault is Fault.LATE:
            self.store.held.append((Step("", operation, key), act))
        elif fault is Fault.CRASH_MIDDLE:
            self._half(operation, key, data)
        elif fault in _HAPPENED:
            done = act()
            if fault is Fault.NONE:
                return done
            if fault is Fault.SHORT:
                return _short(done)
        raise _error(fault, f"{operation} {key}")

    def _half(self, operation: str, key: str, data: bytes) -> None:
        """Write the temporary file that a process leaves if it is killed during a write."""
        if operation not in ("put", "create"):
            return
        folder, slash, name = key.rpartition("/")
        half = f"{folder}{slash}.{name}.{object_keys.new_id()}.tmp"
        self.inner.put(half, memoryview(data[: len(data) // 2]))


def _short(data: Any) -> Any:
    if isinstance(data, bytes):
        return data[: len(data) // 2]
    return [_short(part) for part in data]


def _error(fault: Fault, text: str) -> BaseException:
    if fault in CRASHES:
        return Crash(text)
    if fault is Fault.TIMEOUT:
        return TimeoutError(f"no answer in time to {text}")
    if fault in _STATUS:
        return _Answer(_STATUS[fault], text)
    return Lost(f"no answer to {text}")


class FaultStore(ObjectStore):
    """The storage of one process, with fault injection.

    Parameters
    ----------
    url : str, default ""
        Root of the store; by default a new one in memory.
    retries : RetryPolicy, optional
        Retry policy; by default every fault is raised at once.
    **options : object
        As for :class:`~dasklake._storage.store.ObjectStore`.

    Attributes
    ----------
    sent, landed : list of (str, str, bytes)
        Requested operations, and changes that took effect, of all processes in order: name of the
        operation, key and data.
    held : list
        Delayed requests; :meth:`arrive` completes one.
    broken : str
        If not empty, requests whose key contains this text are lost.
    gate : callable or None
        Called with operation and key before each operation without a scheduled fault; returns the
        fault.
    crashed : bool
        Whether the process was killed: further operations raise :class:`Crash`.

    Examples
    --------
    >>> from dasklake.testing.faults import Crash, Fault, FaultStore
    >>> store = FaultStore()
    >>> store.fail("put", Fault.CRASH_AFTER)
    >>> try:
    ...     store.put("a", b"1")
    ... except Crash:
    ...     print(store.another().get("a"), store.crashed)
    b'1' True
    >>> store.clear()
    """

    def __init__(self, url: str = "", *, retries: RetryPolicy = NO_RETRIES, **options: Any) -> None:
        super().__init__(url or f"memory://{uuid.uuid4().hex}", **options)
        self._plain = self._connection
        self._connection = _FaultConnection(self._plain, self)
        self._retries = retries
        self._options = {"retries": retries, **options}
        self.sent: list[tuple[str, str, bytes]] = []
        self.landed: list[tuple[str, str, bytes]] = []
        self.held: list[tuple[Step, Callable[[], Any]]] = []
        self.broken = ""
        self.gate: Callable[[str, str], Fault] | None = None
        self.crashed = False
        self._orders: list[_Order] = []

    @property
    def pending(self) -> int:
        """Number of scheduled faults and actions that have not happened yet."""
        return len(self._orders)

    def another(self) -> FaultStore:
        """Return the storage of another process, with the same root.

        Returns
        -------
        FaultStore
            Store with the gate of this one, and no scheduled faults.
        """
        other = type(self)(self._plain.url, **self._options)
        other.sent, other.landed, other.held = self.sent, self.landed, self.held
        other.gate = self.gate
        return other

    def at(
        self, operation: str, action: Callable[[], object], key: str = "", *, skip: int = 0
    ) -> None:
        """Schedule an action before a later operation, once.

        Parameters
        ----------
        operation : str
            ``"put"``, ``"create"``, ``"delete"``, ``"sync"``, ``"get"``, ``"size"``, ``"names"``,
            ``"walk"``, or ``"any"``.
        action : callable
            Action to run.
        key : str, default ""
            Part of the key.
        skip : int, default 0
            Number of matching operations to skip first.
        """
        self._orders.append(_Order(operation, key, skip, Fault.NONE, action))

    def fail(self, operation: str, fault: Fault, key: str = "", *, skip: int = 0) -> None:
        """Schedule a fault of a later operation, once.

        Parameters
        ----------
        operation, key, skip
            Operation; see :meth:`at`.
        fault : Fault
            Fault of the operation.
        """
        self._orders.append(_Order(operation, key, skip, fault))

    def meet(self, operation: str, key: str) -> Fault:
        """Return the fault of an operation. Called before each operation.

        Parameters
        ----------
        operation, key : str
            Name and key of the operation.

        Returns
        -------
        Fault
            ``NONE`` if no fault is scheduled.
        """
        if self.crashed:
            raise Crash(f"{operation} {key}")
        fault = self._ordered(operation, key)
        if fault is None:
            fault = self.gate(operation, key) if self.gate else Fault.NONE
        if fault in CRASHES:
            self.crashed = True
        return fault

    def _ordered(self, operation: str, key: str) -> Fault | None:
        if self.broken and self.broken in key:
            return Fault.BEFORE
        for order in self._orders:
            if order.matches(operation, key):
                self._orders.remove(order)
                if order.action is None:
                    return order.fault
                order.action()
                break
        return None

    def arrive(self, number: int = 0) -> None:
        """Complete a delayed request; its result is not reported.

        Parameters
        ----------
        number : int, default 0
            Index in ``held``.
        """
        _, act = self.held.pop(number)
        try:
            act()
        except OSError:
            return

    def arrive_all(self) -> None:
        """Complete all delayed requests."""
        while self.held:
            self.arrive()

    def count(self, operation: str, key: str = "") -> int:
        """Count the requested operations.

        Parameters
        ----------
        operation : str
            Name of the operation.
        key : str, default ""
            Part of the key.

        Returns
        -------
        int
            Number of operations.
        """
        return sum(op == operation and key in at for op, at, _ in self.sent)

    def clear(self) -> None:
        """Delete all objects, without faults.

        Objects in memory are shared by all stores of this Python process until it ends.
        """
        for key, _ in self._plain.files.walk(""):
            self._plain.files.delete(key)
