"""The JSON documents of a lake: commits and heartbeats.

A commit carries its own crc32c in its first field, over all bytes that follow it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

import google_crc32c

from dasklake._model.commit import Commit, Kind, Plan, Progress, RunState, SegmentRef, Totals
from dasklake._model.schema import Schema
from dasklake.exceptions import CorruptionError, LakeError, UnsupportedFormatError

__all__ = [
    "FORMAT_VERSION",
    "Heartbeat",
    "commit_bytes",
    "heartbeat_bytes",
    "read_commit",
    "read_heartbeat",
    "read_schema",
    "schema_digest",
    "schema_object",
]

FORMAT_VERSION = 1

#: What a reader has to understand before it may read; unknown ones make it refuse.
READER_FEATURES: frozenset[str] = frozenset()

#: Schemas up to this many bytes are repeated in every commit; larger ones lie beside it.
_INLINE_SCHEMA = 32_768

_HEAD = b'{"crc32c":"'
_JSON_HEAD = len(_HEAD) + 8 + len(b'",')


def _dumps(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _sparse(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that differ from their defaults."""
    return {
        f.name: getattr(value, f.name)
        for f in fields(value)
        if f.default is MISSING or getattr(value, f.name) != f.default
    }


def schema_digest(schema: Schema) -> str:
    """Return the name of a schema: 32 hexadecimal digits of the SHA-256 of its JSON."""
    return hashlib.sha256(_dumps(schema.to_json())).hexdigest()[:32]


def schema_object(schema: Schema) -> tuple[str, bytes] | None:
    """Return digest and bytes of a schema that is too large to repeat in every commit."""
    data = _dumps(schema.to_json())
    return (schema_digest(schema), data) if len(data) > _INLINE_SCHEMA else None


def read_schema(data: bytes, digest: str) -> Schema:
    """Read what :func:`schema_object` wrote."""
    if hashlib.sha256(data).hexdigest()[:32] != digest:
        raise CorruptionError(f"Schema {digest} is damaged. Restore it from a copy.")
    return Schema.from_json(json.loads(data))


def commit_bytes(commit: Commit) -> bytes:
    """Return the object of a commit."""
    large = schema_object(commit.schema)
    document = {
        "format": FORMAT_VERSION,
        "features": {"reader": [], "writer": []},
        "version": commit.version,
        "id": commit.id,
        "parent": commit.parent,
        "branch": commit.branch,
        "kind": commit.kind,
        "time": commit.time.isoformat(timespec="milliseconds"),
        "author": commit.author,
        "message": commit.message,
        "schema": {"digest": large[0]} if large else {"tensors": commit.schema.to_json()},
        "entry": dict(commit.entry),
        "runs": {name: _run_json(state) for name, state in commit.runs.items()},
        "segments": [asdict(ref) for ref in commit.segments],
        "failures": [asdict(ref) for ref in commit.failures],
        "totals": asdict(commit.totals),
        "progress": asdict(commit.progress) if commit.progress else None,
        "tags": dict(commit.tags),
        "branches": dict(commit.branches),
        "expired": dict(commit.expired),
        "single_writer": commit.single_writer,
    }
    rest = _dumps(document)[1:]
    return _head_of(rest) + rest


def _head_of(rest: bytes) -> bytes:
    return _HEAD + f'{google_crc32c.value(rest):08x}",'.encode()


def _run_json(state: RunState) -> dict[str, Any]:
    return _sparse(state) | {"plan": _sparse(state.plan)}


def read_commit(data: bytes, key: str, schema_of: Callable[[str], Schema]) -> Commit:
    """Read what :func:`commit_bytes` wrote.

    Parameters
    ----------
    data : bytes
        The object.
    key : str
        Its key, for messages.
    schema_of : callable
        Fetches a schema by digest, where the commit does not hold it.

    Raises
    ------
    CorruptionError
        The bytes are not a whole commit.
    UnsupportedFormatError
        The commit needs a newer reader.
    """
    rest = data[_JSON_HEAD:]
    if data[:_JSON_HEAD] != _head_of(rest):
        raise CorruptionError(f"Commit {key} is damaged. Restore it from a copy.")
    try:
        document = json.loads(b"{" + rest)
        _check_features(document, key)
        return _commit(document, schema_of)
    except LakeError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CorruptionError(
            f"Commit {key} cannot be read: {error}. Restore it from a copy."
        ) from error


def _check_features(document: Mapping[str, Any], key: str) -> None:
    unknown = set(document["features"]["reader"]) - READER_FEATURES
    if document["format"] > FORMAT_VERSION or unknown:
        needs = ", ".join(sorted(unknown)) or f"format {document['format']}"
        raise UnsupportedFormatError(
            f"Commit {key} needs {needs}, which this release cannot read. Upgrade dasklake."
        )


def _commit(document: Mapping[str, Any], schema_of: Callable[[str], Schema]) -> Commit:
    schema = document["schema"]
    tensors = schema.get("tensors")
    progress = document["progress"]
    return Commit(
        version=document["version"],
        id=document["id"],
        parent=document["parent"],
        branch=document["branch"],
        kind=Kind(document["kind"]),
        time=datetime.fromisoformat(document["time"]),
        author=document["author"],
        message=document["message"],
        schema=schema_of(schema["digest"]) if tensors is None else Schema.from_json(tensors),
        entry=document["entry"],
        runs={name: _run(state) for name, state in document["runs"].items()},
        segments=tuple(SegmentRef(**ref) for ref in document["segments"]),
        failures=tuple(SegmentRef(**ref) for ref in document["failures"]),
        totals=Totals(**document["totals"]),
        progress=Progress(**progress) if progress else None,
        tags=document["tags"],
        branches=document["branches"],
        expired=document["expired"],
        single_writer=document["single_writer"],
    )


def _run(document: Mapping[str, Any]) -> RunState:
    return RunState(**{**document, "plan": Plan(**document["plan"])})


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a living coordinator says of itself from time to time; advisory only.

    Attributes
    ----------
    epoch : int
        The epoch it coordinates.
    coordinator : str
        Its random name.
    counter : int
        Moves on with every beat; readers compare two reads and never look at a clock.
    state : str
        ``"running"``, or how the run ended.
    inputs : int
        Input samples whose partitions are written, committed or not.
    failures : int
        Samples that failed.
    """

    epoch: int
    coordinator: str
    counter: int
    state: str = "running"
    inputs: int = 0
    failures: int = 0


def heartbeat_bytes(heartbeat: Heartbeat) -> bytes:
    """Return the object of a heartbeat."""
    return _dumps(asdict(heartbeat))


def read_heartbeat(data: bytes) -> Heartbeat | None:
    """Read what :func:`heartbeat_bytes` wrote; None for a torn or foreign one."""
    try:
        beat = Heartbeat(**json.loads(data))
    except (TypeError, ValueError, RecursionError):
        return None
    # Advisory, and anybody may have written it: what is not plain is not looked at.
    plain = all(type(getattr(beat, f.name)).__name__ == f.type for f in fields(beat))
    return beat if plain else None


def now() -> datetime:
    """Return the time that a commit carries, for people, as exactly as it is written."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)
