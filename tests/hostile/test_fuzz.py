"""Readers of arbitrary bytes read them or raise a dasklake error, at a bounded cost."""

from __future__ import annotations

import base64
import copy
import io
import json
import random
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from dasklake._format.chunk import write_chunk
from dasklake.exceptions import LakeError
from tests.hostile.readers import READERS, sealed
from tests.hostile.sealing import sealed_commit, table
from tests.hostile.seeds import CORPUS
from tests.support.samples import HEADER

#: Limits for reading one small object: CPU seconds, and additional memory of the process in kB.
MAX_SECONDS = 10.0
MAX_MEMORY = 512 * 1024

FILES = sorted(path.relative_to(CORPUS).as_posix() for path in CORPUS.glob("*/*"))
KINDS = sorted(READERS)

#: Numbers at the limits of types.
EDGES = (
    0,
    1,
    -1,
    7,
    127,
    255,
    2**15,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**53,
    2**62,
    2**63 - 1,
    -(2**63),
)

#: Values that a field of a document should not have.
VALUES: tuple[Any, ...] = (
    *(None, True, False, "", "x", "../../x", "main", "\ud800", "\0", "9" * 50, [], {}, [[]]),
    *([None], [1, 2], ["main", -1], {"x": 1}, {"": None}, 0.5, -0.5, 1e308, 10**40, *EDGES),
)

#: Number of nested lists in a deep document.
DEPTH = 40


def corpus(kind: str) -> list[bytes]:
    """Return the objects of one kind."""
    return [(CORPUS / name).read_bytes() for name in FILES if name.startswith(f"{kind}/")]


def survives(kind: str, data: bytes) -> None:
    """Read an example, and show the object if that fails."""
    note(f"{kind}: {base64.b85encode(data).decode()}")
    read(kind, data)


