"""Hostile lakes with valid checksums, as an attacker could write them.

``python -m tests.hostile.attacks FOLDER NAME…`` creates them, reads each in every way, and prints the
outcomes and the cost. It is a separate process, so that its memory can be measured and limited.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pyarrow as pa

import dasklake
from dasklake._format import object_keys
from dasklake._format.chunk import write_chunk
from dasklake._log.log import Log
from dasklake._maintenance.reset import reset
from dasklake._maintenance.verify import verify
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import LakeError
from tests.hostile.outcomes import OUTCOMES
from tests.hostile.sealing import Attacker, sealed_chunk, sealed_text, table
from tests.support.samples import HEADER, Writing, encode

SCHEMA = Schema(
    {
        "number": TensorSpec(dtype="int64", shape=()),
        "flag": TensorSpec(dtype="bool", shape=()),
        "vector": TensorSpec(dtype="float32", shape=(3,)),
        "boxes": TensorSpec("bbox"),
        "packed": TensorSpec(dtype="uint8", shape=(None, None), compression="zstd"),
        "mask": TensorSpec("binary_mask", compression="packbits-lz4"),
        "free": TensorSpec(dtype="int32"),
        "text": TensorSpec("text"),
        "label": TensorSpec("class_label", class_names=["a", "b"]),
        "link": TensorSpec("link[image]", compression="jpeg", verify=False),
        "price": TensorSpec(dtype=pa.decimal128(10, 2)),
    }
)
SAMPLES: list[Any] = [
    {
        "number": i,
        "flag": i % 2 == 0,
        "vector": np.full(3, i, "float32"),
        "boxes": np.full((i % 3, 4), i, "float32"),
        "packed": np.full((i + 1, 2), i, "uint8"),
        "mask": np.ones((2, 3, i % 2), bool),
        "free": np.arange(i, dtype="int32"),
        "text": f"text {i}",
        "label": i % 2,
        "link": f"https://host/{i}.jpg",
        "price": i,
    }
    for i in range(6)
]

Attack = Callable[[Attacker], None]
_DEEP = 100_000

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"

#: Limit of a reader's address space, in bytes.
_ADDRESSES = 16 * 2**30


def _set(*path: Any, value: Any) -> Attack:
    """Change one value of the newest commit."""

    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return lambda attacker: attacker.commit(change)


def _text(rest: bytes) -> Attack:
    """Replace the newest commit with any bytes."""

    def put(attacker: Attacker) -> None:
        attacker.store.put(object_keys.commit_key("main", attacker.version), sealed_text(rest))

    return put


def _columns(**columns: Any) -> Attack:
    return lambda attacker: attacker.columns(**columns)


def _texts(text: str) -> pa.Array:
    return pa.array([text], pa.large_string())


def _chunk(**changed: Any) -> Attack:
    """Change columns of the only chunk."""

    def put(attacker: Attacker) -> None:
        attacker.chunk(write_chunk(chunk_columns(changed), HEADER))

    return put


def chunk_columns(changed: Mapping[str, Any]) -> list[tuple[pa.Field, pa.Array]]:
    """Return the columns of a chunk, with some changed."""
    batch = pa.ipc.open_file(encode(SCHEMA, SAMPLES).data).get_batch(0)
    names = {name.replace("_shape", ":shape"): column for name, column in changed.items()}
    arrays = {name: names.get(name, batch.column(name)) for name in batch.schema.names}
    return [(pa.field(name, array.type), array) for name, array in arrays.items()]


def blobs(pieces: list[bytes]) -> pa.Array:
    """Return a column of bytes."""
    return pa.array(pieces, pa.large_binary())


def _shapes(*shapes: list[int], rank: int) -> pa.Array:
    return pa.array(shapes, pa.list_(pa.int64(), rank))


#: Offsets of six values that Arrow accepts, to be replaced in the chunk.
_SOUND = [0, 11, 12, 13, 14, 15, 64]


def _torn(name: str, offsets: list[int]) -> Attack:
    """Replace offsets in a column of the only chunk with invalid ones."""
    sound, torn = (np.array(offset, np.int64).tobytes() for offset in (_SOUND, offsets))
    column = pa.Array.from_buffers(
        pa.large_binary(), 6, [None, pa.py_buffer(sound), pa.py_buffer(b"x" * 64)]
    )

    def put(attacker: Attacker) -> None:
        chunk = write_chunk(chunk_columns({name: column}), HEADER)
        data = bytes(chunk.data)
        assert data.count(sound) == 1
        attacker.chunk(sealed_chunk(data.replace(sound, torn))._replace(rows=chunk.rows))

    return put


def _bad_text() -> pa.Array:
    offsets = pa.py_buffer(np.arange(7, dtype=np.int64))
    data = pa.py_buffer(b"\xff\xfe\xc0\x80\xed\xa0")
    return pa.Array.from_buffers(pa.large_string(), 6, [None, offsets, data])


def _huge_version(attacker: Attacker) -> None:
    version = 99_999_999_999_999_999
    attacker.version, old = version, attacker.version
    document = json.loads(attacker.store.get(object_keys.commit_key("main", old)))
    del document["crc32c"]
    data = json.dumps({**document, "version": version}, separators=(",", ":")).encode()
    attacker.store.put(object_keys.commit_key("main", version), sealed_text(data[1:]))


def _many_segments(count: int, *, same: bool) -> Attack:
    def change(document: dict[str, Any]) -> None:
        ref = document["segments"][0]
        names = [ref["name"] if same else f"{i:016x}" for i in range(count)]
        document["segments"] = [{**ref, "name": name, "rows": 0, "samples": 0} for name in names]
        document["totals"] |= {"samples": 0, "chunks": 0}

    return lambda attacker: attacker.commit(change)


def _compressed_segment(attacker: Attacker) -> None:
    rows = 30_000_000
    zeros = pa.array(np.zeros(rows, np.int64))
    names = ("order", "partition", "rows", "size", "head")
    batch = pa.record_batch(dict.fromkeys(names, zeros))
    attacker.segment(table(batch, "zstd"), rows=rows, samples=6)


def _cut_segment(attacker: Attacker) -> None:
    ref = Log(attacker.store).require_head().segments[0]
    data = attacker.store.get(object_keys.segment_key(ref.name))
    attacker.segment(data[: len(data) // 2])


def _nothings(attacker: Attacker) -> None:
    """Write a huge number of rows that take no bytes."""
    rows = 2**31 - 1
    array = pa.Array.from_buffers(pa.null(), rows, [None])
    attacker.chunk(write_chunk([(pa.field("number", pa.null()), array)], HEADER))


def _null_schema(attacker: Attacker) -> None:
    """Do the same with a matching schema."""
    rows = 10**9
    chunk = write_chunk([(pa.field("number", pa.null()), pa.nulls(rows))], HEADER)
    attacker.chunk(chunk)
    spec = Schema({"number": TensorSpec(dtype=pa.null())}).to_json()
    _set("schema", value={"tensors": spec})(attacker)


def _wide_fixed(attacker: Attacker) -> None:
    """Write a fixed shape of terabytes, which a Dask array would allocate at once."""
    spec = TensorSpec(dtype="uint8", shape=(2**40,), compression="zstd")
    tensors = {**SCHEMA.to_json(), "packed": spec.to_json()}
    shapes = _shapes(*[[2**40]] * 6, rank=1)
    _chunk(packed=blobs([b"x"] * 6), packed_shape=shapes)(attacker)
    _set("schema", value={"tensors": tensors})(attacker)


def _big_commit(attacker: Attacker) -> None:
    _text(b" " * (80 << 20) + b"}")(attacker)


def _compressed_chunk(attacker: Attacker) -> None:
    batch = pa.record_batch([pa.array(np.zeros(10**7, np.int64))], ["number"])
    data = table(batch, "zstd")
    chunk = encode(SCHEMA, SAMPLES)._replace(data=memoryview(data), head=min(1000, len(data)))
    attacker.chunk(chunk)


ATTACKS: dict[str, Attack] = {
    "deep JSON": _text(b'"a":' + b"[" * _DEEP + b"]" * _DEEP + b"}"),
    "no JSON": _text(b"\xff\xfe"),
    "a list in the place of a commit": _text(b'"a":[]}'),
    "a number of ten thousand digits": _text(b'"format":' + b"9" * 10_000 + b"}"),
    "a commit of 80 MiB": _big_commit,
    "a version beyond all measure": _huge_version,
    "samples as text": _set("totals", "samples", value="6"),
    "fewer samples than none": _set("totals", "samples", value=-1),
    "samples beyond all measure": _set("totals", "samples", value=2**80),
    "more samples than the segments have": _set("totals", "samples", value=10**15),
    "totals are a list": _set("totals", value=[1, 2]),
    "an unknown kind": _set("kind", value="explode"),
    "an epoch of no run": _set("entry", value={}),
    "a run outside of the root": lambda attacker: attacker.commit(
        lambda d: d["runs"].update({"../../etc": next(iter(d["runs"].values()))})
    ),
    "a segment outside of the root": _set("segments", 0, "name", value="../../../etc/passwd"),
    "a segment without a name": _set("segments", 0, "name", value=None),
    "a segment of 2**60 bytes": _set("segments", 0, "size", value=2**60),
    "the same segment a thousand times": _many_segments(1000, same=True),
    "a million segments": _many_segments(1_000_000, same=False),
    "all versions are expired": _set("expired", value={"main": [[0, 2**62]]}),
    "expired is a number": _set("expired", value=7),
    "branches outside of the root": _set("branches", value={"../x": {"source": ["main", 0]}}),
    "a schema without tensors' specs": _set("schema", value={"tensors": {"x": 7}}),
    "a schema outside of the root": _set("schema", value={"digest": "../../x"}),
    "an axis of 2**62": _set("schema", "tensors", "vector", "shape", value=[2**62, 2**62]),
    "a thousand axes": _set("schema", "tensors", "vector", "shape", value=[1] * 1000),
    "a dtype that is a list": _set("schema", "tensors", "vector", "dtype", value=["<f4"]),
    "an invalid type": _set("schema", "tensors", "price", "arrow", value="AAAA"),
    "another type than the chunk has": _set(
        "schema", "tensors", "number", "dtype", value="float32"
    ),
    "another htype than the chunk has": _set("schema", "tensors", "text", value={"htype": "bbox"}),
    "a tensor that the chunk lacks": _set("schema", "tensors", "more", value={"htype": "text"}),
    "a compressed segment": _compressed_segment,
    "half a segment": _cut_segment,
    "a run that leaves the root": _columns(
        home=pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array(["main/../../x"]))
    ),
    "an index beyond the runs": _columns(
        home=pa.DictionaryArray.from_arrays(
            pa.array([5], pa.int32()), pa.array(["main/run"]), safe=False
        )
    ),
    "a negative partition": _columns(partition=[-1]),
    "a chunk of 2**60 bytes": _columns(size=[2**60]),
    "a chunk of 2**45 bytes": _columns(size=[2**45]),
    "a head of 2**40 bytes": _columns(head=[2**40], size=[2**41]),
    "10**12 rows in a small chunk": _columns(rows=[10**12]),
    "rows as text": _columns(rows=pa.array(["6"])),
    "rows without bytes": _nothings,
    "rows without bytes, by the schema": _null_schema,
    "statistics as numbers": _columns(statistics=pa.array([7])),
    "deep statistics": _columns(statistics=_texts('{"number":' + "[" * _DEEP)),
    "statistics of other values": _columns(statistics=_texts('{"number":{"min":7,"max":9}}')),
    "a compressed chunk": _compressed_chunk,
    "numbers of another width": _chunk(number=pa.array([1] * 6, pa.int8())),
    "lists in the place of numbers": _chunk(number=pa.array([[1]] * 6)),
    "offsets that lead anywhere": _torn("boxes", [0, 2**60, 5, -3, 7, 2, 64]),
    "offsets that go back": _torn("packed", [60, 50, 40, 30, 20, 10, 0]),
    "negative shapes": _chunk(boxes_shape=_shapes(*[[-1, 4]] * 6, rank=2)),
    "shapes of terabytes": _chunk(packed_shape=_shapes(*[[2**40, 2**20]] * 6, rank=2)),
    "shapes of 5 GB": _chunk(packed_shape=_shapes(*[[5 * 10**9, 1]] * 6, rank=2)),
    "a fixed shape of terabytes": _wide_fixed,
    "masks of terabytes": _chunk(mask_shape=_shapes(*[[2**20, 2**20, 8]] * 6, rank=3)),
    "empty and endless": _chunk(
        boxes=blobs([b""] * 6), boxes_shape=_shapes(*[[2**40, 0]] * 6, rank=2)
    ),
    "shapes without end": _chunk(free_shape=pa.array([[2**60] * 100] * 6, pa.list_(pa.int64()))),
    "bytes that do not decompress": _chunk(packed=blobs([b"\x28\xb5\x2f\xfd" + b"\xff" * 9] * 6)),
    "text that is not UTF-8": _chunk(text=_bad_text()),
    "labels beyond the names": _chunk(label=blobs([b"\xff" * 4] * 6)),
}


def make(folder: Path) -> ObjectStore:
    """Write a valid lake of one chunk."""
    store = ObjectStore(folder)
    Writing(store, SCHEMA, 1).commit(0, [SAMPLES])
    return store


def _values_of_frame(frame: Any) -> list[list[Any]]:
    """Compute a frame, show it, and decode all of its values."""
    computed = frame.compute()
    repr(computed)
    return [list(computed[name]) for name in computed]


def ways(url: str, names: Sequence[str]) -> dict[str, Callable[[], object]]:
    """Return every way to read a lake, and some of its tensors."""

    def opened() -> dasklake.Lake:
        return dasklake.open(url)

    readers: dict[str, Callable[[], object]] = {
        "open": opened,
        "show": lambda: (repr(opened()), opened()._repr_html_(), len(opened()), opened().log()),
        "iterate": lambda: list(map(dict, opened())),
        "first": lambda: dict(opened()[0]),
        "slice": lambda: list(map(dict, opened()[:6])),
        "bag": lambda: opened().to_dask_bag().map(dict).compute(),
        "frame": lambda: _values_of_frame(opened().to_dask_dataframe()),
        "failures": lambda: opened().failures(),
        "stats": lambda: opened().stats(),
        "verify": lambda: verify(ObjectStore(url), Log(ObjectStore(url))),
        "reset": lambda: reset(ObjectStore(url), Log(ObjectStore(url)), dry_run=True),
    }

    def readers_of(name: str) -> dict[str, Callable[[], object]]:
        return {
            f"{name}[3]": lambda: opened()[name][3],
            f"{name}[1:5]": lambda: opened()[name][1:5],
            f"frame {name}": lambda: _values_of_frame(opened().to_dask_dataframe([name])),
            f"array {name}": lambda: opened().to_dask_array(name).compute(),
        }

    for name in names:
        readers |= readers_of(name)
    return readers


def attack(folder: Path, name: str) -> dict[str, Any]:
    """Create one hostile lake, read it in every way, and return the outcomes and the cost."""
    store = make(folder)
    ATTACKS[name](Attacker(store))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {}
    began = time.monotonic()
    some = [tensor for tensor in SCHEMA if DEEP or tensor in OUTCOMES[name].tensors]
    for way, read in ways(store.url, some).items():
        try:
            result = read()
        except LakeError as error:
            outcomes[way] = error.code
        except Exception as error:  # noqa: BLE001 # unexpected errors are reported
            outcomes[way] = f"FOREIGN {type(error).__name__}: {error}"[:300]
        else:
            outcomes[way] = "damaged" if getattr(result, "damaged", None) else "read"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cost = {"seconds": time.monotonic() - began, "megabytes": (peak - before) / 1024}
    return {"name": name, "outcomes": outcomes, **cost}


def main(folder: str, *names: str) -> None:
    """Create hostile lakes, read them, and print the outcomes of each."""
    # Excessive allocations raise an error instead of exhausting the machine.
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
    with dask.config.set(scheduler="sync"):
        for number, name in enumerate(names):
            report = attack(Path(folder) / str(number), name)
            sys.stdout.write(f"{json.dumps(report)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
