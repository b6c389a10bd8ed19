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
def test_plain_items_are_kept_exactly(item: Any) -> None:
    """Numbers, texts, and small lists and dicts of them are kept exactly."""
    encoded = kept_value(item)
    assert encoded is not None
    encoded.encode()
    decoded = json.loads(encoded)
    assert decoded == item
    assert type(decoded) is type(item)


def deep(levels: int) -> list[Any]:
    """Make a list of lists of lists."""
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


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
def test_inexact_large_and_secret_items_are_not_kept(item: Any) -> None:
    """Items that JSON would change, large items and possible secrets are not kept."""
    assert kept_value(item) is None
