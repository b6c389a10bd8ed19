"""Processes of a job are killed, at named phases and at random, until it is finished all the same.

Each round is one lake, written by a real scheduler, two workers and a client; ``make chaos`` plays
them for as long as one likes.
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

#: How often everything is killed, in rounds of two strokes at most or of eight.
KILLS, STROKES = (100, 8) if DEEP else (4, 2)

#: Images of an input: enough for some seconds of work.
IMAGES = 96 if DEEP else 60


@pytest.fixture(scope="module")
def playing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Start what the rounds share."""
    with stage(tmp_path_factory.mktemp("chaos"), IMAGES) as playing:
        yield playing


def test_everything_is_killed(playing: Stage) -> None:
    """Killed and resumed again and again, no sample is lost, and only what was in flight is repeated."""
    total = Outcome()
    seed = 0
    while total.strokes.total() < KILLS:
        left = KILLS - total.strokes.total()
        total.add(playing.round(seed, everything=True, kills=min(STROKES, left)))
        assert not total.problems, (seed, total.problems)
        seed += 1
    assert total.killed >= 3 * KILLS
    assert total.resumed >= KILLS
    assert (total.lost, total.duplicated, total.wrong) == (0, 0, 0)
    assert total.compared == seed * IMAGES
    assert total.repeated <= total.in_flight <= 2 * KILLS


@pytest.mark.parametrize("seed", range(1000, 1040 if DEEP else 1002))
def test_anybody_is_killed(playing: Stage, seed: int) -> None:
    """Whoever dies or is taken for dead, whenever: in the end every sample is there, and once."""
    outcome = playing.round(seed, kills=STROKES + 2)
    assert not outcome.problems, outcome.problems
    assert (outcome.compared, outcome.lost, outcome.duplicated) == (IMAGES, 0, 0)
    assert outcome.wrong == 0


def test_client_dies_while_its_coordinator_starts(playing: Stage, tmp_path: Path) -> None:
    """A scheduler that hears of a run whose client is dead by then gives it up; it can be resumed."""
    place = Place("file", str(tmp_path / "lake"))
    round_ = Round(playing.nursery, playing.source, place, tmp_path / "round", 0)
    outcome = round_.strike_at("coordinator starting", "client")
    assert not outcome.problems, outcome.problems
    assert (outcome.killed, outcome.compared, outcome.lost) == (1, IMAGES, 0)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Draw a small input of four partitions."""
    return Source.make(tmp_path_factory.mktemp("source") / "source", 12, 3, 7)


def write(
    source: Source, url: Path, ids: list[int], spoilt: dict[str, Any] | None = None
) -> dasklake.Lake:
    """Write the lake of some images, as the job does it, or with the first one spoilt."""
    index = coco.read_index(str(source.folder / ANNOTATIONS))

    def make(image_id: int) -> Any:
        made = sample(
            image_id,
            coco_index=index,
            images=coco.image_reader(str(source.folder)),
            folder=str(source.folder),
            pace=0,
        )
        return {**made, **(spoilt or {})} if image_id == ids[0] else made

    dasklake.to_lake(
        db.from_sequence(ids, partition_size=3),
        url,
        schema=coco.schema(index, "bytes"),
        transform=make,
        run=RUN,
        options=dasklake.WriteOptions(scheduler="sync", chunk_size=1),
    )
    return dasklake.open(url)


def test_comparison_sees_what_is_lost_duplicated_and_wrong(source: Source, tmp_path: Path) -> None:
    """The comparison of the rounds finds each way in which a lake can differ from its input."""
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


def test_partition_that_is_computed_again_without_a_reason_is_seen(
    playing: Stage, tmp_path: Path
) -> None:
    """A partition that was made once more than it was in flight is a problem."""
    place = Place("file", str(tmp_path / "lake"))
    quiet = Round(playing.nursery, playing.source, place, tmp_path / "round", 0)
    assert not quiet.run(Rules(everything=True, kills=0)).problems
    with (tmp_path / "round" / "executions").open("a") as file:
        file.write(f"{playing.source.ids[3]}\n")
    quiet._account()
    assert quiet.outcome.problems == [
        "partition 1 was computed 2 times, and was in flight at 0 kills"
    ]


def test_complete_partitions_are_those_with_all_chunks(source: Source, tmp_path: Path) -> None:
    """What counts as complete on storage has every chunk, and one of them says it is the last."""
    write(source, tmp_path / "lake", source.ids)
    chunks = sorted((tmp_path / "lake" / "data").rglob("*.arrow"))
    assert len(chunks) == 12
    store = ObjectStore(tmp_path / "lake")
    assert Attempts(store).complete() == {0, 1, 2, 3}
    for gone in ("1-1-", "2-1-"):
        first, _, last = [chunk for chunk in chunks if chunk.name.startswith(gone)]
        (last if gone == "1-1-" else first).unlink()
    assert Attempts(store).complete() == {0, 3}
