"""The keys of a lake's objects, relative to its root.

::

    _lake/log/<branch>/<v // 1000, 6 digits>/<v, 20 digits>.json
    _lake/segments/<commit id>.arrow
    _lake/failures/<commit id>.arrow
    _lake/schemas/<digest>.json
    _lake/runs/<run>.json
    data/<branch>/<run>/<partition>-<epoch>-<attempt>-<chunk>.arrow
"""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

from dasklake._model.stored_types import ID_PATTERN, NAME_PATTERN
from dasklake.exceptions import CorruptionError, InvalidInputError

#: Commits in one directory of a log, so that one page lists it.
BUCKET = 1000

_NAME = re.compile(NAME_PATTERN)
_ID = re.compile(ID_PATTERN)
_COMMIT = re.compile(r"(\d{20})\.json")
_CHUNK = re.compile(r"data/([^/]+)/([^/]+)/(\d+)-(\d+)-([0-9a-f]{16})-(\d+)\.arrow")


class ChunkName(NamedTuple):
    """The parts of a chunk's key."""

    branch: str
    run: str
    partition: int
    epoch: int
    attempt: str
    chunk: int


def new_id() -> str:
    """Return a new random name of 16 hexadecimal digits."""
    return secrets.token_hex(8)


def valid_name(kind: str, name: str) -> str:
    """Check the name of a run or branch, which becomes part of an object's key, and return it.

    Raises
    ------
    InvalidInputError
        The name has characters that not every storage allows, or would leave the root.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"The {kind} name {name!r} cannot be part of an object's name. Use up to 128 letters, "
            "digits, dots, hyphens and underscores. Begin with a letter or a digit."
        )
    return name


def log_prefix(branch: str) -> str:
    """Return the directory of a branch's log."""
    return f"_lake/log/{branch}"


def log_bucket(branch: str, version: int) -> str:
    """Return the directory that holds a version's commit."""
    return f"{log_prefix(branch)}/{version // BUCKET:06d}"


def commit_key(branch: str, version: int) -> str:
    """Return the key of a version's commit."""
    return f"{log_bucket(branch, version)}/{version:020d}.json"


def parse_commit_key(name: str) -> int | None:
    """Return the version in a commit's file name, or None for a foreign name."""
    match = _COMMIT.fullmatch(name.rsplit("/", 1)[-1])
    return int(match.group(1)) if match else None


def segment_key(name: str) -> str:
    """Return the key of a segment."""
    return f"_lake/segments/{_id(name)}.arrow"


def failures_key(name: str) -> str:
    """Return the key of a failures table."""
    return f"_lake/failures/{_id(name)}.arrow"


def schema_key(digest: str) -> str:
    """Return the key of a schema that is too large to repeat in every commit."""
    return f"_lake/schemas/{_id(digest)}.json"


def heartbeat_key(branch: str, run: str) -> str:
    """Return the key of a run's heartbeat."""
    return f"_lake/runs/{branch}/{run}.json"


def probe_key() -> str:
    """Return a new key to test the storage with."""
    return f"_lake/probe/{new_id()}"


def home_of(branch: str, run: str) -> str:
    """Return the name of a run with its branch, unique in the lake."""
    return f"{branch}/{run}"


def data_prefix(home: str) -> str:
    """Return the directory of a run's chunks."""
    return f"data/{home}"


def chunk_key(home: str, partition: int, epoch: int, attempt: str, chunk: int) -> str:
    """Return the key of a chunk."""
    return f"{data_prefix(home)}/{partition}-{epoch}-{attempt}-{chunk}.arrow"


def partition_failures_key(home: str, partition: int, epoch: int, attempt: str) -> str:
    """Return the key of the failures of one attempt, if there are too many for its chunk."""
    return f"{data_prefix(home)}/{partition}-{epoch}-{attempt}-failures.arrow"


def parse_chunk_key(key: str) -> ChunkName | None:
    """Return the parts of a chunk's key, or None for a foreign name."""
    match = _CHUNK.fullmatch(key)
    if match is None:
        return None
    branch, run, partition, epoch, attempt, chunk = match.groups()
    return ChunkName(branch, run, int(partition), int(epoch), attempt, int(chunk))


def _id(name: str) -> str:
    if not _ID.fullmatch(name):
        raise CorruptionError(
            f"{name!r} is not a valid object name. Restore the commit that has it from a copy."
        )
    return name
