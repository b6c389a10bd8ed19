"""Constraints: every violation is refused, and numbers of objects must agree."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dasklake import Schema, TensorSpec
from dasklake._codecs.constraints import CONSTRAINTS
from dasklake._codecs.registry import codec_for
from dasklake._schema.htypes import HTYPES
from dasklake._write.encoder import Encoder
from dasklake.exceptions import SampleError, SchemaError
from tests.support.htypes import FITTING, MISFITS, Misfit


@pytest.mark.parametrize("misfit", MISFITS, ids=lambda m: f"{m.htype}: {m.rule}")
def test_every_constraint_has_its_error(misfit: Misfit) -> None:
    """A value that breaks a rule is refused; a non-strict write only checks the basic rules."""
    spec, value = misfit.make()
    with pytest.raises(SampleError):
        codec_for(spec).encode(value)
    basic = codec_for(spec, strict=False)
    if misfit.strict:
        assert basic.encode(value) is not None
    else:
        with pytest.raises(SampleError):
            basic.encode(value)


def test_every_constraint_is_covered_by_a_misfit() -> None:
    """Each constraint of the table exists, and a value of the list above breaks it."""
    named = {name for htype in HTYPES.values() for name in htype.constraints}
    assert named == set(CONSTRAINTS)
    strict = {misfit.htype for misfit in MISFITS if misfit.strict}
    assert {htype.name for htype in HTYPES.values() if htype.constraints} <= strict


@pytest.mark.parametrize("name", FITTING)
def test_valid_values_are_accepted(name: str) -> None:
    """A strict write accepts every valid value."""
    spec, values = FITTING[name]
    for value in values:
        assert codec_for(spec).encode(value) is not None


@pytest.mark.parametrize(
    ("spec", "column"),
    [
        (TensorSpec("bbox", shape=(4,), coords="pixel-ltwh"), [[0, 0, 1, 1], [0, 0, 1, -1]]),
        (TensorSpec("embedding", shape=(2,)), [[0, 1], [np.inf, 0]]),
        (
            TensorSpec("keypoints_coco", shape=(3, 1), keypoints=["a"]),
            [[[1], [1], [2]], [[1], [1], [7]]],
        ),
        (TensorSpec("intrinsics"), [np.eye(3), -np.eye(3)]),
    ],
)
def test_columns_are_checked_as_values_are(spec: TensorSpec, column: Any) -> None:
    """The fast path of a column raises the same errors as the path of one value."""
    codec = codec_for(spec)
    array = np.asarray(column, spec.dtype)
    assert codec.encode_column(array[:1]) is not None
    with pytest.raises(SampleError):
        codec.encode_column(array)
    assert codec_for(spec, strict=False).encode_column(array) is not None


COCO = Schema(
    {
        "labels": TensorSpec("class_label", shape=(None,)),
        "boxes": "bbox",
        "masks": "binary_mask",
        "points": "keypoints_coco",
        "outlines": "polygon",
        "name": "text",
    },
    same_length=["labels", "boxes", "masks", "points", "outlines"],
)


def _sample(**counts: int | None) -> dict[str, Any]:
    numbers = dict.fromkeys(("labels", "boxes", "masks", "points", "outlines"), 2) | counts
    makers: dict[str, Callable[[int], Any]] = {
        "labels": lambda n: list(range(n)),
        "boxes": lambda n: np.zeros((n, 4), "f4"),
        "masks": lambda n: np.zeros((5, 6, n), bool),
        "points": lambda n: np.zeros((3, n), "i4"),
        "outlines": lambda n: [np.ones((3, 2), "f4")] * n,
    }
    values = {name: None if n is None else makers[name](n) for name, n in numbers.items()}
    return {**values, "name": "x"}


@pytest.mark.parametrize("name", ["labels", "boxes", "masks", "points", "outlines"])
def test_numbers_of_objects_must_agree(name: str) -> None:
    """The error names the tensor with a different number of objects, and both numbers."""
    for strict in (True, False):
        encoder = Encoder(COCO, strict=strict)
        assert encoder.encode(_sample())
        assert encoder.encode(_sample(**{name: None})), "a missing value is ignored"
        with pytest.raises(SampleError, match="same_length") as raised:
            encoder.encode(_sample(**{name: 3}))
        assert raised.value.tensor == ("boxes" if name == "labels" else name)
        assert {"2", "3"} <= set(re.findall(r"\d", raised.value.message))


@pytest.mark.parametrize(
    ("tensors", "groups", "message"),
    [
        ({"a": "bbox"}, ["a"], "another tensor"),
        ({"a": "bbox", "b": "text"}, ["a", "b"], "counts nothing"),
        ({"a": "bbox", "b": TensorSpec("bbox", shape=(4,))}, ["a", "b"], "counts nothing"),
        ({"a": "bbox", "b": "bbox"}, ["a", "c"], "'c'"),
        ({"a": "bbox", "b": "bbox"}, "ab", "list"),
        ({"a": "bbox", "b": "bbox"}, [["a", 1]], "list"),
        (
            {"a": TensorSpec("bbox", shape=(2, 4)), "b": TensorSpec("bbox", shape=(3, 4))},
            ["a", "b"],
            "equal lengths",
        ),
    ],
)
def test_invalid_groups_are_refused(tensors: Any, groups: Any, message: str) -> None:
    """A group must have two tensors with objects, and fixed lengths must be equal."""
    with pytest.raises(SchemaError, match=message):
        Schema(tensors, same_length=groups)


def test_groups_round_trip_through_json() -> None:
    """Groups are stored in the specs, and can be given in the specs."""
    assert COCO.same_length == (("labels", "boxes", "masks", "points", "outlines"),)
    assert Schema.from_json(COCO.to_json()) == COCO
    assert Schema.from_json(COCO.to_json()).same_length == COCO.same_length
    two = Schema(
        {name: TensorSpec("bbox", same_length="objects") for name in ("a", "b")}
        | {name: TensorSpec("bbox") for name in ("c", "d")},
        same_length=[["c", "d"]],
    )
    assert two.same_length == (("a", "b"), ("c", "d"))
