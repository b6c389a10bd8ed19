"""A file system in memory that counts the bytes it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

__all__ = ["CountingFileSystem", "counting_files"]


class CountingFileSystem(MemoryFileSystem):  # type: ignore[misc] # fsspec has no types
    """Files under ``counted://``, and the reads since the last :meth:`reset`."""

    protocol = "counted"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    reads: ClassVar[list[tuple[str, int]]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        path = path.removeprefix("counted://")
        return str(MemoryFileSystem._strip_protocol(f"memory://{path.lstrip('/')}"))

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        """Read a range of a file."""
        data: bytes = super().cat_file(path, start=start, end=end, **kwargs)
        self.reads.append((path, len(data)))
        return data

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        file = super()._open(path, mode, **kwargs)
        if "r" in mode:
            self.reads.append((path, len(file.getbuffer())))
        return file

    @classmethod
    def reset(cls) -> None:
        """Forget the reads so far."""
        cls.reads.clear()

    @classmethod
    def bytes_read(cls) -> int:
        """Return the bytes of all reads since the last reset."""
        return sum(size for _, size in cls.reads)

    @classmethod
    def files_read(cls) -> set[str]:
        """Return the files that were read since the last reset."""
        return {path for path, _ in cls.reads}


@pytest.fixture
def counting_files() -> Iterator[type[CountingFileSystem]]:
    """Register the file system, without files or reads."""
    fsspec.register_implementation("counted", CountingFileSystem, clobber=True)
    CountingFileSystem.store.clear()
    CountingFileSystem.reset()
    yield CountingFileSystem
    CountingFileSystem.store.clear()
