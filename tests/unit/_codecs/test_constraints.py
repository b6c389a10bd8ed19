"""Constraints: what each says of a value that breaks it, and which numbers of objects agree."""

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
    """A value that breaks a rule is refused, by a basic write where the rule is a basic one."""
    spec, value = misfit.make()
    with pytest.raises(SampleError):
        codec_for(spec).encode(value)
    basic = codec_for(spec, strict=False)
    if misfit.strict:
        assert basic.encode(value) is not None
    else:
        with pytest.raises(SampleError):
            basic.encode(value)


def test_every_constraint_is_broken_by_some_value() -> None:
    """Each constraint of the table exists, and some value of the list above breaks it."""
    named = {name for htype in HTYPES.values() for name in htype.constraints}
    assert named == set(CONSTRAINTS)
    strict = {misfit.htype for misfit in MISFITS if misfit.strict}
    assert {htype.name for htype in HTYPES.values() if htype.constraints} <= strict


@pytest.mark.parametrize("name", FITTING)
def test_what_fits_passes(name: str) -> None:
    """A strict write takes every value that fits."""
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
    """The fast way for a whole column finds what the slow one finds."""
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
    each = dict.fromkeys(("labels", "boxes", "masks", "points", "outlines"), 2) | counts
    made: dict[str, Callable[[int], Any]] = {
        "labels": lambda n: list(range(n)),
        "boxes": lambda n: np.zeros((n, 4), "f4"),
        "masks": lambda n: np.zeros((5, 6, n), bool),
        "points": lambda n: np.zeros((3, n), "i4"),
        "outlines": lambda n: [np.ones((3, 2), "f4")] * n,
    }
    found = {name: None if n is None else made[name](n) for name, n in each.items()}
    return {**found, "name": "x"}


@pytest.mark.parametrize("name", ["labels", "boxes", "masks", "points", "outlines"])
def test_numbers_of_objects_have_to_agree(name: str) -> None:
    """A tensor with another number of objects than the others is named, with both numbers."""
    for strict in (True, False):
        encoder = Encoder(COCO, strict=strict)
        assert encoder.encode(_sample())
        assert encoder.encode(_sample(**{name: None})), "no value counts nothing"
        with pytest.raises(SampleError, match="same_length") as raised:
            encoder.encode(_sample(**{name: 3}))
        assert raised.value.tensor == ("boxes" if name == "labels" else name)
        assert {"2", "3"} <= set(re.findall(r"\d", raised.value.message))


@pytest.mark.parametrize(
    ("tensors", "groups", "word"),
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
def test_groups_that_cannot_be_are_refused(tensors: Any, groups: Any, word: str) -> None:
    """A group of one, of tensors that count nothing, or of fixed lengths that differ is refused."""
    with pytest.raises(SchemaError, match=word):
        Schema(tensors, same_length=groups)


def test_groups_survive_storage() -> None:
    """Groups are part of the specs: they come back from a commit, and can be given there."""
    assert COCO.same_length == (("labels", "boxes", "masks", "points", "outlines"),)
    assert Schema.from_json(COCO.to_json()) == COCO
    assert Schema.from_json(COCO.to_json()).same_length == COCO.same_length
    two = Schema(
        {name: TensorSpec("bbox", same_length="objects") for name in ("a", "b")}
        | {name: TensorSpec("bbox") for name in ("c", "d")},
        same_length=[["c", "d"]],
    )
    assert two.same_length == (("a", "b"), ("c", "d"))
