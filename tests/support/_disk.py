"""A disk that loses power: a process's system calls, and the files that would survive.

:class:`Recorder` records each call that changes files, in the order of execution.
:class:`Disk` replays them in memory. After any number of calls it returns the files that may survive
a power cut: all flushed data, and a random part of the rest.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest


class Call(NamedTuple):
    """A completed system call, or ``mark``, an event noted by the test.

    ``path`` is the file or its new name; ``data`` is the written data or the old name.
    """

    name: str
    path: str
    data: Any = None


class Recorder:
    """Record the calls of this process that change files under a root.

    Parameters
    ----------
    root : Path
        The folder; changes elsewhere are not recorded.
    """

    def __init__(self, root: Path) -> None:
        self.calls: list[Call] = []
        self._root = str(root)
        # A call and its record are one step, so that both have the same order.
        self._lock = threading.RLock()

    def mark(self, event: str, data: Any) -> None:
        """Record another event."""
        with self._lock:
            self.calls.append(Call("mark", event, data))

    @contextmanager
    def recording(self) -> Iterator[Recorder]:
        """Record the calls in the block."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("open", "write", "fsync", "link", "replace", "unlink", "mkdir"):
                patch.setattr(os, name, self._noting(name, getattr(os, name)))
            yield self

    def _noting(self, name: str, real: Any) -> Any:
        def call(first: Any, *args: Any, **kwargs: Any) -> Any:
            with self._lock:
                path = self._path(first)
                if path is None:
                    return real(first, *args, **kwargs)
                result = real(first, *args, **kwargs)
                self._note(name, path, args, result)
                return result

        return call

    def _path(self, file: Any) -> str | None:
        path = str(Path(f"/proc/self/fd/{file}").readlink() if isinstance(file, int) else file)
        return path if path.startswith(self._root) else None

    def _note(self, name: str, path: str, args: tuple[Any, ...], result: Any) -> None:
        if name == "open":
            if args and args[0] & os.O_CREAT:
                self.calls.append(Call("create", path))
        elif name == "write":
            self.calls.append(Call(name, path, bytes(args[0][:result])))
        elif name in ("link", "replace"):
            self.calls.append(Call(name, os.fspath(args[0]), path))
        else:
            self.calls.append(Call(name, path))


@dataclass(eq=False)
class _File:
    content: bytes = b""
    flushed: bytes = b""


@dataclass(eq=False)
class _Folder:
    names: dict[str, _File | _Folder] = field(default_factory=dict)
    flushed: dict[str, _File | _Folder] = field(default_factory=dict)


#: The part of unflushed data that survives a power cut.
NOTHING, NAMES, ANY = "nothing", "names without data", "anything"


class Disk:
    """A disk on which calls are replayed.

    Parameters
    ----------
    root : Path
        The only folder of the disk; durable and empty.
    """

    def __init__(self, root: Path) -> None:
        self._at = str(root)
        self._root = _Folder()

    def carry_out(self, call: Call) -> None:
        """Replay one call."""
        if call.name == "mark":
            return
        if call.name == "fsync":
            entry = self._find(call.path)
            if isinstance(entry, _File):
                entry.flushed = entry.content
            else:
                entry.flushed = dict(entry.names)
            return
        if call.name == "write":
            file = self._find(call.path)
            assert isinstance(file, _File)
            file.content += call.data
            return
        folder, name = self._place(call.path)
        if call.name == "unlink":
            del folder.names[name]
        elif call.name == "mkdir":
            folder.names[name] = _Folder()
        elif call.name == "create":
            folder.names[name] = _File()
        else:
            old, old_name = self._place(call.data)
            folder.names[name] = old.names[old_name]
            if call.name == "replace":
                del old.names[old_name]

    def _place(self, path: str) -> tuple[_Folder, str]:
        parent, _, name = path.rpartition("/")
        folder = self._find(parent)
        assert isinstance(folder, _Folder)
        return folder, name

    def _find(self, path: str) -> _File | _Folder:
        entry: _File | _Folder = self._root
        for part in Path(path).relative_to(self._at).parts:
            assert isinstance(entry, _Folder)
            entry = entry.names[part]
        return entry

    def after_power_cut(self, survives: str, rng: np.random.Generator) -> dict[str, bytes]:
        """Return files that may exist after a power cut, by path under the root.

        Parameters
        ----------
        survives : str
            The part of unflushed data that survives: ``NOTHING``, ``NAMES`` or ``ANY``.
        rng : numpy.random.Generator
            Chooses the surviving part for ``ANY``.
        """
        files: dict[str, bytes] = {}
        self._collect(self._root, "", survives, rng, files)
        return files

    def _collect(
        self,
        folder: _Folder,
        prefix: str,
        survives: str,
        rng: np.random.Generator,
        files: dict[str, bytes],
    ) -> None:
        for name in sorted({*folder.names, *folder.flushed}):
            old, new = folder.flushed.get(name), folder.names.get(name)
            if old is not new:
                # This change of the folder was not flushed.
                survived = {NOTHING: False, NAMES: True}.get(survives, bool(rng.integers(2)))
                new = new if survived else old
            if isinstance(new, _Folder):
                self._collect(new, f"{prefix}{name}/", survives, rng, files)
            elif new is not None:
                files[f"{prefix}{name}"] = _content(new, survives, rng)


def _content(file: _File, survives: str, rng: np.random.Generator) -> bytes:
    if survives != ANY or file.flushed == file.content:
        return file.flushed
    length = int(rng.integers(len(file.flushed), len(file.content), endpoint=True))
    return file.content[:length]


def without(calls: Sequence[Call], name: str, *, ending: str) -> list[Call]:
    """Return the calls without those of one name, as a careless program would make them."""
    return [call for call in calls if call.name != name or not call.path.endswith(ending)]
