"""Samples that wait for their links: how many, how large, in what order."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from dasklake import Schema, TensorSpec
from dasklake._links.verify import Findings
from dasklake._schema.values import Blob
from dasklake._write import link_queue
from dasklake._write.link_queue import LinkQueue, QueuedInput
from dasklake.exceptions import LinkError

SCHEMA = Schema(
    {
        "image": TensorSpec("link[image]", compression="jpeg"),
        "x": TensorSpec(dtype="uint8", shape=(None,)),
    }
)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Future[Findings]]:
    """Start looks that end when the test says so."""
    found: list[Future[Findings]] = []

    def look(*_: object) -> Future[Findings]:
        found.append(Future())
        return found[-1]

    monkeypatch.setattr(link_queue, "look", look)
    return found


def waiting(position: int, data: Any = b"", *, item: Any = None) -> QueuedInput:
    """Make an input of one sample."""
    link = {"url": f"https://host/{position}", "creds_key": None}
    sample = {"image": link, "x": Blob(data, (len(data),))}
    return QueuedInput(position, item, [sample])


def turns(line: LinkQueue, *, all_of_them: bool = False) -> list[int]:
    """Return the positions of the inputs whose turn it is."""
    return [each.position for each in line.settled(all_of_them=all_of_them)]


def test_a_bounded_number_waits(looks: list[Future[Findings]]) -> None:
    """The oldest goes on when there are too many, and all of them at the end, in order."""
    line = LinkQueue(SCHEMA)
    for position in range(link_queue._MOST):
        line.put(waiting(position))
        assert turns(line) == []
    line.put(waiting(link_queue._MOST))
    assert turns(line) == [0]
    assert turns(line, all_of_them=True) == list(range(1, link_queue._MOST + 1))
    assert len(looks) == link_queue._MOST + 1


def test_bytes_that_wait_are_bounded(looks: list[Future[Findings]]) -> None:
    """Large samples wait only while they fit; one that never does is not copied."""
    line = LinkQueue(SCHEMA)
    part = bytearray(link_queue._MOST_BYTES // 3)
    for position in range(3):
        line.put(waiting(position, part))
    assert turns(line) == [0]
    huge = bytearray(link_queue._MOST_BYTES + 1)
    alone = waiting(9, huge)
    line.put(alone)
    assert turns(line) == [1, 2, 9]
    assert alone.samples[0]["x"].data is huge


def test_what_waits_belongs_to_us(looks: list[Future[Findings]]) -> None:
    """A sample that waits does not change with the memory it was made from."""
    line, data = LinkQueue(SCHEMA), bytearray(b"abc")
    each = waiting(0, data)
    line.put(each)
    data[:] = b"xyz"
    assert each.samples[0]["x"].data == b"abc"


def test_inputs_that_failed_wait_for_their_turn(looks: list[Future[Findings]]) -> None:
    """A failure comes after the samples before it, and before those behind it."""
    line = LinkQueue(SCHEMA)
    line.put(waiting(0))
    line.fail(QueuedInput(1, None), ValueError("bad"))
    assert turns(line) == []
    first, second = line.settled(all_of_them=True)
    looks[0].set_result(Findings(3, "v", "jpeg", (4, 5, 3)))
    first.settle(SCHEMA)
    known = {"shape": [4, 5, 3], "size": 3, "etag": "v", "format": "jpeg"}
    assert known.items() <= first.samples[0]["image"].items()
    with pytest.raises(ValueError, match="bad"):
        second.settle(SCHEMA)


def test_without_links_nothing_waits(looks: list[Future[Findings]]) -> None:
    """A sample without a link, with nobody before it, goes on at once and uncopied."""
    line, data = LinkQueue(SCHEMA), bytearray(b"abc")
    each = waiting(0, data)
    each.samples[0]["image"] = None
    line.put(each)
    assert turns(line) == [0]
    assert each.samples[0]["x"].data is data
    assert not looks


def test_an_error_names_the_tensor(looks: list[Future[Findings]]) -> None:
    """What is wrong with a target is an error of its tensor."""
    line = LinkQueue(SCHEMA)
    line.put(waiting(0))
    looks[0].set_exception(LinkError("it is dead"))
    (each,) = line.settled(all_of_them=True)
    with pytest.raises(LinkError, match="tensor 'image': it is dead"):
        each.settle(SCHEMA)


def test_looks_are_given_up(looks: list[Future[Findings]]) -> None:
    """When a partition ends early, nobody looks at the rest."""
    line = LinkQueue(SCHEMA)
    line.put(waiting(0))
    line.close()
    assert looks[0].cancelled()
    assert turns(line, all_of_them=True) == []


def test_large_inputs_are_not_kept(looks: list[Future[Findings]]) -> None:
    """Of an input with large arrays only what messages show is kept."""
    line = LinkQueue(SCHEMA)
    large, small = waiting(0, item={"a": np.zeros(10**6)}), waiting(1, item=[1])
    line.put(large)
    line.put(small)
    assert "array of shape (1000000,)" in repr(large.item)
    assert not isinstance(large.item, dict)
    assert small.item == [1]
