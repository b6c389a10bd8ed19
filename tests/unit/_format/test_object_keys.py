"""Keys of objects, and their parts."""

from __future__ import annotations

import pytest

from dasklake._format import object_keys
from dasklake.exceptions import CorruptionError, InvalidInputError


def test_keys() -> None:
    """Each kind of object has the key that the specification gives."""
    name, home = "0123456789abcdef", object_keys.home_of("main", "my-run")
    assert object_keys.commit_key("main", 1234) == "_lake/log/main/000001/00000000000000001234.json"
    assert object_keys.segment_key(name) == f"_lake/segments/{name}.arrow"
    assert object_keys.failures_key(name) == f"_lake/failures/{name}.arrow"
    assert object_keys.schema_key(name * 2) == f"_lake/schemas/{name * 2}.json"
    assert object_keys.heartbeat_key("main", "my-run") == "_lake/runs/main/my-run.json"
    assert object_keys.chunk_key(home, 3, 2, name, 1) == f"data/main/my-run/3-2-{name}-1.arrow"
    assert (
        object_keys.partition_failures_key(home, 3, 2, name)
        == f"data/main/my-run/3-2-{name}-failures.arrow"
    )


def test_commit_keys_sort_as_versions_do() -> None:
    """A directory has at most 1,000 commits, and their names sort like their versions."""
    versions = [0, 9, 10, 999, 1000, 1001, 123_456]
    keys = [object_keys.commit_key("main", version) for version in versions]
    assert keys == sorted(keys)
    assert [object_keys.parse_commit_key(key) for key in keys] == versions
    assert object_keys.log_bucket("main", 999) != object_keys.log_bucket("main", 1000)
    assert keys[3].startswith(f"{object_keys.log_bucket('main', 999)}/")


@pytest.mark.parametrize(
    "name", ["1.json", "00000000000000001234", "00000000000000001234.json.tmp", "x.json", ""]
)
def test_foreign_commit_names(name: str) -> None:
    """A foreign name does not have a version."""
    assert object_keys.parse_commit_key(name) is None


def test_chunk_keys_are_read_back() -> None:
    """The key of a chunk has branch, run, partition, epoch, attempt and number."""
    key = object_keys.chunk_key("main/my.run", 12, 3, "00ff00ff00ff00ff", 4)
    assert object_keys.parse_chunk_key(key) == ("main", "my.run", 12, 3, "00ff00ff00ff00ff", 4)


@pytest.mark.parametrize(
    "key",
    [
        "data/main/run/0-1-00ff00ff00ff00ff-failures.arrow",
        "data/main/run/0-1-00FF00FF00FF00FF-0.arrow",
        "data/main/run/0-1-00ff-0.arrow",
        "data/main/run/deep/0-1-00ff00ff00ff00ff-0.arrow",
        "x/data/main/run/0-1-00ff00ff00ff00ff-0.arrow",
        "data/main/run/notes.txt",
    ],
)
def test_foreign_chunk_keys(key: str) -> None:
    """A foreign key does not have parts."""
    assert object_keys.parse_chunk_key(key) is None


@pytest.mark.parametrize("name", ["a", "coco-train2017", "A.b_c-9", "0", "x" * 128])
def test_valid_names(name: str) -> None:
    """A name may have letters, digits, dots, hyphens and underscores."""
    assert object_keys.valid_name("run", name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".x", "-x", "a/b", "a\\b", "a b", "ä", "x" * 129, "a\n", "%41"]
)
def test_invalid_names(name: str) -> None:
    """A name that a storage may not accept, or that leaves the root, is refused."""
    with pytest.raises(InvalidInputError, match="run name"):
        object_keys.valid_name("run", name)


@pytest.mark.parametrize("name", ["", "../../x", "0123", "0123456789ABCDEF", "g" * 16, "a" * 33])
def test_names_in_commits_are_ids(name: str) -> None:
    """An object name in a commit that is not an id is corruption."""
    for key in (object_keys.segment_key, object_keys.failures_key, object_keys.schema_key):
        with pytest.raises(CorruptionError, match="not a valid object name"):
            key(name)


def test_ids_are_fresh() -> None:
    """Ids and keys of probes are unique."""
    ids = {object_keys.new_id() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(object_keys.segment_key(name) for name in ids)
    assert object_keys.probe_key() != object_keys.probe_key()
    assert object_keys.probe_key().startswith("_lake/probe/")
