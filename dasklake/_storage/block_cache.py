"""Blocks of immutable objects on a local disk, shared by the processes of a machine.

::

    <directory>/dasklake-<user id>/
        lock                   bytes in use; processes lock it to change the number or to evict
        <digest>.blocks        a sparse file for each object: the record of each block at its place

A record is a header and up to 64 KiB. The header has a crc32c of the name of the object, the number
of the block and its bytes, so a block that was not written completely counts as missing: after a
crash, nothing has to be repaired. A file is written only at the places of its blocks and never
renamed, so any number of processes write it at the same time.

Before a block is written, its bytes are added to the number in ``lock``. If that would exceed the
limit, or leave other programs too little of the disk, the files that were not used for the longest
time are removed. A process that waits for the lock for too long continues without storing the block.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import struct
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import NamedTuple

import google_crc32c
import numpy as np

from dasklake.exceptions import InvalidInputError

#: Bytes of a block. Smaller ones take more calls, larger ones fetch more than was requested.
BLOCK = 64 * 2**10

#: Magic number, crc32c, and number of bytes.
_HEADER = struct.Struct("<4sIQ")
_MAGIC = b"DLB1"
_RECORD = _HEADER.size + BLOCK

#: Most bytes that a block takes on a disk beside its own: its header, and a page of the file system.
_OVERHEAD = _HEADER.size + 4096

_LOCK = "lock"
_SUFFIX = ".blocks"
_USED = struct.Struct("<Q")

#: Share of the limit that an eviction leaves.
_KEPT = 0.9

#: Part of the disk that stays free for other programs: a share of it, and at most some bytes.
_FREE_SHARE, _MOST_FREE = 0.05, 2**30

#: Blocks that are written after one change of the number of bytes in use.
_LOT = 16

#: Longest time to wait for the lock, and time without writes after an error, in seconds.
_WAIT = 0.2
_PAUSE = 60.0

#: Time after which a file is marked as used again, in seconds.
_TOUCH = 60.0

_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)


class CacheSettings(NamedTuple):
    """The directory of a cache and its limit.

    Attributes
    ----------
    directory : str
        Absolute path of the directory, on each machine.
    size : int
        Most bytes that the cache takes.
    """

    directory: str
    size: int


class BlockCache:
    """A cache of blocks. Errors of its disk are reported once, as a warning, and never raised.

    Parameters
    ----------
    settings : CacheSettings
        Directory and limit.
    """

    def __init__(self, settings: CacheSettings) -> None:
        self._settings = settings
        self._warned = False
        self._paused_until = 0.0

    def read(self, name: str, numbers: Sequence[int]) -> dict[int, memoryview]:
        """Return the blocks of an object that are stored undamaged.

        Parameters
        ----------
        name : str
            Name of the object, unique for all storages.
        numbers : sequence of int
            Numbers of the blocks, in increasing order.
        """
        digest = _digest(name)
        blocks: dict[int, memoryview] = {}
        with self._guarded("read"), self._directory() as directory:
            try:
                fd = os.open(_file_name(digest), os.O_RDONLY | _FLAGS, dir_fd=directory)
            except FileNotFoundError:
                return blocks
            try:
                for first, last in _runs(numbers):
                    data = os.pread(fd, (last - first + 1) * _RECORD, first * _RECORD)
                    blocks.update(_valid_blocks(digest, first, data))
                if blocks and time.time() - os.fstat(fd).st_mtime > _TOUCH:
                    os.utime(fd)
            finally:
                os.close(fd)
        return blocks

    def write(self, name: str, blocks: Mapping[int, memoryview]) -> None:
        """Store blocks of an object, as far as the limit and the disk allow.

        Parameters
        ----------
        name : str
            Name of the object.
        blocks : mapping of int to memoryview
            Blocks by number. One that is shorter than a block ends the object.
        """
        if time.monotonic() < self._paused_until:
            return
        digest, numbers = _digest(name), list(blocks)
        with self._guarded("written"), self._directory() as directory:
            for at in range(0, len(numbers), _LOT):
                lot = numbers[at : at + _LOT]
                size = sum(_OVERHEAD + len(blocks[number]) for number in lot)
                if not self._reserve(directory, size):
                    return
                flags = os.O_WRONLY | os.O_CREAT | _FLAGS
                fd = os.open(_file_name(digest), flags, 0o600, dir_fd=directory)
                try:
                    for number in lot:
                        _write_block(fd, digest, number, blocks[number])
                finally:
                    os.close(fd)

    def forget(self, name: str) -> bool:
        """Remove an object; return whether it was there."""
        removed = False
        with (
            self._guarded("changed"),
            self._directory() as directory,
            suppress(FileNotFoundError),
        ):
            os.unlink(_file_name(_digest(name)), dir_fd=directory)
            removed = True
        return removed

    def _reserve(self, directory: int, size: int) -> bool:
        """Count bytes before they are written; return False if they must not be written."""
        with _locked(directory) as lock:
            if lock is None:
                return False
            data = os.pread(lock, _USED.size, 0)
            # The first process counts what an earlier directory may hold.
            used = _USED.unpack(data)[0] if len(data) == _USED.size else self._settings.size
            if used + size > min(self._settings.size, used + _free_bytes(directory)):
                files = _files(directory)
                in_use = sum(file.size for file in files)
                limit = min(self._settings.size, in_use + _free_bytes(directory))
                used = _evict(directory, files, int(limit * _KEPT) - size)
            fits = used + size <= self._settings.size
            has_space = size <= _free_bytes(directory)
            os.pwrite(lock, _USED.pack(used + size if fits and has_space else used), 0)
            if not has_space:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return bool(fits)

    @contextmanager
    def _directory(self) -> Iterator[int]:
        """Open the private directory; it is created and checked each time."""
        path = private_directory(self._settings.directory)
        fd = open_private(path)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _guarded(self, operation: str) -> Iterator[None]:
        """Warn of an error of the disk once, and do not write for some time."""
        try:
            yield
        except (OSError, InvalidInputError) as error:
            self._paused_until = time.monotonic() + _PAUSE
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"The cache in {self._settings.directory} cannot be {operation} "
                    f"({type(error).__name__}: {error}). Reading continues from the storage; free "
                    "some space, or use another directory.",
                    UserWarning,
                    stacklevel=2,
                )


def private_directory(directory: str) -> str:
    """Return the path of the part of a cache that belongs to the current user."""
    return f"{directory}/dasklake-{os.geteuid()}"


def open_private(path: str) -> int:
    """Open a directory that only the current user can use; create it if necessary.

    Raises
    ------
    InvalidInputError
        Another user owns it or can write to it, or it is a link: the blocks could be changed.
    OSError
        It cannot be created.
    """
    with suppress(FileExistsError):
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 # strings are faster
        os.mkdir(path, 0o700)  # noqa: PTH102 # as above
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)
    except NotADirectoryError as error:
        raise InvalidInputError(
            f"{path} must be a directory of the current user, and is a link or a file. Remove it, or "
            "use another directory for the cache."
        ) from error
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        os.close(fd)
        raise InvalidInputError(
            f"{path} must be a directory that only the current user can read and write. Remove it, "
            "run chmod 700, or use another directory for the cache."
        )
    return fd


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _file_name(digest: bytes) -> str:
    return f"{digest.hex()}{_SUFFIX}"


def _checksum(digest: bytes, number: int, data: memoryview) -> int:
    position = google_crc32c.value(digest + number.to_bytes(8, "little"))
    # The library accepts arrays, but not views of bytes.
    return int(position ^ google_crc32c.value(np.frombuffer(data, np.uint8) if data else b""))


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last number of each sequence of consecutive ones."""
    if not numbers:
        return
    breaks = [at for at, (a, b) in enumerate(pairwise(numbers), 1) if b != a + 1]
    for begin, end in pairwise([0, *breaks, len(numbers)]):
        yield numbers[begin], numbers[end - 1]


