"""What keeps a lake in order."""

from __future__ import annotations

from dasklake._lake.pinned import Pinned
from dasklake._maintenance.reset import ResetReport
from dasklake._maintenance.reset import reset as reset_lake

__all__ = ["Upkeep"]


class Upkeep(Pinned):
    """Resets."""

    def reset(self, *, force: bool = False, dry_run: bool = False) -> ResetReport:
        """Close unfinished runs and delete what they left uncommitted, then :meth:`refresh`.

        Parameters
        ----------
        force : bool, default False
            Also close runs that are being written: their coordinators stop.
        dry_run : bool, default False
            Change nothing; report what would be done.

        Returns
        -------
        ResetReport
            What was closed and deleted.

        Raises
        ------
        RunActiveError
            A run is being written, and ``force`` is not given.
        """
        report = reset_lake(self._store, self._log, force=force, dry_run=dry_run)
        if not dry_run:
            self.refresh()
        return report
