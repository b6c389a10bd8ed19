"""A storage that fails as it is told: requests and answers are lost, processes end in the middle.

A :class:`FaultStore` is the storage of one process with something in between. Several of them over
one root are several processes; :meth:`FaultStore.another` makes the next. What shall happen is
ordered for one operation to come::

    store = FaultStore()
    store.fail("create", Fault.AFTER)           # the answer to the next create is lost
    store.fail("any", Fault.CRASH_MIDDLE, skip=7)   # the process ends in its eighth operation
    store.at("walk", other_writer)              # somebody else acts before the next listing
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from dasklake._format import object_keys
from dasklake._storage.fsspec_backend import Backend
from dasklake._storage.retry import NO_RETRIES, RetryPolicy
from dasklake._storage.store import ObjectStore

__all__ = ["CRASHES", "LOSSES", "Crash", "Fault", "FaultStore", "Lost", "Step"]

#: Operations that change something.
_WRITES = ("put", "create", "delete")


class Fault(Enum):
    """What becomes of an operation."""

    NONE = "none"
    #: The request is lost: nothing happens.
    BEFORE = "before"
    #: The answer is lost: it happened.
    AFTER = "after"
    #: It happened, and the answer takes longer than anybody waits.
    TIMEOUT = "time-out"
    #: The request is held up: it may arrive later, or never.
    LATE = "late"
    #: The storage says that another request is under way (HTTP 409); nothing happens.
    CONFLICT = "409"
    #: The storage refuses (HTTP 412), though nothing is there; nothing happens.
    REFUSED = "412"
    #: The storage is too busy (HTTP 503); nothing happens.
    BUSY = "503"
    #: A read ends early, without an error. Everything else is lost as with ``BEFORE``.
    SHORT = "short"
    #: The process ends before the operation.
    CRASH_BEFORE = "crash before"
    #: The process ends in the middle: of what it was writing a half lies beside the target.
    CRASH_MIDDLE = "crash in the middle"
    #: The process ends after it, before it hears of it.
    CRASH_AFTER = "crash after"


#: Faults that a process lives through, and that every operation may meet.
LOSSES = (
    Fault.BEFORE,
    Fault.AFTER,
    Fault.TIMEOUT,
    Fault.CONFLICT,
    Fault.REFUSED,
    Fault.BUSY,
)

#: Faults that end the process.
CRASHES = (Fault.CRASH_BEFORE, Fault.CRASH_MIDDLE, Fault.CRASH_AFTER)

_HAPPENED = (Fault.NONE, Fault.AFTER, Fault.TIMEOUT, Fault.SHORT, Fault.CRASH_AFTER)
_STATUS = {Fault.CONFLICT: 409, Fault.REFUSED: 412, Fault.BUSY: 503}


class Step(NamedTuple):
    """An operation that waits for its turn; ``writer`` is empty for a request that was held up."""

    writer: str
    operation: str
    key: str


class Lost(OSError):  # noqa: N818 # a connection that is lost, as storages raise it
    """No answer came."""


class _Answer(OSError):  # noqa: N818 # an answer of the storage, as its libraries raise it
    """The storage answered with an HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status} to {text}")
        self.status = status


class Crash(BaseException):
    """The process ends here. Nothing catches it, and nothing that it does later has any effect."""


@dataclass
class _Order:
    """Something that happens at one operation to come."""

    operation: str
    key: str
    skip: int
    fault: Fault
    action: Callable[[], object] | None = None

    def meant(self, operation: str, key: str) -> bool:
        if self.operation not in ("any", operation) or self.key not in key:
            return False
        self.skip -= 1
        return self.skip < 0


