"""Links decode like stored files: the same dtype, shape, values and errors for each htype."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import numpy as np
import pytest
from PIL import Image

import dasklake
from dasklake import TensorSpec
from dasklake._codecs.registry import codec_for
from dasklake._schema.htypes import LINKABLE
from dasklake.exceptions import SampleError, TransformError
from tests.support import media


def _picture(mode: str, form: str = "png", orientation: int | None = None) -> bytes:
    pixels = media.pixels(4, 6, 4)
    image = Image.fromarray(pixels, "RGBA").convert(mode)
    exif = Image.Exif()
    if orientation is not None:
        exif[274] = orientation
    sink = io.BytesIO()
    image.save(sink, form, exif=exif)
    return sink.getvalue()


#: Htype, the other parameters of its spec, and the file.
FILES: dict[str, tuple[str, dict[str, Any], bytes]] = {
    "image": ("image", {"compression": "png"}, _picture("RGB")),
    "image of one axis less": (
        "image",
        {"compression": "png", "shape": (None, None)},
        _picture("L"),
    ),
    "image with a palette": ("image", {"compression": "png"}, _picture("P")),
    "turned image": (
        "image",
        {"compression": "png", "exif": "apply", "reencode": True},
        _picture("RGB", orientation=6),
    ),
    "image.rgb": ("image.rgb", {"compression": "png"}, _picture("L")),
    "image.rgb with alpha": ("image.rgb", {"compression": "png"}, _picture("RGBA")),
    "image.gray": ("image.gray", {"compression": "png"}, _picture("RGB")),
    "image.gray with alpha": ("image.gray", {"compression": "png"}, _picture("LA")),
    **{
        f"audio as {form}": ("audio", {"compression": form}, media.sound(form))
        for form in media.SOUNDS
    },
    "audio as float32": ("audio", {"compression": "wav", "dtype": "float32"}, media.sound("wav")),
    **{
        f"video as {form}": ("video", {"compression": form}, media.video(form))
        for form in media.VIDEOS
    },
    "dicom": ("dicom", {"compression": "dcm"}, media.dicom()),
    "dicom as float32": ("dicom", {"compression": "dcm", "dtype": "float32"}, media.dicom(3)),
    "nifti": ("nifti", {"compression": "nii.gz"}, media.nifti()),
    "mesh as ply": ("mesh", {"compression": "ply"}, media.surface("ply")),
    "mesh as stl": ("mesh", {"compression": "stl"}, media.surface("stl")),
    "point_cloud": ("point_cloud", {"compression": "las"}, media.las()),
}

Pair = tuple[Any, Any]


@pytest.fixture(autouse=True)
def _in_this_process() -> Iterator[None]:
    """Run jobs in this process."""
    with dask.config.set(scheduler="synchronous"):
        yield


def _pair(folder: Path, htype: str, options: dict[str, Any], data: bytes) -> Pair:
    """Write a file and a link to it, unverified, and return both values."""
    path = folder / "file"
    path.write_bytes(data)
    schema = {
        "stored": TensorSpec(htype, verify=False, **options),
        "linked": TensorSpec(f"link[{htype}]", verify=False, **options),
    }
    bag = db.from_sequence([{"stored": path, "linked": str(path)}], npartitions=1)
    dasklake.to_lake(bag, folder / "lake", schema=schema)
    sample = dasklake.open(folder / "lake")[0]
    return sample["stored"], sample["linked"]


def _same(one: Any, other: Any) -> None:
    assert isinstance(one, np.ndarray)
    assert isinstance(other, np.ndarray)
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    assert np.array_equal(one, other)


def test_every_linkable_htype_is_compared() -> None:
    """The table of this module has each htype that can be linked."""
    assert {htype for htype, _, _ in FILES.values()} == set(LINKABLE)


@pytest.mark.parametrize("name", FILES)
def test_a_linked_file_decodes_like_a_stored_one(name: str, tmp_path: Path) -> None:
    """Dtype, shape and values are the same, of the whole content, of rows, and after pickling."""
    stored, linked = _pair(tmp_path, *FILES[name])
    whole = np.asarray(stored)
    for value in (linked, pickle.loads(pickle.dumps(linked))):
        _same(value.numpy(), whole)
        _same(np.asarray(value), whole)
    if isinstance(stored, dasklake.File):
        file = linked.file()
        _same(file[1:4:2], stored[1:4:2])
        _same(file[-1], stored[-1])
        assert (file.shape, len(file), file.format) == (stored.shape, len(stored), stored.format)
        assert (file.info, file.url) == (stored.info, linked.url)
        assert type(file.open()) is type(stored.open())
        assert linked.bytes() == file.bytes() == stored.bytes()


@pytest.mark.parametrize("name", FILES)
def test_verified_links_know_the_decoded_shape(name: str, tmp_path: Path) -> None:
    """A link that was decoded when it was written has the shape and format of its content."""
    htype, options, data = FILES[name]
    (tmp_path / "file").write_bytes(data)
    schema = {"linked": TensorSpec(f"link[{htype}]", verify="decode", **options)}
    bag = db.from_sequence([{"linked": str(tmp_path / "file")}], npartitions=1)
    dasklake.to_lake(bag, tmp_path / "lake", schema=schema)
    lake = dasklake.open(tmp_path / "lake")
    linked = lake[0]["linked"]
    assert linked.shape == linked.numpy().shape
    assert linked.format == options["compression"]
    assert lake.check_links(decode=True).empty


#: Files of other formats than the ones above, by htype.
OTHERS = {"audio": media.video("mp4"), "video": media.sound("wav"), "dicom": media.nifti()}


@pytest.mark.parametrize("htype", OTHERS)
def test_targets_of_another_kind_are_refused(htype: str, tmp_path: Path) -> None:
    """A target of a format that the htype does not have is an error with a remedy that works."""
    (tmp_path / "file").write_bytes(OTHERS[htype])
    schema = {"linked": TensorSpec(f"link[{htype}]", verify=False)}
    bag = db.from_sequence([{"linked": str(tmp_path / "file")}], npartitions=1)
    dasklake.to_lake(bag, tmp_path / "lake", schema=schema)
    linked = dasklake.open(tmp_path / "lake")[0]["linked"]
    for decode in (linked.numpy, linked.file().numpy, lambda: linked.file().shape):
        with pytest.raises(SampleError, match=f"must be .*{htype}.*got .*link.bytes"):
            decode()
    assert linked.bytes() == OTHERS[htype]
    schema = {"linked": TensorSpec(f"link[{htype}]", verify="decode")}
    with pytest.raises(TransformError, match=r"LinkError: .* must be a file of .*, got "):
        dasklake.to_lake(bag, tmp_path / "decoded", schema=schema)


#: Names of files whose content is cut off, so that decoding fails.
CUT = ["image", "audio as flac", "video as mp4", "dicom", "nifti", "mesh as ply", "point_cloud"]


@pytest.mark.parametrize("name", [*CUT, "image.gray", "turned image"])
def test_damaged_files_have_the_same_error(name: str, tmp_path: Path) -> None:
    """The error of a damaged target is that of a damaged stored file."""
    stored, linked = _pair(tmp_path, *FILES[name])
    data = stored.bytes() if isinstance(stored, dasklake.File) else FILES[name][2]
    (tmp_path / "file").write_bytes(data[: len(data) * 3 // 4])
    options = FILES[name][1]
    codec = codec_for(TensorSpec(FILES[name][0], verify=False, **options))
    errors = []
    for decode in (lambda: np.asarray(codec.decode(codec.encode(tmp_path / "file"))), linked.numpy):
        with pytest.raises(SampleError) as caught:
            decode()
        errors.append(caught.value.message.partition(": ")[0])
    assert errors[0] == errors[1]


def test_frames_and_lists_of_links_decode_their_targets(tmp_path: Path) -> None:
    """Links in frames and in lists decode like those of samples, with the declared dtype."""
    (tmp_path / "file").write_bytes(media.sound("wav"))
    schema = {
        "one": TensorSpec("link[audio]", dtype="float32", verify=False),
        "many": TensorSpec("sequence[link[audio]]", dtype="float32"),
    }
    url = str(tmp_path / "file")
    bag = db.from_sequence([{"one": url, "many": [url, url]}], npartitions=1)
    dasklake.to_lake(bag, tmp_path / "lake", schema=schema)
    lake = dasklake.open(tmp_path / "lake")
    frame = lake.to_dask_dataframe().compute()
    expected = dasklake.File(media.sound("wav"), dtype="float32").numpy()
    for value in (lake[0]["one"], *lake[0]["many"], frame["one"][0], *frame["many"][0]):
        _same(value.numpy(), expected)
