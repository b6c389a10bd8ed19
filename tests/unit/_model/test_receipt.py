"""Receipts."""

from __future__ import annotations

from dasklake._model.receipt import ChunkRef, Failure, Receipt

CHUNKS = (ChunkRef(0, 10, 1000, 200, 7), ChunkRef(1, 5, 600, 200, 8))
FAILURE = Failure("r", 3, 2, 32, "'item'", "boxes", "builtins.ValueError", "bad", "Traceback …")


def test_totals_are_those_of_the_chunks() -> None:
    """A receipt counts the samples and bytes of all its chunks."""
    receipt = Receipt("r", 1, 3, "0" * 16, CHUNKS, 16, (FAILURE,), failed=1)
    assert (receipt.samples, receipt.size) == (15, 1600)


def test_an_empty_partition_is_one_chunk_of_no_rows() -> None:
    """A partition without samples has a receipt with no samples and one chunk."""
    receipt = Receipt("r", 1, 0, "0" * 16, (ChunkRef(0, 0, 500, 200, 7),), 0)
    assert (receipt.samples, receipt.size) == (0, 500)
