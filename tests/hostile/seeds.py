"""Write the real objects of the corpus: ``python -m tests.hostile.seeds``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from dasklake._format.documents import commit_bytes
from dasklake._format.heartbeat import Heartbeat, heartbeat_bytes
from dasklake._format.segment import build_manifest, failures_bytes, segment_bytes
from dasklake._model.commit import Commit, Kind, Plan, Progress, RunState, SegmentRef, Totals
from dasklake._model.creds_key import CredsKey
from dasklake._model.receipt import ChunkRef, Failure, Receipt
from dasklake._model.tensor_history import TensorHistory
from dasklake._model.versions import Versions
from dasklake._schema.schema import Schema
from tests.compat.write import make_sample
from tests.hostile.readers import SPECS
from tests.support.samples import HEADER, encode

CORPUS = Path(__file__).parent / "corpus"

#: Tensors of one chunk.
_TENSORS = 5

_INIT = Commit(
    version=0,
    id="ab" * 8,
    parent=None,
    branch="main",
    kind=Kind.INIT,
    time=datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC),
    author="somebody",
    message="Create the lake",
    schema=SPECS,
)
_RUN = RunState(Plan(3, 100, "ef" * 16, "12" * 16), 3, epoch=2, partitions=2, inputs=60)
_DATA = replace(
    _INIT,
    version=1234,
    id="cd" * 8,
    parent="ab" * 8,
    kind=Kind.DATA,
    schema=Schema({name: SPECS[name] for name in ("number", "boxes", "label")}),
    entry={"run": "r", "epoch": 2},
    runs={"r": _RUN, "s": RunState(Plan(1, None, "ef" * 16, None, overwrite=True), 4, closed=1)},
    segments=(SegmentRef("ab" * 8, 5, 50, 1000, 2**32 - 1, 1), SegmentRef("cd" * 8, 1, 1, 10, 0)),
    failures=(SegmentRef("ab" * 8, 1, 0, 100, 5),),
    totals=Totals(51, 6, 1, 12345),
    progress=Progress("r", 2, 3, 60, 60.0),
    tags={"v1": ["main", 3]},
    branches={"b": {"source": ["main", 2], "first": 0, "entry": 3}},
    expired={"main": Versions.each([0, 1, 5])},
    first_order=3,
    histories={"label": TensorHistory(3, ((7, "former"),))},
    creds={"key": CredsKey(managed=True, former=("old key",))},
    single_writer=True,
)
_ABORT = replace(_DATA, kind=Kind.ABORT, entry={"closed": {"r": 2}}, progress=None)
_FAILURES = [
    Failure("r", 0, 3, 3, "3", "number", "ValueError", "no sample 3", "a\ntraceback"),
    Failure("r", 2, None, None, None, None, "OSError", "", ""),
]


def seeds() -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each object."""
    for commit in (_INIT, _DATA, _ABORT):
        yield f"commit/{commit.kind}.json", commit_bytes(commit)
    chunks = (ChunkRef(0, 10, 1000, 500, 1), ChunkRef(1, 20, 2000, 500, 2))
    receipts = [Receipt("r", 1, n, "ab" * 8, chunks, 30) for n in range(3)]
    yield "segment/some.arrow", segment_bytes(build_manifest("main/r", 0, receipts))
    texts = ('{"number":{"min":1,"max":9}}', '{"label":{"classes":"Aw==","counts":[3,7]}}')
    measured = tuple(replace(c, statistics=t) for c, t in zip(chunks, texts, strict=True))
    receipts = [Receipt("r", 1, n, "ab" * 8, measured, 30) for n in range(3)]
    yield "segment/statistics.arrow", segment_bytes(build_manifest("main/r", 0, receipts))
    yield "segment/none.arrow", segment_bytes(build_manifest("main/r", 0, []))
    yield "failures/some.arrow", failures_bytes(_FAILURES)
    yield "failures/none.arrow", failures_bytes([])
    heartbeat = Heartbeat(1, "ab" * 8, 7, "running", 10, 1, "")
    yield "heartbeat/running.json", heartbeat_bytes(heartbeat)
    yield "schema/all.json", json.dumps(SPECS.to_json(), separators=(",", ":")).encode()
    samples = [make_sample(i) for i in (0, 1, 2, 4)]
    names = list(SPECS)
    for at in range(0, len(names), _TENSORS):
        schema = Schema({name: SPECS[name] for name in names[at : at + _TENSORS]})
        yield f"chunk/{names[at]}.arrow", bytes(encode(schema, samples).data)
    header = replace(HEADER, inputs=2, failures=tuple(_FAILURES), failed=2)
    numbers = Schema({"number": SPECS["number"]})
    yield "chunk/empty.arrow", bytes(encode(numbers, [], header).data)


def main() -> None:
    """Write the objects."""
    for name, data in seeds():
        path = CORPUS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    main()
