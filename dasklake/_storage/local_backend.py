"""Objects as files of a local disk: atomic, exclusive where asked for, and durable.

Every write goes to a file of its own beside the target, is flushed to the disk, then takes the
target's name: by ``rename``, or by ``link`` where it must be the first. Then the directory is
flushed, and so is every directory above it that this process has not flushed yet: a power cut
leaves either the whole object or nothing.

A lake that came from somebody else may hold symbolic links, pipes and devices. Unless told
otherwise nothing is read, written or deleted through a link that leaves the root, and only plain
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
from pathlib import Path
from typing import ClassVar

from dasklake.exceptions import CorruptionError, UnsupportedStoreError

__all__ = ["LocalBackend", "temporary_target"]

_NO_LINK = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_NO_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM}
_TEMPORARY = re.compile(r"\.(?P<target>.+)\.[0-9a-f]{16}\.tmp")

#: Linux moves at most this much in one call.
_MOST_BYTES = 0x7FFFF000

#: A pipe must not make its reader wait, and a link must not be followed unseen.
_READ = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOFOLLOW", 0)
)
_IS_LINK = {errno.ELOOP, errno.EMLINK}


def temporary_target(key: str) -> str | None:
    """Return the key that a half-written file was meant for; None for any other key.

    Examples
    --------
    >>> temporary_target("data/main/run/.0-1-aa-0.arrow.0123456789abcdef.tmp")
    'data/main/run/0-1-aa-0.arrow'
    """
    folder, slash, name = key.rpartition("/")
    match = _TEMPORARY.fullmatch(name)
    return f"{folder}{slash}{match.group('target')}" if match else None


class LocalBackend:
    """Files under one directory, by paths relative to it.

    Parameters
    ----------
    root : str
        Absolute path of the directory; made by the first write.
    confined : bool, default True
        Refuse symbolic links that leave the directory.
    """

    shared = True
    writable = True

    #: Directories whose names this process has flushed into the directories above them.
    _durable: ClassVar[set[Path]] = set()

    def __init__(self, root: str, *, confined: bool = True) -> None:
        self._root = Path(root)
        self._confined = confined
        #: Directories that were looked at before something was read from them.
        self._seen: set[str] = set()
        #: False once the file system has refused to link.
        self.creates_exclusively = True

    def put(self, key: str, data: memoryview) -> None:
        """Write a whole file, over what was there."""
        target = self._target(key)
        with self._written(target, data) as (temporary, _):
            temporary.replace(target)
            self._make_durable(target.parent)

    def create(self, key: str, data: memoryview, *, single_writer: bool) -> None:
        """Write a whole file that must not be there yet."""
        target = self._target(key)
        with self._written(target, data) as (temporary, fd):
            try:
                os.link(temporary, target)
            except OSError as error:
                # A network file system may have sent the request twice: then the first was ours.
                if os.fstat(fd).st_nlink != 2:
                    self._check_refusal(error, target, single_writer=single_writer)
                    temporary.replace(target)
            self._make_durable(target.parent)

    def _check_refusal(self, error: OSError, target: Path, *, single_writer: bool) -> None:
        """Return if a refused link may be replaced by a rename: nobody else writes here."""
        if error.errno not in _NO_LINK:
            raise error
        self.creates_exclusively = False
        if target.exists():
            raise FileExistsError(errno.EEXIST, "the file exists") from error
        if single_writer:
            return
        raise UnsupportedStoreError(
            f"The file system of {target.parent} has no hard links, so that no file can be made "
            "exclusively. Use another one, or single_writer=True where nobody else writes."
        ) from error

    @contextmanager
    def _written(self, target: Path, data: memoryview) -> Iterator[tuple[Path, int]]:
        """Have the data on the disk under a name of its own, gone afterwards."""
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
        """Flush a directory, and those above it that may hold names nobody has flushed."""
        _fsync(folder)
        above = folder
        while above not in self._durable and above.parent != above:
            _fsync(above.parent)
            self._durable.add(above)
            above = above.parent

    def sync(self, key: str) -> None:
        """Flush the directory that holds a file."""
        self._make_durable((self._root / key).parent)

    def get(self, key: str, most: int | None = None) -> bytes:
        """Read a whole file, or no more than its first ``most`` bytes."""
        with open(self._open(key), "rb") as file:  # noqa: PTH123 # it is open already
            if most is None:
                return file.read()
            # Memory is set aside for what is asked for, even where the file is short.
            return file.read(min(most, os.fstat(file.fileno()).st_size))

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read parts of a file; what lies beyond its end is left out."""
        # Opening anew costs 2 µs and can never hand out a file that was replaced meanwhile.
        fd = self._open(key)
        try:
            return [_read(fd, start, stop) for start, stop in ranges]
        finally:
            os.close(fd)

    def _open(self, key: str) -> int:
        """Open a plain file of the lake."""
        path = f"{self._root}/{key}"
        if self._confined:
            folder = key.rpartition("/")[0]
            if folder not in self._seen:
                self._inside(folder)
                self._seen.add(folder)
            try:
                fd = os.open(path, _READ)
            except OSError as error:
                if error.errno not in _IS_LINK:
                    raise
                fd = os.open(self._inside(key), _READ)
        else:
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode):
            return fd
        os.close(fd)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "it is a directory")
        raise CorruptionError(f"{path} is a pipe or a device, and no file. Remove it.")

    def _inside(self, key: str) -> str:
        """Return where a path leads to in the end.

        Raises
        ------
        CorruptionError
            Symbolic links lead it out of the root.
        """
        path = f"{self._root}/{key}" if key else str(self._root)
        if not self._confined:
            return path
        root, real = os.path.realpath(self._root), os.path.realpath(path)
        if real != root and not real.startswith(f"{root.rstrip(os.sep)}{os.sep}"):
            raise CorruptionError(
                f"{path} leaves the root of the lake through a symbolic link. Remove the link, or "
                "put there what it leads to."
            )
        return real

    def _target(self, key: str) -> Path:
        """Return the path of a file that is written or removed; a link there is not followed."""
        self._inside(key.rpartition("/")[0])
        return self._root / key

    def size(self, key: str) -> int:
        """Return the length of a file."""
        found = Path(self._inside(key)).stat()
        if stat.S_ISDIR(found.st_mode):
            raise FileNotFoundError(errno.ENOENT, "it is a directory")
        return found.st_size

    def names(self, prefix: str) -> list[str]:
        """Return the names in a directory; none where there is no directory."""
        with suppress(FileNotFoundError, NotADirectoryError):
            found = (path.name for path in Path(self._inside(prefix)).iterdir())
            return sorted(name for name in found if not _TEMPORARY.fullmatch(name))
        return []

    def walk(self, prefix: str) -> list[tuple[str, int]]:
        """Return the keys and lengths of all files under a directory, half-written ones too.

        Links to directories are not entered, and links that leave the root are not listed.
        """
        self._inside(prefix)
        found: list[tuple[str, int]] = []
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
                    # A file that went away since the directory was read is not listed.
                    with suppress(FileNotFoundError, CorruptionError):
                        if entry.is_symlink():
                            self._inside(key)
                        size = entry.stat().st_size
                        found.append((key, size))
        return found

    def pending_uploads(self, prefix: str) -> list[tuple[str, str]]:  # noqa: ARG002 # as other backends
        """Return nothing: a disk has none; what is half-written is a temporary file."""
        return []

    def abort_upload(self, key: str, upload: str) -> None:
        """Do nothing: there are none."""

    def delete(self, key: str) -> None:
        """Remove a file."""
        self._target(key).unlink(missing_ok=True)


def _read(fd: int, start: int, stop: int) -> bytes:
    found = os.pread(fd, stop - start, start)
    if len(found) == stop - start or not found:
        return found
    parts = [found]
    place = start + len(found)
    while place < stop and (part := os.pread(fd, stop - place, place)):
        parts.append(part)
        place += len(part)
    return b"".join(parts)


def _fsync(folder: Path) -> None:
    try:
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        # Directories above the root may belong to others, and some network file systems flush
        # directories by themselves and refuse to be asked.
        if error.errno not in _NO_FSYNC:
            raise
