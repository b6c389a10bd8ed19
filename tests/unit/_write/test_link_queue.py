"""Test the queue of samples whose links are being verified."""

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
def checks(monkeypatch: pytest.MonkeyPatch) -> list[Future[Findings]]:
    """Replace the verification of links with futures that the test completes."""
    futures: list[Future[Findings]] = []

    def verify_link(*_: object) -> Future[Findings]:
        futures.append(Future())
        return futures[-1]

    monkeypatch.setattr(link_queue, "verify_link", verify_link)
    return futures


def queued(position: int, data: Any = b"", *, item: Any = None) -> QueuedInput:
    """Make an input of one sample."""
    link = {"url": f"https://host/{position}", "creds_key": None}
    sample = {"image": link, "x": Blob(data, (len(data),))}
    return QueuedInput(position, item, [sample])


def leaving(queue: LinkQueue, *, flush: bool = False) -> list[int]:
    """Return the positions of the inputs that leave the queue."""
    return [entry.position for entry in queue.ready(flush=flush)]


def test_number_of_queued_inputs_is_bounded(checks: list[Future[Findings]]) -> None:
    """The oldest input leaves a full queue, and all leave it at the end, in order."""
    queue = LinkQueue(SCHEMA)
    for position in range(link_queue._MAX_INPUTS):
        queue.put(queued(position))
        assert leaving(queue) == []
    queue.put(queued(link_queue._MAX_INPUTS))
    assert leaving(queue) == [0]
    assert leaving(queue, flush=True) == list(range(1, link_queue._MAX_INPUTS + 1))
    assert len(checks) == link_queue._MAX_INPUTS + 1


def test_bytes_of_queued_inputs_are_bounded(checks: list[Future[Findings]]) -> None:
    """Large samples wait only within the byte limit; a sample above the limit is not copied."""
    queue = LinkQueue(SCHEMA)
    part = bytearray(link_queue._MAX_BYTES // 3)
    for position in range(3):
        queue.put(queued(position, part))
    assert leaving(queue) == [0]
    huge = bytearray(link_queue._MAX_BYTES + 1)
    alone = queued(9, huge)
    queue.put(alone)
    assert leaving(queue) == [1, 2, 9]
    assert alone.samples[0]["x"].data is huge


def test_queued_samples_are_copied(checks: list[Future[Findings]]) -> None:
    """A queued sample does not change with the memory it was made from."""
    queue, data = LinkQueue(SCHEMA), bytearray(b"abc")
    entry = queued(0, data)
    queue.put(entry)
    data[:] = b"xyz"
    assert entry.samples[0]["x"].data == b"abc"


def test_failures_stay_in_order(checks: list[Future[Findings]]) -> None:
    """A failure is reported after the samples before it and before those after it."""
    queue = LinkQueue(SCHEMA)
    queue.put(queued(0))
    queue.fail(QueuedInput(1, None), ValueError("bad"))
    assert leaving(queue) == []
    first, second = queue.ready(flush=True)
    checks[0].set_result(Findings(3, "v", "jpeg", (4, 5, 3)))
    first.settle(SCHEMA)
    expected = {"shape": [4, 5, 3], "size": 3, "etag": "v", "format": "jpeg"}
    assert expected.items() <= first.samples[0]["image"].items()
    with pytest.raises(ValueError, match="bad"):
        second.settle(SCHEMA)


def test_samples_without_links_do_not_wait(checks: list[Future[Findings]]) -> None:
    """A sample without a link leaves an empty queue at once and is not copied."""
    queue, data = LinkQueue(SCHEMA), bytearray(b"abc")
    entry = queued(0, data)
    entry.samples[0]["image"] = None
    queue.put(entry)
    assert leaving(queue) == [0]
    assert entry.samples[0]["x"].data is data
    assert not checks


def test_an_error_names_the_tensor(checks: list[Future[Findings]]) -> None:
    """The error of a target names the tensor of its link."""
    queue = LinkQueue(SCHEMA)
    queue.put(queued(0))
    checks[0].set_exception(LinkError("not found"))
    (entry,) = queue.ready(flush=True)
    with pytest.raises(LinkError, match="tensor 'image': not found"):
        entry.settle(SCHEMA)


def test_close_cancels_the_checks(checks: list[Future[Findings]]) -> None:
    """If a partition ends early, the remaining checks are cancelled."""
    queue = LinkQueue(SCHEMA)
    queue.put(queued(0))
    queue.close()
    assert checks[0].cancelled()
    assert leaving(queue, flush=True) == []


def test_large_inputs_are_not_kept(checks: list[Future[Findings]]) -> None:
    """Only the text of an input with large arrays is kept, for messages."""
    queue = LinkQueue(SCHEMA)
    large, small = queued(0, item={"a": np.zeros(10**6)}), queued(1, item=[1])
    queue.put(large)
    queue.put(small)
    assert "array of shape (1000000,)" in repr(large.item)
    assert not isinstance(large.item, dict)
    assert small.item == [1]
