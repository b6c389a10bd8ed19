"""Read the log of a branch: find its head, walk it, and read the tables that a commit names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from dasklake._format import object_keys
from dasklake._format.documents import MAX_DOCUMENT_BYTES, read_commit, read_schema
from dasklake._format.segment import join_manifests, read_failures, read_segment
from dasklake._lru import LRUCache
from dasklake._model.commit import Commit, SegmentRef
from dasklake._model.manifest import Manifest
from dasklake._model.receipt import Failure
from dasklake._schema.schema import Schema
from dasklake._storage.retry import in_context
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import (
    CorruptionError,
    LakeNotFoundError,
    NotFoundError,
    ObjectNotFoundError,
    UnsupportedFormatError,
    VersionExpiredError,
    VersionNotFoundError,
)

MAIN = "main"

#: Segments fetched at the same time.
_FETCHES = 16

#: Bytes, as stored, of the commits or large schemas, and in memory of the segments, that a log keeps.
_COMMITS = 4 << 20
_SEGMENTS = 64 << 20

#: Bytes of a segment in memory besides its arrays.
_SEGMENT = 2 << 10

#: Commits that are read to find a readable one, if the newest is not.
_SEARCHED = 1000

_BUCKET = re.compile(r"[0-9]{6,}")


class LogReader:
    """The numbered commits of one branch.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    branch : str, default "main"
        The branch.
    """

    def __init__(self, store: ObjectStore, branch: str = MAIN) -> None:
        self.store = store
        self.branch = object_keys.valid_name("branch", branch)
        self._commits = LRUCache[int, Commit](max_size=_COMMITS)
        self._schemas = LRUCache[str, Schema](max_size=_COMMITS)
        self._segments = LRUCache[str, Manifest](max_size=_SEGMENTS)

    def head(self) -> Commit | None:
        """Return the newest commit, or None if the branch has no log.

        This takes two listings of at most 1,000 names each, however long the log is.
        """
        version = self.head_version()
        if version is None:
            return None
        try:
            return self.read(version)
        except (CorruptionError, UnsupportedFormatError, VersionNotFoundError) as error:
            older = self.newest_readable(version)
            remedy = (
                ""
                if older is None
                else (
                    " Until then, older versions stay readable: "
                    f"dasklake.open(url, version={older.version}) is the newest of them."
                )
            )
            if isinstance(error, VersionNotFoundError):
                key = object_keys.commit_key(self.branch, version)
                text = f"Commit {key} is listed but cannot be read. Restore it from a copy."
                raise CorruptionError(f"{text}{remedy}") from error
            raise type(error)(f"{error}{remedy}") from error

    def newest_readable(self, before: int) -> Commit | None:
        """Return the newest readable commit just below ``before``, or None."""
        for version in range(before - 1, max(-1, before - 1 - _SEARCHED), -1):
            try:
                return self.read(version)
            except (CorruptionError, UnsupportedFormatError, NotFoundError):
                continue
        return None

    def head_version(self) -> int | None:
        """Return the number of the newest commit, or None if the branch has no log."""
        prefix = object_keys.log_prefix(self.branch)
        buckets = [n for n in self.store.names(prefix) if _BUCKET.fullmatch(n)]
        # A crash may leave a new directory empty: check the one before it, too.
        for bucket in sorted(buckets, key=int, reverse=True):
            names = self.store.names(f"{prefix}/{bucket}")
            numbers = [v for v in map(object_keys.parse_commit_key, names) if v is not None]
            # A commit in the wrong directory is a foreign name.
            versions = [
                v for v in numbers if object_keys.log_bucket(self.branch, v) == f"{prefix}/{bucket}"
            ]
            if versions:
                return max(versions)
        return None

    def versions(self, newest: int) -> range:
        """Return the numbers of all commits up to ``newest``.

        Raises
        ------
        CorruptionError
            Most of the log's directories are missing, so that a scan might never end.
        """
        buckets = [
            n for n in self.store.names(object_keys.log_prefix(self.branch)) if _BUCKET.fullmatch(n)
        ]
        if newest // object_keys.BUCKET >= len(buckets):
            raise CorruptionError(
                f"The log of branch {self.branch!r} ends with version {newest}, but most earlier "
                "versions are missing. Restore them from a copy."
            )
        return range(newest + 1)

    def require_head(self) -> Commit:
        """Return the newest commit.

        Raises
        ------
        LakeNotFoundError
            The lake does not exist.
        """
        head = self.head()
        if head is None:
            raise self._missing_lake_error()
        return head

    def _missing_lake_error(self) -> LakeNotFoundError:
        return LakeNotFoundError(
            f"No lake found under {self.store.url}. Write one with to_lake(), or check the URL and "
            "the storage options."
        )

    def require_head_version(self) -> int:
        """Return the number of the newest commit, which may be damaged.

        Raises
        ------
        LakeNotFoundError
            The lake does not exist.
        """
        version = self.head_version()
        if version is None:
            raise self._missing_lake_error()
        return version

    def read(self, version: int) -> Commit:
        """Return one commit.

        Raises
        ------
        VersionNotFoundError
            The log has no such version.
        """
        commit = self._commits.get(version)
        if commit is not None:
            return commit
        key = object_keys.commit_key(self.branch, version)
        try:
            data = self.store.get(key, MAX_DOCUMENT_BYTES)
        except ObjectNotFoundError as error:
            raise VersionNotFoundError(
                f"{self.store.url} has no version {version}. `dasklake log` lists them."
            ) from error
        commit = read_commit(data, key, self._schema)
        if (commit.version, commit.branch) != (version, self.branch):
            raise CorruptionError(
                f"Commit {key} must be version {version} of branch {self.branch!r}, got version "
                f"{commit.version} of {commit.branch!r}. Restore it from a copy."
            )
        self._commits.put(version, commit, len(data))
        return commit

    def walk(self, start: int, stop: int | None = None) -> Iterator[Commit]:
        """Yield the commits from ``start`` to the newest, or up to but excluding ``stop``."""
        version = start
        while stop is None or version < stop:
            try:
                commit = self.read(version)
            except VersionNotFoundError:
                if stop is None:
                    return
                raise
            yield commit
            version += 1

    def manifest(self, commit: Commit, *, statistics: bool = False) -> Manifest:
        """Return the chunk references of a commit, in row order.

        Parameters
        ----------
        commit : Commit
            The commit.
        statistics : bool, default False
            Whether to load the statistics of the chunks, too. They are not cached.

        Raises
        ------
        VersionExpiredError
            A segment is missing because the version was expired.
        CorruptionError
            A segment is damaged, or is missing from a version that was not expired.
        """
        with ThreadPoolExecutor(max_workers=_FETCHES) as pool:
            try:
                read = in_context(partial(self.segment, statistics=statistics))
                return join_manifests(list(pool.map(read, commit.segments)))
            except ObjectNotFoundError as error:
                raise self.missing_object_error(commit.version, str(error)) from error

    def failures(self, commit: Commit) -> list[Failure]:
        """Return the failures of a commit, oldest first."""
        failures: list[Failure] = []
        for ref in commit.failures:
            key = object_keys.failures_key(ref.name)
            try:
                failures += read_failures(self.store.get(key, ref.size), ref, key)
            except ObjectNotFoundError as error:
                raise self.missing_object_error(commit.version, key) from error
        return failures

    def missing_object_error(self, version: int, key: str) -> VersionExpiredError | CorruptionError:
        """Return the error for a missing object of a version: it was expired, or is lost."""
        main = self if self.branch == MAIN else LogReader(self.store)
        try:
            head = main.head()
        except (CorruptionError, UnsupportedFormatError):
            head = main.newest_readable(main.head_version() or 0)
        expired = head.expired.get(self.branch, ()) if head else ()
        if version in expired:
            return VersionExpiredError(
                f"Version {version} of {self.store.url} was expired. Call refresh(), or open the "
                "newest version."
            )
        return CorruptionError(
            f"An object of version {version} is missing ({key}). Restore it from a copy."
        )

    def segment(self, ref: SegmentRef, *, statistics: bool = False) -> Manifest:
        """Return one segment; raise ``ObjectNotFoundError`` if it is missing."""
        manifest = None if statistics else self._segments.get(ref.name)
        if manifest is None:
            data = self.store.get(object_keys.segment_key(ref.name), ref.size)
            manifest = read_segment(data, ref, statistics=statistics)
            if not statistics:
                self._segments.put(ref.name, manifest, manifest.nbytes + _SEGMENT)
        return manifest

    def _schema(self, digest: str) -> Schema:
        schema = self._schemas.get(digest)
        if schema is None:
            key = object_keys.schema_key(digest)
            try:
                data = self.store.get(key, MAX_DOCUMENT_BYTES)
            except ObjectNotFoundError as error:
                # It was written before the commit that names it.
                raise CorruptionError(
                    f"Schema {key} is missing. Restore it from a copy."
                ) from error
            schema = read_schema(data, digest)
            self._schemas.put(digest, schema, len(data))
        return schema
