"""A change of any byte of a small lake is reported or harmless, and never causes a wrong read."""

from __future__ import annotations

import os
import random
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Self

import dask
import dask.bag as db
import fsspec
import numpy as np
import pytest

import dasklake
from dasklake import TensorSpec
from dasklake._format import chunk, documents
from dasklake._log import log_reader
from dasklake._log.log import Log
from dasklake._maintenance import verify as verifying
from dasklake._maintenance.verify import verify
from dasklake._read import chunk_reader
from dasklake._read.plan import ReadPlan
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import CorruptionError, CorruptionWarning, LakeError, TransformError
from tests.support.samples import same

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"

#: One in so many bytes is changed, except with the deep profile.
STEP = 1 if DEEP else 500

#: Objects whose changes do not affect any read, by their keys, with the reasons.
HARMLESS = {
    r"_lake/runs/.*": "a heartbeat is advisory",
    r"data/main/stopped/1-.*": "named by no version; recovery checks every byte",
    r"data/.*-failures\.arrow": "its rows are in the version's own table",
}

SCHEMA: dict[str, Any] = {
    "number": TensorSpec(dtype="int64", shape=()),
    "boxes": TensorSpec("bbox", compression="lz4", optional=True),
    "mask": "binary_mask",
    "name": TensorSpec("text", optional=True),
}


def _sample(i: int) -> dict[str, Any]:
    if i % 7 == 3:
        raise ValueError(f"no sample {i}")
    return {
        "number": i,
        "boxes": np.full((i % 3, 4), i, "float32") if i % 4 else None,
        "mask": np.indices((4, 5, i % 3)).sum(0) % 2 == 0,
        "name": f"sample {i}" if i % 5 else None,
    }


def _broken(i: int) -> dict[str, Any]:
    if i > 2:
        raise ValueError("stop")
    return _sample(i)


EXPECTED = [_sample(i) for i in (*range(3), 4, 5, *range(3), 2)]


