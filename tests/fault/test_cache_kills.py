"""Processes that share a cache and are killed: no wrong bytes, and the limit holds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import dasklake
from dasklake._storage.block_cache import BLOCK, BlockCache, CacheSettings
from tests.support import _caching
from tests.support.clusters import ROOT

#: All blocks take 16 MB: a third of them does not fit.
LIMIT = 160 * BLOCK


def start(folder: Path, kill: str, seed: int, rounds: int) -> subprocess.Popen[bytes]:
    """Start a process that uses the cache."""
    arguments = [str(folder), str(LIMIT), kill, str(seed), str(rounds)]
    command = [sys.executable, "-m", "tests.support._caching", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


def used(folder: Path) -> int:
    """Return the bytes that the cache takes."""
    sizes = []
    for path in folder.glob("*/*.blocks"):
        try:
            sizes.append(path.stat().st_blocks * 512)
        except FileNotFoundError:
            continue
    return sum(sizes)


def check(folder: Path) -> None:
    """Check that every block is right or missing, and that the cache still works."""
    cache = BlockCache(CacheSettings(str(folder), LIMIT))
    numbers = list(range(_caching.BLOCKS))
    for name in range(_caching.OBJECTS):
        for number, block in cache.read(str(name), numbers).items():
            assert block == _caching.content(name, number)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _caching.main(str(folder), LIMIT, "-", 5, 60) == 0
    assert used(folder) <= LIMIT


@pytest.mark.parametrize("kill", ["write", "reserve", "evict"])
def test_a_killed_process_leaves_no_wrong_block(tmp_path: Path, kill: str) -> None:
    """After a kill in the middle of a write or of an eviction, the cache works as before."""
    process = start(tmp_path, kill, seed=1, rounds=100)
    assert process.wait(60) == -signal.SIGKILL
    check(tmp_path)


def test_processes_share_a_cache(tmp_path: Path) -> None:
    """Three processes, of which one is killed at any moment, read no wrong block."""
    processes = [start(tmp_path, "-", seed, rounds=150) for seed in (1, 2)]
    victim = start(tmp_path, "-", seed=3, rounds=100_000)
    most = 0
    for process in processes:
        while process.poll() is None:
            most = max(most, used(tmp_path))
    victim.kill()
    assert victim.wait(60) == -signal.SIGKILL
    assert [process.returncode for process in processes] == [0, 0]
    # Each process may be writing up to 16 blocks while another one counts.
    assert LIMIT // 2 < most <= LIMIT + 3 * 16 * BLOCK
    check(tmp_path)


SMALL_DISK = """
import sys, warnings
from pathlib import Path
import numpy as np
import dasklake
url, folder = sys.argv[1:]
values = [np.random.default_rng(n).integers(0, 256, 300_000, "u1") for n in range(20)]


def read():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tensor = dasklake.open(url, cache=folder)["x"]
        assert all((tensor[n] == value).all() for n, value in enumerate(values))
    return [str(warning.message) for warning in caught]


ballast = Path(folder) / "ballast"
ballast.write_bytes(bytes(4_000_000))
full = read()
assert len(full) == 1, full
assert "No space left" in full[0], full
ballast.unlink()
assert read() == []
assert any(Path(folder).rglob("*.blocks"))
"""


def test_a_full_disk_does_not_stop_a_reader(tmp_path: Path) -> None:
    """One warning is given, and every sample is read; with free space, the cache is used."""
    space = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*space, "true"], check=False, capture_output=True).returncode:
        pytest.skip("user namespaces are not allowed")
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("x", dtype="uint8", shape=(None,))
    draws = (np.random.default_rng(n) for n in range(20))
    lake.extend([{"x": draw.integers(0, 256, 300_000, "u1")} for draw in draws])
    folder = tmp_path / "cache"
    folder.mkdir()
    script = 'mount -t tmpfs -o size=4m none "$2" && exec "$0" -c "$3" "$1" "$2"'
    arguments = [sys.executable, str(tmp_path / "lake"), str(folder), SMALL_DISK]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*space, "sh", "-c", script, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
