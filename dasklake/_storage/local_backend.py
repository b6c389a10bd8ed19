"""Store objects as files of a local disk: atomic, durable, and exclusive on request.

Every write goes to a temporary file beside the target, which is flushed to the disk. Then it takes
the name of the target: by ``rename``, or by ``link`` for an exclusive creation. At last the
directory is flushed, and every directory above it that this process has not flushed yet. A power
failure leaves the complete object or nothing.

A lake from an untrusted source may contain symbolic links, pipes and devices. If the backend is
confined, nothing is read, written or deleted through a link that leaves the root, and only regular
files are opened.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from os import preadv
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from dasklake._storage.memory_pool import Allocate, Check
from dasklake.exceptions import CorruptionError, UnsupportedStoreError

_NO_LINK = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_NO_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM}
_TEMPORARY = re.compile(r"\.(?P<target>.+)\.[0-9a-f]{16}\.tmp")

#: Maximum number of bytes that Linux writes in one call.
_MOST_BYTES = 0x7FFFF000

#: Opening a pipe must not block, and a link must not be followed unchecked.
_READ = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOFOLLOW", 0)
)
_IS_LINK = {errno.ELOOP, errno.EMLINK}


def temporary_target(key: str) -> str | None:
    """Return the target key of a temporary file, or None for any other key.

    Examples
    --------
    >>> temporary_target("data/main/run/.0-1-aa-0.arrow.0123456789abcdef.tmp")
    'data/main/run/0-1-aa-0.arrow'
    """
    folder, slash, name = key.rpartition("/")
    match = _TEMPORARY.fullmatch(name)
    return f"{folder}{slash}{match.group('target')}" if match else None


class LocalBackend:
    """Files under one directory, by relative path.

    Parameters
    ----------
    root : str
        Absolute path of the directory; the first write creates it.
    confined : bool, default True
        Refuse symbolic links that leave the directory.
    """

    local = True
    shared = True
    writable = True

    #: Directories whose entries in their parent directories this process has flushed.
    _durable: ClassVar[set[Path]] = set()

    def __init__(self, root: str, *, confined: bool = True) -> None:
        self._root = Path(root)
        self._confined = confined
        #: Directories that were checked before the first read from them.
        self._checked: set[str] = set()
        #: Becomes False when the file system refuses a hard link.
        self.creates_exclusively = True

    def put(self, key: str, data: memoryview) -> None:
        """Write a file, or replace it atomically."""
        target = self._target(key)
        with self._temporary_file(target, data) as (temporary, _):
            temporary.replace(target)
            self._make_durable(target.parent)

    def create(self, key: str, data: memoryview, *, single_writer: bool) -> None:
        """Write a file that must not exist yet."""
        target = self._target(key)
        with self._temporary_file(target, data) as (temporary, fd):
            try:
                os.link(temporary, target)
            except OSError as error:
                # A network file system may send the request twice; the second one fails.
                if os.fstat(fd).st_nlink != 2:
                    self._check_refusal(error, target, single_writer=single_writer)
                    temporary.replace(target)
            self._make_durable(target.parent)

    def _check_refusal(self, error: OSError, target: Path, *, single_writer: bool) -> None:
        """Return if a rename may replace a refused link: there is only one writer."""
        if error.errno not in _NO_LINK:
            raise error
        self.creates_exclusively = False
        if target.exists():
            raise FileExistsError(errno.EEXIST, "the file exists") from error
        if single_writer:
            return
        raise UnsupportedStoreError(
            f"The file system of {target.parent} must support hard links, to create files "
            "exclusively. Use another file system, or single_writer=True if there is only one "
            "writer."
        ) from error

    @contextmanager
    def _temporary_file(self, target: Path, data: memoryview) -> Iterator[tuple[Path, int]]:
        """Flush the data to a temporary file, and remove the file after the block."""
        temporary = target.parent / f".{target.name}.{secrets.token_hex(8)}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        try:
            fd = os.open(temporary, flags, 0o666)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._durable.clear()
            fd = os.open(temporary, flags, 0o666)
        try:
            start = 0
            while start < len(data):
                start += os.write(fd, data[start : start + _MOST_BYTES])
            os.fsync(fd)
            yield temporary, fd
        finally:
            os.close(fd)
            with suppress(FileNotFoundError):
                temporary.unlink()

    def _make_durable(self, folder: Path) -> None:
        """Flush a directory, and those above it that may have unflushed entries."""
        _fsync(folder)
        while folder not in self._durable and folder.parent != folder:
            _fsync(folder.parent)
            self._durable.add(folder)
            folder = folder.parent

    def sync(self, key: str) -> None:
        """Flush the directory that holds a file."""
        self._make_durable((self._root / key).parent)

    def get(self, key: str, max_bytes: int | None = None) -> bytes:
        """Read a file, or at most its first ``max_bytes`` bytes."""
        with open(self._open(key), "rb") as file:  # noqa: PTH123 # a descriptor
            if max_bytes is None:
                return file.read()
            # read() allocates the requested length, even if the file is shorter.
            return file.read(min(max_bytes, os.fstat(file.fileno()).st_size))

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read parts of a file; parts beyond its end are returned short."""
        # Opening the file each time costs 2 µs and never reads a file that was replaced.
        fd = self._open(key)
        try:
            return [_read(fd, start, stop) for start, stop in ranges]
        finally:
            os.close(fd)

    def get_arrays(
        self, key: str, ranges: Sequence[tuple[int, int]], allocate: Allocate, check: Check
    ) -> list[npt.NDArray[np.uint8]]:
        """Read and check parts of a file as arrays; parts beyond its end are returned short.

        Files are not mapped into memory: if a mapped file were truncated, the process would be
        killed.
        """
        fd = self._open(key)
        try:
            size = os.fstat(fd).st_size
            sizes = [max(0, min(stop, size) - start) for start, stop in ranges]
            arrays, unread, memory, used = [], sum(sizes), np.empty(0, np.uint8), 0
            for (start, stop), length in zip(ranges, sizes, strict=True):
                if used + length > len(memory):
                    memory, used = allocate(length, unread), 0
                data = memory[used : used + length]
                if preadv(fd, [data.data], start) < length:
                    data = _read_array(fd, start, data)
                if len(data) == stop - start:
                    check(start, data)  # while the data are in the processor's cache
                arrays.append(data)
                used += length
                unread -= length
            return arrays
        finally:
            os.close(fd)

    def _open(self, key: str) -> int:
        """Open a regular file of the lake."""
        path = f"{self._root}/{key}"
        if self._confined:
            folder = key.rpartition("/")[0]
            if folder not in self._checked:
                self._resolve(folder)
                self._checked.add(folder)
            try:
                fd = os.open(path, _READ)
            except OSError as error:
                if error.errno not in _IS_LINK:
                    raise
                fd = os.open(self._resolve(key), _READ)
        else:
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode):
            return fd
        os.close(fd)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "it is a directory")
        raise CorruptionError(
            f"{path} must be a regular file, and is a pipe or a device. Remove it."
        )

    def _resolve(self, key: str) -> str:
        """Resolve the symbolic links of a path.

        Raises
        ------
        CorruptionError
            The resolved path is outside the root.
        """
        path = f"{self._root}/{key}" if key else str(self._root)
        if not self._confined:
            return path
        root, real = os.path.realpath(self._root), os.path.realpath(path)
        if real != root and not real.startswith(f"{root.rstrip(os.sep)}{os.sep}"):
            raise CorruptionError(
                f"{path} leaves the root of the lake through a symbolic link. Remove the link, or "
                "replace it by its target."
            )
        return real

    def _target(self, key: str) -> Path:
        """Return the path of a file to write or remove; a link in its place is not followed."""
        self._resolve(key.rpartition("/")[0])
        return self._root / key

    def size(self, key: str) -> int:
        """Return the length of a file."""
        status = Path(self._resolve(key)).stat()
        if stat.S_ISDIR(status.st_mode):
            raise FileNotFoundError(errno.ENOENT, "it is a directory")
        return status.st_size

    def names(self, prefix: str) -> list[str]:
        """Return the names in a directory; empty if it does not exist."""
        with suppress(FileNotFoundError, NotADirectoryError):
            names = (path.name for path in Path(self._resolve(prefix)).iterdir())
            return sorted(name for name in names if not _TEMPORARY.fullmatch(name))
        return []

    def walk(self, prefix: str) -> list[tuple[str, int]]:
        """Return the keys and lengths of all files under a directory, including temporary ones.

        Links to directories are not entered, and links that leave the root are not listed.
        """
        self._resolve(prefix)
        files: list[tuple[str, int]] = []
        folders = [prefix]
        while folders:
            folder = folders.pop()
            with (
                suppress(FileNotFoundError, NotADirectoryError),
                os.scandir(self._root / folder) as entries,
            ):
                for entry in entries:
                    key = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(key)
                        continue
                    # A file may have been deleted since the directory was read.
                    with suppress(FileNotFoundError, CorruptionError):
                        if entry.is_symlink():
                            self._resolve(key)
                        size = entry.stat().st_size
                        files.append((key, size))
        return files

    def pending_uploads(self, prefix: str) -> list[tuple[str, str]]:  # noqa: ARG002 # as other backends
        """Return an empty list: a disk has only temporary files."""
        return []

    def abort_upload(self, key: str, upload: str) -> None:
        """Do nothing: a disk has no uploads."""

    def delete(self, key: str) -> None:
        """Remove a file."""
        self._target(key).unlink(missing_ok=True)


def _read(fd: int, start: int, stop: int) -> bytes:
    parts: list[bytes] = []
    while start < stop and (part := os.pread(fd, stop - start, start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def _read_array(fd: int, start: int, data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Fill an array with several reads; return a shorter one if the file ends before."""
    count = 0
    while count < len(data):
        more = preadv(fd, [data.data[count:]], start + count)
        if not more:
            break
        count += more
    return data[:count]


def _fsync(folder: Path) -> None:
    try:
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        # Directories above the root may belong to another user, and some network file systems
        # flush directories by themselves and refuse the request.
        if error.errno not in _NO_FSYNC:
            raise
