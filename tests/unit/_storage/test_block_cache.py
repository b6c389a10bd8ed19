"""Test the local cache of blocks: checksums, limit, directory and failing disks."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dasklake._storage import block_cache
from dasklake._storage.block_cache import BLOCK, BlockCache, CacheSettings
from dasklake.exceptions import InvalidInputError

SIZE = 64 * 2**20


def _block(seed: int, size: int = BLOCK) -> memoryview:
    return memoryview(bytes([seed % 251]) * size)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.blocks"))


@pytest.fixture
def cache(tmp_path: Path) -> BlockCache:
    """Make a cache in an empty directory."""
    return BlockCache(CacheSettings(str(tmp_path), SIZE))


def test_blocks_are_read_back(cache: BlockCache, tmp_path: Path) -> None:
    """Stored blocks are found, also by another process; others are missing."""
    stored = {0: _block(1), 1: _block(2), 7: _block(3), 9: _block(4, 100), 10: _block(5, 0)}
    assert cache.read("a", [0, 1]) == {}
    cache.write("a", stored)
    again = BlockCache(CacheSettings(str(tmp_path), SIZE))
    assert again.read("a", list(range(12))) == stored
    assert again.read("a", [1, 2, 9]) == {1: stored[1], 9: stored[9]}
    assert again.read("a", []) == {}
    assert again.read("b", [0, 1]) == {}


def test_an_object_can_be_forgotten(cache: BlockCache) -> None:
    """A forgotten object is missing, and forgetting it again changes nothing."""
    cache.write("a", {0: _block(1)})
    assert cache.forget("a")
    assert not cache.forget("a")
    assert cache.read("a", [0]) == {}


@pytest.mark.parametrize("offset", [0, 5, 10, 16, 17, 16 + BLOCK - 1])
def test_a_damaged_record_is_missing(cache: BlockCache, tmp_path: Path, offset: int) -> None:
    """A changed bit in header or bytes hides that block, and only that one."""
    cache.write("a", {0: _block(1), 1: _block(2), 2: _block(3)})
    (path,) = _files(tmp_path)
    data = bytearray(path.read_bytes())
    data[16 + BLOCK + offset] ^= 1
    path.write_bytes(data)
    assert sorted(cache.read("a", [0, 1, 2])) == [0, 2]
    cache.write("a", {1: _block(2)})
    assert cache.read("a", [1]) == {1: _block(2)}


@pytest.mark.parametrize("length", [0, 3, 16, 100, 16 + BLOCK - 1, 16 + BLOCK + 7])
def test_a_truncated_file_holds_its_complete_blocks(
    cache: BlockCache, tmp_path: Path, length: int
) -> None:
    """A file that was cut, as after a power failure, has only its complete records."""
    cache.write("a", {0: _block(1), 1: _block(2)})
    (path,) = _files(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    assert sorted(cache.read("a", [0, 1])) == list(range(length // (16 + BLOCK)))


def test_a_record_of_another_object_is_missing(cache: BlockCache, tmp_path: Path) -> None:
    """A record counts only under its object and number."""
    cache.write("a", {0: _block(1), 1: _block(2)})
    cache.write("b", {0: _block(3), 1: _block(4)})
    first, second = _files(tmp_path)
    first.write_bytes(second.read_bytes())
    assert {**cache.read("a", [0, 1]), **cache.read("b", [0, 1])} in (
        {0: _block(3), 1: _block(4)},
        {0: _block(1), 1: _block(2)},
    )
    data = second.read_bytes()
    second.write_bytes(data[16 + BLOCK :] + data[: 16 + BLOCK])
    assert cache.read("a", [0, 1]) == cache.read("b", [0, 1]) == {}


def test_the_limit_holds(tmp_path: Path) -> None:
    """Files never take more than the limit, and those that were used last stay."""
    cache = BlockCache(CacheSettings(str(tmp_path), 32 * BLOCK))
    for number in range(12):
        cache.write(f"object {number}", {at: _block(number) for at in range(8)})
        os.utime(_newest(tmp_path), (number, number))
        used = sum(path.stat().st_blocks * 512 for path in _files(tmp_path))
        assert used <= 32 * BLOCK
    present = [n for n in range(12) if cache.read(f"object {n}", [0])]
    assert present == list(range(12 - len(present), 12))
    assert len(present) >= 2


def _newest(folder: Path) -> Path:
    return max(_files(folder), key=lambda path: path.stat().st_mtime_ns)


def test_reading_keeps_an_object(tmp_path: Path) -> None:
    """An old object that is read again is evicted after the others."""
    cache = BlockCache(CacheSettings(str(tmp_path), 40 * BLOCK))
    for name in "abc":
        cache.write(name, {at: _block(1) for at in range(8)})
        os.utime(_newest(tmp_path), (ord(name), ord(name)))
    assert cache.read("a", [3])
    cache.write("d", {at: _block(1) for at in range(16)})
    assert [name for name in "abcd" if cache.read(name, [0])] == ["a", "c", "d"]


def test_blocks_of_an_earlier_process_count(tmp_path: Path) -> None:
    """If the number of bytes in use was lost, the files are counted."""
    settings = CacheSettings(str(tmp_path), 20 * BLOCK)
    BlockCache(settings).write("a", {at: _block(1) for at in range(16)})
    next(tmp_path.glob("*/lock")).write_bytes(b"")
    BlockCache(settings).write("b", {at: _block(1) for at in range(12)})
    assert sum(path.stat().st_blocks * 512 for path in _files(tmp_path)) <= 20 * BLOCK


def test_only_the_user_can_read_the_cache(cache: BlockCache, tmp_path: Path) -> None:
    """Directory and files are private, and names show nothing of the object."""
    cache.write("s3://bucket/lake\0endpoint\0data/secret-name", {0: _block(1)})
    (path,) = _files(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert "secret" not in str(path)
    assert b"bucket" not in path.read_bytes()


def _refused(cache: BlockCache) -> None:
    with pytest.warns(UserWarning, match="current user"):
        cache.write("a", {0: _block(1)})


def test_a_link_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    """If another user puts a link where the directory will be, nothing is written through it."""
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    (tmp_path / f"dasklake-{os.geteuid()}").symlink_to(victim)
    cache = BlockCache(CacheSettings(str(tmp_path), SIZE))
    _refused(cache)
    assert cache.read("a", [0]) == {}
    assert list(victim.iterdir()) == []


def test_a_directory_that_others_can_use_is_refused(tmp_path: Path) -> None:
    """If others can write to the directory, or own it, its blocks are neither read nor written."""
    folder = tmp_path / f"dasklake-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o770)
    cache = BlockCache(CacheSettings(str(tmp_path), SIZE))
    _refused(cache)
    assert list(folder.iterdir()) == []


def test_a_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner of the directory must be the current user."""
    cache = BlockCache(CacheSettings(str(tmp_path), SIZE))
    cache.write("a", {0: _block(1)})
    folder = next(tmp_path.glob("dasklake-*"))
    folder.rename(tmp_path / f"dasklake-{os.geteuid() + 1}")
    user = os.geteuid() + 1
    monkeypatch.setattr("dasklake._storage.block_cache.os.geteuid", lambda: user)
    with pytest.warns(UserWarning, match="current user"):
        assert cache.read("a", [0]) == {}


