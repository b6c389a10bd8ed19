"""The version that is read, as it travels to workers, and its chunks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import replace
from typing import Any

from dasklake._links.limits import LinkLimits
from dasklake._log.log import Log
from dasklake._lru import LRUCache
from dasklake._model.commit import Commit
from dasklake._model.creds_key import current_key_names
from dasklake._model.tensor_history import TensorHistory
from dasklake._read.chunk_reader import OpenChunk
from dasklake._read.corruption import OnCorrupt
from dasklake._read.plan import ChunkLocation
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import LakeError, ObjectNotFoundError

#: Schema of a version, the histories of its tensors, and the new names of credentials keys.
_Description = tuple[Schema, Mapping[str, TensorHistory], Mapping[str, str]]

#: Descriptions of the versions that this process read last, by the ids of their commits.
_descriptions = LRUCache[str, _Description](max_entries=32)


class Origin:
    """The version that is read. Each task carries it.

    Tasks do not carry the schema, which may be far larger. Each process reads it once from the
    commit.

    Parameters
    ----------
    store : ObjectStore
        Objects of the lake.
    commit : Commit
        Commit of the version.
    on_corrupt : "raise" or "skip", default "raise"
        Handling of damaged chunks: raise an error, or warn and leave out their rows.
    limits : LinkLimits, optional
        Limits for reading the targets of links.
    """

    def __init__(
        self,
        store: ObjectStore,
        commit: Commit,
        on_corrupt: OnCorrupt = "raise",
        limits: LinkLimits | None = None,
    ) -> None:
        self.store = store
        self.branch = commit.branch
        self.version = commit.version
        self.id = commit.id
        self.samples = commit.totals.samples
        self.on_corrupt = on_corrupt
        self.limits = limits
        self.scalars: frozenset[str] = frozenset()
        self._describe(commit)

    def __dask_tokenize__(self) -> Any:
        # The contents of a version never change; the URL distinguishes copies.
        version = (self.store.url, self.branch, self.version, self.id)
        return ("dasklake-version", *version, self.on_corrupt, self.limits)

    def _describe(self, commit: Commit) -> _Description:
        description = commit.schema, commit.histories, current_key_names(commit.creds)
        _descriptions.put(self.id, description)
        return description

    @property
    def _description(self) -> _Description:
        description = _descriptions.get(self.id)
        if description is None:
            description = self._describe(Log(self.store, self.branch).read(self.version))
        return description

    @property
    def schema(self) -> Schema:
        """The tensors of the version."""
        return self._description[0]

    @property
    def histories(self) -> Mapping[str, TensorHistory]:
        """Histories of tensors that were added or renamed."""
        return self._description[1]

    @property
    def keys(self) -> Mapping[str, str]:
        """The new names of renamed credentials keys."""
        return self._description[2]

    def with_scalars(self, names: Iterable[str]) -> Origin:
        """Return a copy for which some tensors without a shape have only scalars."""
        origin = copy(self)
        origin.scalars = frozenset(names)
        return origin

    @property
    def frame_schema(self) -> Mapping[str, TensorSpec]:
        """Descriptions of all tensors; see :meth:`spec_of`."""
        if not self.scalars:
            return self.schema
        return {name: self.spec_of(name) for name in self.schema}

    def spec_of(self, name: str) -> TensorSpec:
        """Return the description of a tensor for frames and arrays: scalars have the shape ``()``."""
        spec = self.schema[name]
        return replace(spec, shape=()) if name in self.scalars else spec

    def length(self, names: Iterable[str]) -> int:
        """Return the number of samples of the shortest of some tensors.

        A tensor that was added later is empty until samples that have it are written.
        """
        histories = self._description[1]
        is_new = (name in histories and histories[name].since >= self.samples for name in names)
        return 0 if histories and any(is_new) else self.samples

    def stored_name(self, name: str, location: ChunkLocation) -> str | None:
        """Return the name of a tensor in a chunk, or None if the chunk does not have it."""
        history = self._description[1].get(name)
        return name if history is None else history.name_at(name, location.first)

    def missing(self, key: str) -> LakeError:
        """Return the error that reports why an object of the version is missing."""
        return Log(self.store, self.branch).missing_object_error(self.version, key)


def open_chunk(
    origin: Origin,
    location: ChunkLocation,
    *,
    whole: bool = False,
    sparse: bool = False,
    ahead: bool = False,
) -> OpenChunk:
    """Open a chunk; see :class:`OpenChunk`.

    Raises
    ------
    VersionExpiredError
        The chunk was deleted because the version was expired.
    CorruptionError
        The chunk is damaged, or missing from a version that was not expired.
    """
    try:
        return OpenChunk(origin.store, location, whole=whole, sparse=sparse, ahead=ahead)
    except ObjectNotFoundError as error:
        raise origin.missing(location.key) from error
