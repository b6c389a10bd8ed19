"""What keeps a lake in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

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
from dasklake._run.options import parse_age, parse_size
from dasklake._run.progress_bar import make_count_bar
from dasklake._run.report import WriteReport

__all__ = ["MaintenanceMethods"]


class MaintenanceMethods(LakeBase):
    """Resets, vacuums, compactions, verifications, and further tries of what failed."""

    def reset(
        self,
        *,
        force: bool = False,
        dry_run: bool = False,
        progress: bool | Literal["auto"] = "auto",
    ) -> ResetReport:
        """Close unfinished runs and delete what they left uncommitted, then :meth:`refresh`.

        Parameters
        ----------
        force : bool, default False
            Also close runs that are being written: their coordinators stop.
        dry_run : bool, default False
            Change nothing; report what would be done.
        progress : bool or "auto", default "auto"
            Whether to show a bar; ``"auto"`` shows one in terminals and notebooks.

        Returns
        -------
        ResetReport
            What was closed and deleted.

        Raises
        ------
        RunActiveError
            A run is being written, and ``force`` is not given.
        """
        with make_count_bar(progress, "reset", "objects") as watch:
            report = reset_lake(
                self._store, self._log, force=force, dry_run=dry_run, on_status=watch
            )
        if not dry_run:
            self.refresh()
        return report

    def vacuum(
        self,
        *,
        older_than: str | timedelta | None = "7d",
        dry_run: bool = False,
        progress: bool | Literal["auto"] = "auto",
    ) -> VacuumReport:
        """Give up old versions and delete what nothing else needs, then :meth:`refresh`.

        The newest version of each branch, versions with a tag, and those that branches were made
        from are always kept, and so is what a run needs that is not finished. Writers may go on
        meanwhile. Who reads a version that was given up is told so.

        Parameters
        ----------
        older_than : str, timedelta or None, default "7d"
            Keep the versions that were the newest less than this time ago; None for none of them.
        dry_run : bool, default False
            Change nothing; report what would be done.
        progress : bool or "auto", default "auto"
            As for :meth:`reset`.

        Returns
        -------
        VacuumReport
            What was given up and deleted.

        Raises
        ------
        UnsupportedStoreError
            The lake was made with ``single_writer=True``: no writer could be kept away.
        InvalidInputError
            ``older_than`` is no age.

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
        chunk_size: int | str = "64 MiB",
        progress: bool | Literal["auto"] = "auto",
    ) -> CompactReport:
        """Join small chunks of finished runs into full ones, then :meth:`refresh`.

        Samples, their order and their places stay. The small chunks are deleted by the next
        vacuum. Writers may go on meanwhile.

        Parameters
        ----------
        chunk_size : int or str, default "64 MiB"
            Most bytes of a joined chunk; chunks of less than half of it are small.
        progress : bool or "auto", default "auto"
            As for :meth:`reset`.

        Returns
        -------
        CompactReport
            What was joined.

        Raises
        ------
        ConflictError
            An overwrite or a reset came in between: nothing was changed.
        CorruptionError
            A small chunk is damaged.
        InvalidInputError
            ``chunk_size`` is no size.
        """
        size = parse_size(chunk_size)
        with make_count_bar(progress, "compact", "chunks") as watch:
            report = compact_lake(self._store, self._log, chunk_size=size, on_status=watch)
        self.refresh()
        return report

    def verify(self, *, quick: bool = False) -> VerifyReport:
        """Read every version again and compare all checksums.

        Parameters
        ----------
        quick : bool, default False
            Read only sizes and heads of the chunks, not their data.

        Returns
        -------
        VerifyReport
            What was read, and what is damaged.

        Raises
        ------
        StoreError
            The storage failed.
        """
        return verify_lake(self._store, self._log, quick=quick)

    def retry_failures(
        self,
        fn: Callable[..., Any],
        *,
        items: Callable[[Mapping[str, Any]], Any] | Sequence[Any] | None = None,
        run: str | None = None,
        **words: Any,
    ) -> WriteReport | None:
        """Run what failed in a finished run again, append what succeeds, then :meth:`refresh`.

        The samples are a run of their own, ``<run>-retry-1``. Called again it takes up only what
        failed in that, as ``<run>-retry-2``, so that no sample is appended twice; cut short, it
        goes on where it was.

        Parameters
        ----------
        fn : callable
            ``fn(item)`` makes a sample of an item, as ``transform`` does in :func:`to_lake`.
        items : callable or sequence, optional
            Where to get the items from that are not kept with the failures (numbers, texts, and
            small lists and dicts of them are): a function of a row of :meth:`failures`, or the
            whole input, looked up by ``index``.
        run : str, optional
            The run whose failures are meant, needed where several have some.
        **words
            Further words of :func:`to_lake`, such as ``transform_kwargs``, ``max_failures`` and
            ``options``. What fails again is skipped, unless ``on_error="raise"``.

        Returns
        -------
        WriteReport or None
            What was written; None where nothing is left that failed. An awaitable of it on an
            asynchronous client.

        Raises
        ------
        InvalidInputError
            An item was not kept and ``items`` is not given, or several runs have failures.
        ConflictError
            The run is not finished.
        VersionNotFoundError
            There is no such run.

        Examples
        --------
        >>> lake.retry_failures(mended, items=img_ids).samples  # doctest: +SKIP
        """
        self.refresh()
        report: WriteReport | None = retry(self._store, self._log, fn, items, run, words)
        if isinstance(report, WriteReport):
            self.refresh()
        return report
