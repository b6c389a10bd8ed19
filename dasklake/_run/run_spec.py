"""The specification of a run, and the work of one of its epochs."""

from __future__ import annotations

from dataclasses import dataclass, field

from dasklake._format.documents import plan_digests
from dasklake._log.log import Log
from dasklake._log.run_writer import RunWriter
from dasklake._model.commit import Commit, Plan, RunState
from dasklake._model.receipt import Receipt
from dasklake._run.progress import CheckpointInterval, MaxFailures, RunProgress
from dasklake._schema.schema import Schema
from dasklake._write.chunk_writer import RunLocation


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Specification of a run: its input, schema and rules.

    It holds nothing of the client and none of the user's code, so that a scheduler can read it.

    Attributes
    ----------
    mode : str
        ``"create"``, ``"append"``, ``"overwrite"`` or ``"resume"``.
    run : str or None
        The run's name, if the user gave one.
    schema : Schema
        The tensors to write.
    partitions : int
        Number of partitions.
    inputs : int or None
        Number of input samples, if known.
    input_id : str or None
        Digest of the input.
    message : str or None
        First line of commit messages.
    interval : CheckpointInterval
        When a checkpoint is due.
    skip : bool
        Whether failures are skipped.
    max_failures : MaxFailures
        How many failures end the run.
    retries : int
        Number of retries of a task that the storage or a worker failed.
    partition_timeout : float or None
        Seconds that an attempt at a partition may take.
    ordered : bool
        Whether every commit is a prefix of the input.
    """

    mode: str
    run: str | None
    schema: Schema
    partitions: int
    inputs: int | None = None
    input_id: str | None = None
    message: str | None = None
    interval: CheckpointInterval = field(default_factory=CheckpointInterval)
    skip: bool = False
    max_failures: MaxFailures = field(default_factory=MaxFailures)
    retries: int = 0
    partition_timeout: float | None = None
    ordered: bool = False

    @property
    def plan(self) -> Plan:
        """The plan of a run that begins with this specification."""
        return Plan(
            partitions=self.partitions,
            inputs=self.inputs,
            schema=plan_digests(self.schema)[0],
            input_id=self.input_id,
            overwrite=self.mode == "overwrite",
        )


@dataclass(frozen=True, slots=True)
class Assignment:
    """Work of one epoch of a run; it is sent to the coordinator.

    Attributes
    ----------
    spec : RunSpec
        The specification of the run.
    location : RunLocation
        The store, run and epoch.
    entry : Commit
        The commit that began the epoch; the head of the log if the run is finished.
    missing : tuple of int
        Partitions to write; empty if the run is finished.
    recovered : tuple of Receipt
        Partitions that are complete on storage and only have to be committed.
    """

    spec: RunSpec
    location: RunLocation
    entry: Commit
    missing: tuple[int, ...]
    recovered: tuple[Receipt, ...] = ()

    @property
    def run(self) -> str:
        """The run."""
        return self.location.run

    @property
    def state(self) -> RunState:
        """The run's state in the log when the epoch began."""
        return self.entry.runs[self.run]

    @property
    def partitions(self) -> set[int]:
        """Partitions to commit."""
        return {*self.missing, *(receipt.partition for receipt in self.recovered)}

    def track(self, state: RunState, now: float) -> RunProgress:
        """Return the progress of an epoch that begins.

        Parameters
        ----------
        state : RunState
            The run's state that the epoch continues.
        now : float
            Seconds on the caller's monotonic clock.
        """
        spec = self.spec
        return RunProgress(
            self.partitions, spec.interval, spec.max_failures, state, now, spec.ordered
        )

    def open_writer(self) -> RunWriter:
        """Read the entry back from storage, and return what commits after it.

        Raises
        ------
        LakeError
            The storage does not show the entry.
        """
        log = Log(self.location.store, self.location.branch)
        entry = log.read(self.entry.version)
        spec, location = self.spec, self.location
        return RunWriter(log, location.run, location.epoch, entry, spec.schema, spec.message)