def _valid_blocks(digest: bytes, first: int, data: bytes) -> Iterator[tuple[int, memoryview]]:
    """Yield the undamaged blocks of consecutive records."""
    view = memoryview(data)
    for number, at in enumerate(range(0, len(data) - _HEADER.size + 1, _RECORD), first):
        magic, crc, size = _HEADER.unpack_from(view, at)
        block = view[at + _HEADER.size : at + _HEADER.size + min(size, BLOCK)]
        if magic == _MAGIC and len(block) == size and _checksum(digest, number, block) == crc:
            yield number, block


def _write_block(fd: int, digest: bytes, number: int, block: memoryview) -> None:
    header = _HEADER.pack(_MAGIC, _checksum(digest, number, block), len(block))
    if os.pwritev(fd, [header, block], number * _RECORD) != len(header) + len(block):
        # The system reports why only when the next bytes are written.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def _locked(directory: int) -> Iterator[int | None]:
    """Open and lock the file with the number of bytes in use; None if others hold it for long."""
    fd = os.open(_LOCK, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600, dir_fd=directory)
    try:
        deadline = time.monotonic() + _WAIT
        while not _try_lock(fd):
            if time.monotonic() > deadline:
                yield None
                return
            time.sleep(0.001)
        yield fd
    finally:
        # Closing releases the lock, as the end of a process does.
        os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _free_bytes(directory: int) -> int:
    """Return the bytes of the disk that the cache may still take; negative if it has too many."""
    disk = os.fstatvfs(directory)
    reserved = min(_FREE_SHARE * disk.f_blocks, _MOST_FREE / disk.f_frsize)
    return int((disk.f_bavail - reserved) * disk.f_frsize)


class _File(NamedTuple):
    """The time at which a file was used last, in nanoseconds, its bytes on the disk, and its name."""

    used_at: int
    size: int
    name: str


def _files(directory: int) -> list[_File]:
    files = []
    with os.scandir(directory) as entries:
        for entry in entries:
            # Another process may have removed it.
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if entry.name.endswith(_SUFFIX):
                    files.append(_File(status.st_mtime_ns, status.st_blocks * 512, entry.name))
    return files


def _evict(directory: int, files: Sequence[_File], limit: int) -> int:
    """Remove the files that were used least recently; return the bytes that are in use then."""
    used = sum(file.size for file in files)
    for file in sorted(files, key=lambda file: file.used_at):
        if used <= limit:
            break
        with suppress(FileNotFoundError):
            os.unlink(file.name, dir_fd=directory)
        used -= file.size
    return used
