"""A round: one lake, written by a job that is killed again and again until it is finished."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import dasklake
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import NotFoundError
from tests.chaos.cast import VICTIMS, WORKERS, Cast
from tests.chaos.check import Attempts, Source, Verdict, judge
from tests.chaos.job import NO_CLUSTER
from tests.chaos.nursery import Child, Nursery
from tests.chaos.phases import PHASES, RESUMING, STARTING, Holds

#: Seconds within which an undisturbed job must end.
PATIENCE = 120.0

#: Seconds between two checks.
_CHECK_SECONDS = 0.003

#: Errors with which a client may end when other processes are killed. It is then restarted.
TRUE_ENDINGS = ("RunLostError", "RunActiveError", "RunSupersededError", "KilledWorker", NO_CLUSTER)


@dataclass(frozen=True)
class Place:
    """The location of the lake of a round.

    Attributes
    ----------
    kind : str
        ``"file"`` or ``"s3"``.
    url : str
        Root URL of the lake.
    options : dict or None
        Storage options.
    """

    kind: str
    url: str
    options: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def store(self) -> ObjectStore:
        """The lake's objects."""
        return ObjectStore(self.url, self.options)


@dataclass(frozen=True)
class Rules:
    """The limits of a round.

    Attributes
    ----------
    everything : bool
        Whether each stroke kills every process. Repeated partitions are counted then.
    kills : int
        Maximum number of strokes.
    """

    everything: bool
    kills: int


@dataclass
class Outcome:
    """The results of one or several rounds.

    Attributes
    ----------
    rounds : int
        Number of lakes written.
    strokes : Counter
        Number of strokes by target.
    moments : Counter
        Number of strokes by phase or random moment.
    killed : int
        Number of killed processes.
    resumed : int
        Number of restarted clients.
    endings : Counter
        Number of errors of clients, whose other processes were killed.
    compared, lost, duplicated, wrong : int
        Numbers of samples of the finished lakes.
    in_flight : int
        Number of partitions that were begun and incomplete when everything was killed.
    repeated : int
        Number of repeated computations of partitions.
    problems : list of str
        Descriptions of all problems.
    """

    rounds: int = 0
    strokes: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)
    killed: int = 0
    resumed: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    in_flight: int = 0
    repeated: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Add the results of another round."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def judge(self, verdict: Verdict) -> None:
        """Add the differences between the lake and its input."""
        self.compared += verdict.compared
        self.lost += verdict.lost
        self.duplicated += verdict.duplicated
        self.wrong += verdict.wrong
        self.problems += verdict.damage
        if verdict.lost or verdict.duplicated or verdict.wrong:
            self.problems.append(f"the lake differs from its input: {verdict}")


