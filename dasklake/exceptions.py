"""The error tree: one category for each kind of handling. Codes never change.

::

    LakeError
    ├── InvalidInputError (ValueError)        fix the call or the data, then call again
    │   ├── SchemaError                       the schema is invalid, or cannot be inferred
    │   ├── SampleError                       a value does not fit its tensor
    │   │   └── LinkError                     the target of a link is missing or not delivered
    │   ├── PlanMismatchError                 the run of that name had another input or schema
    │   ├── NestedRunError                    ``to_lake`` was called inside a Dask task
    │   └── UnknownNameError                  the lake or the package has no such attribute
    ├── NotFoundError (LookupError)           the name or URL does not exist: check it
    │   ├── LakeNotFoundError                 the URL does not hold a lake
    │   ├── VersionNotFoundError              the lake has no such version, run or tensor
    │   └── VersionExpiredError               the version was expired; its objects are gone
    ├── ConflictError                         another writer changed the lake: check first
    │   ├── LakeExistsError                   ``mode="create"`` found an existing lake
    │   ├── RunActiveError                    a live coordinator is writing the run
    │   ├── RunAbortedError                   a reset closed the run's epoch
    │   └── RunSupersededError                a newer epoch of the run has taken over
    ├── StoreError (OSError)                  the storage failed: retry, or fix access
    │   ├── ObjectNotFoundError               an object does not exist
    │   ├── ObjectExistsError                 an exclusive create lost
    │   ├── PermissionDeniedError             credentials are missing, expired or too weak
    │   ├── StorageFullError                  the disk or the quota is full
    │   ├── UnsupportedStoreError             the storage cannot create exclusively
    │   └── LakeNotSharedError                a worker cannot reach the lake's storage
    ├── CorruptionError                       bytes differ from those written: restore them
    ├── UnsupportedFormatError                written by a newer dasklake: upgrade
    ├── RunFailedError                        the run ended early; what is committed is kept
    │   ├── TransformError                    the user's code failed on a sample or partition
    │   │   └── PartitionTimeoutError         a partition took longer than ``partition_timeout``
    │   ├── TooManyFailuresError              more samples failed than ``max_failures`` allows
    │   └── RunLostError                      the cluster lost the run
    └── MissingExtraError (ImportError)       ``pip install "dasklake[<extra>]"``
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

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
    "UnknownNameError",
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
        Description of the failure. It names the sample, tensor, partition or object, and ends
        with a remedy.

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
        """Pickle by state, so that attributes survive the transfer between processes."""
        return _rebuild, (type(self), self.args, dict(self.__dict__))


class InvalidInputError(LakeError, ValueError):
    """The call or the data is invalid. Fix it, then call again; nothing was changed.

    Attributes
    ----------
    problems : tuple
        All problems of an input with several ones, of which the message names the first. Empty for
        other errors.
    """

    code = "invalid-input"
    problems: tuple[Any, ...] = ()


class SchemaError(InvalidInputError):
    """The schema is invalid, does not fit the lake, or cannot be inferred. Pass a valid one."""

    code = "schema"


class SampleError(InvalidInputError):
    """A value does not fit its tensor. Fix the value, or widen the tensor.

    Parameters
    ----------
    message : str
        Description of the misfit.
    tensor : str or None
        Name of the tensor, or None if the error concerns the whole sample.
    sample : str or None
        Location of the sample, as text.
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
    """The target of a link is missing, of a wrong kind, truncated, or not delivered by its host.

    Fix or drop the link, or try it again.

    Parameters
    ----------
    message : str
        Description of the problem.
    tensor, sample : str or None
        As for :class:`SampleError`.
    reason : {"broken", "denied", "unavailable"}, default "broken"
        ``"broken"``: the link is wrong; ``"denied"``: its host denies access; ``"unavailable"``: its
        host did not deliver it within the limits of the :class:`dasklake.LinkPolicy`.
    """

    code = "link"

    def __init__(
        self,
        message: str,
        *,
        tensor: str | None = None,
        sample: str | None = None,
        reason: Literal["broken", "denied", "unavailable"] = "broken",
    ) -> None:
        super().__init__(message, tensor=tensor, sample=sample)
        self.reason = reason


class PlanMismatchError(InvalidInputError):
    """The run was planned over another input or schema. Choose a new ``run`` name."""

    code = "plan-mismatch"


class NestedRunError(InvalidInputError):
    """``to_lake`` was called inside a Dask task. Call it on the client."""

    code = "nested-run"