class _FaultBackend:
    """The backend, with something in between."""

    def __init__(self, inner: Backend, store: FaultStore) -> None:
        self.inner = inner
        self.store = store
        self.creates_exclusively = inner.creates_exclusively
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

    def get(self, key: str, max_bytes: int | None = None) -> bytes:
        return bytes(self._do("get", key, lambda: self.inner.get(key, max_bytes)))

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return list(self._do("get", key, lambda: self.inner.get_ranges(key, ranges)))

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
        """Leave what a process leaves that ends while it writes a file."""
        if operation not in ("put", "create"):
            return
        folder, slash, name = key.rpartition("/")
        half = f"{folder}{slash}.{name}.{object_keys.new_id()}.tmp"
        self.inner.put(half, memoryview(data[: len(data) // 2]))


def _short(found: Any) -> Any:
    if isinstance(found, bytes):
        return found[: len(found) // 2]
    return [_short(part) for part in found]


def _error(fault: Fault, text: str) -> BaseException:
    if fault in CRASHES:
        return Crash(text)
    if fault is Fault.TIMEOUT:
        return TimeoutError(f"no answer in time to {text}")
    if fault in _STATUS:
        return _Answer(_STATUS[fault], text)
    return Lost(f"no answer to {text}")


class FaultStore(ObjectStore):
    """The storage of one process, which fails as it is told.

    Parameters
    ----------
    url : str, default ""
        The root; left out, a new one in memory.
    retries : RetryPolicy, optional
        How operations are retried; by default every fault is raised at once.
    **options : object
        As for :class:`~dasklake._storage.store.ObjectStore`.

    Attributes
    ----------
    sent, landed : list of (str, str, bytes)
        Every operation that was asked for, and every change that was made, by all processes: its
        name, the key and what was written, in order.
    held : list
        Requests that are held up; :meth:`arrive` lets one through.
    broken : str
        While it is not empty, whatever is asked of a key with it in it is lost.
    gate : callable or None
        Called with operation and key before each operation for which nothing was ordered; returns
        what becomes of it.
    crashed : bool
        Whether the process has ended: all else it asks for raises :class:`Crash`.

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
        self._retries = retries
        self._options = {"retries": retries, **options}
        self.sent: list[tuple[str, str, bytes]] = []
        self.landed: list[tuple[str, str, bytes]] = []
        self.held: list[tuple[Step, Callable[[], Any]]] = []
        self.broken = ""
        self.gate: Callable[[str, str], Fault] | None = None
        self.crashed = False
        self._orders: list[_Order] = []

    def _connect(self) -> tuple[Backend, dict[str, Any]]:
        files, options = super()._connect()
        return _FaultBackend(files, self), options

    @property
    def pending(self) -> int:
        """Number of ordered faults and actions that have not happened yet."""
        return len(self._orders)

    def another(self) -> FaultStore:
        """Return the storage of another process, over the same root.

        Returns
        -------
        FaultStore
            Nothing is ordered for it yet; its gate is this one's.
        """
        other = type(self)(self._address, **self._options)
        other.sent, other.landed, other.held = self.sent, self.landed, self.held
        other.gate = self.gate
        return other

    def at(
        self, operation: str, action: Callable[[], object], key: str = "", *, skip: int = 0
    ) -> None:
        """Run something before an operation to come, once.

        Parameters
        ----------
        operation : str
            ``"put"``, ``"create"``, ``"delete"``, ``"sync"``, ``"get"``, ``"size"``, ``"names"``,
            ``"walk"``, or ``"any"``.
        action : callable
            What to run.
        key : str, default ""
            What is in the key.
        skip : int, default 0
            So many of these operations pass first.
        """
        self._orders.append(_Order(operation, key, skip, Fault.NONE, action))

    def fail(self, operation: str, fault: Fault, key: str = "", *, skip: int = 0) -> None:
        """Let an operation to come fail, once.

        Parameters
        ----------
        operation, key, skip
            Which; see :meth:`at`.
        fault : Fault
            How.
        """
        self._orders.append(_Order(operation, key, skip, fault))

    def meet(self, operation: str, key: str) -> Fault:
        """Return what becomes of an operation; called before each.

        Parameters
        ----------
        operation, key : str
            The operation.

        Returns
        -------
        Fault
            ``NONE`` where nothing was ordered.
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
            if order.meant(operation, key):
                self._orders.remove(order)
                if order.action is None:
                    return order.fault
                order.action()
                break
        return None

    def arrive(self, number: int = 0) -> None:
        """Let a request that was held up through; nobody hears what becomes of it.

        Parameters
        ----------
        number : int, default 0
            Which.
        """
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
        """Count the operations that were asked for.

        Parameters
        ----------
        operation : str
            Which.
        key : str, default ""
            What is in the key.

        Returns
        -------
        int
            How many.
        """
        return sum(op == operation and key in at for op, at, _ in self.sent)

    def clear(self) -> None:
        """Delete everything there is, behind the back of all processes.

        What is in memory is shared by all stores of this Python process and lives as long as it.
        """
        files = super()._connect()[0]
        for key, _ in files.walk(""):
            files.delete(key)
