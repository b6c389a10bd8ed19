"""What the rounds of a game share: the processes that start others, the S3 server, the input."""

from __future__ import annotations

import contextlib
import shutil
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.check import Source
from tests.chaos.nursery import Nursery
from tests.chaos.rounds import Outcome, Place, Round, Rules
from tests.support.s3 import S3Server, serving

#: Images of a data set, and of one partition of it.
IMAGES, SIZE = 96, 3

#: Strokes of one round, at most.
STROKES = 8


#: Of the input; it is always the same.
_SEED = 7


@dataclass(frozen=True)
class Stage:
    """What all rounds share.

    Attributes
    ----------
    nursery : Nursery
        Starts the processes.
    server : S3Server
        Where every other lake lies.
    source : Source
        The input.
    folder : Path
        For the files of the rounds.
    """

    nursery: Nursery
    server: S3Server
    source: Source
    folder: Path

    def round(self, seed: int, *, everything: bool = False, kills: int = STROKES) -> Outcome:
        """Play one round.

        Parameters
        ----------
        seed : int
            Of its choices; the lake of an odd one lies on S3.
        everything : bool, default False
            Whether each stroke kills every process.
        kills : int, default 8
            The most strokes.

        Returns
        -------
        Outcome
            What happened. Where something was wrong, the folder of the round is kept.
        """
        folder = self.folder / f"round-{seed}"
        if seed % 2:
            bucket = self.server.bucket()
            place = Place("s3", f"{bucket.url}/lake", bucket.options)
        else:
            place = Place("file", str(folder / "lake"))
        playing = Round(self.nursery, self.source, place, folder, seed)
        try:
            outcome = playing.run(Rules(everything, kills))
        except AssertionError as error:
            outcome = playing.outcome
            outcome.problems.append(f"{error}\n{traceback.format_exc()}")
        if not outcome.problems:
            shutil.rmtree(folder)
        return outcome


@contextlib.contextmanager
def stage(folder: Path, images: int = IMAGES) -> Iterator[Stage]:
    """Draw the input and start what the rounds need."""
    source = Source.make(folder / "source", images, SIZE, _SEED)
    with Nursery() as nursery, serving() as server:
        yield Stage(nursery, server, source, folder)
