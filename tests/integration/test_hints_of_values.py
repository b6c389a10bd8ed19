"""Follow the proposals of errors about values: conversions and changes of the tensor."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import wave
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageSequence

import dasklake
from dasklake import Schema, TensorSpec
from dasklake._codecs.registry import codec_for
from dasklake._write.encoder import Encoder
from tests.support import pictures
from tests.support.hints import follows, refused

NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
MASKED = np.ma.masked_array([1.0, 2.0], [False, True])
GRAY = pictures.smooth(6, 5, 1)[:, :, 0]
RGB = pictures.smooth(6, 5, 3)


def encoded(spec: TensorSpec, value: Any) -> Any:
    """Encode a value of one tensor, as a write does."""
    return Encoder(Schema({"x": spec})).encode({"x": value})["x"]


def file_of(mode: str, form: str, **options: Any) -> bytes:
    """Return the file of a picture."""
    data = pictures.file_of(pictures.make(mode, (6, 5)), form, **options)
    assert data is not None
    return data


def sound() -> bytes:
    """Return a file of sound."""
    sink = io.BytesIO()
    with wave.open(sink, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16))
    return sink.getvalue()


class Case(NamedTuple):
    """A value that is refused, and what its message proposes.

    Attributes
    ----------
    proposal : str
        Text of the message.
    spec : TensorSpec
        The tensor.
    wrong : object
        The value.
    right : object
        The value after the proposal; by default, the same value.
    changed : TensorSpec or None
        The tensor after the proposal; by default, the same tensor.
    """

    proposal: str
    spec: TensorSpec
    wrong: Any
    right: Any = None
    changed: TensorSpec | None = None


def numbers(dtype: Any) -> TensorSpec:
    """Return the spec of a single value."""
    return TensorSpec(dtype=dtype, shape=())


PNG = TensorSpec("image", compression="png")
JPEG = TensorSpec("image", compression="jpeg")
WIDE = TensorSpec(dtype="uint16", shape=(None, None), compression="zstd")

CASES = [
    Case("Convert it with bool().", numbers(pa.bool_()), 1, bool(1)),
    Case("Convert it with bool().", numbers("boolean"), 1, bool(1)),
    Case("Convert it with bool().", numbers("bool"), 1, bool(1)),
    Case(
        "Round it with .quantize(), or change the tensor's dtype.",
        numbers(pa.decimal128(5, 1)),
        decimal.Decimal("1.25"),
        decimal.Decimal("1.25").quantize(decimal.Decimal("0.1")),
    ),
    Case(
        "Convert it with float()", numbers(pa.list_(pa.float64())), [2**53 + 1], [float(2**53 + 1)]
    ),
    Case(
        "Convert it with str(), or give None for a missing value.",
        numbers(pa.list_(pa.string())),
        [1],
        [str(1)],
    ),
    Case(
        "Convert it to bytes, such as with .encode() or .tobytes().", numbers("binary"), "a", b"a"
    ),
    Case(
        "Convert it to bytes, such as with .encode() or .tobytes().",
        numbers("binary"),
        1.5,
        np.float64(1.5).tobytes(),
    ),
    Case(
        "Convert it with decimal.Decimal(str(value)).",
        numbers(pa.decimal128(5, 1)),
        1.5,
        decimal.Decimal(str(1.5)),
    ),
    Case(
        "Remove the time zone with .replace(tzinfo=None).",
        numbers(pa.time64("us")),
        NOON.timetz(),
        NOON.timetz().replace(tzinfo=None),
    ),
    Case(
        "It must have a time zone. Add one with tz_localize() or replace().",
        numbers(pa.timestamp("us", "UTC")),
        NOON.replace(tzinfo=None),
        NOON.replace(tzinfo=None).replace(tzinfo=dt.UTC),
    ),
    Case(
        "Convert it with .date(), or use a timestamp type.", numbers(pa.date32()), NOON, NOON.date()
    ),
    Case(
        "Convert it with .date(), or use a timestamp type.",
        numbers(pa.date32()),
        NOON,
        NOON,
        numbers("datetime64[us, UTC]"),
    ),
    Case("Fill it with .filled().", numbers(pa.list_(pa.float64())), MASKED, MASKED.filled()),
    Case(
        "Fill it with .filled().",
        TensorSpec(dtype="float64", shape=(None,)),
        MASKED,
        MASKED.filled(),
    ),
    Case("Use .real or abs().", numbers("float64"), 3 + 4j, abs(3 + 4j)),
    Case(
        "Convert the array with .astype(",
        TensorSpec(dtype="int32", shape=(None,)),
        np.array([1.0]),
        np.array([1.0]).astype("int32"),
    ),
    Case(
        "Give its bytes, a pathlib.Path, or dasklake.read(path_or_url).",
        TensorSpec("audio", compression="wav"),
        5,
        sound(),
    ),
    Case(
        "Give pathlib.Path(...) for a file, or use the htype link[image] for a URL.",
        JPEG,
        "s3://b/a.jpg",
        None,
        TensorSpec("link[image]", compression="jpeg", verify=False),
    ),
    Case(
        "Convert it, or set reencode=True in the TensorSpec.",
        PNG,
        file_of("RGB", "jpeg"),
        None,
        TensorSpec("image", compression="png", reencode=True),
    ),
    Case(
        'Convert it with .convert("RGB").',
        PNG,
        pictures.make("YCbCr", (6, 5)),
        pictures.make("YCbCr", (6, 5)).convert("RGB"),
    ),
    Case(
        "TensorSpec(dtype=",
        PNG,
        GRAY.astype("float32"),
        None,
        TensorSpec(dtype="float32", shape=(None, None), compression="zstd"),
    ),
    Case(
        "shape=",
        PNG,
        GRAY.astype("float32"),
        None,
        TensorSpec(dtype="float32", shape=(None, None), compression="zstd"),
    ),
    Case(
        ", compression='zstd')",
        PNG,
        GRAY.astype("float32"),
        None,
        TensorSpec(dtype="float32", shape=(None, None), compression="zstd"),
    ),
    Case(
        "Use compression='png'.",
        TensorSpec("image.gray", compression="webp"),
        GRAY,
        None,
        TensorSpec("image.gray", compression="png"),
    ),
    Case("Convert it with str().", TensorSpec("json"), {1: "a"}, {str(1): "a"}),
    Case("Convert it with ", TensorSpec("json"), {"a", "b"}, str({"a"})),
    Case("str(), or a list, dict or number", TensorSpec("json"), {"a"}, list({"a"})),
    Case("Convert it with ", TensorSpec("json"), np.zeros(2), np.zeros(2).tolist()),
    Case(
        "Decode it with errors='replace'.",
        TensorSpec("text"),
        "\ud800",
        b"\xff".decode(errors="replace"),
    ),
    Case(
        "Decode it with errors='replace'.",
        TensorSpec("json"),
        "\ud800",
        b"\xff".decode(errors="replace"),
    ),
    Case("Convert it with str(), or decode bytes.", TensorSpec("text"), 1, str(1)),
    Case("Convert it with str(), or decode bytes.", TensorSpec("text"), b"a", b"a".decode()),
    Case(
        "Remove it from the URL, and name the credentials with dasklake.link(url, creds_key=...).",
        TensorSpec("link[image]", compression="jpeg", verify=False),
        "https://user:secret@host/a.jpg",
        dasklake.link("https://host/a.jpg", creds_key="key"),
    ),
    Case(
        "Give a URL, or dasklake.link(url).",
        TensorSpec("link[image]", compression="jpeg", verify=False),
        5,
        dasklake.link("https://host/a.jpg"),
    ),
    Case(
        "Convert it with .astype(bool), or compare it with a value (mask == 1).",
        TensorSpec("binary_mask"),
        np.array([[[0], [1]]]),
        np.array([[[0], [1]]]).astype(bool),
    ),
    Case(
        "Convert it with .astype(bool), or compare it with a value (mask == 1).",
        TensorSpec("binary_mask"),
        np.array([[[0], [1]]]),
        np.array([[[0], [1]]]) == 1,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.proposal[:32])
def test_the_proposal_for_a_value_works(case: Case) -> None:
    """The value is refused with the proposal; the value or the tensor that it proposes works."""
    assert case.proposal in refused(encoded, case.spec, case.wrong)
    encoded(case.changed or case.spec, case.wrong if case.right is None else case.right)


@follows(
    "declare the tensor as sequence[image], and give the list [frame.copy() for frame in "
    "PIL.ImageSequence.Iterator(image)]."
)
def test_all_frames_of_a_picture_are_kept() -> None:
    """A sequence of images takes the list of frames."""
    first = Image.fromarray(RGB)
    sink = io.BytesIO()
    first.save(sink, "gif", save_all=True, append_images=[Image.fromarray(255 - RGB)])
    image = Image.open(sink)
    refused(encoded, PNG, image)
    frames = [frame.copy() for frame in ImageSequence.Iterator(image)]
    assert len(frames) == 2
    encoded(TensorSpec("sequence[image]", compression="png"), [f.convert("RGB") for f in frames])


@follows("Split the image, or use compression='png'.")
def test_a_long_picture_is_stored_as_png() -> None:
    """A side beyond the limit of a format fits into PNG."""
    pixels = np.zeros((1, 16_384, 3), np.uint8)
    refused(encoded, TensorSpec("image", compression="webp"), pixels)
    encoded(PNG, pixels)


@pytest.mark.parametrize("mode", ["I;16", "F"])
@follows(
    "Store its pixels, np.asarray(PIL.Image.open(file)), in a tensor TensorSpec(dtype=",
    ", shape=(None, None), compression='zstd').",
)
def test_the_pixels_of_a_deep_picture_are_stored(mode: str) -> None:
    """The tensor that the error proposes takes the pixels of the picture."""
    data = file_of(mode, "tiff")
    message = refused(encoded, TensorSpec("image", compression="tiff"), data)
    code = message.partition("in a tensor ")[2].rstrip(".")
    spec = eval(code, {"TensorSpec": TensorSpec})  # noqa: S307 # the proposal
    encoded(spec, np.asarray(Image.open(io.BytesIO(data))))


@follows("Convert it with .astype(")
def test_a_column_is_cast() -> None:
    """A column of another dtype is cast with the call of the message."""
    codec = codec_for(TensorSpec(dtype="int64", shape=(2,)))
    refused(codec.encode_column, np.ones((3, 2)))
    assert codec.encode_column(np.ones((3, 2)).astype("int64")) is not None
