"""``open`` and ``empty``: one version of a lake as samples, tensors and Dask collections."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import dask.dataframe as dd

from dasklake._api.cache_options import parse_cache
from dasklake._api.configuration import cache_size_of, open_store
from dasklake._api.edit_methods import EditMethods
from dasklake._api.formatting import lake_html, lake_text
from dasklake._api.link_methods import LinkMethods
from dasklake._api.maintenance_methods import MaintenanceMethods
from dasklake._api.other_words import explained
from dasklake._api.view import ReadMethods
from dasklake._log.log import Log
from dasklake._log.schema_evolution import empty_lake
from dasklake._log.transactions import create_lake
from dasklake._maintenance.reset import reset as reset_lake
from dasklake._read.corruption import OnCorrupt
from dasklake._read.filters import FilterLike
from dasklake._read.reader import resolve_commit
from dasklake._run.options import LinkPolicy
from dasklake._schema.schema import Schema
from dasklake._storage.store import ObjectStore
from dasklake._write.caller_warning import warn_caller
from dasklake.creds import StorageOptions, either
from dasklake.exceptions import CorruptionError, LakeExistsError, UnsupportedFormatError


@explained
def open(
    url: str | os.PathLike[str],
    *,
    version: int | None = None,
    reset: bool = False,
    on_corrupt: OnCorrupt = "raise",
    links: LinkPolicy | None = None,
    cache: str | os.PathLike[str] | None = None,
    cache_size: int | str | None = None,
    storage_options: StorageOptions = None,
    creds: StorageOptions = None,
) -> Lake:
    """Open one version of a lake.

    Opening reads only the commit of the version. Samples are fetched when they are used. The
    version does not change while others write to the lake; :meth:`Lake.refresh` moves to the
    newest one.

    Parameters
    ----------
    url : str or os.PathLike
        Root of the lake: a path, or any URL that fsspec supports.
    version : int, optional
        Version to open. By default, the newest.
    reset : bool, default False
        First close unfinished runs and delete their uncommitted objects, as :meth:`Lake.reset`
        does. If the newest entry of the log cannot be read, an older ``version`` is opened without
        a reset, with a warning.
    on_corrupt : "raise" or "skip", default "raise"
        Handling of damaged chunks. With ``"skip"``, a warning names the chunk, and its samples are
        left out of loops, slices and Dask collections. Lengths and indices do not change, and
        ``lake[i]`` of such a sample still raises an error.
    links : LinkPolicy, optional
        Limits for reading the targets of links, and the default of methods that take ``links``.
    cache : str or os.PathLike, optional
        Local directory that keeps the parts of chunks that were read, so that they are fetched
        once. The processes of a machine share it. Workers on other machines use the same path of
        their own disks. By default, nothing is kept.
    cache_size : int or str, optional
        Most bytes that the cache takes. The chunks that were not read for the longest time are
        removed first. By default ``dasklake.cache-size`` of Dask's configuration, which is 50 GiB.
    storage_options : mapping, callable or str, optional
        Options for the fsspec file system of the URL, a function that returns them, or a
        credentials key.
    creds : mapping, callable or str, optional
        Alias of ``storage_options``.

    Returns
    -------
    Lake
        The version.

    Raises
    ------
    LakeNotFoundError
        There is no lake under ``url``.
    VersionNotFoundError
        The lake does not have this version.
    VersionExpiredError
        The version was expired by a vacuum.
    UnsupportedFormatError
        The lake was written by a newer release.
    InvalidInputError
        Another user can write to ``cache``, or an argument is invalid.

    Examples
    --------
    >>> import dask.array as da
    >>> import dasklake
    >>> columns = {"image": da.zeros((4, 2, 2), chunks=(2, 2, 2)), "label": da.arange(4, chunks=2)}
    >>> report = dasklake.to_lake(columns, "memory://open")
    >>> lake = dasklake.open("memory://open")
    >>> len(lake)
    4
    >>> lake[3]["label"]
    np.int64(3)
    >>> lake["image"][0:3].shape
    (3, 2, 2)
    """
    settings = None if cache is None else parse_cache(cache, cache_size_of(cache_size))
    store = open_store(url, either(storage_options, creds), cache=settings)
    log = Log(store)
    if reset:
        _reset(store, log, version)
    return Lake(store, log, resolve_commit(log, version), on_corrupt, links)


def _reset(store: ObjectStore, log: Log, version: int | None) -> None:
    """Reset a lake; only warn if its newest entry cannot be read, but an older one is opened."""
    try:
        reset_lake(store, log)
    except (CorruptionError, UnsupportedFormatError) as error:
        if version is None or version == log.head_version():
            raise
        warn_caller(f"The lake was not reset. {error}")


#: Alias of :func:`open`.
load = open


@explained
def empty(
    url: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    storage_options: StorageOptions = None,
    creds: StorageOptions = None,
) -> Lake:
    """Create a lake without tensors or samples.

    Add tensors with :meth:`Lake.create_tensor`, then samples with :meth:`Lake.append`,
    :meth:`Lake.write` or a :class:`Pipeline`. To write a Dask collection as a new lake in one
    call, use :func:`to_lake`.

    Parameters
    ----------
    url : str or os.PathLike
        Root of the new lake.
    overwrite : bool, default False
        Allow an existing lake. A new version then removes its tensors and samples; older versions
        stay readable.
    storage_options, creds : mapping, callable or str, optional
        As for :func:`open`.

    Returns
    -------
    Lake
        The new version.

    Raises
    ------
    LakeExistsError
        There is a lake under ``url``, and ``overwrite`` is False.
    RunActiveError
        A run is writing to the lake.

    Examples
    --------
    >>> import dasklake
    >>> lake = dasklake.empty("memory://empty")
    >>> lake.create_tensor("x", dtype="float32", shape=(2,))
    >>> lake.append({"x": [1, 2]})
    >>> len(lake)
    1
    """
    store = open_store(url, either(storage_options, creds))
    log = Log(store)
    head, created = create_lake(log, Schema({}))
    if not created and not overwrite:
        raise LakeExistsError(
            f"There is already a lake under {store.url}. Open it with dasklake.open(url), or "
            "remove its contents with overwrite=True."
        )
    return Lake(store, log, head if created else empty_lake(log, head))


@explained
def read_lake(
    url: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    storage_options: StorageOptions = None,
    *,
    version: int | None = None,
    filters: FilterLike | None = None,
    index: str | Sequence[str] | bool | None = None,
    blocksize: int | str | None = None,
    tensors: Literal["stored", "arrow"] = "stored",
    on_corrupt: OnCorrupt = "raise",
) -> dd.DataFrame:
    """Read a version of a lake as a Dask DataFrame.

    Parameters
    ----------
    url : str or os.PathLike
        Root of the lake.
    columns : sequence of str, optional
        Tensors to read. By default, all.
    storage_options : mapping, callable or str, optional
        As for :func:`open`.
    version : int, optional
        The version. By default, the newest one.
    filters : pyarrow.compute.Expression or list of tuple, optional
        Samples to read, as for :meth:`Lake.to_dask_dataframe`.
    index : str, sequence of str or bool, optional
        As for :meth:`Lake.to_dask_dataframe`.
    blocksize : int or str, optional
        Maximum size of a partition in memory, as for :meth:`Lake.to_dask_dataframe`.
    tensors : {"stored", "arrow"}, default "stored"
        As for :meth:`Lake.to_dask_dataframe`.
    on_corrupt : "raise" or "skip", default "raise"
        Handling of damaged chunks, as for :func:`open`.

    Returns
    -------
    dask.dataframe.DataFrame
        One partition per chunk, with the stored index, or indexed by the number of the sample.

    Raises
    ------
    LakeNotFoundError
        There is no lake under ``url``.
    VersionNotFoundError
        The lake does not have the version, or a tensor of ``columns`` or ``filters``.
    InvalidInputError
        An argument is not valid.

    Examples
    --------
    >>> import dask.array as da
    >>> import dasklake
    >>> report = dasklake.to_lake({"x": da.arange(4, chunks=2)}, "memory://read-lake")
    >>> frame = dasklake.read_lake("memory://read-lake")
    >>> frame.npartitions, int(frame.x.sum().compute())
    (2, 6)
    >>> dasklake.read_lake("memory://read-lake", filters=[("x", ">", 1)]).x.compute().tolist()
    [2, 3]
    """
    lake = open(url, version=version, on_corrupt=on_corrupt, storage_options=storage_options)
    return lake.to_dask_dataframe(
        columns, filters=filters, index=index, blocksize=blocksize, tensors=tensors
    )


class Lake(ReadMethods, LinkMethods, EditMethods, MaintenanceMethods):
    """One version of a lake, as returned by :func:`open`.

    ``lake[i]`` is a sample, a dict of values. ``lake[i:j]`` and ``lake[[i, j]]`` are lists of
    samples. ``lake[name]`` is a :class:`Tensor`. Iteration reads chunk by chunk.

    Parameters
    ----------
    store : ObjectStore
        Objects of the lake.
    log : Log
        Log of the lake.
    commit : Commit
        Commit of the version.
    on_corrupt : "raise" or "skip", default "raise"
        Handling of damaged chunks, as for :func:`open`.
    links : LinkPolicy, optional
        Limits for reading the targets of links.

    Examples
    --------
    >>> import dasklake
    >>> lake = dasklake.empty("memory://lake")
    >>> lake.create_tensor("x", dtype="int64", shape=())
    >>> lake.extend([{"x": 5}, {"x": 6}])
    >>> len(lake)
    2
    >>> lake[0]
    {'x': np.int64(5)}
    >>> lake["x"][:]
    array([5, 6])
    """

    def __reduce__(self) -> tuple[Any, ...]:
        version = self._store, self._log.branch, self.version
        return _reopen, (*version, self._on_corrupt, self._links)

    @property
    def max_len(self) -> int:
        """Number of samples of the longest tensor."""
        return self._commit.totals.samples

    def __repr__(self) -> str:
        return lake_text(self.url, self._commit, complete=self.is_complete)

    def _repr_html_(self) -> str:
        return lake_html(self.url, self._commit, complete=self.is_complete)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._reader.stream(list(self.schema))


def _reopen(
    store: ObjectStore, branch: str, version: int, on_corrupt: OnCorrupt, links: LinkPolicy | None
) -> Lake:
    log = Log(store, branch)
    return Lake(store, log, resolve_commit(log, version), on_corrupt, links)
