"""Segments are read back in row order, whatever the order in which they were built."""

from __future__ import annotations

import dataclasses
from dataclasses import fields

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasklake._format import object_keys
from dasklake._format.segment import (
    build_manifest,
    chunk_key_at,
    failures_bytes,
    join_manifests,
    read_failures,
    read_segment,
    segment_bytes,
    table_ref,
)
from dasklake._log.segments import _merge
from dasklake._model.commit import SegmentRef
from dasklake._model.manifest import Manifest
from dasklake._model.receipt import ChunkRef, Failure, Receipt
from dasklake.exceptions import CorruptionError

large = st.integers(0, 2**63 - 1)
names = st.text("abcdefXYZ019._-", min_size=1, max_size=20).map("r".__add__)
attempts = st.integers(0, 2**64 - 1).map("{:016x}".format)
chunk_refs = st.builds(
    ChunkRef,
    chunk=st.just(0),
    rows=st.integers(0, 2**24),
    size=st.integers(2**20, 2**58),
    head=st.integers(0, 2**20),
    crc=st.integers(0, 2**32 - 1),
    statistics=st.none() | st.sampled_from(['{"x":{}}', '{"x":{"nulls":2}}', "no JSON"]),
)


@st.composite
def receipts(draw: st.DrawFn, run: str) -> list[Receipt]:
    """Draw receipts of partitions of a run, in any order."""
    drawn = []
    for partition in draw(st.lists(st.integers(0, 10**6), unique=True, max_size=5)):
        chunks = draw(st.lists(chunk_refs, min_size=1, max_size=3))
        numbered = tuple(dataclasses.replace(c, chunk=number) for number, c in enumerate(chunks))
        epoch, attempt = draw(st.integers(1, 2**31 - 1)), draw(attempts)
        drawn.append(Receipt(run, epoch, partition, attempt, numbered, inputs=0))
    return drawn


@st.composite
def runs(draw: st.DrawFn) -> list[tuple[str, int, list[Receipt]]]:
    """Draw runs: home, order, receipts."""
    drawn = draw(st.lists(names, unique=True, max_size=4))
    orders = draw(st.permutations(range(len(drawn))))
    return [
        (object_keys.home_of("main", run), order, draw(receipts(run)))
        for run, order in zip(drawn, orders, strict=True)
    ]


def rows(manifest: Manifest) -> list[tuple[object, ...]]:
    """Return the rows of a manifest as plain values, with the name of the home."""
    arrays = [getattr(manifest, f.name).tolist() for f in fields(Manifest)[1:-2]]
    texts = [None] * len(manifest)
    if manifest.statistics is not None:
        texts = manifest.statistics.to_pylist()
    rest_of = zip(*arrays, texts, strict=True)
    return [(manifest.home[run], *rest) for run, *rest in rest_of]


def ref_of(data: bytes, count: int, samples: int = 0) -> SegmentRef:
    """Return a reference to a table."""
    return table_ref("ab" * 8, data, rows=count, samples=samples, level=0)


@given(runs(), st.randoms())
def test_segments_come_back_in_row_order(
    drawn: list[tuple[str, int, list[Receipt]]], random: object
) -> None:
    """However chunks are distributed over segments, their rows are read back sorted and complete."""
    manifests = [build_manifest(home, order, run_receipts) for home, order, run_receipts in drawn]
    decoded = []
    for manifest in manifests:
        data = segment_bytes(manifest)
        ref = ref_of(data, len(manifest), sum(manifest.rows.tolist()))
        decoded.append(read_segment(data, ref, statistics=True))
        assert rows(read_segment(data, ref)) == [(*row[:-1], None) for row in rows(decoded[-1])]
    getattr(random, "shuffle")(decoded)  # noqa: B009 # Hypothesis's own random has no type
    whole = join_manifests(decoded)
    expected = sorted(
        (
            order,
            r.partition,
            c.chunk,
            home,
            r.epoch,
            int(r.attempt, 16),
            c.rows,
            c.size,
            c.head,
            c.crc,
            c.statistics,
        )
        for home, order, run_receipts in drawn
        for r in run_receipts
        for c in r.chunks
    )
    assert [(r[1], r[2], r[5], r[0], r[3], r[4], *r[6:]) for r in rows(whole)] == expected
    if all(text is None for *_, text in expected):
        assert b"statistics" not in segment_bytes(whole)
    assert rows(join_manifests([whole])) == rows(whole)
    keys = [chunk_key_at(whole, i) for i in range(len(whole))]
    assert [object_keys.parse_chunk_key(key) for key in keys] == [
        (*home.split("/"), partition, epoch, f"{attempt:016x}", chunk)
        for _, partition, chunk, home, epoch, attempt, *_ in expected
    ]


