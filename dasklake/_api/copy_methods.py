"""Method of ``Lake`` and ``View`` that copies samples to another lake as they are stored."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from dask.base import get_scheduler

from dasklake._api.configuration import AUTO
from dasklake._api.sample_set import SampleSet
from dasklake._api.write import WriteOptions, WriteReport, check_options, to_lake
from dasklake._read.graph import to_bag_of_selected
from dasklake._read.row_index import resolve_selection
from dasklake._read.rows import Rows, numbers_at
from dasklake._read.selection import select_rows
from dasklake._schema.argument_types import check_arguments
from dasklake.creds import StorageOptions
from dasklake.exceptions import InvalidInputError

__all__ = ["CopyMethods"]

_DEFAULTS = WriteOptions()


@check_arguments
class CopyMethods(SampleSet):
    """Copy samples to another lake."""

    def copy_to(  # noqa: PLR0913 # the arguments of to_lake that apply
        self,
        url: str | os.PathLike[str],
        rows: slice | Sequence[int] | npt.NDArray[Any] | None = None,
        columns: Sequence[str] | None = None,
        *,
        checkpoint_every: int | str | timedelta | None = AUTO,
        mode: Literal["create", "append", "overwrite", "resume"] = "create",
        run: str | None = None,
        message: str | None = None,
        storage_options: StorageOptions = None,
        coordinator: Literal["auto", "scheduler", "client"] = "auto",
        progress: bool | Literal["auto"] = "auto",
        on_checkpoint: Callable[[int], object] | None = None,
        options: WriteOptions = _DEFAULTS,
    ) -> WriteReport:
        """Copy samples of this version to another lake as they are stored.

        Files, masks and all other values keep their bytes, because nothing is decoded. Links keep
        the stored properties of their targets, and the targets are not read. The copy is a run with
        checkpoints: if it is interrupted, call it again with ``mode="resume"`` and the same version,
        rows and columns.

        Parameters
        ----------
        url : str or path
            Root of the other lake: a path, or any URL that fsspec supports.
        rows : slice, sequence of int, or array, optional
            Samples to copy, as in ``lake[rows]``: a slice, numbers in any order, or a mask. By
            default, all samples.
        columns : sequence of str, optional
            Tensors to copy. By default, all.
        checkpoint_every : int, str, timedelta or None, default "auto"
            Interval between checkpoints, as for :func:`dasklake.to_lake`.
        mode : {"create", "append", "overwrite", "resume"}, default "create"
            How to treat an existing lake, as for :func:`dasklake.to_lake`. An appended value that the
            other tensor stores in another way is decoded and encoded.
        run : str, optional
            Name of the run.
        message : str, optional
            First line of the commit messages.
        storage_options : mapping, callable or str, optional
            Options for the fsspec file system of ``url``.
        coordinator : {"auto", "scheduler", "client"}, default "auto"
            Process that commits on a cluster.
        progress : bool or "auto", default "auto"
            Whether to show a progress bar.
        on_checkpoint : callable, optional
            Function called with the version after a commit.
        options : WriteOptions, optional
            Less common options. Without a client or a configured scheduler, threads copy.

        Returns
        -------
        WriteReport
            Summary of the run.

        Raises
        ------
        InvalidInputError
            ``rows`` or ``columns`` is not valid.
        VersionNotFoundError
            The lake does not have a tensor of ``columns``.
        IndexError
            A number of ``rows`` is out of range.
        LakeError
            As :func:`dasklake.to_lake`.

        Examples
        --------
        >>> import dasklake
        >>> lake = dasklake.empty("memory://copy-from")
        >>> lake.create_tensor("x", dtype="int64", shape=())
        >>> lake.create_tensor("document", htype="json")
        >>> lake.extend({"x": [1, 2, 3], "document": [{"a": 1}, None, []]})
        >>> lake.copy_to("memory://copy-to", rows=[2, 0], columns=["document"]).samples
        2
        >>> dasklake.open("memory://copy-to")["document"][:]
        [[], {'a': 1}]
        """
        check_options(options)
        self.flush()
        names = self._columns(columns)
        if not names:
            raise InvalidInputError("columns must have at least one tensor, got none.")
        numbers = self._numbers(rows, names)
        identity = _digest(self._reader.origin.id, names, numbers)
        parts = select_rows(self._reader.plan, numbers)
        if options.scheduler is None and get_scheduler() is None:
            # Most of the time is spent on storage, and processes would not see memory://.
            options = replace(options, scheduler="threads")
        bag = to_bag_of_selected(self._reader.origin, parts, names, identity)
        report: WriteReport = to_lake(
            bag,
            url,
            checkpoint_every=checkpoint_every,
            mode=mode,
            run=run,
            input_id=identity,
            message=message,
            storage_options=storage_options,
            coordinator=coordinator,
            progress=progress,
            on_checkpoint=on_checkpoint,
            options=options,
        )
        return report

    def _numbers(self, rows: Any, names: list[str]) -> Rows | None:
        """Return the numbers of the samples to copy; None for all samples of the version."""
        own = self._rows_of(names)
        if rows is None:
            everything = range(self._reader.origin.length(names))
            return None if isinstance(own, range) and own == everything else own
        return numbers_at(own, resolve_selection(rows, len(own)))


def _digest(version: str, names: Sequence[str], rows: Rows | None) -> str:
    """Return the identity of a selection of a version."""
    digest = hashlib.sha256(repr((version, list(names), rows is None)).encode())
    if rows is not None:
        digest.update(np.asarray(rows, "<i8").tobytes())
    return f"copy-{digest.hexdigest()[:32]}"
