"""What a tensor was called before the schema changed."""

from __future__ import annotations

from dasklake._model.tensor_history import TensorHistory


def test_names_by_place() -> None:
    """Each chunk is read under the name it was written with, and none before the tensor was added."""
    past = TensorHistory(since=2, former=((5, "a"), (9, "b")))
    found = [past.name_at("c", place) for place in (0, 1, 2, 4, 5, 8, 9, 100)]
    assert found == [None, None, "a", "a", "b", "b", "c", "c"]
