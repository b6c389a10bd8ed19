"""Renew locks in forked processes, and leave the connections of the parent process alone.

A fork copies only the thread that calls it. A lock that another thread holds at that moment would
stay locked in the child for ever. Multiprocessing forks by default on Linux, as PyTorch's data
loaders do.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, Protocol


class _Renewable(Protocol):
    def renew(self) -> None:
        """Replace the locks, and data that another thread may have been changing."""


_objects: weakref.WeakSet[Any] = weakref.WeakSet()
_connected: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

#: File systems of the parent process, which are never finalized in this one.
_inherited: list[Any] = []


def renew_after_fork(renewable: _Renewable) -> None:
    """Call the ``renew`` method of an object in each forked process, while the object exists."""
    _objects.add(renewable)


def inherit_after_fork(file_system: Any) -> None:
    """Keep a file system in each forked process until that process ends.

    A file system that is finalized closes its connections. A child has copies of the parent's
    sockets, and shares the parent's epoll instance: if it closes a copy, the event loop of the parent
    is no longer told of answers on the connection, and waits until a timeout.

    Parameters
    ----------
    file_system : object
        File system of fsspec, which must not be used in the child.
    """
    _connected[id(file_system)] = file_system


def _after_fork() -> None:
    _inherited.extend(_connected.values())
    _connected.clear()
    for renewable in list(_objects):
        renewable.renew()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)


class RenewedLock:
    """A reentrant lock of a module, to be used as ``with name.lock:``.

    The block releases the lock that it acquired, also if it forks and the child leaves the block.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        renew_after_fork(self)

    def renew(self) -> None:
        """Replace the lock."""
        self.lock = threading.RLock()
