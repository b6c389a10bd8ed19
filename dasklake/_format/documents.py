"""The JSON documents of commits and schemas.

A commit carries its own crc32c in its first field, over all bytes that follow it. A document may
come from an untrusted lake: msgspec validates types and ranges, :func:`read_commit` the rest.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, fields
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

import google_crc32c
import msgspec

from dasklake._format import object_keys
from dasklake._format.heartbeat import Heartbeat
from dasklake._format.validate import validate
from dasklake._model.commit import Commit, Kind, Progress, RunState, SegmentRef, Totals
from dasklake._model.creds_key import CredsKey
from dasklake._model.stored_types import Count, Name, ObjectId
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

#: Version of the documents and chunks that this release writes.
FORMAT_VERSION = 1

#: Features that a reader must know before it may read a commit.
READER_FEATURES: frozenset[str] = frozenset({"past", "names"})

#: Features that a writer must know before it may build on a commit.
WRITER_FEATURES: frozenset[str] = frozenset({"past", "names", "frame"})

#: Schemas up to this many bytes are repeated in every commit; larger ones have their own object.
_INLINE_SCHEMA = 32_768

#: Largest document, in bytes: a commit of 10,000 runs takes 4 MB.
MAX_DOCUMENT_BYTES = 64 * 2**20

#: Exceptions that an invalid document may raise while it is decoded.
_INVALID = (
    *(KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError),
    *(NotImplementedError, OSError, SyntaxError),  # of Arrow and pandas, from the names of types
)

#: Fields that the entry of a commit must have, by its kind.
_REQUIRED_ENTRY_FIELDS = {
    **dict.fromkeys((Kind.BEGIN, Kind.EPOCH, Kind.DATA), ("run", "epoch")),
    Kind.ABORT: ("closed",),
}

#: Limits of a sample: axes, as numpy has them, and elements, so that they can be counted in bytes.
_MAX_AXES = 32
_MAX_ELEMENTS = 2**56

_PREFIX = b'{"crc32c":"'
_PREFIX_LENGTH = len(_PREFIX) + 8 + len(b'",')

#: At most 1024 tables of one kind: a version has at most 15 of each level.
_Tables = Annotated[tuple[SegmentRef, ...], msgspec.Meta(max_length=1024)]


class Features(msgspec.Struct, frozen=True):
    """Names of the features that readers and writers must know."""

    reader: list[str]
    writer: list[str]


class CommitPreface(msgspec.Struct, frozen=True):
    """The fields of a commit that every release can read."""

    format: Count
    features: Features


class StoredSchema(msgspec.Struct, frozen=True):
    """A schema in a commit: its specs by tensor, or the digest of the object that holds them."""

    tensors: dict[str, dict[str, Any]] | None = None
    digest: ObjectId | None = None


class StoredHistory(msgspec.Struct, frozen=True):
    """The history of a tensor that was added or renamed when the version already had samples."""

    since: Count
    former: tuple[tuple[Count, str], ...]


class StoredKey(msgspec.Struct, frozen=True):
    """A credentials key, with its earlier names."""

    managed: bool
    former: tuple[str, ...]


class BranchOrigin(msgspec.Struct, frozen=True):
    """The source of a branch, its first version, and the version of ``main`` that created it."""

    source: tuple[Name, Count]
    first: Count
    entry: Count


class CommitDocument(CommitPreface, frozen=True):
    """One version of a branch."""

    version: Count
    id: ObjectId
    parent: str | None
    branch: Name
    kind: Kind
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    author: str
    message: str
    schema: StoredSchema
    entry: dict[str, Any]
    runs: dict[Name, RunState]
    segments: _Tables
    failures: _Tables
    totals: Totals
    progress: Progress | None
    tags: dict[str, tuple[Name, Count]]
    branches: dict[Name, BranchOrigin]
    expired: dict[Name, list[tuple[Count, Count]]]
    single_writer: bool
    first_order: Count = 0
    past: dict[str, StoredHistory] = {}
    creds: dict[str, StoredKey] = {}


class EncodedSchema(NamedTuple):
    """The JSON of a schema, and its digest: 32 hexadecimal digits of the SHA-256."""

    digest: str
    data: bytes

    @property
    def inline(self) -> bool:
        """Return whether each commit repeats the schema, instead of naming an object."""
        return len(self.data) <= _INLINE_SCHEMA


def _dumps(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def encode_schema(schema: Schema) -> EncodedSchema:
    """Return the JSON and the digest of a schema."""
    data = _dumps(schema.to_json())
    return EncodedSchema(hashlib.sha256(data).hexdigest()[:32], data)


def schema_digest(schema: Schema) -> str:
    """Return the digest that names a schema."""
    return encode_schema(schema).digest


def plan_digests(schema: Schema) -> tuple[str, str]:
    """Return the digests that a plan may have of a schema: of this release, and of earlier ones.

    The names that a run discovers are left out, because they are added while it is unfinished.
    """
    return (
        schema_digest(schema.with_undecided_names),
        schema_digest(schema.without_discovered_names),
    )


def read_schema(data: bytes, digest: str) -> Schema:
    """Decode the object of a schema.

    Raises
    ------
    CorruptionError
        The data do not match the digest, or are not a schema.
    """
    key = object_keys.schema_key(digest)
    try:
        if hashlib.sha256(data).hexdigest()[:32] != digest:
            raise ValueError("its checksum differs")
        return _decode_schema(json.loads(data), key)
    except _INVALID as error:
        raise CorruptionError(
            f"Object {key} is damaged: {error}. Restore it from a copy."
        ) from error


def commit_bytes(commit: Commit, schema: EncodedSchema | None = None) -> bytes:
    """Return the object of a commit.

    Parameters
    ----------
    commit : Commit
        The commit.
    schema : EncodedSchema, optional
        Its encoded schema, if it is at hand.
    """
    schema = schema or encode_schema(commit.schema)
    # A release without "past" would look for missing columns, and drop the histories in writing.
    needed = ["past"] if commit.histories else []
    # A release without "names" would take positions in a chunk's own list of names for indices.
    needed += ["names"] if any(spec.may_discover for spec in commit.schema.values()) else []
    # A release without "frame" would drop the roles of tensors in a frame in writing.
    framed = any(spec.index or spec.ordered for spec in commit.schema.values())
    first = {
        "format": FORMAT_VERSION,
        "features": {"reader": needed, "writer": [*needed, "frame"] if framed else needed},
        "version": commit.version,
        "id": commit.id,
        "parent": commit.parent,
        "branch": commit.branch,
        "kind": commit.kind,
        "time": commit.time.isoformat(timespec="milliseconds"),
        "author": commit.author,
        "message": commit.message,
    }
    last: dict[str, Any] = {
        "entry": dict(commit.entry),
        "runs": {name: _run_json(state) for name, state in commit.runs.items()},
        "segments": [asdict(ref) for ref in commit.segments],
        "failures": [asdict(ref) for ref in commit.failures],
        "totals": asdict(commit.totals),
        "progress": asdict(commit.progress) if commit.progress else None,
        "tags": dict(commit.tags),
        "branches": dict(commit.branches),
        "expired": {name: versions.spans for name, versions in commit.expired.items()},
        "single_writer": commit.single_writer,
    }
    if commit.first_order:
        last["first_order"] = commit.first_order
    if commit.creds:
        last["creds"] = {name: asdict(key) for name, key in commit.creds.items()}
    if commit.histories:
        last["past"] = {name: asdict(history) for name, history in commit.histories.items()}
    inline = b'{"tensors":' + schema.data + b"}"
    stored = inline if schema.inline else _dumps({"digest": schema.digest})
    rest = b"".join((_dumps(first)[1:-1], b',"schema":', stored, b",", _dumps(last)[1:]))
    return _prefix(rest) + rest


def _prefix(rest: bytes) -> bytes:
    return _PREFIX + f'{google_crc32c.value(rest):08x}",'.encode()


def _run_json(state: RunState) -> dict[str, Any]:
    return _without_defaults(state) | {"plan": _without_defaults(state.plan)}


def _without_defaults(value: Any) -> dict[str, Any]:
    return {
        f.name: getattr(value, f.name)
        for f in fields(value)
        if f.default is MISSING or getattr(value, f.name) != f.default
    }


def read_commit(data: bytes, key: str, schema_of: Callable[[str], Schema]) -> Commit:
    """Decode and validate the object of a commit.

    Parameters
    ----------
    data : bytes
        The object.
    key : str
        Its key, for messages.
    schema_of : callable
        Fetches a schema by digest if the commit does not hold it.

    Raises
    ------
    CorruptionError
        The bytes are not a complete, valid commit.
    UnsupportedFormatError
        The commit needs a newer reader.
    """
    rest = data[_PREFIX_LENGTH:]
    if data[:_PREFIX_LENGTH] != _prefix(rest):
        raise CorruptionError(f"Commit {key} is damaged. Restore it from a copy.")
    try:
        # Not by msgspec's own parser: it refuses lone surrogates, which older commits may have.
        document = json.loads(b"{" + rest, parse_constant=_refuse_constant)
        _check_features(validate(document, CommitPreface), key)
        stored = validate(document, CommitDocument)
        _check_consistency(stored)
        return _decode_commit(stored, document, key, schema_of)
    except LakeError as error:
        if not isinstance(error, InvalidInputError):
            raise
        raise _unreadable(key, error) from error
    except _INVALID as error:
        raise _unreadable(key, error) from error


def _unreadable(key: str, error: Exception) -> CorruptionError:
    return CorruptionError(f"Commit {key} cannot be read: {error}. Restore it from a copy.")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _check_features(preface: CommitPreface, key: str) -> None:
    unknown = set(preface.features.reader) - READER_FEATURES
    if preface.format > FORMAT_VERSION or unknown:
        needs = ", ".join(sorted(unknown)) or f"format {preface.format}"
        raise UnsupportedFormatError(
            f"Commit {key} needs {needs}, which this release cannot read. Upgrade dasklake."
        )


def _decode_schema(tensors: Any, key: str) -> Schema:
    try:
        schema = Schema.from_json(tensors)
    except SchemaError as error:
        # Writers check what they write, so a later release knows what is unknown here.
        raise UnsupportedFormatError(
            f"Object {key} has a schema that this release cannot read: {error} Upgrade dasklake."
        ) from error
    for name, spec in schema.items():
        # Decode the type now, so that an invalid one fails here and not in the middle of a read.
        arrow = spec.arrow_type
        if not isinstance(spec.dtype, str) and (spec.dtype is not None or not spec.kind.files):
            raise TypeError(f"the dtype of tensor {name!r} must be a name, got {spec.dtype!r:.60}")
        shape = [axis or 1 for axis in spec.shape or ()]
        if len(shape) > _MAX_AXES or math.prod(shape) > _MAX_ELEMENTS:
            raise ValueError(f"the shape of tensor {name!r} ({arrow or spec.dtype}) is too large")
    return schema


def _decode_commit(
    stored: CommitDocument,
    document: Mapping[str, Any],
    key: str,
    schema_of: Callable[[str], Schema],
) -> Commit:
    tensors, digest = stored.schema.tensors, stored.schema.digest
    if tensors is None and digest is None:
        raise ValueError("its schema has neither tensors nor a digest")
    schema = schema_of(str(digest)) if tensors is None else _decode_schema(tensors, key)
    values = {f.name: getattr(stored, f.name) for f in fields(Commit) if hasattr(stored, f.name)}
    return Commit(
        **values
        | {
            "schema": schema,
            # As they are stored: writers copy them, with fields that a later release has added.
            **{name: document[name] for name in ("entry", "tags", "branches")},
            "histories": {n: TensorHistory(h.since, h.former) for n, h in stored.past.items()},
            "creds": {n: CredsKey(k.managed, k.former) for n, k in stored.creds.items()},
            "expired": {name: Versions.of(spans) for name, spans in stored.expired.items()},
            "unknown": tuple(sorted(set(stored.features.writer) - WRITER_FEATURES)),
        }
    )


def _check_consistency(commit: CommitDocument) -> None:
    """Refuse a commit whose parts do not match each other."""
    totals = commit.totals
    for total, refs in ((totals.chunks, commit.segments), (totals.failures, commit.failures)):
        rows = sum(ref.rows for ref in refs)
        if total != rows:
            raise ValueError(f"its tables must have {total} rows, as its totals say, got {rows}")
        if len({ref.name for ref in refs}) < len(refs):
            raise ValueError("it names a table twice")
    samples = sum(ref.samples for ref in commit.segments)
    if totals.samples != samples:
        raise ValueError(f"its segments must hold {totals.samples} samples, got {samples}")
    for name in _REQUIRED_ENTRY_FIELDS.get(commit.kind, ()):
        if name not in commit.entry:
            raise ValueError(f"the entry of a commit of kind {commit.kind} must have {name!r}")
    if commit.kind is Kind.ABORT:
        validate(commit.entry["closed"], dict[Name, Count])


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the documents, by name under ``$defs``."""
    _, components = msgspec.json.schema_components((CommitDocument, Heartbeat))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": components}


def now() -> datetime:
    """Return the time that a commit carries for people, in milliseconds as it is stored."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)
