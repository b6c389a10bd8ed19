"""Class names that runs discover."""

from __future__ import annotations

import json

import pytest

from dasklake._model.discovered_names import merge_discovered_names
from dasklake._model.receipt import Receipt
from dasklake._schema.schema import Schema, TensorSpec
from dasklake.exceptions import SchemaError


def test_first_occurrence_is_the_smallest() -> None:
    """The first partition that has a name counts, in any order of receipts."""
    late = Receipt("r", 1, 5, "", (), 1, names={"label": ("a", "b")})
    early = Receipt("r", 1, 2, "", (), 1, names={"label": ("b",)})
    for receipts in ([late, early], [early, late]):
        assert merge_discovered_names(None, receipts) == {"label": {"a": (5, 0), "b": (2, 0)}}
    assert merge_discovered_names(None, [Receipt("r", 1, 0, "", (), 1)]) is None


def test_settled_survives_json() -> None:
    """A schema stores the number of settled names, and gives only these to writers."""
    spec = TensorSpec("class_label", class_names=["a", "b"], discover=True, settled=1)
    decoded = Schema.from_json(json.loads(json.dumps(Schema({"label": spec}).to_json())))
    assert decoded["label"] == spec
    assert decoded.with_settled_names["label"].class_names == ("a",)
    assert decoded.with_all_names_settled["label"] == TensorSpec(
        "class_label", class_names=["a", "b"], discover=True
    )
    assert decoded.without_discovered_names["label"].class_names == ()


@pytest.mark.parametrize(
    "parameters",
    [
        {"htype": "bbox"},
        {"htype": "sequence[class_label]"},
        {"dtype": "uint8"},
        {"compression": "lz4"},
        {"discover": 1},
        {"settled": 7},
        {"settled": -1},
    ],
)
def test_discover_is_for_plain_labels(parameters: dict[str, object]) -> None:
    """A spec that cannot have discovered names is refused."""
    with pytest.raises(SchemaError):
        TensorSpec(**{"htype": "class_label", "discover": True, **parameters})  # type: ignore[arg-type] # wrong ones too


def test_lake_that_knows_more_names_fits() -> None:
    """A writer may know any prefix of a lake's settled names, and no other names."""

    def schema(*names: str, settled: int | None = None) -> Schema:
        spec = TensorSpec("class_label", class_names=names, discover=True, settled=settled)
        return Schema({"label": spec})

    lake = schema("a", "b", "c", settled=2)
    for fits in (schema(), schema("a"), schema("a", "b"), schema("a", "x", settled=1)):
        assert lake.differences(fits) == []
    for other in (schema("b"), schema("a", "b", "c"), schema("a", "c")):
        assert len(lake.differences(other)) == 1
