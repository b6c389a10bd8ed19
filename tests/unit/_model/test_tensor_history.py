"""Former names of tensors."""

from __future__ import annotations

from dasklake._model.tensor_history import TensorHistory


def test_names_by_row() -> None:
    """A chunk has the tensor under the name at its time, or not at all before it was added."""
    history = TensorHistory(since=2, former=((5, "a"), (9, "b")))
    names = [history.name_at("c", row) for row in (0, 1, 2, 4, 5, 8, 9, 100)]
    assert names == [None, None, "a", "a", "b", "b", "c", "c"]