def test_a_link_in_place_of_a_file_is_not_followed(cache: BlockCache, tmp_path: Path) -> None:
    """A link with the name of a file is an error of the cache, not a write to its target."""
    cache.write("a", {0: _block(1)})
    (path,) = _files(tmp_path)
    target = tmp_path / "target"
    target.write_bytes(b"untouched")
    path.unlink()
    path.symlink_to(target)
    with pytest.warns(UserWarning, match="cannot be written"):
        cache.write("a", {1: _block(1)})
    assert target.read_bytes() == b"untouched"


def test_a_failing_disk_is_reported_once(
    cache: BlockCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk gives one warning; stored blocks are still read, and writes pause."""
    cache.write("a", {0: _block(1)})
    calls = []

    def full(*args: Any) -> int:
        calls.append(args)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("dasklake._storage.block_cache.os.pwritev", full)
    with pytest.warns(UserWarning, match=r"cannot be written .*No space left.* storage") as warned:
        cache.write("b", {0: _block(1)})
    cache.write("c", {0: _block(1)})
    assert (len(calls), len(warned)) == (1, 1)
    assert cache.read("a", [0]) == {0: _block(1)}
    assert cache.read("b", [0]) == {}
    monkeypatch.undo()
    monkeypatch.setattr(block_cache, "_PAUSE", 0.0)
    cache._paused_until = 0.0
    cache.write("b", {0: _block(1)})
    assert cache.read("b", [0]) == {0: _block(1)}


def test_a_short_write_is_a_failure(cache: BlockCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk takes only a part of a block, the block is missing."""
    write = os.pwritev

    def half(fd: int, buffers: list[Any], offset: int) -> int:
        return write(fd, [buffers[0], buffers[1][:100]], offset)

    monkeypatch.setattr("dasklake._storage.block_cache.os.pwritev", half)
    with pytest.warns(UserWarning, match="No space left"):
        cache.write("a", {0: _block(1)})
    assert cache.read("a", [0]) == {}


def test_a_directory_that_cannot_be_made_is_reported_once(tmp_path: Path) -> None:
    """A path below a file gives one warning."""
    (tmp_path / "file").write_text("")
    cache = BlockCache(CacheSettings(str(tmp_path / "file" / "cache"), SIZE))
    with pytest.warns(UserWarning, match="cannot be read") as warned:
        assert cache.read("a", [0]) == {}
    assert len(warned) == 1
    cache.write("a", {0: _block(1)})  # another warning would be an error


def test_a_held_lock_does_not_block(
    cache: BlockCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a stopped process holds the lock, blocks are not stored, and reading continues."""
    cache.write("a", {0: _block(1)})
    monkeypatch.setattr(block_cache, "_WAIT", 0.01)
    with next(tmp_path.glob("*/lock")).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cache.write("b", {0: _block(2)})
        assert cache.read("a", [0]) == {0: _block(1)}
        assert cache.read("b", [0]) == {}
    cache.write("b", {0: _block(2)})
    assert cache.read("b", [0]) == {0: _block(2)}


def test_a_removed_directory_is_made_again(cache: BlockCache, tmp_path: Path) -> None:
    """If the user deletes the cache, it is filled again."""
    cache.write("a", {0: _block(1)})
    folder = next(tmp_path.glob("dasklake-*"))
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert cache.read("a", [0]) == {}
    cache.write("a", {0: _block(1)})
    assert cache.read("a", [0]) == {0: _block(1)}


def test_files_are_closed(cache: BlockCache) -> None:
    """No operation leaves a file open."""
    cache.write("a", {0: _block(1)})
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(20):
        cache.write("a", {number: _block(1)})
        cache.read("a", [number, number + 40])
        cache.read("none", [0])
        cache.forget("none")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_use_is_recorded_now_and_then(cache: BlockCache, tmp_path: Path) -> None:
    """A read of an old file makes it new; a read of a new one changes nothing."""
    cache.write("a", {0: _block(1)})
    (path,) = _files(tmp_path)
    os.utime(path, (1, 1))
    cache.read("a", [0])
    assert time.time() - path.stat().st_mtime < 1000
    recent = time.time() - 10
    os.utime(path, (recent, recent))
    cache.read("a", [0])
    assert path.stat().st_mtime == pytest.approx(recent)


def test_other_errors_of_a_directory(tmp_path: Path) -> None:
    """A file in place of the directory is refused with a remedy."""
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(InvalidInputError, match="link or a file"):
        block_cache.open_private(str(path))


def _disk(folder: Path, pages: int) -> Any:
    """Return the status of a disk on which the cache may take some pages of 4 KiB."""
    used = sum(path.stat().st_blocks * 512 for path in _files(folder)) // 4096
    # Of 100 MiB, 5 % stay free for other programs.
    return SimpleNamespace(f_frsize=4096, f_blocks=25_600, f_bavail=1280 + pages - used)


def test_other_programs_keep_a_part_of_the_disk(
    cache: BlockCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk becomes full, the cache removes its oldest files before it writes."""
    for name in "abc":
        cache.write(name, {at: _block(1) for at in range(8)})
        os.utime(_newest(tmp_path), (ord(name), ord(name)))
    # The three files have 390 pages. Another program takes 300 of 500 pages, after all were read.
    for pages, expected in ((500, "abcd"), (200, "ce")):
        disk = partial(_disk, tmp_path, pages)
        monkeypatch.setattr("dasklake._storage.block_cache.os.fstatvfs", lambda _, d=disk: d())
        cache.write(expected[-1], {0: _block(1)})
        assert "".join(name for name in "abcde" if cache.read(name, [0])) == expected


def test_a_disk_without_space_is_reported(
    cache: BlockCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If nothing may be written although the cache is empty, one warning is given."""
    monkeypatch.setattr("dasklake._storage.block_cache.os.fstatvfs", lambda _: _disk(tmp_path, -5))
    with pytest.warns(UserWarning, match="No space left"):
        cache.write("a", {0: _block(1)})
    assert cache.read("a", [0]) == {}
