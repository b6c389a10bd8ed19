"""Parameters of specs: accepted spellings and refused values."""

from __future__ import annotations

from typing import Any

import pytest

from dasklake import TensorSpec
from dasklake._schema.schema import describe
from dasklake.exceptions import SchemaError


@pytest.mark.parametrize(
    ("htype", "coords", "expected"),
    [
        ("bbox", {"type": "pixel", "mode": "LTWH"}, "pixel-ltwh"),
        ("bbox", {"type": "fractional", "mode": "CCWH"}, "fractional-ccwh"),
        ("bbox.3d", {"mode": "center"}, "center"),
        ("bbox.3d", "vertex", "vertex"),
        ("bbox", None, None),
    ],
)
def test_coords_have_two_spellings(htype: str, coords: Any, expected: str | None) -> None:
    """Coords are a string, or a mapping of unit and mode."""
    assert TensorSpec(htype, coords=coords).coords == expected


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"htype": "bbox", "coords": {"type": "nonsense", "mode": "QQ"}}, "nonsense-qq"),
        ({"htype": "bbox", "coords": {"kind": "pixel", "mode": "LTWH"}}, "'kind'"),
        ({"htype": "bbox", "coords": "center"}, "center"),
        ({"htype": "bbox.3d", "coords": "pixel-ltwh"}, "pixel-ltwh"),
        ({"htype": "bbox", "class_names": ["a"]}, "class_names"),
        ({"htype": "class_label", "class_names": ["a", "b", "a"]}, "'a' twice"),
        ({"htype": "segment_mask", "class_names": "ab"}, "list"),
        ({"htype": "keypoints_coco", "keypoints": ["a", "a"]}, "twice"),
        ({"htype": "keypoints_coco", "connections": [[0]]}, r"\[0\]"),
        ({"htype": "keypoints_coco", "connections": [0]}, "pairs"),
        ({"htype": "keypoints_coco", "keypoints": ["a"], "connections": [[0, 1]]}, "below 1"),
        ({"htype": "image", "compression": "png", "reencode": "yes"}, "reencode"),
        ({"htype": "audio", "compression": "wav", "reencode": True}, "reencode"),
        ({"htype": "audio"}, "compression"),
        ({"htype": "audio", "compression": "mp4"}, "mp4"),
        ({"htype": "json", "compression": "lz4"}, "lz4"),
        ({"htype": "point", "shape": (None, 5)}, "2 or 3"),
        ({"htype": "link[bbox]"}, "Unknown"),
    ],
)
def test_invalid_parameters_are_refused(parameters: dict[str, Any], message: str) -> None:
    """An unsupported or contradictory parameter is refused."""
    with pytest.raises(SchemaError, match=message):
        TensorSpec(**parameters)


def test_a_description_makes_the_same_spec() -> None:
    """A description is a call that creates the spec."""
    spec = TensorSpec(
        "keypoints_coco", keypoints=["a", "b"], connections=[(0, 1)], same_length="objects"
    )
    assert eval(describe(spec)) == spec  # noqa: S307 # our own text