class UnknownNameError(InvalidInputError, AttributeError):
    """A lake or the package has no attribute of this name. The message names the equivalent."""

    code = "unknown-name"


class NotFoundError(LakeError, LookupError):
    """The lake, version, run or tensor does not exist. Check the name."""

    code = "not-found"


class LakeNotFoundError(NotFoundError):
    """The URL does not hold a lake. Check the URL and the storage options."""

    code = "lake-not-found"


class VersionNotFoundError(NotFoundError):
    """The lake has no such version, run or tensor. ``dasklake log`` lists the versions."""

    code = "version-not-found"


class VersionExpiredError(NotFoundError):
    """A vacuum expired the version; its objects may be gone. Open a newer version."""

    code = "version-expired"


class ConflictError(LakeError):
    """Another writer changed the lake. Check ``lake.log()`` before you write again."""

    code = "conflict"


class LakeExistsError(ConflictError):
    """``mode="create"`` found an existing lake or run. Choose another mode."""

    code = "lake-exists"


class RunActiveError(ConflictError):
    """A live coordinator is writing the run. Wait for it, or stop it."""

    code = "run-active"


class RunAbortedError(ConflictError):
    """A reset closed the epoch of the run. Start it again with ``mode="resume"``."""

    code = "run-aborted"


class RunSupersededError(ConflictError):
    """A newer epoch of the run has taken over. Let that one finish."""

    code = "run-superseded"


class StoreError(LakeError, OSError):
    """A storage operation failed. Try again, or fix the access.

    Attributes
    ----------
    transient : bool
        Whether another attempt may succeed, as after HTTP 503 or a lost connection.
    """

    code = "store"
    transient = False


class ObjectNotFoundError(StoreError):
    """An object does not exist. Check the URL."""

    code = "object-not-found"


class ObjectExistsError(StoreError):
    """An exclusive create found an existing object. Handled internally."""

    code = "object-exists"


class PermissionDeniedError(StoreError):
    """The storage rejected the credentials. Renew them."""

    code = "permission-denied"


class StorageFullError(StoreError):
    """The disk is full, or the quota is exhausted. Free some space, then resume."""

    code = "storage-full"


class UnsupportedStoreError(StoreError):
    """The storage cannot create objects exclusively, or is read-only. Use another storage."""

    code = "unsupported-store"


class LakeNotSharedError(StoreError):
    """A worker cannot reach the storage of the lake. Use a URL that every worker reaches."""

    code = "lake-not-shared"


class CorruptionError(LakeError):
    """The bytes of an object differ from those written. Restore it from a copy."""

    code = "corruption"


class CorruptionWarning(UserWarning):
    """A damaged chunk was skipped, because of ``on_corrupt="skip"``. Restore it from a copy."""


class UnsupportedFormatError(LakeError):
    """The lake uses a feature that this release does not support. Upgrade dasklake."""

    code = "unsupported-format"


class RunFailedError(LakeError):
    """The run ended early; committed data is kept. Fix the cause, then resume."""

    code = "run-failed"


class TransformError(RunFailedError):
    """The user's code failed on a sample or on a partition. Fix it, then resume.

    Parameters
    ----------
    message : str
        The complete message.
    index : int or None
        Position of the item in the whole input, in samples, if known.
    item : str or None
        The item itself, shortened.
    partition : int
        Number of the partition.
    position : int or None
        Position of the item in its partition, in samples. None if the collection failed
        rather than ``transform``.
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
    """A partition took longer than ``partition_timeout`` in every attempt.

    Check what its items have in common, or raise the limit.

    Parameters
    ----------
    message : str
        The complete message.
    seconds : float or None
        The limit.
    **location : object
        As for :class:`TransformError`.
    """

    code = "partition-timeout"

    def __init__(self, message: str, *, seconds: float | None = None, **location: Any) -> None:
        super().__init__(message, **location)
        self.seconds = seconds


class TooManyFailuresError(RunFailedError):
    """More samples failed than ``max_failures`` allows. Fix the function, then resume."""

    code = "too-many-failures"


class RunLostError(RunFailedError):
    """The cluster lost the run, by a restart or a scheduler failure. Resume the run."""

    code = "run-lost"


class MissingExtraError(LakeError, ImportError):
    """An optional library is not installed. Install the extra that the message names.

    Parameters
    ----------
    feature : str
        The feature that needs the library.
    extra : str
        Name of the extra that brings the library.
    """

    code = "missing-extra"

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f'{feature} needs an optional library. Install it with: pip install "dasklake[{extra}]".'
        )
        self.extra = extra
