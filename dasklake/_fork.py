"""Renew locks in forked processes.

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


def renew_after_fork(renewable: _Renewable) -> None:
    """Call the ``renew`` method of an object in each forked process, while the object exists."""
    _objects.add(renewable)


def _renew_all() -> None:
    for renewable in list(_objects):
        renewable.renew()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_renew_all)


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
