"""Check a lake: every sample once and unchanged, and no complete partition written twice."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import dasklake
from dasklake._format import object_keys
from dasklake._log.log import Log
from dasklake._maintenance.reset import reset
from dasklake._maintenance.vacuum import vacuum
from dasklake._maintenance.verify import verify
from dasklake._storage.store import ObjectStore
from examples.shapes import Truth, make_shapes, truth
from tests.chaos.job import ANNOTATIONS, RUN


class Verdict(NamedTuple):
    """The differences between a lake and its input, in samples, and other damage."""

    compared: int
    lost: int
    duplicated: int
    wrong: int
    damage: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """True if there is no difference and no damage."""
        return not (self.lost or self.duplicated or self.wrong or self.damage)


@dataclass(frozen=True)
class Source:
    """The input: pictures and annotations in a folder, and the expected samples.

    Attributes
    ----------
    folder : Path
        Folder of the input files.
    ids : list of int
        Ids of the images, in order.
    size : int
        Number of images in a partition.
    """

    folder: Path
    ids: list[int]
    size: int
    _truth: dict[int, Truth] = field(repr=False)
    _names: dict[bytes, int] = field(repr=False)

    @classmethod
    def make(cls, folder: Path, count: int, size: int, seed: int) -> Source:
        """Draw a data set, always the same for a count and a seed."""
        shapes = make_shapes(count, seed)
        folder.mkdir()
        (folder / ANNOTATIONS).write_text(json.dumps(shapes.document))
        for name, data in shapes.images.items():
            (folder / name).write_bytes(data)
        records = shapes.document["images"]
        names = {shapes.images[record["file_name"]]: int(record["id"]) for record in records}
        assert len(names) == count  # each picture identifies its image
        return cls(folder, list(names.values()), size, truth(shapes.document), names)

    def partition(self, image_id: int) -> int:
        """Return the partition of an image."""
        return self.ids.index(image_id) // self.size

    def found(self, lake: dasklake.Lake) -> list[int | None]:
        """Return the image id of each row, by the bytes of its picture."""
        pictures = lake["images"]
        return [self._names.get(bytes(pictures.bytes(row) or b"")) for row in range(len(lake))]

    def compare(self, lake: dasklake.Lake) -> Verdict:
        """Compare every sample of a lake with the input."""
        found = self.found(lake)
        times = Counter(found)
        known = [image_id for image_id in dict.fromkeys(found) if image_id is not None]
        wrong = sum(
            image_id is None or not self._same(lake, row, image_id)
            for row, image_id in enumerate(found)
        )
        # In the order of the input, as far as they are there.
        wrong += sum(
            a != b for a, b in zip(known, [i for i in self.ids if i in times], strict=True)
        )
        return Verdict(
            compared=len(found),
            lost=sum(image_id not in times for image_id in self.ids),
            duplicated=sum(times[image_id] - 1 for image_id in known),
            wrong=wrong,
        )

    def _same(self, lake: dasklake.Lake, row: int, image_id: int) -> bool:
        want, have = self._truth[image_id], lake[row]
        names: Any = lake.schema["categories"].class_names
        return (
            [names[label] for label in have["categories"]] == want.names
            and np.array_equal(have["boxes"], want.boxes)
            and have["masks"].dtype == np.bool_
            and np.array_equal(have["masks"], want.masks)
        )


def judge(source: Source, store: ObjectStore, lake: dasklake.Lake) -> Verdict:
    """Compare a finished lake with its input, and check all its objects.

    This is done twice: after the run, and after a vacuum, when no unneeded object may exist.
    """
    damage = [f"reset would delete {key}" for key in reset(store, Log(store), dry_run=True).objects]
    verdict = _compared(source, store, lake)
    vacuum(store, Log(store))
    lake.refresh()
    after = _compared(source, store, lake)
    chunks = {key for key, _ in store.walk("data", temporary=True)}
    if len(chunks) != lake.commit.totals.chunks:
        damage.append(f"{len(chunks)} objects for {lake.commit.totals.chunks} chunks")
    return Verdict(
        compared=verdict.compared,
        lost=max(verdict.lost, after.lost),
        duplicated=max(verdict.duplicated, after.duplicated),
        wrong=max(verdict.wrong, after.wrong),
        damage=(*damage, *verdict.damage, *after.damage),
    )


def _compared(source: Source, store: ObjectStore, lake: dasklake.Lake) -> Verdict:
    damage = [f"{bad.key}: {bad.problem}" for bad in verify(store, Log(store)).damaged]
    if not lake.is_complete:
        damage.append("the lake is not complete")
    return source.compare(lake)._replace(damage=tuple(damage))


class Attempts:
    """Find complete attempts on storage, by the specification alone.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._last: dict[str, bool] = {}

    def complete(self) -> set[int]:
        """Return the partitions with an attempt that has all its chunks."""
        chunks: dict[tuple[int, int, str], dict[int, bool]] = {}
        for key, _ in self._store.walk(object_keys.data_prefix(object_keys.home_of("main", RUN))):
            name = object_keys.parse_chunk_key(key)
            if name is not None:
                attempt = (name.partition, name.epoch, name.attempt)
                chunks.setdefault(attempt, {})[name.chunk] = self._is_last(key)
        return {
            attempt[0]
            for attempt, found in chunks.items()
            if sorted(found) == list(range(len(found))) and found[len(found) - 1]
        }

    def _is_last(self, key: str) -> bool:
        # Chunks never change: each is read once.
        if key not in self._last:
            schema = pa.ipc.open_file(self._store.get(key)).schema
            self._last[key] = json.loads(schema.metadata[b"dasklake"])["last"]
        return self._last[key]
