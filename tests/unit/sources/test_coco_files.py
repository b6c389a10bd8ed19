"""Test the names of image files: paths and URLs inside the allowed folders, or failures of images."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from dasklake.exceptions import InvalidInputError, SampleError
from dasklake.sources import coco
from dasklake.sources._coco_files import ImageFolder

LOCAL, BUCKET, WEB = "file:///data/im", "s3://b/raw//im", "http://host/im"


@pytest.mark.parametrize(
    ("folder", "name", "url"),
    [
        (LOCAL, "a.jpg", "file:///data/im/a.jpg"),
        (LOCAL, "sub dir/ü b.jpg", "file:///data/im/sub dir/ü b.jpg"),
        (LOCAL, "a#1?x=%20.jpg", "file:///data/im/a#1?x=%20.jpg"),
        (LOCAL, "a::b.jpg", "file:///data/im/a::b.jpg"),
        (LOCAL, "./a.jpg", "file:///data/im/a.jpg"),
        (LOCAL, "sub/../a.jpg", "file:///data/im/a.jpg"),
        (LOCAL, "../im/a.jpg", "file:///data/im/a.jpg"),
        (LOCAL, "..a.jpg", "file:///data/im/..a.jpg"),
        (LOCAL, "~/a.jpg", "file:///data/im/~/a.jpg"),
        (LOCAL, "/data/im/a.jpg", "file:///data/im/a.jpg"),
        (LOCAL, "//data//im//a.jpg", "file:///data/im/a.jpg"),
        (LOCAL, "file:///data/im/sub/a.jpg", "file:///data/im/sub/a.jpg"),
        (LOCAL, "s3://more/x/a.jpg", "s3://more/x/a.jpg"),
        (LOCAL, "/more/a.jpg", "file:///more/a.jpg"),
        ("/", "data/a.jpg", "file:///data/a.jpg"),
        (BUCKET, "a.jpg", "s3://b/raw//im/a.jpg"),
        (BUCKET, "sub//a#?.jpg", "s3://b/raw//im/sub//a#?.jpg"),
        (BUCKET, "s3://b/raw//im/a.jpg", "s3://b/raw//im/a.jpg"),
        (BUCKET, "../im/a.jpg", "s3://b/raw//im/a.jpg"),
        (BUCKET, "/etc/passwd", "s3://b/raw//im//etc/passwd"),
        (BUCKET, "/more/a.jpg", "file:///more/a.jpg"),
        (WEB, "a.jpg", "http://host/im/a.jpg"),
        (WEB, "/etc/passwd", "http://host/im//etc/passwd"),
        (LOCAL, "../../more/a.jpg", "file:///more/a.jpg"),
        (LOCAL, "/data/im/", None),
        *[(LOCAL, name, None) for name in ("/etc/passwd", "/", "/data/im", "/data/im/../secret")],
        (WEB, "sub/a b#1?x=%20.jpg", "http://host/im/sub/a%20b%231%3Fx=%2520.jpg"),
        (WEB, "%2e%2e/a.jpg", None),
        (WEB, "http://host/im/a.jpg?size=1", "http://host/im/a.jpg?size=1"),
        ("zip://im::s3://b/x.zip", "a.jpg", "zip://im/a.jpg::s3://b/x.zip"),
        ("zip://::s3://b/x.zip", "a.jpg", "zip://a.jpg::s3://b/x.zip"),
        ("simplecache::s3://b/im", "a.jpg", "simplecache::s3://b/im/a.jpg"),
        *[
            (folder, name, None)
            for folder in (LOCAL, BUCKET, WEB)
            for name in (
                *("../a.jpg", "sub/../../a.jpg", "../../../../../etc/passwd", "../im-2/a.jpg"),
                *("file:///etc/passwd", "file:///data/im/../secret", "file://data/im/a"),
                *("http://169.254.169.254/latest/meta-data", "https://host/im/a.jpg", "ftp://h/x"),
                *("s3://other/a.jpg", "s3://more/x/../y/a.jpg", "s3://more/x/%2e%2e/y/a.jpg"),
                *(
                    "http://host/im/../a.jpg",
                    "http://host/im/%2e%2E/a.jpg",
                    "http://host/im/..%2fa",
                ),
                *("http://host.evil/im/a.jpg", "http://user@host/im/a.jpg", "http://host/im/..\\a"),
                *("simplecache::file:///etc/passwd", "zip://a::/data/im/x.zip", "x::s3://o/a.jpg"),
                *("a\0.jpg", "n" * 2000, ".", "..", "://"),
            )
        ],
    ],
)
def test_locations(folder: str, name: str, url: str | None) -> None:
    """A name leads to a file in the folder or below an allowed URL, or is a failure of its image."""
    images = ImageFolder(folder, ["s3://more/x/", "/more"])
    if url is not None:
        assert images.locate(name).url == url
        return
    with pytest.raises(SampleError, match="file name"):
        images.locate(name)


def test_remedy_for_other_folders() -> None:
    """The argument that the message proposes makes the name valid."""
    with pytest.raises(SampleError, match="allowed_urls"):
        ImageFolder(LOCAL).locate("http://images.cocodataset.org/val2017/1.jpg")
    images = ImageFolder(LOCAL, ["http://images.cocodataset.org"])
    url = "http://images.cocodataset.org/val2017/1.jpg"
    assert images.locate(url).url == url
    text: Any = "http://images.cocodataset.org"
    with pytest.raises(InvalidInputError, match="must be a list of URLs"):
        ImageFolder(LOCAL, text)


@pytest.mark.parametrize(
    ("folder", "other", "sent"),
    [
        (LOCAL, "/more/a.jpg", True),
        (BUCKET, "s3://more/x/a.jpg", True),
        (BUCKET, "http://host/im/a.jpg", False),
        (WEB, "s3://more/x/a.jpg", False),
        (WEB, "http://elsewhere/a.jpg", False),
        (WEB, "http://host/im/a.jpg", True),
    ],
)
def test_credentials_stay_with_their_storage(folder: str, other: str, sent: bool) -> None:  # noqa: FBT001 # a table
    """Credentials of the folder are not sent to other hosts and storages."""
    allowed = ["s3://more/x", "/more", "http://host/im", "http://elsewhere"]
    images = ImageFolder(folder, allowed)
    assert images.has_credentials_of(images.locate(other)) is sent


def picture() -> bytes:
    """Make a small PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name", ["a.png", "sub/b#?.png", "c%20d.png", "e::f.png", "ü.png", "sub/../a.png"]
)
def test_read_odd_names(name: str, tmp_path: Path) -> None:
    """Files with odd names are read from a disk, from memory and from an archive."""
    data = picture()
    target = tmp_path / "im" / name
    (tmp_path / "im" / "sub").mkdir(parents=True)
    target.write_bytes(data)
    assert coco.image_reader(str(tmp_path / "im"))(name) == data
    memory = f"memory://{tmp_path.name}/im"
    kept = name.replace("sub/../", "")
    fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/im/{kept}", data)
    if "::" in name:
        return  # fsspec's memory and archives do not have such names
    assert coco.image_reader(memory)(name) == data
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(f"im/{kept}", data)
    archived = f"zip://im::file://{tmp_path}/x.zip"
    assert pickle.loads(pickle.dumps(coco.image_reader(archived)))(name) == data


@pytest.mark.parametrize("name", ["missing.png", "sub", "n" * 300, "sub/a.png/b.png", "../x.png"])
def test_unreadable_names(name: str, tmp_path: Path) -> None:
    """A name that cannot be read is a failure of its image."""
    (tmp_path / "im" / "sub").mkdir(parents=True)
    (tmp_path / "im" / "sub" / "a.png").write_bytes(picture())
    with pytest.raises(SampleError):
        coco.image_reader(str(tmp_path / "im"))(name)
