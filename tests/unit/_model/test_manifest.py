"""A manifest is one array for each field."""

from __future__ import annotations

from typing import Any

import numpy as np

from dasklake._model.manifest import Manifest


def test_length_is_the_number_of_chunks() -> None:
    """A manifest is as long as it has chunks."""
    fields = ("order", "partition", "epoch", "attempt", "chunk", "rows", "size", "head", "crc")
    arrays: dict[str, Any] = dict.fromkeys(fields, np.zeros(3, np.int64))
    manifest = Manifest(("main/r",), np.zeros(3, np.int32), **arrays)
    assert len(manifest) == 3