class Round:
    """One lake and its job.

    Parameters
    ----------
    nursery : Nursery
        Starts the processes.
    source : Source
        The input.
    place : Place
        Where the lake is written.
    folder : Path
        Folder of all other files.
    seed : int
        Seed of all choices. The exact moment at which a process dies remains random.
    """

    def __init__(
        self, nursery: Nursery, source: Source, place: Place, folder: Path, seed: int
    ) -> None:
        folder.mkdir(parents=True)
        self.rng = np.random.default_rng(seed)
        self.source = source
        self.place = place
        self.folder = folder
        self.outcome = Outcome(rounds=1)
        self._holds = Holds(folder)
        self._attempts = Attempts(place.store)
        self._in_flight: Counter[int] = Counter()
        self._noted = 0
        self._seen: list[int | None] = []
        arguments = {
            "url": place.url,
            "storage_options": place.options,
            "source": str(source.folder),
            "folder": str(folder),
            "size": source.size,
            "checkpoint_every": 3 * source.size,
            "pace": 0.02,
        }
        self.cast = Cast(nursery, folder, arguments)

    def run(self, rules: Rules) -> Outcome:
        """Disturb the job, then let it end, and check the lake."""
        try:
            finished = False
            for stroke in range(rules.kills):
                finished = self._stroke(f"hold-{stroke}", rules)
                if finished:
                    break
            if not finished:
                self._finish()
        finally:
            self.cast.close()
        return self._judged(rules)

    def strike_at(self, phase: str, whom: str) -> Outcome:
        """Kill processes once at a phase; then let the job end, and check the lake."""
        try:
            self._holds.order("hold", phase, 0)
            self._start()
            assert not self._wait(lambda: self._holds.reached("hold")), "the phase was not reached"
            self._strike("hold", phase, whom)
            self._finish()
        finally:
            self.cast.close()
        return self._judged(Rules(everything=whom == "everything", kills=1))

    def _judged(self, rules: Rules) -> Outcome:
        for client in self.cast.orphans:
            if client.what == "client" and client.code not in (0, -signal.SIGKILL):
                self._note_ending(client)
        lake = self._open()
        if lake is None:
            self.outcome.problems.append("the lake does not exist")
            return self.outcome
        self.outcome.judge(judge(self.source, self.place.store, lake))
        if rules.everything:
            self._account()
        return self.outcome

    def _stroke(self, name: str, rules: Rules) -> bool:
        """Kill processes at some moment; return whether the job had finished before."""
        moment, ready = self._moment(name, starting=self.cast.client is None)
        self._start()
        if self._wait(ready):
            return True
        whom = "everything" if rules.everything else str(self.rng.choice(VICTIMS))
        self._strike(name, moment, whom)
        return False

    def _strike(self, name: str, moment: str, whom: str) -> None:
        self.cast.wake()
        self.outcome.killed += self.cast.strike(whom, int(self.rng.integers(WORKERS)))
        self._holds.let_go(name)
        self.outcome.strokes[whom] += 1
        self.outcome.moments[moment] += 1
        self._check(dead=whom == "everything")

    def _start(self) -> None:
        if self.cast.complete() and self.outcome.strokes:
            self.outcome.resumed += 1

    def _moment(self, name: str, *, starting: bool) -> tuple[str, Callable[[], bool]]:
        """Choose when to strike: at a phase, after some samples, or after some time."""
        kind = self.rng.choice(["phase", "phase", "progress", "time"])
        if kind == "phase":
            possible = [
                phase
                for phase in PHASES
                if (starting or phase not in STARTING) and (self._seen or phase != "recovering")
            ]
            phase = str(self.rng.choice(possible))
            passes = int(self.rng.integers(5))
            self._holds.order(name, phase, 0 if phase in STARTING else passes)
            begun = self._open() is not None
            return RESUMING.get(phase, phase) if begun else phase, lambda: self._holds.reached(name)
        if kind == "progress":
            count = len(self._notes()) + int(self.rng.integers(1, len(self.source.ids) // 2))
            return "making samples", lambda: len(self._notes()) >= count
        until = time.monotonic() + float(self.rng.uniform(0, 2))
        return "any moment", lambda: time.monotonic() >= until

    def _wait(self, ready: Callable[[], bool]) -> bool:
        """Wait for the moment or the end of the job; return whether the job ended first."""
        deadline = time.monotonic() + PATIENCE
        while not ready():
            if self._ended():
                return True
            assert time.monotonic() < deadline, f"the job does not end: {self.outcome.endings}"
            time.sleep(_CHECK_SECONDS)
        return False

    def _finish(self) -> None:
        self._start()
        self.cast.wake()
        self._wait(lambda: False)

    def _ended(self) -> bool:
        """Return whether the job is finished; restart a client that ended with an error."""
        client = self.cast.client
        if client is None or client.poll() is None:
            return False
        if client.code == 0:
            return True
        self._note_ending(client)
        self.cast.client = None
        self._start()
        return False

    def _note_ending(self, client: Child) -> None:
        """Check that a client that failed reported one of the expected errors."""
        output = client.log.read_text()
        endings = [ending for ending in TRUE_ENDINGS if ending in output]
        if not endings:
            raise AssertionError(f"the client ended with {client.code}:\n{output[-4000:]}")
        self.outcome.endings[endings[0]] += 1

    def _open(self) -> dasklake.Lake | None:
        try:
            return dasklake.open(self.place.url, storage_options=self.place.options)
        except NotFoundError:
            return None

    def _notes(self) -> list[int]:
        """Return the ids of the images whose samples were made, in order."""
        path = self.folder / "executions"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def _check(self, *, dead: bool) -> None:
        """Check the lake after a stroke as a reader."""
        lake = self._open()
        seen = [] if lake is None else self.source.found(lake)
        if len(set(seen)) != len(seen):
            self.outcome.problems.append(f"duplicates in a version under way: {seen}")
        if not set(self._seen) <= set(seen):
            self.outcome.problems.append(
                f"committed samples are missing: {set(self._seen) - set(seen)}"
            )
        self._seen = seen
        notes = self._notes()
        if dead:
            begun = {self.source.partition(image_id) for image_id in notes[self._noted :]}
            lost = begun - self._attempts.complete()
            self._in_flight.update(lost)
            if len(lost) > WORKERS:
                self.outcome.problems.append(f"more in flight than workers: {lost}")
        self._noted = len(notes)

    def _account(self) -> None:
        """Compare repeated partitions with those that were in flight."""
        first = set(self.source.ids[:: self.source.size])
        begun = Counter(self.source.partition(image) for image in self._notes() if image in first)
        self.outcome.in_flight += self._in_flight.total()
        self.outcome.repeated += begun.total() - len(begun)
        for partition, times in begun.items():
            if times > 1 + self._in_flight[partition]:
                self.outcome.problems.append(
                    f"partition {partition} was computed {times} times, and was in flight at "
                    f"{self._in_flight[partition]} kills"
                )
