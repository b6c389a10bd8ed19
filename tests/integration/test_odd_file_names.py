"""Names of the user's files and objects are never changed: slashes, colons, percent signs and others."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Literal
from urllib.parse import quote

import dask
import dask.bag as db
import fsspec
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

import dasklake
from dasklake.exceptions import InvalidInputError, LinkError, ObjectNotFoundError, TransformError
from dasklake.sources import coco
from tests.support.s3 import S3Bucket

#: Names in one folder; each of them is another file.
NAMES = [
    *("a.jpg", "a%2Ejpg", "a b.jpg", "a%20b.jpg", "a+b.jpg", "a::b.jpg", "s3::x.jpg"),
    *("a#b.jpg", "a?b.jpg", "a?versionId=1.jpg", "a&b=c.jpg", "[a]*.jpg", "{a}.jpg", "~a.jpg"),
    *("\u00e4\u4e2d.jpg", "sub/a.jpg", "a:b@c.jpg", "a;b.jpg", "a'b\".jpg"),
]

#: Names that only objects can have.
KEYS = ["/a.jpg", "sub//a.jpg", "sub/a.jpg/"]

IMAGES: list[Literal["link", "bytes"]] = ["link", "bytes"]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    with dask.config.set(scheduler="threads"):
        yield


def picture(grey: int, height: int = 6, width: int = 8) -> bytes:
    """Make a picture of one grey."""
    sink = io.BytesIO()
    Image.new("L", (width, height), grey).save(sink, "jpeg", quality=100)
    return sink.getvalue()


def greys(names: list[str]) -> dict[str, int]:
    """Return another grey for each name."""
    return {name: 10 * number for number, name in enumerate(names)}


def document(names: list[str], height: int = 6, width: int = 8) -> dict[str, Any]:
    """Make an annotation file with one annotation per image."""
    size = {"height": height, "width": width}
    outline = {"category_id": 1, "bbox": [1, 1, 2, 2], "segmentation": [[1, 1, 3, 1, 3, 3]]}
    return {
        "images": [{"id": n, "file_name": name, **size} for n, name in enumerate(names)],
        "annotations": [{"id": n, "image_id": n, **outline} for n in range(len(names))],
        "categories": [{"id": 1, "name": "dog"}],
    }


def stored(lake: dasklake.Lake, name: str) -> list[int]:
    """Return the greys of the pictures, of links or stored files."""
    return [round(int(np.asarray(row[name]).flat[0]) / 10) * 10 for row in lake]


def check(folder: str, names: list[str], key: str | None, scratch: Path) -> None:
    """Read each file as a link, as a file, and as an image of COCO in both ways."""
    schema = {
        "link": dasklake.TensorSpec("link[image]", compression="jpeg"),
        "file": dasklake.TensorSpec("image", compression="jpeg"),
    }
    urls = [f"{folder}/{name}" for name in names]
    items = [{"link": dasklake.link(url, key), "file": dasklake.read(url, key)} for url in urls]
    bag = db.from_sequence(items, npartitions=1)
    dasklake.to_lake(bag, scratch / "lake", schema=schema, transform=dict, progress=False)
    lake = dasklake.open(scratch / "lake")
    expected = list(greys(names).values())
    assert stored(lake, "link") == expected
    assert stored(lake, "file") == expected
    index = scratch / "list ::#1.json"
    index.write_text(json.dumps(document(names)))
    for images in IMAGES:
        url = str(scratch / images)
        coco.ingest(str(index), folder, url, images=images, source_options=key, progress=False)
        assert stored(dasklake.open(url), "images") == expected


def test_local_names(tmp_path: Path) -> None:
    """Each local file is read under its own name."""
    folder = tmp_path / "im ::#?%20"
    for name, grey in greys([*NAMES, "a\\b.jpg"]).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(grey))
    check(str(folder), [*NAMES, "a\\b.jpg"], None, tmp_path)


def test_keys_of_objects(s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """Each object is read under its own key, in a folder whose name has empty parts, too."""
    # s3fs reads the version of an object that ?versionId= names.
    names = [*(name for name in NAMES if "versionId" not in name), *KEYS]
    bucket = s3_bucket.url.removeprefix("s3://")
    for name, grey in greys(names).items():
        key = quote(f"im//raw/{name}")
        s3_bucket.server.request("PUT", f"/{bucket}/{key}", picture(grey))
    with dask.config.set({"dasklake.creds.mine": s3_bucket.options}):
        check(f"{s3_bucket.url}/im//raw", names, "mine", tmp_path)
        index = f"{s3_bucket.url}/ann//list::1.json"
        key = quote(f"/{bucket}/ann//list::1.json")
        s3_bucket.server.request("PUT", key, json.dumps(document(["a.jpg"])).encode())
        assert len(coco.read_index(index, storage_options="mine")) == 1
        with pytest.raises(ObjectNotFoundError, match=r"ann/list::1\.json"):
            coco.read_index(f"{s3_bucket.url}/ann/list::1.json", storage_options="mine")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Serve a folder, and return it with its URL."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Print nothing."""

    folder = tmp_path / "site"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_names_on_a_web_server(site: tuple[Path, str], tmp_path: Path) -> None:
    """Question marks and hashes in the file names of an annotation file do not begin a query."""
    folder, url = site
    names = ["a.jpg", "a b.jpg", "a#b.jpg", "a?b.jpg", "\u00e4.jpg", "a::b.jpg", "sub/a.jpg"]
    for name, grey in greys(names).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(picture(grey))
    (folder / "list.json").write_text(json.dumps(document(names)))
    for images in IMAGES:
        lake = str(tmp_path / images)
        coco.ingest(f"{url}/list.json", url, lake, images=images, progress=False)
        assert stored(dasklake.open(lake), "images") == list(greys(names).values())


