"""Methods of ``Lake`` for maintenance: reset, vacuum, compact, verify, and retries of failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

from dasklake._api.configuration import chunk_size_of
from dasklake._api.lake_base import LakeBase
from dasklake._api.retry_failures import retry
from dasklake._maintenance.compact import CompactReport
from dasklake._maintenance.compact import compact as compact_lake
from dasklake._maintenance.reset import ResetReport
from dasklake._maintenance.reset import reset as reset_lake
from dasklake._maintenance.vacuum import VacuumReport
from dasklake._maintenance.vacuum import vacuum as vacuum_lake
from dasklake._maintenance.verify import VerifyReport
from dasklake._maintenance.verify import verify as verify_lake
from dasklake._read.undecodable import find_undecodable
from dasklake._run.options import parse_age
from dasklake._run.progress_bar import make_count_bar
from dasklake._run.report import WriteReport
from dasklake._schema.argument_types import check_arguments


@check_arguments
class MaintenanceMethods(LakeBase):
    """Reset, vacuum, compact and verify a lake, and retry its failures."""

    def reset(
        self,
        *,
        force: bool = False,
        dry_run: bool = False,
        progress: bool | Literal["auto"] = "auto",
    ) -> ResetReport:
        """Close unfinished runs and delete their uncommitted objects, then :meth:`refresh`.

        Inside a ``with lake:`` block, new tensors and samples that the block has collected are
        discarded, too.

        Parameters
        ----------
        force : bool, default False
            Also close runs that are being written. Their coordinators stop.
        dry_run : bool, default False
            Change nothing, and report what would be done.
        progress : bool or "auto", default "auto"
            Show a progress bar. ``"auto"`` shows it in terminals and notebooks.

        Returns
        -------
        ResetReport
            Closed runs and deleted objects.

        Raises
        ------
        RunActiveError
            A run is being written, and ``force`` is False.
        """
        with make_count_bar(progress, "reset", "objects") as watch:
            report = reset_lake(
                self._store, self._log, force=force, dry_run=dry_run, on_status=watch
            )
        if not dry_run:
            self._discard_collected()
            self.refresh()
        return report

    def vacuum(
        self,
        *,
        older_than: str | timedelta | None = "7d",
        dry_run: bool = False,
        progress: bool | Literal["auto"] = "auto",
    ) -> VacuumReport:
        """Expire old versions and delete the objects that only they need, then :meth:`refresh`.

        These are always kept: the newest version of each branch, tagged versions, the versions
        that branches start from, and the objects of unfinished runs. Writers may be active.
        Reading an expired version raises :class:`~dasklake.exceptions.VersionExpiredError`.

        Parameters
        ----------
        older_than : str, timedelta or None, default "7d"
            Keep versions that were the newest less than this time ago. With None, keep only those
            that are always kept.
        dry_run : bool, default False
            Change nothing, and report what would be done.
        progress : bool or "auto", default "auto"
            As for :meth:`reset`.

        Returns
        -------
        VacuumReport
            Expired versions and deleted objects.

        Raises
        ------
        UnsupportedStoreError
            The lake was created with ``single_writer=True``: other writers cannot be excluded.
        InvalidInputError
            ``older_than`` is not a valid age.

        Examples
        --------
        >>> lake.vacuum(older_than="30d", dry_run=True).bytes  # doctest: +SKIP
        """
        age = parse_age(older_than)
        with make_count_bar(progress, "vacuum", "objects") as watch:
            report = vacuum_lake(
                self._store, self._log, older_than=age, dry_run=dry_run, on_status=watch
            )
        if not dry_run:
            self.refresh()
        return report

    def compact(
        self,
        *,
        chunk_size: int | str | None = None,
        progress: bool | Literal["auto"] = "auto",
    ) -> CompactReport:
        """Join small chunks of finished runs into full ones, then :meth:`refresh`.

        Samples, their order and their numbers do not change. The next vacuum deletes the small
        chunks. Writers may be active.

        Parameters
        ----------
        chunk_size : int or str, optional
            Maximum size of a joined chunk. Chunks of less than half of it are small. By default
            ``dasklake.chunk-size`` of Dask's configuration, which is 64 MiB.
        progress : bool or "auto", default "auto"
            As for :meth:`reset`.

        Returns
        -------
        CompactReport
            Numbers of joined and of new chunks.

        Raises
        ------
        ConflictError
            An overwrite or a reset was committed concurrently. Nothing was changed.
        CorruptionError
            A small chunk is damaged.
        InvalidInputError
            ``chunk_size`` is not a valid size.
        """
        size = chunk_size_of(chunk_size)
        self.flush()
        with make_count_bar(progress, "compact", "chunks") as watch:
            report = compact_lake(self._store, self._log, chunk_size=size, on_status=watch)
        self.refresh()
        return report

    def verify(self, *, quick: bool = False, decode: bool = False) -> VerifyReport:
        """Read every version and compare all checksums.

        Parameters
        ----------
        quick : bool, default False
            Read only the sizes and headers of chunks, not their data.
        decode : bool, default False
            Also decode every stored image and media file. Files that were damaged before they
            were written have the right checksums, but cannot be decoded.

        Returns
        -------
        VerifyReport
            Numbers of objects read, and the damaged objects.

        Raises
        ------
        InvalidInputError
            Both ``quick`` and ``decode`` are True.
        MissingExtraError
            A library that decodes a file is not installed.
        StoreError
            The storage failed.

        Examples
        --------
        >>> lake.verify(decode=True).ok  # doctest: +SKIP
        True
        """
        find = find_undecodable if decode else None
        return verify_lake(self._store, self._log, quick=quick, decode=find)

    def retry_failures(
        self,
        fn: Callable[..., Any],
        *,
        items: Callable[[Mapping[str, Any]], Any] | Sequence[Any] | None = None,
        run: str | None = None,
        **options: Any,
    ) -> WriteReport | None:
        """Retry the failed items of a finished run, append their samples, then :meth:`refresh`.

        The samples form a new run, ``<run>-retry-1``. The next call retries only the failures of
        that run, as ``<run>-retry-2``, so that no sample is appended twice. An interrupted retry
        is continued.

        Parameters
        ----------
        fn : callable
            ``fn(item)`` makes a sample of an item, as ``transform`` of :func:`to_lake`.
        items : callable or sequence, optional
            Source of the items that are not stored with the failures: a function of a row of
            :meth:`failures`, or the whole input, indexed by ``index``. Numbers, texts, and small
            lists and dicts of them are stored.
        run : str, optional
            Run to retry. Required if several runs have failures.
        **options
            Further arguments of :func:`to_lake`, such as ``transform_kwargs``, ``max_failures`` and
            ``options``. What fails again is skipped, unless ``on_error="raise"``.

        Returns
        -------
        WriteReport or None
            Result of the write, or None if no failures remain. With an asynchronous client, an
            awaitable of it.

        Raises
        ------
        InvalidInputError
            An item was not stored and ``items`` is missing, or several runs have failures.
        ConflictError
            The run is unfinished.
        VersionNotFoundError
            The lake does not have a run ``run``.

        Examples
        --------
        >>> lake.retry_failures(fixed, items=img_ids).samples  # doctest: +SKIP
        """
        self.flush()
        self.refresh()
        report: WriteReport | None = retry(self._store, self._log, fn, items, run, options)
        if isinstance(report, WriteReport):
            self.refresh()
        return report
