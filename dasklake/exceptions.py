"""The error tree: categories are what a handler would do, codes never change.

::

    LakeError
    ├── InvalidInputError (ValueError)        mend the call or the data, then call again
    │   ├── SchemaError                       the schema is wrong, or cannot be inferred
    │   ├── SampleError                       a value does not fit its tensor
    │   │   └── LinkError                     what a link points to is not there, or not whole
    │   ├── PlanMismatchError                 the run of that name had another input or schema
    │   └── NestedRunError                    ``to_lake`` was called inside a Dask task
    ├── NotFoundError (LookupError)           look elsewhere
    │   ├── LakeNotFoundError                 there is no lake under the URL
    │   ├── VersionNotFoundError              the lake has no such version, run or tensor
    │   └── VersionExpiredError               the version was expired; its objects are gone
    ├── ConflictError                         another writer was there: look, then decide
    │   ├── LakeExistsError                   ``mode="create"`` met a lake
    │   ├── RunActiveError                    the run is being written by a living coordinator
    │   ├── RunAbortedError                   a reset closed the run's epoch
    │   └── RunSupersededError                a newer epoch of the run has taken over
    ├── StoreError (OSError)                  the storage refused: retry, or mend access
    │   ├── ObjectNotFoundError               an object is not there
    │   ├── ObjectExistsError                 an exclusive create lost
    │   ├── PermissionDeniedError             credentials are missing, expired or too weak
    │   ├── StorageFullError                  the disk or the quota is full
    │   ├── UnsupportedStoreError             the storage cannot create exclusively
    │   └── LakeNotSharedError                a worker does not see the lake's storage
    ├── CorruptionError                       bytes are not what was written: restore them
    ├── UnsupportedFormatError                written by a newer dasklake: upgrade
    ├── RunFailedError                        the run ended early; what is committed is kept
    │   ├── TransformError                    the user's code failed on a sample or partition
    │   │   └── PartitionTimeoutError         a partition took longer than ``partition_timeout``
    │   ├── TooManyFailuresError              more samples failed than ``max_failures`` allows
    │   └── RunLostError                      the cluster forgot the run
    └── MissingExtraError (ImportError)       ``pip install "dasklake[<extra>]"``
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "ConflictError",
    "CorruptionError",
    "InvalidInputError",
    "LakeError",
    "LakeExistsError",
    "LakeNotFoundError",
    "LakeNotSharedError",
    "LinkError",
    "MissingExtraError",
    "NestedRunError",
    "NotFoundError",
    "ObjectExistsError",
    "ObjectNotFoundError",
    "PartitionTimeoutError",
    "PermissionDeniedError",
    "PlanMismatchError",
    "RunAbortedError",
    "RunActiveError",
    "RunFailedError",
    "RunLostError",
    "RunSupersededError",
    "SampleError",
    "SchemaError",
    "StorageFullError",
    "StoreError",
    "TooManyFailuresError",
    "TransformError",
    "UnsupportedFormatError",
    "UnsupportedStoreError",
    "VersionExpiredError",
    "VersionNotFoundError",
]


def _rebuild(cls: type[LakeError], args: tuple[Any, ...], state: dict[str, Any]) -> LakeError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class LakeError(Exception):
    """Base of every error that dasklake raises.

    Parameters
    ----------
    message : str
        What happened, naming the sample, tensor, partition or object; ends with a sentence
        that says what to do next.

    Attributes
    ----------
    code : str
        Stable, append-only name of the kind of error, for logs and handlers.

    Examples
    --------
    >>> from dasklake.exceptions import LakeError, LakeNotFoundError
    >>> issubclass(LakeNotFoundError, LakeError), LakeNotFoundError.code
    (True, 'lake-not-found')
    """

    code: ClassVar[str] = "lake-error"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by state, so that errors with more than a message cross processes whole."""
        return _rebuild, (type(self), self.args, dict(self.__dict__))


class InvalidInputError(LakeError, ValueError):
    """The call or the data must be mended."""

    code = "invalid-input"


class SchemaError(InvalidInputError):
    """The schema is wrong, does not fit the lake, or cannot be inferred."""

    code = "schema"


class SampleError(InvalidInputError):
    """A value does not fit its tensor.

    Parameters
    ----------
    message : str
        What is wrong with the value.
    tensor : str or None
        Name of the tensor; None where the sample as a whole is wrong.
    sample : str or None
        The place of the sample, as a reader would look for it.
    """

    code = "sample"

    def __init__(
        self, message: str, *, tensor: str | None = None, sample: str | None = None
    ) -> None:
        where = [f"tensor {tensor!r}"] if tensor is not None else []
        where += [f"sample {sample}"] if sample is not None else []
        super().__init__(f"{', '.join(where)}: {message}" if where else message)
        self.message = message
        self.tensor = tensor
        self.sample = sample