@pytest.mark.parametrize("images", IMAGES)
def test_other_files_than_those_of_the_folder(
    tmp_path: Path, images: Literal["link", "bytes"]
) -> None:
    """Absolute and relative paths work; folders, missing and impossible names are skipped."""
    (tmp_path / "im/sub").mkdir(parents=True)
    (tmp_path / "im/a.jpg").write_bytes(picture(0))
    (tmp_path / "b.jpg").write_bytes(picture(10))
    wrong = [
        "no.jpg",
        "sub",
        "sub/",
        "n" * 300,
        "a\0b.jpg",
        "a.jpg/b.jpg",
        "/no/such.jpg",
        ".",
        "/",
    ]
    names = ["a.jpg", str(tmp_path / "b.jpg"), "../b.jpg", "./a.jpg", *wrong]
    (tmp_path / "list.json").write_text(json.dumps(document(names)))
    report = coco.ingest(
        str(tmp_path / "list.json"),
        str(tmp_path / "im"),
        str(tmp_path / "lake"),
        images=images,
        on_error="skip",
        max_failures=None,
        allowed_urls=[str(tmp_path)],
        progress=False,
    )
    assert (report.samples, report.failures) == (4, len(wrong))
    lake = dasklake.open(tmp_path / "lake")
    assert stored(lake, "images") == [0, 10, 10, 0]
    assert set(lake.failures()["exception"]) == {"LinkError", "SampleError"}


@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("size", [(8, 6), (6, 9), (60, 80)])
def test_annotated_sizes_must_be_those_of_the_pictures(
    tmp_path: Path, images: Literal["link", "bytes"], size: tuple[int, int]
) -> None:
    """An image with another height or width than its annotations is refused, or skipped."""
    (tmp_path / "a.jpg").write_bytes(picture(0))
    (tmp_path / "b.jpg").write_bytes(picture(10, *size))
    (tmp_path / "list.json").write_text(json.dumps(document(["a.jpg", "b.jpg"])))
    arguments = (str(tmp_path / "list.json"), str(tmp_path))
    message = rf"b\.jpg.* must have 6 x 8 pixels, got {size[0]} x {size[1]}"
    with pytest.raises(TransformError, match=message):
        coco.ingest(*arguments, str(tmp_path / "raised"), images=images, progress=False)
    report = coco.ingest(
        *arguments,
        str(tmp_path / "skipped"),
        images=images,
        on_error="skip",
        max_failures=1,
        progress=False,
    )
    assert (report.samples, report.failures) == (1, 1)
    if images == "link":  # nothing is known about targets that are not verified
        options: dict[str, Any] = {"verify": False, "progress": False}
        assert coco.ingest(*arguments, str(tmp_path / "unchecked"), **options).samples == 2


