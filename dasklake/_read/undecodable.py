"""Find stored media files that are intact, as their checksums show, but cannot be decoded."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, cast

from dasklake._codecs.registry import Codec, codec_for
from dasklake._codecs.sequence import SequenceCodec
from dasklake._media.check import decode_file
from dasklake._model.commit import Commit
from dasklake._model.manifest import Manifest
from dasklake._read.origin import Origin, open_chunk
from dasklake._read.plan import ChunkLocation, ReadPlan
from dasklake._read.row_reader import RowReader
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import CorruptionError, SampleError

#: Chunks that are decoded at the same time.
_DECODERS = 4


class Undecodable(NamedTuple):
    """A stored value that cannot be decoded.

    Attributes
    ----------
    key : str
        Key of its chunk.
    sample : int
        Number of the sample in the version.
    problem : str
        Name of the tensor, and the reason.
    """

    key: str
    sample: int
    problem: str


def find_undecodable(
    store: ObjectStore, commit: Commit, manifest: Manifest, skip: Container[str]
) -> Iterator[Undecodable]:
    """Decode all media files of a version.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    commit : Commit
        The version.
    manifest : Manifest
        Its chunks.
    skip : container of str
        Keys of chunks that are not decoded.

    Yields
    ------
    Undecodable
        The values that cannot be decoded, in the order of the samples.

    Raises
    ------
    MissingExtraError
        A library that decodes a file is not installed.
    """
    origin = Origin(store, commit)
    specs = {name: spec for name, spec in commit.schema.items() if _holds_files(spec)}
    plan = ReadPlan(manifest)
    locations = [plan.location(i) for i in range(len(manifest))] if specs else []
    intact = [location for location in locations if location.key not in skip]
    with ThreadPoolExecutor(_DECODERS) as pool:
        for values in pool.map(partial(_check_chunk, origin, specs), intact):
            yield from values


def _holds_files(spec: TensorSpec) -> bool:
    if spec.sequence:
        return spec.kind.codec != "polygon" and _holds_files(spec.item)
    return spec.encoded


def _check_chunk(
    origin: Origin, specs: Mapping[str, TensorSpec], location: ChunkLocation
) -> list[Undecodable]:
    chunk = open_chunk(origin, location, whole=True)
    reader = RowReader(chunk, specs, partial(origin.stored_name, location=location))
    codecs = {name: codec_for(spec) for name, spec in specs.items()}
    values = []
    for row in range(location.rows):
        for name, stored in zip(specs, reader.read(row, list(specs)), strict=True):
            problem = None if stored is None else _problem(stored, codecs[name])
            if problem is not None:
                sample = location.first + row
                values.append(Undecodable(location.key, sample, f"tensor {name!r}: {problem}"))
    return values


def _problem(stored: Blob, codec: Codec) -> str | None:
    """Return why a value, or an item of a list, cannot be decoded; None if it can."""
    try:
        if isinstance(codec, SequenceCodec):
            problems = (_problem(cast("Blob", item), codec.item) for item in codec.items(stored))
            numbered = (f"item {i}: {text}" for i, text in enumerate(problems) if text is not None)
            return next(numbered, None)
        codec.decode(stored)
        decode_file(str(codec.spec.compression), bytes(stored.data))
    except (SampleError, CorruptionError) as error:
        return str(error).partition(". ")[0].rstrip(".")
    return None
