"""A disk that loses power: what a process asks of the system, and what of it would be left.

:class:`Recorder` notes each call that changes files, in the order in which they were carried out.
:class:`Disk` carries them out again in memory and says, after any number of them, what a power cut
may leave: what was flushed, and of the rest as much or as little as chance will have it.
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
    """A call to the system that was carried out; or ``mark``, something that the test notes.

    ``path`` is the file, or its new name; ``data`` what was written, or the old name.
    """

    name: str
    path: str
    data: Any = None


class Recorder:
    """Notes the calls of this process by which files under a root change.

    Parameters
    ----------
    root : Path
        Everything elsewhere is nobody's business.
    """

    def __init__(self, root: Path) -> None:
        self.calls: list[Call] = []
        self._root = str(root)
        # A call and its note are one step, so that the order is that of the disk.
        self._lock = threading.RLock()

    def mark(self, what: str, data: Any) -> None:
        """Note something else that happened."""
        with self._lock:
            self.calls.append(Call("mark", what, data))

    @contextmanager
    def recording(self) -> Iterator[Recorder]:
        """Note what happens meanwhile."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("open", "write", "fsync", "link", "replace", "unlink", "mkdir"):
                patch.setattr(os, name, self._noting(name, getattr(os, name)))
            yield self

    def _noting(self, name: str, real: Any) -> Any:
        def call(first: Any, *args: Any, **kwargs: Any) -> Any:
            with self._lock:
                place = self._path(first)
                if place is None:
                    return real(first, *args, **kwargs)
                result = real(first, *args, **kwargs)
                self._note(name, place, args, result)
                return result

        return call

    def _path(self, what: Any) -> str | None:
        path = str(Path(f"/proc/self/fd/{what}").readlink() if isinstance(what, int) else what)
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


#: What a power cut leaves of what was not flushed.
NOTHING, NAMES, ANY = "nothing", "names without data", "anything"


class Disk:
    """A disk on which calls are carried out.

    Parameters
    ----------
    root : Path
        Its one folder, which is durable and empty.
    """

    def __init__(self, root: Path) -> None:
        self._at = str(root)
        self._root = _Folder()

    def carry_out(self, call: Call) -> None:
        """Carry out one call."""
        if call.name == "mark":
            return
        if call.name == "fsync":
            found = self._find(call.path)
            if isinstance(found, _File):
                found.flushed = found.content
            else:
                found.flushed = dict(found.names)
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
        found: _File | _Folder = self._root
        for part in Path(path).relative_to(self._at).parts:
            assert isinstance(found, _Folder)
            found = found.names[part]
        return found

    def after_power_cut(self, survives: str, rng: np.random.Generator) -> dict[str, bytes]:
        """Return the files that may be found when the power is back, by path under the root.

        Parameters
        ----------
        survives : str
            What of that which was not flushed: ``NOTHING``, ``NAMES`` or ``ANY``.
        rng : numpy.random.Generator
            Chooses, for ``ANY``.
        """
        found: dict[str, bytes] = {}
        self._collect(self._root, "", survives, rng, found)
        return found

    def _collect(
        self,
        folder: _Folder,
        prefix: str,
        survives: str,
        rng: np.random.Generator,
        found: dict[str, bytes],
    ) -> None:
        for name in sorted({*folder.names, *folder.flushed}):
            old, new = folder.flushed.get(name), folder.names.get(name)
            if old is not new:
                # This change of the folder was not flushed.
                kept = {NOTHING: False, NAMES: True}.get(survives, bool(rng.integers(2)))
                new = new if kept else old
            if isinstance(new, _Folder):
                self._collect(new, f"{prefix}{name}/", survives, rng, found)
            elif new is not None:
                found[f"{prefix}{name}"] = _content(new, survives, rng)


def _content(file: _File, survives: str, rng: np.random.Generator) -> bytes:
    if survives != ANY or file.flushed == file.content:
        return file.flushed
    length = int(rng.integers(len(file.flushed), len(file.content), endpoint=True))
    return file.content[:length]


def without(calls: Sequence[Call], name: str, *, ending: str) -> list[Call]:
    """Return the calls as a careless program would have made them: some are left out."""
    return [call for call in calls if call.name != name or not call.path.endswith(ending)]
