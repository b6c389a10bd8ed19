"""Divide samples into parts by a hash, so that a sample never changes its part.

The hash is that of a sample's key: the run that wrote it, its partition there and its position in the
partition. None of them changes when other samples are written. With ``by``, it is the hash of the
value of a tensor, so that samples with equal values stay together.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._read.filter_columns import FilterColumn
from dasklake._read.filter_values import read_filter_columns
from dasklake._read.in_threads import map_in_threads
from dasklake._read.origin import Origin
from dasklake._read.plan import ChunkLocation
from dasklake._read.reader import Reader
from dasklake._read.rows import Rows, as_rows
from dasklake.exceptions import InvalidInputError

__all__ = ["HashRange", "parse_fractions", "parse_seed", "rows_of_range", "value_hashes"]

_Hashes = npt.NDArray[np.uint64]

#: Hashes are compared by their upper bits, which floats represent exactly.
_BITS = 53


class HashRange(NamedTuple):
    """A part of all hashes.

    Attributes
    ----------
    seed : int
        Seed of the hash.
    low, high : int
        The least upper bits of a hash in the part, and the first ones after it.
    """

    seed: int
    low: int
    high: int

    def holds(self, hashes: _Hashes) -> npt.NDArray[np.bool_]:
        """Return which hashes are in the part."""
        upper = hashes >> np.uint64(64 - _BITS)
        return (upper >= self.low) & (upper < self.high)


def parse_seed(seed: Any) -> int:
    """Return a seed as an integer.

    Raises
    ------
    InvalidInputError
        ``seed`` is not an integer.
    """
    try:
        if not isinstance(seed, bool):
            return operator.index(seed)
    except TypeError:
        pass
    raise InvalidInputError(f"seed must be an integer, got {seed!r}.")


def parse_fractions(fractions: Any, seed: int) -> dict[str, HashRange]:
    """Return the part of each name.

    Raises
    ------
    InvalidInputError
        ``fractions`` is not a mapping of names to positive numbers that add up to 1.
    """
    if not isinstance(fractions, Mapping) or not fractions:
        raise InvalidInputError(
            "fractions must be a mapping of names to numbers, such as {'train': 0.9, 'val': 0.1}, got "
            f"{fractions!r}."
        )
    for name, fraction in fractions.items():
        if not isinstance(name, str):
            raise InvalidInputError(f"The name of a part must be a string, got {name!r}.")
        is_number = isinstance(fraction, int | float | Decimal | np.number)
        if isinstance(fraction, bool) or not is_number or not 0 < fraction <= 1:
            raise InvalidInputError(
                f"The fraction of part {name!r} must be a number above 0 and at most 1, got "
                f"{fraction!r}."
            )
    total = math.fsum(map(float, fractions.values()))
    if abs(total - 1) > 1e-9:
        raise InvalidInputError(
            f"The fractions must add up to 1, got {total:g}. Add a part for the rest of the samples."
        )
    edges, summed = [0], 0.0
    for fraction in fractions.values():
        summed += float(fraction)
        edges.append(round(summed * 2**_BITS))
    edges[-1] = 2**_BITS
    parts = zip(fractions, edges[:-1], edges[1:], strict=True)
    return {name: HashRange(seed, low, high) for name, low, high in parts}


def rows_of_range(
    reader: Reader, rows: Rows, part: HashRange, hashes: _Hashes | None = None
) -> Rows:
    """Return those of some samples whose hashes are in a part, by default the hashes of their keys."""
    numbers = np.asarray(rows, np.int64)
    if hashes is None:
        hashes = _key_hashes(reader, numbers, part.seed)
    return as_rows(numbers[part.holds(hashes)])


def _key_hashes(reader: Reader, numbers: npt.NDArray[np.int64], seed: int) -> _Hashes:
    """Return the hashes of the keys of samples."""
    hashes = np.full(len(numbers), _digest(b"seed", str(seed).encode()), np.uint64)
    for component in reader.plan.keys(numbers):
        hashes = _mixed(hashes ^ _mixed(component.astype(np.uint64)))
    return hashes


def _mixed(numbers: _Hashes) -> _Hashes:
    """Return a permutation of all numbers of 64 bits in which each bit depends on every other."""
    # The finalizer of SplitMix64; the products wrap around.
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _digest(*pieces: bytes) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for piece in pieces:
        digest.update(len(piece).to_bytes(8, "little") + piece)
    return int.from_bytes(digest.digest(), "little")


def value_hashes(reader: Reader, column: FilterColumn, rows: Rows, seed: int) -> _Hashes:
    """Return the hashes of the values of some samples. No value is a value of its own.

    Raises
    ------
    CorruptionError
        A chunk is damaged.
    """
    if not len(rows):
        return np.zeros(0, np.uint64)
    numbers = np.asarray(rows, np.int64)
    chunks, offsets = reader.plan.locate_all(numbers)
    used, chunk_of_row = np.unique(chunks, return_inverse=True)
    locations = [reader.plan.location(chunk) for chunk in used.tolist()]
    hashes = np.zeros(len(numbers), np.uint64)
    order = np.argsort(chunk_of_row, kind="stable")
    edges = np.searchsorted(chunk_of_row[order], np.arange(len(used) + 1))
    read = partial(_chunk_hashes, reader.origin, column, seed)
    for i, hashes_of_chunk in enumerate(map_in_threads(read, locations)):
        rows_of_chunk = order[edges[i] : edges[i + 1]]
        hashes[rows_of_chunk] = hashes_of_chunk[offsets[rows_of_chunk]]
    return hashes


def _chunk_hashes(
    origin: Origin, column: FilterColumn, seed: int, location: ChunkLocation
) -> _Hashes:
    """Return the hash of each value of a chunk; equal values are hashed once."""
    values = read_filter_columns(origin, location, {"value": column})["value"]
    encoded = values.dictionary_encode(null_encoding="encode")
    salt = str(seed).encode()
    hashes = [_digest(b"value", salt, _canonical(value)) for value in encoded.dictionary]
    indices = encoded.indices.to_numpy(zero_copy_only=False)
    hashes_of_rows: _Hashes = np.array(hashes, np.uint64)[indices]
    return hashes_of_rows


def _canonical(value: pa.Scalar) -> bytes:
    """Return bytes that equal values have in common, whatever their width or unit."""
    if not value.is_valid:
        return b"none"
    kind, types = value.type, pa.types
    if types.is_timestamp(kind) or types.is_duration(kind):
        scale = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[kind.unit]
        return f"time {value.cast(pa.int64()).as_py() * scale}".encode()
    plain = value.as_py()
    if isinstance(plain, bytes):
        return b"bytes " + plain
    if isinstance(plain, Decimal):
        return f"decimal {plain.normalize()}".encode()
    if isinstance(plain, float):
        plain = 0.0 if plain == 0 else plain
    return f"{type(plain).__name__} {plain}".encode()
