"""Commits keep their bytes: the encoder agrees with plain ``json.dumps`` of the whole document."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC
from typing import Any

import google_crc32c
from hypothesis import given
from hypothesis import strategies as st

from dasklake._format.documents import commit_bytes, encode_schema, read_commit, read_schema
from dasklake._model.commit import Commit, Kind, Plan, Progress, RunState, SegmentRef, Totals
from dasklake._model.creds_key import CredsKey
from dasklake._model.stored_types import MAX_COUNT, NAME_PATTERN
from dasklake._model.tensor_history import TensorHistory
from dasklake._model.versions import Versions
from dasklake._schema.schema import Schema, TensorSpec

COUNTS = st.integers(0, MAX_COUNT)
NAMES = st.from_regex(NAME_PATTERN, fullmatch=True)
IDS = st.from_regex(r"[0-9a-f]{16}", fullmatch=True)
#: With lone surrogates: authors and messages may have them.
TEXTS = st.text(st.characters(), max_size=10)
POINTS = st.tuples(COUNTS, COUNTS)
PLANS = st.builds(
    Plan, COUNTS, st.none() | COUNTS, IDS, st.none() | IDS, st.booleans(), st.booleans()
)
RUNS = st.builds(
    RunState,
    PLANS,
    COUNTS,
    epoch=COUNTS,
    closed=COUNTS,
    finished=st.booleans(),
    partitions=COUNTS,
    size=COUNTS,
    names=st.none()
    | st.dictionaries(TEXTS, st.dictionaries(TEXTS, POINTS, max_size=2), min_size=1, max_size=2),
)
SPECS = st.sampled_from(
    [
        TensorSpec("text"),
        TensorSpec(dtype="int64", shape=(None, 3)),
        TensorSpec("class_label", class_names=["ä", "b"], discover=True, settled=1),
        TensorSpec("class_label"),
        TensorSpec("class_label", discover=False),
    ]
)
SCHEMAS = st.dictionaries(NAMES, SPECS, max_size=3).map(Schema)
WIDE = Schema({f"tensor {n}": TensorSpec("text") for n in range(2_000)})
REFS = st.lists(
    st.builds(SegmentRef, IDS, st.integers(0, 99), st.integers(0, 99), COUNTS, COUNTS, COUNTS),
    max_size=3,
    unique_by=lambda ref: ref.name,
).map(tuple)
BRANCHES = st.fixed_dictionaries(
    {"source": st.tuples(NAMES, COUNTS).map(list), "first": COUNTS, "entry": COUNTS}
)


@st.composite
def commits(draw: st.DrawFn) -> Commit:
    """Draw a consistent commit."""
    segments, failures = draw(REFS), draw(REFS)
    return Commit(
        version=draw(COUNTS),
        id=draw(IDS),
        parent=draw(st.none() | IDS),
        branch=draw(NAMES),
        kind=draw(st.sampled_from(sorted(set(Kind) - {Kind.ABORT}))),
        time=draw(st.datetimes(timezones=st.just(UTC))).replace(microsecond=7_000),
        author=draw(TEXTS),
        message=draw(TEXTS),
        schema=draw(SCHEMAS | st.just(WIDE)),
        entry={"run": draw(NAMES), "epoch": draw(COUNTS)},
        runs=draw(st.dictionaries(NAMES, RUNS, max_size=2)),
        segments=segments,
        failures=failures,
        totals=Totals(
            samples=sum(ref.samples for ref in segments),
            chunks=sum(ref.rows for ref in segments),
            failures=sum(ref.rows for ref in failures),
            size=draw(COUNTS),
        ),
        progress=draw(
            st.none() | st.builds(Progress, NAMES, COUNTS, COUNTS, COUNTS, st.floats(0, 100))
        ),
        tags=draw(st.dictionaries(TEXTS, st.tuples(NAMES, COUNTS).map(list), max_size=2)),
        branches=draw(st.dictionaries(NAMES, BRANCHES, max_size=2)),
        expired=draw(
            st.dictionaries(NAMES, st.sets(st.integers(0, 20)).map(Versions.each), max_size=2)
        ),
        first_order=draw(COUNTS),
        histories=draw(
            st.dictionaries(
                TEXTS,
                st.builds(TensorHistory, COUNTS, st.lists(st.tuples(COUNTS, TEXTS)).map(tuple)),
                max_size=2,
            )
        ),
        creds=draw(
            st.dictionaries(
                TEXTS, st.builds(CredsKey, st.booleans(), st.lists(TEXTS).map(tuple)), max_size=2
            )
        ),
        single_writer=draw(st.booleans()),
    )


def reference_bytes(commit: Commit) -> bytes:
    """Encode a commit as one document, field by field."""
    tensors = commit.schema.to_json()
    data = json.dumps(tensors, separators=(",", ":")).encode()
    discovers = any(spec.may_discover for spec in commit.schema.values())
    needed = ["past"] * bool(commit.histories) + ["names"] * discovers
    large = len(data) > 32_768
    document = {
        "format": 1,
        "features": {"reader": needed, "writer": needed},
        "version": commit.version,
        "id": commit.id,
        "parent": commit.parent,
        "branch": commit.branch,
        "kind": commit.kind.value,
        "time": commit.time.isoformat(timespec="milliseconds"),
        "author": commit.author,
        "message": commit.message,
        "schema": {"digest": encode_schema(commit.schema).digest}
        if large
        else {"tensors": tensors},
        "entry": commit.entry,
        "runs": {name: reference_run(state) for name, state in commit.runs.items()},
        "segments": [asdict(ref) for ref in commit.segments],
        "failures": [asdict(ref) for ref in commit.failures],
        "totals": asdict(commit.totals),
        "progress": commit.progress and asdict(commit.progress),
        "tags": commit.tags,
        "branches": commit.branches,
        "expired": {name: list(versions.spans) for name, versions in commit.expired.items()},
        "single_writer": commit.single_writer,
    }
    if commit.first_order:
        document["first_order"] = commit.first_order
    if commit.creds:
        document["creds"] = {
            name: {"managed": key.managed, "former": key.former}
            for name, key in commit.creds.items()
        }
    if commit.histories:
        document["past"] = {
            name: {"since": history.since, "former": history.former}
            for name, history in commit.histories.items()
        }
    rest = json.dumps(document, separators=(",", ":")).encode()[1:]
    return b'{"crc32c":"%08x",' % google_crc32c.value(rest) + rest


def reference_run(state: RunState) -> dict[str, Any]:
    """Encode a run without the fields that have their defaults."""
    run, plan = asdict(state), asdict(state.plan)
    default = asdict(RunState(state.plan, 0))
    plan = {
        name: value
        for name, value in plan.items()
        if value or name not in ("overwrite", "compaction")
    }
    return {
        name: plan if name == "plan" else value
        for name, value in run.items()
        if name in ("plan", "order") or value != default[name]
    }


@given(commits())
def test_bytes_are_those_of_the_whole_document(commit: Commit) -> None:
    """A commit is encoded as one compact, ASCII JSON document, and is decoded unchanged."""
    data = commit_bytes(commit)
    assert data == reference_bytes(commit)
    assert commit_bytes(commit, encode_schema(commit.schema)) == data
    schema = encode_schema(commit.schema)
    assert read_commit(data, "key", lambda digest: read_schema(schema.data, digest)) == commit


@given(commits(), st.data())
def test_unknown_fields_are_ignored(commit: Commit, data: st.DataObject) -> None:
    """Fields that a later release of the same format adds do not disturb a reader."""
    document = json.loads(commit_bytes(commit))
    del document["crc32c"]
    inner = [document, document["totals"], *document["runs"].values(), *document["segments"]]
    data.draw(st.sampled_from(inner))["later"] = {"any": [1]}
    rest = json.dumps(document).encode()[1:]
    sealed = b'{"crc32c":"%08x",' % google_crc32c.value(rest) + rest
    schema = encode_schema(commit.schema)
    assert read_commit(sealed, "key", lambda digest: read_schema(schema.data, digest)) == commit
