"""Values of every htype: valid values, and one invalid value for each constraint."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import dasklake
from dasklake import TensorSpec
from tests.support import media

__all__ = ["FITTING", "MISFITS", "Misfit"]

_RANDOM = np.random.default_rng(0)

#: Specs by name, each with valid values; ``None`` is added to all of them.
FITTING: dict[str, tuple[TensorSpec, list[Any]]] = {
    "generic": (TensorSpec(dtype="float64", shape=(None, 2)), [np.ones((3, 2)), np.ones((0, 2))]),
    "image": (TensorSpec("image", compression="jpeg"), [media.picture("jpeg")]),
    "image.rgb": (TensorSpec("image.rgb", compression="png"), [media.pixels(4, 5, 3)]),
    "image.gray": (TensorSpec("image.gray", compression="png"), [media.pixels(4, 5, 1)]),
    "class_label": (TensorSpec("class_label", class_names=["a", "b"]), [["b", "a"], 1, []]),
    "tag": (TensorSpec("tag"), [["dusk", "été"], "dusk", []]),
    "bbox": (TensorSpec("bbox", coords="pixel-ltwh"), [[[1, 2, 3, 4]], np.zeros((0, 4), "f4")]),
    "bbox.3d": (TensorSpec("bbox.3d", coords="center"), [np.ones((2, 8), "f4")]),
    "binary_mask": (TensorSpec("binary_mask"), [_RANDOM.random((6, 5, 2)) > 0.5]),
    "instance_label": (TensorSpec("instance_label"), [np.arange(6, dtype="u4").reshape(2, 3)]),
    "segment_mask": (
        TensorSpec("segment_mask", class_names=["sky", "road"]),
        [np.eye(4, dtype="u4")],
    ),
    "polygon": (
        TensorSpec("polygon"),
        [[[[0, 0], [4, 0], [4, 3]], np.ones((5, 2), "f4")], []],
    ),
    "keypoints_coco": (
        TensorSpec("keypoints_coco", keypoints=["nose", "tail"], connections=[(0, 1)]),
        [np.array([[5, 6], [7, 8], [2, 1], [0, 0], [0, 0], [0, 0]], "i4"), np.zeros((6, 0), "i4")],
    ),
    "point": (TensorSpec("point", shape=(None, None)), [[[1, 2], [3, 4]], [[1, 2, 3]]]),
    "point_cloud": (TensorSpec("point_cloud", compression="zstd"), [np.ones((9, 3), "f4")]),
    "embedding": (TensorSpec("embedding", shape=(4,)), [np.arange(4, dtype="f4")]),
    "intrinsics": (TensorSpec("intrinsics"), [np.eye(3, dtype="f4")]),
    "text": (TensorSpec("text"), ["", "a sentence"]),
    "json": (TensorSpec("json"), [{"a": [1, 2.5, None, {"b": "é"}]}, [], 7, "x", False]),
    "list": (TensorSpec("list"), [[1, "a", None], []]),
    "audio": (TensorSpec("audio", compression="wav"), [media.sound("wav")]),
    "video": (TensorSpec("video", compression="mp4"), [media.video("mp4")]),
    "dicom": (TensorSpec("dicom", compression="dcm"), [media.dicom()]),
    "nifti": (TensorSpec("nifti", compression="nii.gz"), [media.nifti()]),
    "mesh": (TensorSpec("mesh", compression="ply"), [media.surface("ply")]),
    "point_cloud as las": (TensorSpec("point_cloud", compression="las"), [media.las()]),
    "link[image]": (
        TensorSpec("link[image]", compression="jpeg", verify=False),
        [dasklake.link("s3://bucket/a.jpg")],
    ),
    "sequence[generic]": (
        TensorSpec("sequence[generic]", dtype="int16", shape=()),
        [[1, 2, 3], []],
    ),
    "sequence[bbox]": (
        TensorSpec("sequence[bbox]", compression="lz4"),
        [[np.ones((2, 4), "f4"), np.zeros((0, 4), "f4")], []],
    ),
    "sequence[embedding]": (
        TensorSpec("sequence[embedding]", shape=(3,)),
        [[np.ones(3, "f4")] * 2],
    ),
    "sequence[class_label]": (
        TensorSpec("sequence[class_label]", class_names=["a", "b"]),
        [["a", ["b", "a"]], []],
    ),
    "sequence[image]": (
        TensorSpec("sequence[image]", compression="png"),
        [[media.pixels(3, 4, 3), media.pixels(2, 2, 3)], []],
    ),
    "sequence[binary_mask]": (
        TensorSpec("sequence[binary_mask]"),
        [[np.ones((2, 3, 1), bool), np.zeros((2, 3, 2), bool)]],
    ),
    "sequence[text]": (TensorSpec("sequence[text]"), [["a", "", "é"], []]),
    "sequence[json]": (TensorSpec("sequence[json]"), [[{"a": 1}, [2]]]),
    "sequence[tag]": (TensorSpec("sequence[tag]"), [[["a", "b"], ["c"]]]),
    "sequence[polygon]": (
        TensorSpec("sequence[polygon]"),
        [[[np.eye(3, 2, dtype="f4")], []]],
    ),
    "sequence[video]": (TensorSpec("sequence[video]", compression="mp4"), [[media.video("mp4")]]),
    "sequence[link[image]]": (
        TensorSpec("sequence[link[image]]"),
        [[dasklake.link("s3://bucket/a.jpg", "key"), "s3://bucket/b.jpg"], []],
    ),
}


class Misfit(NamedTuple):
    """A value that breaks a constraint.

    Attributes
    ----------
    htype : str
        The htype.
    rule : str
        The rule, in words.
    spec : str
        The spec, as source code.
    value : str
        The value, as source code.
    strict : bool
        True if only strict validation detects it.
    """

    htype: str
    rule: str
    spec: str
    value: str
    strict: bool = False

    def make(self) -> tuple[TensorSpec, Any]:
        """Return the spec and the value."""
        names = {"TensorSpec": TensorSpec, "np": np, "nan": np.nan, "video": media.video}
        spec = eval(self.spec, names)  # noqa: S307 # our own table, which the documentation shows
        return spec, eval(self.value, names)  # noqa: S307 # the same


MISFITS = [
    Misfit(htype, rule, f"TensorSpec({spec})", value, strict)
    for htype, rule, spec, value, strict in (
        ("generic", "a number fits the dtype", 'dtype="uint8", shape=()', "300", False),
        ("generic", "no fraction is cut off", 'dtype="int32", shape=()', "1.5", False),
        (
            "generic",
            "an array's dtype is not narrowed",
            'dtype="float32", shape=(None,)',
            "np.zeros(3)",
            False,
        ),
        (
            "generic",
            "the rank is the tensor's",
            'dtype="uint8", shape=(None, 2)',
            'np.zeros(4, "uint8")',
            False,
        ),
        (
            "generic",
            "a fixed axis has its length",
            'dtype="uint8", shape=(None, 2)',
            'np.zeros((4, 3), "uint8")',
            False,
        ),
        (
            "generic",
            "lists in a list have one length",
            'dtype="uint8", shape=(None, None)',
            "[[1], [2, 3]]",
            False,
        ),
        ("image", "the file has the tensor's format", '"image", compression="png"', "b'BM'", False),
        (
            "image",
            "pixels are bytes",
            '"image", compression="png"',
            "np.zeros((2, 2, 3))",
            False,
        ),
        ("class_label", "it is in the list", '"class_label", class_names=["a"]', "1", False),
        (
            "class_label",
            "its name is in the list",
            '"class_label", class_names=["a"]',
            "'z'",
            False,
        ),
        ("tag", "tags are strings", '"tag"', "['a', 1]", False),
        ("bbox", "a box has four numbers", '"bbox"', 'np.zeros((2, 3), "float32")', False),
        ("bbox", "every number is finite", '"bbox"', "[[0, 0, nan, 1]]", True),
        (
            "bbox",
            "no size is negative",
            '"bbox", coords="pixel-ltwh"',
            "[[5, 5, -2, 1]]",
            True,
        ),
        (
            "bbox",
            "right and bottom come after left and top",
            '"bbox", coords="pixel-ltrb"',
            "[[5, 5, 4, 9]]",
            True,
        ),
        (
            "bbox",
            "fractions lie from 0 to 1",
            '"bbox", coords="fractional-ccwh"',
            "[[0.5, 0.5, 12, 8]]",
            True,
        ),
        (
            "bbox.3d",
            "no size is negative",
            '"bbox.3d", coords="center", shape=(None, 7)',
            "[[0, 0, 0, 1, 1, -1, 0]]",
            True,
        ),
        (
            "bbox.3d",
            "eight corners have three numbers each",
            '"bbox.3d", coords="vertex", shape=(None, None, 3)',
            'np.zeros((2, 7, 3), "float32")',
            True,
        ),
        ("binary_mask", "pixels are bools", '"binary_mask"', 'np.zeros((2, 2, 1), "uint8")', False),
        (
            "binary_mask",
            "the rank is the tensor's",
            '"binary_mask"',
            "np.zeros((2, 2), bool)",
            False,
        ),
        (
            "segment_mask",
            "each pixel is in the list",
            '"segment_mask", class_names=["sky"]',
            'np.ones((2, 2), "uint32")',
            False,
        ),
        ("polygon", "an outline has three points", '"polygon"', "[[[0, 0], [1, 1]]]", True),
        ("polygon", "every number is finite", '"polygon"', "[[[0, 0], [1, 1], [nan, 0]]]", True),
        (
            "keypoints_coco",
            "there are three rows for each keypoint",
            '"keypoints_coco"',
            "[[1], [2]]",
            True,
        ),
        (
            "keypoints_coco",
            "visibility is 0, 1 or 2",
            '"keypoints_coco", keypoints=["nose"]',
            "[[10], [20], [3]]",
            True,
        ),
        ("point", "a point has two or three numbers", '"point"', "[[1, 2, 3, 4]]", False),
        (
            "point",
            "a point has two or three numbers",
            '"point", shape=(None, None)',
            "[[1, 2, 3, 4]]",
            False,
        ),
        (
            "point",
            "every number is finite",
            '"point", dtype="float32"',
            "[[1, nan]]",
            True,
        ),
        ("embedding", "every number is finite", '"embedding"', "[1.0, nan]", True),
        (
            "intrinsics",
            "focal lengths are positive",
            '"intrinsics"',
            "np.zeros((3, 3), 'f4')",
            True,
        ),
        ("text", "it is a string", '"text"', "b'bytes'", False),
        ("json", "keys are strings", '"json"', "{1: 'a'}", False),
        ("json", "numbers are finite", '"json"', "[nan]", False),
        ("list", "it is a list", '"list"', "{'a': 1}", False),
        (
            "video",
            "it is a file",
            '"video", compression="mp4"',
            "np.zeros((2, 4, 4, 3), 'u1')",
            False,
        ),
        (
            "video",
            "the file has the tensor's format",
            '"video", compression="mp4"',
            "video('avi')",
            False,
        ),
        (
            "sequence[bbox]",
            "each item fits",
            '"sequence[bbox]", coords="pixel-ltwh"',
            "[[[0, 0, 1, 1]], [[0, 0, -1, 1]]]",
            True,
        ),
    )
]
