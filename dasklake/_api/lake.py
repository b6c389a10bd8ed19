"""``open``: a version of a lake, as samples, tensors and Dask collections."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, overload

import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np

from dasklake._api.edit_methods import EditMethods
from dasklake._api.formatting import lake_html, lake_text
from dasklake._api.link_methods import LinkMethods
from dasklake._api.maintenance_methods import MaintenanceMethods
from dasklake._log.log import Log
from dasklake._log.schema_evolution import empty_lake
from dasklake._log.transactions import create_lake
from dasklake._maintenance.reset import reset as reset_lake
from dasklake._read.corruption import OnCorrupt, parse_on_corrupt
from dasklake._read.graph import parse_blocksize, to_array, to_bag, to_dataframe
from dasklake._read.reader import resolve_commit, resolve_row, resolve_rows
from dasklake._read.tensor import Tensor
from dasklake._schema.schema import Schema
from dasklake._storage.store import ObjectStore
from dasklake.creds import StorageOptions, either
from dasklake.exceptions import LakeExistsError

__all__ = ["Lake", "Tensor", "empty", "load", "open", "read_lake"]


def open(
    url: str | os.PathLike[str],
    *,
    version: int | None = None,
    reset: bool = False,
    on_corrupt: OnCorrupt = "raise",
    storage_options: StorageOptions = None,
    creds: StorageOptions = None,
) -> Lake:
    """Open a lake.

    What is seen is one version, whatever is written meanwhile; :meth:`Lake.refresh` moves on.

    Parameters
    ----------
    url : str or os.PathLike
        Where the lake lies.
    version : int, optional
        Which version; left out, the newest.
    reset : bool, default False
        First close unfinished runs and delete what they left, as :meth:`Lake.reset` does.
    on_corrupt : "raise" or "skip", default "raise"
        What happens at a damaged chunk: an error; or a warning that names it, and its samples are
        left out of loops, slices and Dask collections. Lengths and places of samples stay as they
        are, and ``lake[i]`` of such a sample is an error all the same.
    storage_options : mapping, callable or str, optional
        What fsspec takes for this kind of storage, a function that returns it, or a credentials
        key.
    creds : mapping, callable or str, optional
        Another word for ``storage_options``, as other libraries have it.

    Returns
    -------
    Lake
        The version.

    Raises
    ------
    LakeNotFoundError
        There is no lake under the URL.
    VersionNotFoundError
        The lake has no such version.
    VersionExpiredError
        The version was expired.
    UnsupportedFormatError
        The lake was written by a newer release.

    Examples
    --------
    >>> lake = dasklake.open("s3://bucket/coco-train")  # doctest: +SKIP
    >>> len(lake), lake[7]["boxes"].shape, lake["boxes"][10:20]  # doctest: +SKIP
    """
    skipping = parse_on_corrupt(on_corrupt)
    store = ObjectStore(url, either(storage_options, creds))
    log = Log(store)
    if reset:
        log.require_head()
        reset_lake(store, log)
    return Lake(store, log, resolve_commit(log, version), skipping)


#: What other libraries call it.
load = open


def empty(
    url: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    storage_options: StorageOptions = None,
    creds: StorageOptions = None,
) -> Lake:
    """Make a lake without tensors and samples.

    Parameters
    ----------
    url : str or os.PathLike
        Where the lake is to lie.
    overwrite : bool, default False
        Whether there may be a lake already; it then holds nothing from a new version on. Older
        versions stay readable.
    storage_options, creds : mapping, callable or str, optional
        As for :func:`open`.

    Returns
    -------
    Lake
        The new version; :meth:`Lake.create_tensor` is the next step.

    Raises
    ------
    LakeExistsError
        There is a lake, and ``overwrite`` is not given.
    RunActiveError
        The lake is being written.

    Examples
    --------
    >>> import dasklake
    >>> lake = dasklake.empty("memory://empty")
    >>> lake.create_tensor("x", dtype="float32", shape=(2,))
    >>> lake.append({"x": [1, 2]})
    >>> len(lake)
    1
    """
    store = ObjectStore(url, either(storage_options, creds))
    log = Log(store)
    head, ours = create_lake(log, Schema({}))
    if not ours and not overwrite:
        raise LakeExistsError(
            f"There is a lake under {store.url}. Open it with dasklake.open(url), or empty it with "
            "overwrite=True."
        )
    return Lake(store, log, head if ours else empty_lake(log, head))


def read_lake(
    url: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    storage_options: StorageOptions = None,
) -> dd.DataFrame:
    """Return the newest version of a lake as a Dask DataFrame.

    Parameters
    ----------
    url : str or os.PathLike
        Where the lake lies.
    columns : sequence of str, optional
        The tensors to read; left out, all.
    storage_options : mapping, callable or str, optional
        As for :func:`open`.

    Returns
    -------
    dask.dataframe.DataFrame
        One partition for each chunk, indexed by the place in the version.

    Raises
    ------
    LakeNotFoundError
        There is no lake under the URL.
    VersionNotFoundError
        The lake has no such tensor.
    """
    return open(url, storage_options=storage_options).to_dask_dataframe(columns)


class Lake(LinkMethods, EditMethods, MaintenanceMethods):
    """One version of a lake; made by :func:`open`.

    ``lake[i]`` is a sample, ``lake[i:j]`` a list of samples, ``lake[name]`` a :class:`Tensor`.
    Iterating reads chunk by chunk.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    log : Log
        Its log.
    commit : Commit
        The version.
    on_corrupt : "raise" or "skip", default "raise"
        Whether a damaged chunk is an error, or a warning and its samples are left out.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._store, self._log.branch, self.version, self._on_corrupt)

    @property
    def max_len(self) -> int:
        """Number of samples of the longest tensor."""
        return self._commit.totals.samples

    def __len__(self) -> int:
        return self._reader.origin.length(self.schema)

    def __repr__(self) -> str:
        return lake_text(self.url, self._commit, complete=self.is_complete)

    def _repr_html_(self) -> str:
        return lake_html(self.url, self._commit, complete=self.is_complete)

    @overload
    def __getitem__(self, item: str) -> Tensor: ...

    @overload
    def __getitem__(self, item: slice | list[int]) -> list[dict[str, Any]]: ...

    @overload
    def __getitem__(self, item: int) -> dict[str, Any]: ...

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, str):
            self._reader.names([item])
            return Tensor(self._reader, item)
        names = list(self.schema)
        if isinstance(item, slice | list | tuple | np.ndarray):
            rows = resolve_rows(item, len(self))
            return [dict(zip(names, row, strict=True)) for row in self._reader.many(rows, names)]
        values = self._reader.one(resolve_row(item, len(self)), names)
        return dict(zip(names, values, strict=True))

    def __contains__(self, name: object) -> bool:
        """Whether there is a tensor of this name."""
        return name in list(self.schema)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._reader.stream(list(self.schema))

    def to_dask_bag(
        self, columns: Sequence[str] | None = None, *, blocksize: int | str | None = None
    ) -> db.Bag:
        """Return the samples as a Dask Bag of dicts.

        Parameters
        ----------
        columns : sequence of str, optional
            The tensors to read; left out, all.
        blocksize : int or str, optional
            Join chunks up to this many bytes, such as ``"64 MiB"``; left out, one partition for
            each chunk.

        Returns
        -------
        dask.bag.Bag
            The samples, in order.

        Raises
        ------
        VersionNotFoundError
            There is no such tensor.
        InvalidInputError
            ``columns`` are no names, or ``blocksize`` is no size.
        """
        names = self._reader.names(columns)
        return to_bag(
            self._reader.origin,
            self._reader.groups(names, parse_blocksize(blocksize)),
            names,
        )

    def to_dask_dataframe(
        self, columns: Sequence[str] | None = None, *, blocksize: int | str | None = None
    ) -> dd.DataFrame:
        """Return the samples as a Dask DataFrame, indexed by their place in the version.

        Columns of a table have the dtype they were written with; arrays become Arrow types.

        Parameters
        ----------
        columns : sequence of str, optional
            The tensors to read; left out, all. Also ``frame[columns]`` reads only those.
        blocksize : int or str, optional
            As for :meth:`to_dask_bag`.

        Returns
        -------
        dask.dataframe.DataFrame
            The samples, in order, with known divisions.

        Raises
        ------
        VersionNotFoundError
            There is no such tensor.
        InvalidInputError
            ``columns`` are no names, or ``blocksize`` is no size.
        """
        names = self._reader.names(columns)
        groups = self._reader.groups(names, parse_blocksize(blocksize))
        frame = to_dataframe(self._reader.origin, groups)
        return frame if columns is None else frame[names]

    def to_dask_array(self, name: str, *, blocksize: int | str | None = None) -> da.Array:
        """Return a tensor of one shape as a Dask Array, axis 0 = samples.

        Parameters
        ----------
        name : str
            The tensor.
        blocksize : int or str, optional
            As for :meth:`to_dask_bag`.

        Returns
        -------
        dask.array.Array
            Of the tensor's dtype, with known chunk sizes.

        Raises
        ------
        VersionNotFoundError
            There is no such tensor.
        InvalidInputError
            Its samples have not all the same shape, or ``blocksize`` is no size.
        """
        groups = self._reader.groups(self._reader.names([name]), parse_blocksize(blocksize))
        return to_array(self._reader.origin, groups, name)


def _again(store: ObjectStore, branch: str, version: int, on_corrupt: OnCorrupt) -> Lake:
    log = Log(store, branch)
    return Lake(store, log, resolve_commit(log, version), on_corrupt)
