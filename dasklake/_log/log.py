"""The log of a branch: find its head, walk it, publish the next commit.

Publishing never trusts the error of a create. After any error the version itself is read back. It
has the own id: success. It has another id: a lost race. It is missing: the same bytes are sent
again. After a lost race, everything is rebuilt from the new head under a new random id.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeVar

from dasklake._fork import renew_after_fork
from dasklake._format import object_keys
from dasklake._format.documents import (
    MAX_DOCUMENT_BYTES,
    EncodedSchema,
    commit_bytes,
    encode_schema,
    read_commit,
    read_schema,
)
from dasklake._format.segment import join_manifests, read_failures, read_segment
from dasklake._lru import LRUCache
from dasklake._model.commit import Commit, SegmentRef
from dasklake._model.manifest import Manifest
from dasklake._model.receipt import Failure
from dasklake._schema.schema import Schema
from dasklake._storage.retry import RetryPolicy, in_context
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import (
    CorruptionError,
    LakeNotFoundError,
    NotFoundError,
    ObjectExistsError,
    ObjectNotFoundError,
    PermissionDeniedError,
    StoreError,
    UnsupportedFormatError,
    UnsupportedStoreError,
    VersionExpiredError,
    VersionNotFoundError,
)

MAIN = "main"

_LOGGER = logging.getLogger(__name__)

#: Lost races of one publish from which on each is a warning.
_MANY_RACES = 3

#: Segments fetched at the same time.
_FETCHES = 16

#: Bytes, as stored, of the commits, or large schemas, and of the segments that a log remembers.
_COMMITS = 4 << 20
_SEGMENTS = 64 << 20

#: Commits that are read to find a readable one, if the newest is not.
_SEARCHED = 1000

_BUCKET = re.compile(r"[0-9]{6,}")

_T = TypeVar("_T")


class Draft(NamedTuple):
    """A commit that is ready to be created, and the new objects that it names."""

    commit: Commit
    objects: Sequence[tuple[str, bytes]] = ()


#: Makes the next commit from the head, the commits since the first head that was tried, and a
#: fresh id; a draft if it names new objects. None if nothing is left to commit.
Build = Callable[[Commit, Sequence[Commit], str], Commit | Draft | None]


class Log:
    """The numbered commits of one branch.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    branch : str, default "main"
        The branch.
    retry_seconds : float, default 600
        Time for which the operations of a commit are retried while the storage fails.
    """

    def __init__(
        self, store: ObjectStore, branch: str = MAIN, *, retry_seconds: float = 600.0
    ) -> None:
        self.store = store
        self.branch = object_keys.valid_name("branch", branch)
        #: Set to cancel the retries of a publish.
        self.stop = threading.Event()
        renew_after_fork(self)
        #: The error that is being retried, if any.
        self.retry_reason: str | None = None
        self._retries = RetryPolicy(
            seconds=retry_seconds,
            wait=lambda seconds: self.stop.wait(seconds),  # noqa: PLW0108 # `stop` may be replaced
            permanent=(PermissionDeniedError, UnsupportedStoreError),
            on_retry=self._note_retry,
        )
        self._commits = LRUCache[int, Commit](max_size=_COMMITS)
        self._schemas = LRUCache[str, Schema](max_size=_COMMITS)
        self._segments = LRUCache[str, Manifest](max_size=_SEGMENTS)

    def renew(self) -> None:
        """Replace the event, on which another thread may have been waiting."""
        stopped, self.stop = self.stop.is_set(), threading.Event()
        if stopped:
            self.stop.set()

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

    def manifest(self, commit: Commit) -> Manifest:
        """Return the chunk references of a commit, in row order.

        Raises
        ------
        VersionExpiredError
            A segment is missing because the version was expired.
        CorruptionError
            A segment is damaged, or is missing from a version that was not expired.
        """
        with ThreadPoolExecutor(max_workers=_FETCHES) as pool:
            try:
                return join_manifests(list(pool.map(in_context(self.segment), commit.segments)))
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
        main = self if self.branch == MAIN else Log(self.store)
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

    def publish(self, head: Commit, build: Build) -> Commit:
        """Create the next commit of the branch.

        Parameters
        ----------
        head : Commit
            The newest commit that the caller has read.
        build : callable
            ``build(head, since, commit_id)`` makes the commit, again for each new head.

        Returns
        -------
        Commit
            The created commit; or the head, if ``build`` has nothing left to commit.

        Raises
        ------
        StoreError
            The storage failed for longer than ``retry_seconds``, or refuses writes.
        VersionExpiredError
            The commit builds on an expired version, and the log has no newer one.
        CorruptionError
            An object that the commit builds on is lost.
        UnsupportedFormatError
            The newest commit needs a newer writer.
        """
        return self.try_publish(head, build)[0]

    def try_publish(self, head: Commit, build: Build) -> tuple[Commit, bool]:
        """Create the next commit as :meth:`publish` does; return also whether one was created."""
        since: list[Commit] = []
        lost = 0
        while True:
            self._require_writable(head)
            try:
                draft = self._draft(build, head, since)
            except ObjectNotFoundError as error:
                # A merge needs a segment that is missing: a lost race, if a vacuum committed since.
                newer = self._commits_from(head.version + 1)
                if not newer:
                    raise self.missing_object_error(head.version, str(error)) from error
            else:
                if draft is None:
                    return head, False
                if self._create(draft):
                    return draft.commit, True
                newer = self._commits_from(head.version + 1)
            # All commits since the first head, however many races were lost: each is examined.
            since += newer
            head = since[-1]
            lost += 1
            _LOGGER.log(
                logging.WARNING if lost >= _MANY_RACES else logging.DEBUG,
                "Lost race %d of a commit to branch %r of %s; its head is version %d now",
                lost,
                self.branch,
                self.store.url,
                head.version,
            )

    def publish_first(self, make: Callable[[str], Commit]) -> tuple[Commit, bool]:
        """Create version 0 of the branch.

        Parameters
        ----------
        make : callable
            Makes the commit from its id.

        Returns
        -------
        head : Commit
            The created commit; or the newest one, if the log has begun since.
        created : bool
            Whether this call created the commit.
        """
        commit = make(object_keys.new_id())
        if self._create(Draft(commit)):
            return commit, True
        head = self._commits_from(0)[-1]
        self._require_writable(head)
        return head, False

    def _require_writable(self, head: Commit) -> None:
        if head.unknown:
            raise UnsupportedFormatError(
                f"Version {head.version} of {self.store.url} may be read but not written by "
                f"this release: writing needs {', '.join(head.unknown)}. Upgrade dasklake."
            )

    def _draft(self, build: Build, head: Commit, since: Sequence[Commit]) -> Draft | None:
        next_ = self.retry(lambda: build(head, since, object_keys.new_id()), ObjectNotFoundError)
        return Draft(next_) if isinstance(next_, Commit) else next_

    def _commits_from(self, version: int) -> list[Commit]:
        return self.retry(lambda: list(self.walk(version)))

    def _create(self, draft: Draft) -> bool:
        """Create a commit; return whether the version is this commit in the end."""
        commit = draft.commit
        schema = encode_schema(commit.schema)
        for name, data in [*draft.objects, *self._new_schema(schema)]:
            self.retry(partial(self.store.put, name, data))
        if commit.version and commit.version % object_keys.BUCKET == 0:
            # The directory of v must outlive a power loss before v + 1 lies in the next one.
            before = object_keys.commit_key(self.branch, commit.version - 1)
            self.retry(lambda: self.store.sync(before))
        key = object_keys.commit_key(self.branch, commit.version)
        data = commit_bytes(commit, schema)
        created = self.retry(lambda: self._create_once(key, data, commit))
        if created:
            self._commits.put(commit.version, commit, len(data))
            _LOGGER.debug(
                "Created version %d (%s) of branch %r of %s",
                commit.version,
                commit.kind,
                self.branch,
                self.store.url,
            )
        return created

    def _new_schema(self, schema: EncodedSchema) -> list[tuple[str, bytes]]:
        """Return the object of a schema too large for its commit, unless it exists."""
        if schema.inline:
            return []
        key = object_keys.schema_key(schema.digest)
        return [] if self.retry(lambda: self.store.exists(key)) else [(key, schema.data)]

    def _create_once(self, key: str, data: bytes, commit: Commit) -> bool:
        try:
            self.store.create(key, data)
        except StoreError as error:
            # The error may be wrong either way: only the version itself is certain.
            try:
                stored = self.store.get(key, MAX_DOCUMENT_BYTES)
            except ObjectNotFoundError:
                if isinstance(error, ObjectExistsError):
                    raise StoreError(
                        f"The storage reported that {key} exists, but it is missing. Try again."
                    ) from error
                raise error from None
            return read_commit(stored, key, self._schema).id == commit.id
        return True

    def retry(self, action: Callable[[], _T], *permanent: type[StoreError]) -> _T:
        """Call an action of a commit, and repeat it while the storage fails.

        Parameters
        ----------
        action : callable
            Called once or several times.
        *permanent : type
            Errors that are raised at once, besides refusals.

        Returns
        -------
        object
            The result of the action.

        Raises
        ------
        StoreError
            The storage failed for longer than ``retry_seconds``, refuses writes, or the error is one
            of ``permanent``.
        """
        return self._retries.call(action, *permanent)

    def _note_retry(self, reason: str | None) -> None:
        self.retry_reason = reason

    def segment(self, ref: SegmentRef) -> Manifest:
        """Return one segment; raise ``ObjectNotFoundError`` if it is missing."""
        manifest = self._segments.get(ref.name)
        if manifest is None:
            data = self.store.get(object_keys.segment_key(ref.name), ref.size)
            manifest = read_segment(data, ref)
            self._segments.put(ref.name, manifest, len(data))
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