@given(runs())
def test_merged_segments_hold_the_same(drawn: list[tuple[str, int, list[Receipt]]]) -> None:
    """A segment that replaces several holds exactly their rows."""
    manifests = [build_manifest(home, order, run_receipts) for home, order, run_receipts in drawn]
    data = segment_bytes(join_manifests(manifests))
    samples = sum(sum(manifest.rows.tolist()) for manifest in manifests)
    ref = ref_of(data, sum(map(len, manifests)), samples)
    merged = read_segment(data, ref, statistics=True)
    assert rows(merged) == rows(join_manifests(manifests))


text = st.text(st.characters(codec="utf-8"), max_size=20)
failures = st.lists(
    st.builds(
        Failure,
        run=text,
        partition=large,
        position=st.none() | large,
        index=st.none() | large,
        item=st.none() | text,
        tensor=st.none() | text,
        exception=text,
        message=text,
        traceback=text,
    ),
    max_size=5,
)


@given(failures)
def test_failures_come_back(drawn: list[Failure]) -> None:
    """A failures table returns the failures that were written, including unknown positions."""
    data = failures_bytes(drawn)
    assert read_failures(data, ref_of(data, len(drawn)), "key") == drawn
    assert read_failures(data, None, "key") == drawn


def test_tables_stay_few() -> None:
    """However many commits there are, a commit names at most 15 tables of each level."""
    sizes = [1 + number % 3 for number in range(5_000)]
    refs: tuple[SegmentRef, ...] = ()
    written = 0
    for number, size in enumerate(sizes):
        unmerged, merged, level = _merge(refs)
        assert unmerged + merged == refs
        assert all(ref.level < level for ref in merged)
        count = size + sum(ref.rows for ref in merged)
        written += count
        refs = (*unmerged, SegmentRef(f"{number:016x}", count, 0, 0, 0, level))
        levels = [ref.level for ref in refs]
        assert levels == sorted(levels, reverse=True)
        assert max(levels.count(level_number) for level_number in levels) < 16
        assert sum(ref.rows for ref in refs) == sum(sizes[: number + 1])
    assert refs[0].level == 3
    assert written <= sum(sizes) * 4


def test_every_flipped_byte_is_found() -> None:
    """A segment with any byte changed is never read."""
    receipt = Receipt("run", 1, 3, "cd" * 8, (ChunkRef(0, 10, 1000, 100, 7),), inputs=10)
    data = segment_bytes(build_manifest("main/run", 0, [receipt]))
    ref = ref_of(data, 1, 10)
    assert len(read_segment(data, ref)) == 1
    for offset in range(len(data)):
        bad = bytearray(data)
        bad[offset] ^= 0x40
        with pytest.raises(CorruptionError, match="ab" * 8):
            read_segment(bytes(bad), ref)


@given(st.binary(max_size=200), st.integers(0, 400))
def test_foreign_bytes_are_an_error(junk: bytes, cut: int) -> None:
    """Bytes that are not a segment raise only corruption, even with a valid checksum."""
    whole = segment_bytes(build_manifest("main/run", 0, []))
    for data in (junk, whole[:cut] + junk, whole[cut:]):
        ref = SegmentRef("ab" * 8, 0, 0, len(data), google_crc32c.value(data))
        try:
            manifest = read_segment(data, ref)
        except CorruptionError:
            continue
        assert len(manifest) == 0
        assert isinstance(manifest.rows, np.ndarray)