def test_lists_of_run_lengths_are_joined() -> None:
    """A list of run lengths is the union of its masks, as for annToMask."""
    first = {"size": [6, 8], "counts": [10, 3, 35]}
    second = {"size": [6, 8], "counts": [12, 7, 29]}
    mask = np.zeros((6, 8), np.uint8, order="F")
    mask[0, 5] = 1
    compressed = {"size": [6, 8], "counts": rle.encode(mask)["counts"].decode()}
    for segmentation in ([first], [first, second], [second, compressed]):
        file = document(["a.jpg"])
        file["annotations"][0]["segmentation"] = segmentation
        index = coco.CocoIndex.from_document(file)
        masks = np.asarray(coco.sample(0, coco=index, images="x")["masks"])[:, :, 0]
        api = COCO()
        api.imgs = {0: file["images"][0]}
        # annToMask takes no compressed run lengths in a list.
        file["annotations"][0]["segmentation"] = [
            {"size": [6, 8], "counts": [30, 1, 17]} if part is compressed else part
            for part in segmentation
        ]
        assert np.array_equal(masks, api.annToMask(file["annotations"][0]).astype(bool))


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("images", "height"), 2**40, "pixels"),
        (("annotations", "bbox"), [0, 0, 1e300, 1], "four finite numbers"),
        (("annotations", "bbox"), [0, 0, 10**400, 1], "four finite numbers"),
        (("annotations", "segmentation"), [[10**400] * 6], "must be a list of numbers"),
        (
            ("annotations", "segmentation"),
            [{"size": [6, 8], "counts": [1]}],
            "must cover 48 pixels",
        ),
        (("annotations", "segmentation"), [{"size": [9, 9], "counts": "x"}], r"size \[6, 8\]"),
        (("annotations", "segmentation"), [{"size": [6, 8], "counts": "x"}], "run lengths must be"),
        (("annotations", "segmentation"), [{"size": [6, 8], "counts": "x"}, [1, 2]], "numbers"),
    ],
)
def test_numbers_that_do_not_fit(where: tuple[str, str], value: Any, message: str) -> None:
    """Numbers beyond the stored types, and invalid run lengths, are named errors."""
    file = document(["a.jpg"])
    file[where[0]][0][where[1]] = value
    with pytest.raises(InvalidInputError, match=message):
        coco.CocoIndex.from_document(file)


def test_readers_of_images_hold_no_secrets(tmp_path: Path) -> None:
    """A reader with a callable for credentials calls it in each process, and keeps its values."""
    (tmp_path / "a.jpg").write_bytes(picture(0))
    calls = []

    def options() -> dict[str, Any]:
        calls.append(1)
        return {}

    reader = coco.image_reader(str(tmp_path), options)
    assert reader("a.jpg") == reader("a.jpg") == picture(0)
    assert len(calls) == 1
    with pytest.raises(LinkError, match="is dead"):
        reader("b.jpg")


@pytest.mark.parametrize("folder", ["memory://odd-names", "{tmp}"])
def test_a_slash_at_the_end_is_not_ignored(tmp_path: Path, folder: str) -> None:
    """A name with a slash at its end is not the file without it."""
    folder = folder.format(tmp=tmp_path)
    files, _ = fsspec.url_to_fs(folder)
    files.pipe(f"{folder}/a.jpg", picture(0))
    assert dasklake.read(f"{folder}/a.jpg").bytes() == picture(0)
    with pytest.raises(LinkError, match="ends with a slash"):
        dasklake.read(f"{folder}/a.jpg/").bytes()