class LinkError(SampleError):
    """What a link points to is not there, is not what it should be, or is not whole."""

    code = "link"


class PlanMismatchError(InvalidInputError):
    """The run of that name was planned over another input or schema."""

    code = "plan-mismatch"


class NestedRunError(InvalidInputError):
    """``to_lake`` was called inside a Dask task."""

    code = "nested-run"


class NotFoundError(LakeError, LookupError):
    """What was asked for is not there."""

    code = "not-found"


class LakeNotFoundError(NotFoundError):
    """There is no lake under the URL."""

    code = "lake-not-found"


class VersionNotFoundError(NotFoundError):
    """The lake has no such version, run or tensor."""

    code = "version-not-found"


class VersionExpiredError(NotFoundError):
    """The version was expired by a vacuum; its objects may be gone."""

    code = "version-expired"


class ConflictError(LakeError):
    """Another writer changed the lake in a way that must be looked at first."""

    code = "conflict"


class LakeExistsError(ConflictError):
    """``mode="create"`` met a lake."""

    code = "lake-exists"


class RunActiveError(ConflictError):
    """A living coordinator is writing the run."""

    code = "run-active"


class RunAbortedError(ConflictError):
    """A reset closed the epoch of the run."""

    code = "run-aborted"


class RunSupersededError(ConflictError):
    """A newer epoch of the run has taken over."""

    code = "run-superseded"


class StoreError(LakeError, OSError):
    """The storage refused or failed.

    Attributes
    ----------
    transient : bool
        Whether another attempt may succeed, as after HTTP 503 or a lost connection.
    """

    code = "store"
    transient = False


class ObjectNotFoundError(StoreError):
    """An object is not there."""

    code = "object-not-found"


class ObjectExistsError(StoreError):
    """An exclusive create found the object made already."""

    code = "object-exists"


class PermissionDeniedError(StoreError):
    """The storage refused the credentials."""

    code = "permission-denied"


class StorageFullError(StoreError):
    """The disk is full, or the quota is used up."""

    code = "storage-full"


class UnsupportedStoreError(StoreError):
    """The storage cannot create an object exclusively, or cannot be written at all."""

    code = "unsupported-store"


class LakeNotSharedError(StoreError):
    """A worker does not see the storage the lake is on."""

    code = "lake-not-shared"


class CorruptionError(LakeError):
    """The bytes of an object are not those that were written."""

    code = "corruption"


class CorruptionWarning(UserWarning):
    """A chunk is damaged, and its samples were left out: ``on_corrupt="skip"`` asked for that."""


class UnsupportedFormatError(LakeError):
    """The lake uses a feature that this release does not know."""

    code = "unsupported-format"


class RunFailedError(LakeError):
    """The run ended early; everything that was committed is kept."""

    code = "run-failed"


class TransformError(RunFailedError):
    """The user's code failed on a sample or on a partition.

    Parameters
    ----------
    message : str
        The whole sentence.
    index : int or None
        Place of the item in the whole input, in samples, where it is known.
    item : str or None
        The item itself, shortened.
    partition : int
        Number of the partition.
    position : int or None
        Place of the item in its partition, in samples; None where the failure came from
        the collection itself and not from ``transform``.
    samples_processed : int
        Input samples whose results were committed before the run ended.
    """

    code = "transform"

    def __init__(
        self,
        message: str,
        *,
        index: int | None = None,
        item: str | None = None,
        partition: int | None = None,
        position: int | None = None,
        samples_processed: int = 0,
    ) -> None:
        super().__init__(message)
        self.index = index
        self.item = item
        self.partition = partition
        self.position = position
        self.samples_processed = samples_processed


class PartitionTimeoutError(TransformError):
    """A partition took longer than ``partition_timeout`` in each of its attempts.

    Parameters
    ----------
    message : str
        The whole sentence.
    seconds : float or None
        The limit.
    **place : object
        As for :class:`TransformError`.
    """

    code = "partition-timeout"

    def __init__(self, message: str, *, seconds: float | None = None, **place: Any) -> None:
        super().__init__(message, **place)
        self.seconds = seconds


class TooManyFailuresError(RunFailedError):
    """More samples failed than ``max_failures`` allows."""

    code = "too-many-failures"


class RunLostError(RunFailedError):
    """The cluster forgot the run: it was restarted, or the scheduler died."""

    code = "run-lost"


class MissingExtraError(LakeError, ImportError):
    """An optional library is not installed.

    Parameters
    ----------
    what : str
        What was asked for.
    extra : str
        Name of the extra that brings the library.
    """

    code = "missing-extra"

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f'{what} needs an optional library. Install it with: pip install "dasklake[{extra}]".'
        )
        self.extra = extra
