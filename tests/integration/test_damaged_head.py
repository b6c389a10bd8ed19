"""Test that a damaged newest entry of the log leaves the older versions readable."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import dasklake
from dasklake._api.cli import cli
from dasklake._format import object_keys
from dasklake.exceptions import (
    CorruptionError,
    LakeError,
    UnsupportedFormatError,
    VersionNotFoundError,
)
from tests.hostile.sealing import sealed_commit


@pytest.fixture
def lake(tmp_path: Path) -> dasklake.Lake:
    """Make a lake whose versions 3, 5 and 7 have one, two and three samples."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("x", dtype="int64", shape=())
    for x in range(3):
        lake.append({"x": x})
    return lake


def entry(lake: dasklake.Lake, version: int | None = None) -> Path:
    """Return the file of an entry, by default the newest."""
    key = object_keys.commit_key("main", lake.version if version is None else version)
    return Path(lake.url.removeprefix("file://"), key)


def truncate(path: Path) -> None:
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Change one byte."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replace_by_directory(path: Path) -> None:
    """Replace a file by a directory."""
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": truncate,
    "empty": lambda path: path.write_bytes(b""),
    "flipped": flip,
    "foreign": lambda path: path.write_bytes(b"\x00\xff picture"),
    "json": lambda path: path.write_bytes(b'{"version": 4}'),
    "directory": replace_by_directory,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_older_versions_open(lake: dasklake.Lake, damage: str) -> None:
    """Every older version opens and reads; the newest names its entry and the way out."""
    path, newest = entry(lake), lake.version
    DAMAGE[damage](path)
    for version, length in ((6, 2), (5, 2), (3, 1)):
        old = dasklake.open(lake.url, version=version)
        assert list(old["x"]) == list(range(length))
        assert old.to_dask_bag().count().compute(scheduler="sync") == length
        assert len(old.log()) >= 1
    for attempt in (
        lambda: dasklake.open(lake.url),
        lambda: dasklake.open(lake.url, version=newest),
        lambda: dasklake.open(lake.url, reset=True),
        old.refresh,
        lambda: old.append({"x": 9}),
    ):
        with pytest.raises(LakeError, match=path.name) as raised:
            attempt()
        # Following the remedy works.
        remedy = re.search(r"version=(\d+)", str(raised.value))
        assert remedy is not None
        assert len(dasklake.open(lake.url, version=int(remedy[1]))) == 2


def test_reset_of_an_older_version_warns(lake: dasklake.Lake) -> None:
    """An older version opens without the reset, and a warning says why."""
    truncate(entry(lake))
    with pytest.warns(UserWarning, match=r"not reset.*version=6"):
        old = dasklake.open(lake.url, version=3, reset=True)
    assert len(old) == 1


def test_several_damaged_entries(lake: dasklake.Lake) -> None:
    """The error names the newest version that is readable."""
    newest = lake.version
    truncate(entry(lake))
    flip(entry(lake, newest - 1))
    with pytest.raises(CorruptionError, match=rf"version={newest - 2}\)"):
        dasklake.open(lake.url)
    assert len(dasklake.open(lake.url, version=newest - 2)) == 2
    with pytest.raises(CorruptionError, match=entry(lake, newest - 1).name):
        dasklake.open(lake.url, version=newest - 1)


def test_foreign_files_in_the_log(lake: dasklake.Lake) -> None:
    """Names that no entry has are ignored; an entry of a far version is named."""
    path = entry(lake)
    for name in ("notes.txt", path.name + ".bak", "copy of " + path.name):
        (path.parent / name).write_bytes(b"foreign")
    (path.parent.parent / "desktop.ini").write_bytes(b"foreign")
    assert len(dasklake.open(lake.url)) == 3
    far = entry(lake, 9)
    far.write_bytes(b"foreign")
    with pytest.raises(CorruptionError, match=rf"{far.name}.*version=7\)"):
        dasklake.open(lake.url)
    assert len(dasklake.open(lake.url, version=7)) == 3
    with pytest.raises(VersionNotFoundError):
        dasklake.open(lake.url, version=8)


def test_an_entry_of_a_newer_release(lake: dasklake.Lake) -> None:
    """Versions before one that needs a newer release stay readable."""
    path = entry(lake)
    document = json.loads(path.read_bytes())
    del document["crc32c"]
    document["features"]["reader"] = ["from-the-future"]
    path.write_bytes(sealed_commit(document))
    with pytest.raises(UnsupportedFormatError, match=r"Upgrade.*version=6\)"):
        dasklake.open(lake.url)
    assert len(dasklake.open(lake.url, version=6)) == 2


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("quick", [True, False])
def test_verify_names_the_entry(lake: dasklake.Lake, damage: str, *, quick: bool) -> None:
    """A verification reports the damaged entry, and checks all that the other versions name."""
    path = entry(lake)
    DAMAGE[damage](path)
    report = dasklake.open(lake.url, version=6).verify(quick=quick)
    (found,) = report.damaged
    assert found.key.endswith(path.name)
    assert (found.version, report.samples, report.chunks) == (7, 2, 2)
    result = CliRunner().invoke(cli, ["verify", lake.url])
    assert result.exit_code == 1
    assert path.name in result.output


def test_verify_names_several_entries_and_chunks(lake: dasklake.Lake) -> None:
    """Damaged entries do not hide a damaged chunk of an older version."""
    paths = [entry(lake), entry(lake, 3)]
    chunks = Path(lake.url.removeprefix("file://"), "data").rglob("*.arrow")
    chunk = min(chunks, key=lambda path: path.stat().st_mtime_ns)
    for path in (*paths, chunk):
        flip(path)
    report = dasklake.open(lake.url, version=6).verify()
    names = {damage.key.rpartition("/")[2] for damage in report.damaged}
    assert names == {path.name for path in (*paths, chunk)}


def test_verify_with_an_entry_of_a_newer_release(lake: dasklake.Lake) -> None:
    """A verification says that a newer release is needed, and names the newest readable version."""
    path = entry(lake)
    document = json.loads(path.read_bytes())
    del document["crc32c"]
    document["features"]["reader"] = ["from-the-future"]
    path.write_bytes(sealed_commit(document))
    with pytest.raises(UnsupportedFormatError, match=path.name):
        dasklake.open(lake.url, version=6).verify()
