"""Changed objects with valid checksums, as an attacker could write them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa

from dasklake._format import object_keys
from dasklake._format.chunk import EncodedChunk, _walk
from dasklake._format.segment import chunk_key_at
from dasklake._log.log import Log
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import CorruptionError

_SUMS = b'{"head":"'


def sealed_commit(document: Any) -> bytes:
    """Return the object of a commit with any content, and its valid checksum."""
    rest = json.dumps(document, separators=(",", ":")).encode()[1:]
    return sealed_text(rest)


def sealed_text(rest: bytes) -> bytes:
    """Return the object of a commit from the bytes after its checksum."""
    return b'{"crc32c":"' + f'{google_crc32c.value(rest):08x}",'.encode() + rest


def table(batch: pa.RecordBatch, compression: str | None = None) -> bytes:
    """Return an Arrow file of one batch."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _head_length(data: bytes) -> int:
    try:
        return _walk(np.frombuffer(data, np.uint8))[0]
    except IndexError:
        return len(data)
    except ValueError as error:
        raise CorruptionError(str(error)) from error


def sealed_chunk(data: bytes) -> EncodedChunk:
    """Return a chunk with valid checksums of all its bytes, if there is still room for them."""
    sealed = bytearray(data)
    head = _head_length(data)
    offset = data.rfind(_SUMS, 0, head)
    if offset >= 0:
        text = data[offset : data.index(b"}", offset) + 1] if b"}" in data[offset:head] else b"{}"
        try:
            sums = json.loads(text)
            page = int(sums["page"])
            pages = [data[start : start + page] for start in range(head, len(data), page)]
            values = np.array([google_crc32c.value(page_bytes) for page_bytes in pages], "<u4")
            sums["crc32c"] = base64.b64encode(values.tobytes()).decode()
            for own in ("0" * 8, None):
                sums["head"] = own or f"{google_crc32c.value(bytes(sealed[:head])):08x}"
                new = json.dumps(sums, separators=(",", ":")).encode()
                if len(new) == len(text):
                    sealed[offset : offset + len(text)] = new
        except (KeyError, TypeError, ValueError):
            pass  # the list of checksums is invalid, which is an attack as well
    crc = google_crc32c.value(bytes(sealed[:head]))
    return EncodedChunk(memoryview(bytes(sealed)), head, crc, 0)


class Attacker:
    """An attacker who can write every object of a lake.

    Parameters
    ----------
    store : ObjectStore
        The lake.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.version = Log(store).head_version() or 0

    def commit(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change the newest commit."""
        key = object_keys.commit_key("main", self.version)
        document = json.loads(self.store.get(key))
        del document["crc32c"]
        changed = change(document)
        self.store.put(key, sealed_commit(document if changed is None else changed))

    def segment(self, data: bytes, **about: int) -> None:
        """Change the only segment of the newest commit, and the reference to it."""

        def change(document: dict[str, Any]) -> None:
            [ref] = document["segments"]
            self.store.put(object_keys.segment_key(ref["name"]), data)
            ref |= {"size": len(data), "crc": google_crc32c.value(data), **about}
            document["totals"] |= {"samples": ref["samples"], "chunks": ref["rows"]}

        self.commit(change)

    def columns(self, **columns: Any) -> None:
        """Change columns of the only segment."""
        log = Log(self.store)
        commit = log.require_head()
        data = self.store.get(object_keys.segment_key(commit.segments[0].name))
        batch = pa.ipc.open_file(data).get_batch(0)
        for name, column in columns.items():
            kind = batch.column(name).type
            array = column if isinstance(column, pa.Array) else pa.array(column, kind)
            batch = batch.set_column(batch.schema.names.index(name), name, array)
        rows = batch.column("rows").to_pylist()
        samples = sum(row for row in rows if isinstance(row, int))
        self.segment(table(batch), samples=max(samples, 6))

    def chunk(self, chunk: EncodedChunk, **about: int) -> None:
        """Replace the only chunk."""
        log = Log(self.store)
        manifest = log.manifest(log.require_head())
        self.store.put(chunk_key_at(manifest, 0), chunk.data)
        values = {"rows": chunk.rows, "size": len(chunk.data), "head": chunk.head, "crc": chunk.crc}
        self.columns(**{name: [value] for name, value in (values | about).items()})
