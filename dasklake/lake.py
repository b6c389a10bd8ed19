"""``open``: a version of a lake, as samples, tensors and Dask collections."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, overload

import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np

from dasklake._lake.upkeep import Upkeep
from dasklake._maintenance.reset import reset as reset_lake
from dasklake._read.graph import block_bytes, to_array, to_bag, to_dataframe
from dasklake._read.reader import commit_of, row_asked, rows_asked
from dasklake._read.show import lake_html, lake_text
from dasklake._read.tensor import Tensor
from dasklake._store.log import Log
from dasklake._store.objects import ObjectStore
from dasklake.creds import StorageOptions

__all__ = ["Lake", "Tensor", "open", "read_lake"]


def open(
    url: str | os.PathLike[str],
    *,
    version: int | None = None,
    reset: bool = False,
    storage_options: StorageOptions = None,
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
    storage_options : mapping, callable or str, optional
        What fsspec takes for this kind of storage, a function that returns it, or a credentials
        key.

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
    store = ObjectStore(url, storage_options)
    log = Log(store)
    if reset:
        log.require_head()
        reset_lake(store, log)
    return Lake(store, log, commit_of(log, version))


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


class Lake(Upkeep):
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
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._store, self._log.branch, self.version)

    @property
    def max_len(self) -> int:
        """Number of samples of the longest tensor."""
        return self._commit.totals.samples

    def __len__(self) -> int:
        return self._commit.totals.samples

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
            rows = rows_asked(item, len(self))
            return [dict(zip(names, row, strict=True)) for row in self._reader.many(rows, names)]
        values = self._reader.one(row_asked(item, len(self)), names)
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
        return to_bag(
            self._reader.origin,
            self._reader.groups(block_bytes(blocksize)),
            self._reader.names(columns),
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
        frame = to_dataframe(self._reader.origin, self._reader.groups(block_bytes(blocksize)))
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
        self._reader.names([name])
        return to_array(self._reader.origin, self._reader.groups(block_bytes(blocksize)), name)


def _again(store: ObjectStore, branch: str, version: int) -> Lake:
    log = Log(store, branch)
    return Lake(store, log, commit_of(log, version))
