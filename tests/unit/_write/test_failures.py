"""Test which failed items are kept with the failures."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from dasklake._write.failures import kept_value


@pytest.mark.parametrize(
    "item",
    [
        None,
        True,
        7,
        -2.5,
        "text",
        "ä\n\udc80",
        [1, [2, "a"]],
        {"id": 3, "at": [0.1, None]},
        "x" * 4000,
    ],
)
def test_plain_items_come_back(item: Any) -> None:
    """Numbers, texts, and small lists and dicts of them are kept exactly."""
    kept = kept_value(item)
    assert kept is not None
    kept.encode()
    found = json.loads(kept)
    assert found == item
    assert type(found) is type(item)


def deep(levels: int) -> list[Any]:
    """Make a list of lists of lists."""
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


@pytest.mark.parametrize(
    "item",
    [
        (1, 2),
        {1: "a"},
        float("nan"),
        float("inf"),
        np.int64(3),
        np.arange(3),
        b"bytes",
        object(),
        "x" * 5000,
        list(range(5000)),
        ["x" * 3000, "y" * 3000],
        10**5000,
        deep(100_000),
        "https://user:password@host/x",
        {"url": "https://host/x?X-Amz-Signature=abc"},
    ],
    ids=lambda item: type(item).__name__,
)
def test_others_are_not_kept(item: Any) -> None:
    """Items that JSON would change, large items and possible secrets are not kept."""
    assert kept_value(item) is None
