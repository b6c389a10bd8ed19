"""Processes of a job are killed, at named phases and at random, until the job has finished.

Each round writes one lake with a real scheduler, two workers and a client. ``make chaos`` runs
rounds for any length of time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.bag as db
import pytest

import dasklake
from dasklake._storage.store import ObjectStore
from dasklake.sources import coco
from tests.chaos.check import Attempts, Source
from tests.chaos.job import ANNOTATIONS, RUN, sample
from tests.chaos.rounds import Outcome, Place, Round, Rules
from tests.chaos.stage import Stage, stage

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"

#: Number of total kills, and the maximum per round: two, or eight in a deep search.
KILLS, STROKES = (100, 8) if DEEP else (4, 2)

#: Number of images of an input: enough for some seconds of work.
IMAGES = 96 if DEEP else 60


@pytest.fixture(scope="module")
def playing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Start the processes that the rounds share."""
    with stage(tmp_path_factory.mktemp("chaos"), IMAGES) as playing:
        yield playing


def test_everything_is_killed(playing: Stage) -> None:
    """After repeated kills and resumes no sample is lost; only in-flight work is repeated."""
    total = Outcome()
    seed = 0
    while total.strokes.total() < KILLS:
        remaining = KILLS - total.strokes.total()
        total.add(playing.round(seed, everything=True, kills=min(STROKES, remaining)))
        assert not total.problems, (seed, total.problems)
        seed += 1
    assert total.killed >= 3 * KILLS
    assert total.resumed >= KILLS
    assert (total.lost, total.duplicated, total.wrong) == (0, 0, 0)
    assert total.compared == seed * IMAGES
    assert total.repeated <= total.in_flight <= 2 * KILLS


@pytest.mark.parametrize("seed", range(1000, 1040 if DEEP else 1002))
def test_any_process_is_killed(playing: Stage, seed: int) -> None:
    """If any process dies or is assumed dead at any time, every sample exists exactly once."""
    outcome = playing.round(seed, kills=STROKES + 2)
    assert not outcome.problems, outcome.problems
    assert (outcome.compared, outcome.lost, outcome.duplicated) == (IMAGES, 0, 0)
    assert outcome.wrong == 0


def test_client_dies_while_its_coordinator_starts(playing: Stage, tmp_path: Path) -> None:
    """A scheduler abandons a run whose client died before the start; the run can be resumed."""
    location = Place("file", str(tmp_path / "lake"))
    round_ = Round(playing.nursery, playing.source, location, tmp_path / "round", 0)
    outcome = round_.strike_at("coordinator starting", "client")
    assert not outcome.problems, outcome.problems
    assert (outcome.killed, outcome.compared, outcome.lost) == (1, IMAGES, 0)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Make a random small input of four partitions."""
    return Source.make(tmp_path_factory.mktemp("source") / "source", 12, 3, 7)


def write(
    source: Source, url: Path, ids: list[int], spoilt: dict[str, Any] | None = None
) -> dasklake.Lake:
    """Write a lake of images as the job does, or with a corrupted first sample."""
    index = coco.read_index(str(source.folder / ANNOTATIONS))

    def make(image_id: int) -> Any:
        result = sample(
            image_id,
            coco_index=index,
            images=coco.image_reader(str(source.folder)),
            folder=str(source.folder),
            pace=0,
        )
        return {**result, **(spoilt or {})} if image_id == ids[0] else result

    dasklake.to_lake(
        db.from_sequence(ids, partition_size=3),
        url,
        schema=coco.schema(index, "bytes"),
        transform=make,
        run=RUN,
        options=dasklake.WriteOptions(scheduler="sync", chunk_size=1),
    )
    return dasklake.open(url)


def test_comparison_detects_lost_duplicated_and_wrong_samples(
    source: Source, tmp_path: Path
) -> None:
    """The comparison of a round detects lost, duplicated and wrong samples."""
    ids = source.ids

    def verdict(name: str, ids: list[int]) -> tuple[int, ...]:
        return tuple(source.compare(write(source, tmp_path / name, ids))[:4])

    assert verdict("good", ids) == (12, 0, 0, 0)
    assert verdict("lost", [*ids[:4], *ids[5:]]) == (11, 1, 0, 0)
    assert verdict("duplicated", [*ids[:6], *ids[3:]]) == (15, 0, 3, 0)
    assert verdict("swapped", [*ids[:4], ids[5], ids[4], *ids[6:]]) == (12, 0, 0, 2)
    other = {"boxes": write(source, tmp_path / "other", ids)[0]["boxes"] + 1}
    wrong = write(source, tmp_path / "wrong", ids, other)
    assert tuple(source.compare(wrong)[:4]) == (12, 0, 0, 1)
    another = {"images": next(source.folder.glob(f"*{ids[1]}.jpg")).read_bytes()}
    foreign = write(source, tmp_path / "foreign", ids, another)
    assert tuple(source.compare(foreign)[:4]) == (12, 1, 1, 1)


def test_needlessly_repeated_partition_is_reported(playing: Stage, tmp_path: Path) -> None:
    """A partition computed more often than it was in flight is reported."""
    location = Place("file", str(tmp_path / "lake"))
    quiet = Round(playing.nursery, playing.source, location, tmp_path / "round", 0)
    assert not quiet.run(Rules(everything=True, kills=0)).problems
    with (tmp_path / "round" / "executions").open("a") as file:
        file.write(f"{playing.source.ids[3]}\n")
    quiet._account()
    assert quiet.outcome.problems == [
        "partition 1 was computed 2 times, and was in flight at 0 kills"
    ]


def test_complete_partitions_are_those_with_all_chunks(source: Source, tmp_path: Path) -> None:
    """A partition is complete on storage if all its chunks exist, one marked as the last."""
    write(source, tmp_path / "lake", source.ids)
    chunks = sorted((tmp_path / "lake" / "data").rglob("*.arrow"))
    assert len(chunks) == 12
    store = ObjectStore(tmp_path / "lake")
    assert Attempts(store).complete() == {0, 1, 2, 3}
    for gone in ("1-1-", "2-1-"):
        first, _, last = [chunk for chunk in chunks if chunk.name.startswith(gone)]
        (last if gone == "1-1-" else first).unlink()
    assert Attempts(store).complete() == {0, 3}
