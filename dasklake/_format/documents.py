"""The JSON documents of a lake: commits and heartbeats.

A commit carries its own crc32c in its first field, over all bytes that follow it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

import google_crc32c

from dasklake._format import object_keys
from dasklake._format.validate import MOST, natural, plain
from dasklake._model.commit import Commit, Kind, Plan, Progress, RunState, SegmentRef, Totals
from dasklake._model.creds_key import CredsKey
from dasklake._model.discovered_names import DiscoveredNames
from dasklake._model.tensor_history import TensorHistory
from dasklake._model.versions import Versions
from dasklake._schema.schema import Schema
from dasklake.exceptions import (
    CorruptionError,
    InvalidInputError,
    LakeError,
    SchemaError,
    UnsupportedFormatError,
)

__all__ = [
    "FORMAT_VERSION",
    "MAX_DOCUMENT_BYTES",
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
READER_FEATURES: frozenset[str] = frozenset({"past", "names"})

#: What a writer has to understand before it may build on a commit.
WRITER_FEATURES: frozenset[str] = frozenset({"past", "names"})

#: Schemas up to this many bytes are repeated in every commit; larger ones lie beside it.
_INLINE_SCHEMA = 32_768

#: No document is longer, in bytes: a commit of 10,000 runs takes 4 MB.
MAX_DOCUMENT_BYTES = 64 * 2**20

#: No version names more tables of one kind: there are at most 15 of each level.
_MOST_TABLES = 1024

#: What reading a document may meet, that is not what its writer was told to write.
_MISFITS = (
    *(KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError),
    *(NotImplementedError, OSError, SyntaxError),  # of Arrow and pandas, from the names of types
)

#: What entries of a kind say, which others rely on.
_ENTRIES = {
    **dict.fromkeys((Kind.BEGIN, Kind.EPOCH, Kind.DATA), ("run", "epoch")),
    Kind.ABORT: ("closed",),
}

#: Axes of a sample, which numpy bounds, and elements, so that they can be counted in bytes.
_MOST_AXES = 32
_MOST_ELEMENTS = 2**56

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
        raise CorruptionError(
            f"Object {object_keys.schema_key(digest)} is damaged: its checksum differs. Restore it from "
            "a copy."
        )
    try:
        return _schema(json.loads(data), object_keys.schema_key(digest))
    except _MISFITS as error:
        raise CorruptionError(
            f"Object {object_keys.schema_key(digest)} is damaged: {error}. Restore it from a copy."
        ) from error


def commit_bytes(commit: Commit) -> bytes:
    """Return the object of a commit."""
    large = schema_object(commit.schema)
    # Who does not know of it would look for columns that are not there, and lose it in writing.
    needed = ["past"] if commit.histories else []
    # Who does not know of it would take places in a chunk's own list of names for indices.
    needed += ["names"] if any(spec.discover for spec in commit.schema.values()) else []
    document = {
        "format": FORMAT_VERSION,
        "features": {"reader": needed, "writer": needed},
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
        "expired": {name: each.spans for name, each in commit.expired.items()},
        "single_writer": commit.single_writer,
    }
    if commit.first_order:
        document["first_order"] = commit.first_order
    if commit.creds:
        document["creds"] = {name: key.to_json() for name, key in commit.creds.items()}
    if commit.histories:
        document["past"] = {name: past.to_json() for name, past in commit.histories.items()}
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
        document = json.loads(b"{" + rest, parse_constant=_no_number)
        _check_features(document, key)
        commit = _commit(document, key, schema_of)
        _check(commit)
    except LakeError as error:
        if not isinstance(error, InvalidInputError):
            raise
        raise _unreadable(key, error) from error
    except _MISFITS as error:
        raise _unreadable(key, error) from error
    return commit


def _unreadable(key: str, error: Exception) -> CorruptionError:
    return CorruptionError(f"Commit {key} cannot be read: {error}. Restore it from a copy.")


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _check_features(document: Mapping[str, Any], key: str) -> None:
    unknown = set(document["features"]["reader"]) - READER_FEATURES
    if document["format"] > FORMAT_VERSION or unknown:
        needs = ", ".join(sorted(unknown)) or f"format {document['format']}"
        raise UnsupportedFormatError(
            f"Commit {key} needs {needs}, which this release cannot read. Upgrade dasklake."
        )


def _schema(tensors: Any, key: str) -> Schema:
    try:
        found = Schema.from_json(tensors)
    except SchemaError as error:
        # Writers check what they write: what is unknown here is known to a later release.
        raise UnsupportedFormatError(
            f"Object {key} has a schema that this release cannot read: {error} Upgrade dasklake."
        ) from error
    for name, spec in found.items():
        # Read now, so that nobody meets it later.
        arrow = spec.arrow_type
        if not isinstance(spec.dtype, str) and (spec.dtype is not None or not spec.kind.files):
            raise TypeError(f"the dtype of tensor {name!r} is {spec.dtype!r:.60}, not a name")
        shape = [axis or 1 for axis in spec.shape or ()]
        if len(shape) > _MOST_AXES or math.prod(shape) > _MOST_ELEMENTS:
            raise ValueError(f"tensor {name!r} of type {arrow or spec.dtype} has no such shape")
    return found


def _commit(document: Mapping[str, Any], key: str, schema_of: Callable[[str], Schema]) -> Commit:
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
        schema=schema_of(schema["digest"]) if tensors is None else _schema(tensors, key),
        entry=document["entry"],
        runs={name: _run(name, state) for name, state in document["runs"].items()},
        segments=_tables(document["segments"]),
        failures=_tables(document["failures"]),
        totals=plain(Totals, document["totals"]),
        progress=plain(Progress, progress) if progress else None,
        tags=document["tags"],
        branches=document["branches"],
        expired={name: Versions.of(spans) for name, spans in document["expired"].items()},
        first_order=document.get("first_order", 0),
        histories={
            name: TensorHistory.from_json(past) for name, past in document.get("past", {}).items()
        },
        creds={name: CredsKey.from_json(key) for name, key in document.get("creds", {}).items()},
        single_writer=document["single_writer"],
        unknown=tuple(sorted(set(document["features"]["writer"]) - WRITER_FEATURES)),
    )


def _run(name: str, document: Mapping[str, Any]) -> RunState:
    object_keys.valid_name("run", name)
    found = plain(RunState, {**document, "plan": plain(Plan, document["plan"])})
    return found if found.names is None else replace(found, names=_places(found.names))


def _places(names: Mapping[str, Mapping[str, Any]]) -> DiscoveredNames:
    """Read the class names that a run discovered, and where."""
    return {
        tensor: {
            name: (natural(name, partition), natural(name, rank))
            for name, (partition, rank) in places.items()
        }
        for tensor, places in names.items()
    }


def _tables(documents: Sequence[Any]) -> tuple[SegmentRef, ...]:
    if len(documents) > _MOST_TABLES:
        raise ValueError(f"it names {len(documents)} tables")
    found = tuple(plain(SegmentRef, document) for document in documents)
    for ref in found:
        object_keys.segment_key(ref.name)
    if len({ref.name for ref in found}) < len(found):
        raise ValueError("it names a table twice")
    return found


def _check(commit: Commit) -> None:
    """Refuse a commit whose parts do not fit each other, or are not what others rely on."""
    plain(Commit, {f.name: getattr(commit, f.name) for f in fields(commit)})
    object_keys.valid_name("branch", commit.branch)
    object_keys.segment_key(commit.id)
    totals = commit.totals
    if commit.time.tzinfo is None or not isinstance(commit.single_writer, bool):
        raise ValueError("its time has no zone")
    for total, refs in ((totals.chunks, commit.segments), (totals.failures, commit.failures)):
        if total != sum(ref.rows for ref in refs):
            raise ValueError(f"its tables do not have the {total} rows that it counts")
    if totals.samples != sum(ref.samples for ref in commit.segments) or totals.samples > MOST:
        raise ValueError(f"its segments do not lead to {totals.samples} samples")
    for name in ("entry", "tags", "branches"):
        if not isinstance(getattr(commit, name), dict):
            raise TypeError(f"its {name} are no object")
    for name in _ENTRIES.get(commit.kind, ()):
        if name not in commit.entry:
            raise ValueError(f"a commit of the kind {commit.kind} names no {name}")
    if commit.kind is Kind.ABORT:
        for run, epoch in commit.entry["closed"].items():
            natural(object_keys.valid_name("run", run), epoch)
    _check_marks(commit)


def _check_marks(commit: Commit) -> None:
    """Refuse tags, branches and expired versions that no writer writes."""
    for branch in (*commit.branches, *commit.expired):
        object_keys.valid_name("branch", branch)
    for about in commit.branches.values():
        natural("first", about["first"])
        natural("entry", about["entry"])
    for branch, version in (
        *commit.tags.values(),
        *(b["source"] for b in commit.branches.values()),
    ):
        natural(object_keys.valid_name("branch", branch), version)


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
    trouble : str
        Why commits are late, while the storage fails; else empty.
    """

    epoch: int
    coordinator: str
    counter: int
    state: str = "running"
    inputs: int = 0
    failures: int = 0
    trouble: str = ""


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