def read(kind: str, data: bytes) -> None:
    """Read an object, or get a dasklake error, at a bounded cost."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    with suppress(LakeError):
        READERS[kind](data)
    assert time.process_time() - began < MAX_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_MEMORY


@pytest.mark.parametrize("name", FILES)
def test_corpus(name: str) -> None:
    """Real objects are read. Objects that once broke a reader are read or refused."""
    kind, _, rest = name.partition("/")
    data = (CORPUS / name).read_bytes()
    if rest.startswith("found-"):
        read(kind, data)
    else:
        assert READERS[kind](data) is not None


def _flip(chance: random.Random, data: bytearray, _: list[bytes]) -> None:
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _put(chance: random.Random, data: bytearray, _: list[bytes]) -> None:
    width = chance.choice((1, 2, 4, 8))
    offset = chance.randrange(len(data))
    offset -= chance.choice((0, offset % width))
    data[offset : offset + width] = (chance.choice(EDGES) % 2 ** (8 * width)).to_bytes(
        width, "little"
    )


def _cut(chance: random.Random, data: bytearray, _: list[bytes]) -> None:
    offset = chance.randrange(len(data))
    del data[offset : offset + chance.choice((1, 4, 8, 64, len(data)))]


def _insert(chance: random.Random, data: bytearray, _: list[bytes]) -> None:
    offset = chance.randrange(len(data))
    data[offset:offset] = chance.randbytes(chance.choice((1, 4, 8, 64)))


def _splice(chance: random.Random, data: bytearray, objects: list[bytes]) -> None:
    other = chance.choice(objects)
    offset, start = chance.randrange(len(data)), chance.randrange(len(other))
    length = chance.choice((1, 8, 64, 512, len(other)))
    data[offset : offset + length] = other[start : start + length]


STEPS: tuple[Callable[..., None], ...] = (_flip, _put, _put, _cut, _insert, _splice)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**64), steps=st.integers(1, 8), seal=st.booleans())
def test_changed_bytes(kind: str, seed: int, steps: int, seal: bool) -> None:  # noqa: FBT001 # drawn
    """Changed, removed, added or spliced bytes never break a reader, sealed again or not."""
    chance = random.Random(seed)  # noqa: S311 # no secret
    objects = corpus(kind)
    data = bytearray(chance.choice(objects))
    for _ in range(steps):
        if data:
            chance.choice(STEPS)(chance, data, objects)
    survives(kind, sealed(kind, bytes(data)) if seal else bytes(data))


def _positions(document: Any) -> list[tuple[Any, Any]]:
    """Return every position of a document, as its container and the key or index."""
    positions: list[tuple[Any, Any]] = []
    keys = document if isinstance(document, dict) else range(len(document))
    for key in list(keys):
        positions.append((document, key))
        if isinstance(document[key], dict | list):
            positions += _positions(document[key])
    return positions


def _twist(chance: random.Random, document: Any) -> None:
    """Change one position of a document."""
    positions = _positions(document)
    if not positions:
        return
    holder, key = chance.choice(positions)
    change = chance.randrange(6)
    if change == 0:
        del holder[key]
    elif change == 1:
        other, other_key = chance.choice(positions)
        with suppress(LookupError):
            holder[key] = json.loads(json.dumps(other[other_key]))
    elif change == 2 and isinstance(holder, dict):
        holder[str(chance.choice(VALUES))] = holder.pop(key)
    elif change == 3:
        for _ in range(DEPTH):
            holder[key] = [holder[key]]
    else:
        holder[key] = copy.deepcopy(chance.choice(VALUES))


@pytest.mark.parametrize("kind", ["commit", "schema", "heartbeat"])
@given(seed=st.integers(0, 2**64), steps=st.integers(1, 6))
def test_changed_documents(kind: str, seed: int, steps: int) -> None:
    """Documents with changed values and valid checksums never break a reader."""
    chance = random.Random(seed)  # noqa: S311 # no secret
    document = json.loads(chance.choice(corpus(kind)))
    document.pop("crc32c", None)
    for _ in range(steps):
        _twist(chance, document)
    data = sealed_commit(document) if kind == "commit" else json.dumps(document).encode()
    survives(kind, data)


def _column(chance: random.Random, rows: int) -> pa.Array:
    """Return a random column."""
    numbers = [chance.choice(EDGES) for _ in range(rows)]
    pieces = [chance.randbytes(chance.choice((0, 1, 8, 40))) for _ in range(rows)]
    rank = chance.randrange(5)
    axes = [[chance.choice(EDGES) for _ in range(rank)] for _ in range(rows)]
    makers: list[Callable[[], pa.Array]] = [
        lambda: pa.nulls(rows, chance.choice((pa.null(), pa.int64(), pa.large_binary()))),
        lambda: pa.array(numbers),
        lambda: pa.array(np.array(numbers, "object").astype("float64")),
        lambda: pa.array(np.array([n % 2**32 for n in numbers], "<u4")),
        lambda: pa.array([n % 2 == 0 for n in numbers]),
        lambda: pa.array(pieces, pa.large_binary()),
        lambda: pa.array([piece.hex() for piece in pieces], pa.large_string()),
        lambda: pa.array([piece.hex() for piece in pieces], pa.string()),
        lambda: pa.array(axes, pa.list_(pa.int64())),
        lambda: pa.array(axes, pa.list_(pa.int64(), rank)),
        lambda: pa.array([{"url": "x", "shape": shape} for shape in axes]),
    ]
    return chance.choice(makers)()


def _like(chance: random.Random, column: pa.Array) -> pa.Array:
    """Return a column of the same type with moved or unusual values."""
    kind, rows = column.type, len(column)
    if isinstance(kind, pa.BaseExtensionType) or not rows:
        return column
    if pa.types.is_large_binary(kind):
        return pa.array([chance.randbytes(chance.randrange(40)) for _ in range(rows)], kind)
    if pa.types.is_fixed_size_list(kind) and kind.value_type == pa.int64():
        few = (0, 1, 2, 3, 5)
        axes = [
            [chance.choice(chance.choice((few, EDGES))) for _ in range(kind.list_size)]
            for _ in range(rows)
        ]
        return pa.array(axes, kind)
    if pa.types.is_list(kind) and kind.value_type == pa.int64():
        return pa.array([[chance.choice((0, 1, 2, *EDGES))] * chance.randrange(9)] * rows, kind)
    if pa.types.is_integer(kind) and chance.randrange(2):
        with suppress(pa.ArrowException, OverflowError):
            return pa.array([chance.choice(EDGES) for _ in range(rows)], kind)
    return column.take(
        pa.array([chance.choice((None, 0, rows - 1)) for _ in range(rows)], pa.int64())
    )


def _changed(chance: random.Random, columns: dict[str, pa.Array]) -> None:
    """Change one column of a table."""
    name = chance.choice(list(columns))
    change = chance.randrange(6)
    if change == 0 and len(columns) > 1:
        del columns[name]
    elif change == 1:
        columns[name] = columns[chance.choice(list(columns))]
    elif change == 2:
        columns[name] = _column(chance, len(columns[name]))
    else:
        columns[name] = _like(chance, columns[name])


def _columns(data: bytes) -> dict[str, pa.Array]:
    batch = pa.ipc.open_file(io.BytesIO(data)).get_batch(0)
    return {name: batch.column(name) for name in batch.schema.names}


@pytest.mark.parametrize("kind", ["segment", "failures"])
@given(seed=st.integers(0, 2**64), steps=st.integers(1, 4))
def test_changed_tables(kind: str, seed: int, steps: int) -> None:
    """Tables with changed columns and valid checksums never break a reader."""
    chance = random.Random(seed)  # noqa: S311 # no secret
    columns = _columns(chance.choice([data for data in corpus(kind) if _whole(data)]))
    for _ in range(steps):
        _changed(chance, columns)
    compression = chance.choice((None, None, None, "zstd", "lz4"))
    survives(kind, table(pa.record_batch(columns), compression))


def _whole(data: bytes) -> bool:
    """Return whether Arrow opens an object; some that once broke a reader it does not."""
    try:
        return pa.ipc.open_file(io.BytesIO(data)).get_batch(0).validate(full=True) is None
    except (pa.ArrowException, OSError, ValueError):
        return False


@given(seed=st.integers(0, 2**64), steps=st.integers(1, 4), twist=st.booleans())
def test_changed_chunks(seed: int, steps: int, twist: bool) -> None:  # noqa: FBT001 # drawn
    """Chunks with changed columns or header and valid checksums never break a reader."""
    chance = random.Random(seed)  # noqa: S311 # no secret
    columns = _columns(chance.choice([data for data in corpus("chunk") if _whole(data)]))
    for _ in range(steps):
        _changed(chance, columns)
    header: Any = HEADER
    if twist:
        field = chance.choice(list(HEADER.__slots__))
        header = replace(HEADER, **{field: chance.choice(VALUES)})
    chunk = write_chunk(
        [(pa.field(n, column.type), column) for n, column in columns.items()], header
    )
    assert google_crc32c.value(bytes(chunk.data[: chunk.head])) == chunk.crc
    survives("chunk", bytes(chunk.data))
