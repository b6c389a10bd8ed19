"""Share the process starter, the S3 server and the input between rounds."""

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

#: Number of images of a data set, and of one partition.
IMAGES, SIZE = 96, 3

#: Maximum number of strokes of a round.
STROKES = 8


#: Seed of the input, which is always the same.
_SEED = 7


@dataclass(frozen=True)
class Stage:
    """The shared parts of all rounds.

    Attributes
    ----------
    nursery : Nursery
        Starts the processes.
    server : S3Server
        The storage of every other lake.
    source : Source
        The input.
    folder : Path
        Folder of the files of the rounds.
    """

    nursery: Nursery
    server: S3Server
    source: Source
    folder: Path

    def round(self, seed: int, *, everything: bool = False, kills: int = STROKES) -> Outcome:
        """Run one round.

        Parameters
        ----------
        seed : int
            Seed of its choices. The lake of an odd seed is on S3.
        everything : bool, default False
            Whether each stroke kills every process.
        kills : int, default 8
            Maximum number of strokes.

        Returns
        -------
        Outcome
            The results. If there was a problem, the folder of the round is kept.
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
