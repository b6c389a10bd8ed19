"""The log of a branch: publish the next commit.

Publishing never trusts the error of a create. After any error the version itself is read back. It
has the own id: success. It has another id: a lost race. It is missing: the same bytes are sent
again. After a lost race, everything is rebuilt from the new head under a new random id.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
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
)
from dasklake._log.log_reader import MAIN, LogReader
from dasklake._main_guard import raise_if_importing_main
from dasklake._model.commit import Commit
from dasklake._storage.retry import RetryPolicy
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import (
    ObjectExistsError,
    ObjectNotFoundError,
    PermissionDeniedError,
    StoreError,
    UnsupportedFormatError,
    UnsupportedStoreError,
)

__all__ = ["MAIN", "Build", "Draft", "Log"]

_LOGGER = logging.getLogger(__name__)

#: Lost races of one publish from which on each is a warning.
_MANY_RACES = 3

_T = TypeVar("_T")


class Draft(NamedTuple):
    """A commit that is ready to be created, and the new objects that it names."""

    commit: Commit
    objects: Sequence[tuple[str, bytes]] = ()


#: Makes the next commit from the head, the commits since the first head that was tried, and a
#: fresh id; a draft if it names new objects. None if nothing is left to commit.
Build = Callable[[Commit, Sequence[Commit], str], Commit | Draft | None]


class Log(LogReader):
    """The numbered commits of one branch, to which a process can add further ones.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    branch : str, default "main"
        The branch.
    retry_seconds : float, optional
        Time for which the operations of a commit are retried while the storage fails. By default
        that of the store's limits.
    """

    def __init__(
        self, store: ObjectStore, branch: str = MAIN, *, retry_seconds: float | None = None
    ) -> None:
        super().__init__(store, branch)
        #: Set to cancel the retries of a publish.
        self.stop = threading.Event()
        renew_after_fork(self)
        #: The error that is being retried, if any.
        self.retry_reason: str | None = None
        self._retries = RetryPolicy(
            seconds=store.limits.commit_seconds if retry_seconds is None else retry_seconds,
            wait=lambda seconds: self.stop.wait(seconds),  # noqa: PLW0108 # `stop` may be replaced
            permanent=(PermissionDeniedError, UnsupportedStoreError),
            on_retry=self._note_retry,
        )

    def renew(self) -> None:
        """Replace the event, on which another thread may have been waiting."""
        stopped, self.stop = self.stop.is_set(), threading.Event()
        if stopped:
            self.stop.set()

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
        raise_if_importing_main()
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