class _Inline:
    """A pool without threads, because starting them would take longer than all other work."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, function: Callable[..., Any], *items: Iterable[Any]) -> Iterator[Any]:
        """Call a function for each item, one after the other."""
        return iter([function(*arguments) for arguments in zip(*items, strict=False)])


@pytest.fixture
def lake(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """Write a lake in memory with an object of every kind, small pages and small samples."""
    monkeypatch.setattr(documents, "_INLINE_SCHEMA", 200)
    monkeypatch.setattr(chunk, "PAGE", 256)
    monkeypatch.setattr(chunk_reader, "_SMALL", 0)
    for module in (log_reader, verifying):
        monkeypatch.setattr(module, "ThreadPoolExecutor", _Inline)
    url = "memory://every-byte"
    with dask.config.set(scheduler="sync"):
        for run, first, count in (("one", 0, 6), ("two", 100, 3)):
            dasklake.to_lake(
                db.from_sequence(range(first, first + count), npartitions=2 if first else 1),
                url,
                schema=SCHEMA,
                transform=lambda i: _sample(i % 100),
                on_error="skip",
                run=run,
                mode="append",
                checkpoint_every=6,
                progress=False,
            )
        with pytest.raises(TransformError):
            dasklake.to_lake(
                db.from_sequence(range(2, 4), npartitions=2),
                url,
                schema=SCHEMA,
                transform=_broken,
                run="stopped",
                mode="append",
                progress=False,
            )
    store = ObjectStore(url)
    some, _ = store.walk("data/main/one")[0]
    attempt = "data/main/stopped/1-1-0123456789abcdef"
    store.put(f"{attempt}-0.arrow", store.get(some))
    failures, _ = store.walk("_lake/failures")[0]
    store.put(f"{attempt}-failures.arrow", store.get(failures))
    yield store
    fsspec.filesystem("memory").rm("/every-byte", recursive=True)


def _kind(key: str) -> str:
    if key.startswith("data/"):
        return "leftover" if any(re.fullmatch(pattern, key) for pattern in HARMLESS) else "chunk"
    return key.split("/")[1]


def _check_reads(store: ObjectStore, rows: range) -> None:
    """Read the samples of a changed object, whole and by range: correct, or a LakeError."""
    try:
        lake = dasklake.open(store.url)
    except LakeError:
        return
    # Without its newest commit a lake ends earlier, like one that never had the commit.
    expected = EXPECTED[: len(lake)]
    with suppress(LakeError):
        Log(store).failures(lake.commit)
        samples = list(lake)
        assert len(samples) == len(expected)
        assert all(same(f[n], w[n]) for f, w in zip(samples, expected, strict=True) for n in w)
    for row in rows:
        for name, value in EXPECTED[row].items():
            with suppress(LakeError):
                assert same(lake[name][row], value), (row, name)


def _rows(lake: ObjectStore, key: str) -> range:
    """Return the rows that an object holds, or a few of them if it refers to all."""
    main = Log(lake)
    plan = ReadPlan(main.manifest(main.require_head()))
    locations = [location for location in plan.locations() if location.key == key]
    return (
        range(locations[0].first, locations[0].first + locations[0].rows)
        if locations
        else range(0, 9, 4)
    )


def test_every_changed_byte(lake: ObjectStore, capsys: pytest.CaptureFixture[str]) -> None:
    """Each changed byte of each object is reported with its key or harmless; no read is wrong."""
    chance = random.Random(20_26)  # noqa: S311 # reproducible, not secret
    with dask.config.set(scheduler="sync"):
        samples = list(dasklake.open(lake.url))
        assert [s["number"] for s in samples] == [s["number"] for s in EXPECTED]
        assert all(same(f[n], w[n]) for f, w in zip(samples, EXPECTED, strict=True) for n in w)
    assert verify(lake, Log(lake)).ok
    objects = lake.walk("")
    assert sum(size for _, size in objects) <= 64 * 1024
    counts: Counter[tuple[str, str]] = Counter()
    for key, size in objects:
        data = lake.get(key)
        rows = _rows(lake, key)
        harmless = any(re.fullmatch(pattern, key) for pattern in HARMLESS)
        for offset in range(chance.randrange(STEP), size, STEP):
            for change in (0xFF, 1 << chance.randrange(8)):
                bad = bytearray(data)
                bad[offset] ^= change
                lake.put(key, bytes(bad))
                counts[_kind(key), "tried"] += 1
                reported = {damage.key for damage in verify(lake, Log(lake)).damaged}
                assert reported == (set() if harmless else {key}), (key, offset, change)
                counts[_kind(key), "harmless" if harmless else "reported"] += 1
                _check_reads(lake, rows)
        lake.put(key, data)
    assert verify(lake, Log(lake)).ok
    kinds = {kind for kind, _ in counts}
    assert kinds == {"chunk", "leftover", "failures", "log", "runs", "schemas", "segments"}
    with capsys.disabled():
        for kind in sorted(kinds):
            numbers = {
                outcome: counts[kind, outcome] for outcome in ("tried", "reported", "harmless")
            }
            sys.stdout.write(f"\n{kind}: {numbers}")


def test_skipped_chunks_are_never_wrong(lake: ObjectStore) -> None:
    """With on_corrupt="skip", the remaining samples of a changed chunk are correct, at their rows."""
    chance = random.Random(7)  # noqa: S311 # reproducible, not secret
    chunks = [entry for entry in lake.walk("data") if _kind(entry[0]) == "chunk"]
    for key, size in chunks:
        data = lake.get(key)
        for offset in range(chance.randrange(STEP), size, STEP * 4):
            bad = bytearray(data)
            bad[offset] ^= 0x10
            lake.put(key, bytes(bad))
            skipping = dasklake.open(lake.url, on_corrupt="skip")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CorruptionWarning)
                frame = skipping.to_dask_dataframe(["number"]).compute(scheduler="sync")
            assert len(skipping) == len(EXPECTED)
            assert len(frame) <= len(EXPECTED)
            for row, number in frame["number"].items():
                assert EXPECTED[row]["number"] == number
            missing = set(range(len(EXPECTED))) - set(frame.index)
            for row in missing:
                with pytest.raises(CorruptionError):
                    skipping["number"][row]
        lake.put(key, data)
