"""Kill the processes of a running job at random: ``python -m tests.chaos [--seed N] [--budget 20min]``.

Round after round, on a local disk and on S3 in turn, a COCO-like job is written by a scheduler, two
workers and a client, which are killed with SIGKILL at named phases and at random moments. The job
is resumed after each stroke until it is finished. Then every sample is compared with the input. The
seed of a round repeats its choices: ``--seed N --rounds 1``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from tests.chaos.rounds import Outcome
from tests.chaos.stage import STROKES, stage


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def line(seed: int, outcome: Outcome, seconds: float) -> str:
    """Describe a round."""
    victims = ", ".join(f"{n} x {name}" for name, n in outcome.strokes.items()) or "no process"
    storage = "s3" if seed % 2 else "file"
    return (
        f"round {seed} ({storage}, {seconds:.0f} s): struck {victims}, {outcome.killed} processes "
        f"killed; of {outcome.compared} samples {outcome.lost} lost, {outcome.duplicated} "
        f"duplicated, {outcome.wrong} wrong"
        + "".join(f"\nPROBLEM in round {seed}: {problem}" for problem in outcome.problems)
    )


def main(arguments: list[str] | None = None) -> int:
    """Run rounds until the budget is used up; return 1 if a round found a problem."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="seed of the first round (default: random)")
    parser.add_argument("--budget", default="1min", help="begin no round after this time")
    parser.add_argument("--rounds", type=int, help="maximum number of rounds")
    parser.add_argument("--kills", type=int, help="maximum number of strokes")
    parser.add_argument("--everything", action="store_true", help="each stroke kills everything")
    asked = parser.parse_args(arguments)
    seed = asked.seed if asked.seed is not None else int(np.random.default_rng().integers(2**31))
    began, budget = time.monotonic(), pd.Timedelta(asked.budget).total_seconds()
    total = Outcome()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    with stage(folder) as playing:
        while time.monotonic() - began < budget:
            remaining = asked.kills - total.strokes.total() if asked.kills else STROKES
            if remaining <= 0 or total.rounds == asked.rounds:
                break
            start = time.monotonic()
            outcome = playing.round(
                seed, everything=asked.everything, kills=min(STROKES, remaining)
            )
            say(line(seed, outcome, time.monotonic() - start))
            total.add(outcome)
            seed += 1
    seconds = round(time.monotonic() - began)
    say(json.dumps({"strokes in all": total.strokes.total(), "seconds": seconds, **vars(total)}))
    if total.problems:
        say(f"A round found a problem. The files of the rounds are in {folder}.")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
