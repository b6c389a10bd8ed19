"""The COCO job from end to end: real processes, local and S3, generated and real annotations."""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import numpy as np
import pytest
from dask.delayed import delayed
from distributed import Client, LocalCluster

import dasklake
from dasklake._api.write import WriteOptions
from dasklake.exceptions import NotFoundError
from dasklake.sources import coco
from examples.shapes import ShapeSet, truth
from tests.support.coco import check_shapes
from tests.support.s3 import S3Bucket

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@dataclass(frozen=True)
class Place:
    """Where a lake of a test lies."""

    url: str
    options: dict[str, Any] | None = field(default=None, repr=False)

    def open(self) -> dasklake.Lake:
        """Open the lake."""
        return dasklake.open(self.url, storage_options=self.options)


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return a new place on a local disk and in a bucket."""
    if request.param == "local":
        return Place(str(tmp_path / "lake"))
    bucket: S3Bucket = request.getfixturevalue("s3_bucket")
    return Place(f"{bucket.url}/lake", bucket.options)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Run a cluster of two worker processes."""
    with (
        dask.config.set({"temporary-directory": str(tmp_path_factory.mktemp("dask"))}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        yield client


def held_sample(
    image_id: int, *, coco_index: coco.CocoIndex, images: Any, last: int, gate: str
) -> dict[str, Any]:
    """Make a sample; the last one only when the gate is open."""
    deadline = time.monotonic() + 60
    while image_id == last and not Path(gate).exists():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody opened the gate")
        time.sleep(0.01)
    return coco.sample(image_id, coco=coco_index, images=images)


class Watcher:
    """A reader beside the job: opens the gate when it has seen enough checkpoints."""

    def __init__(self, place: Place, gate: Path, enough: int) -> None:
        self.place, self.gate, self.enough = place, gate, enough
        self.seen: list[tuple[int, int]] = []
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        deadline = time.monotonic() + 60
        while len(self.seen) < self.enough and time.monotonic() < deadline:
            try:
                lake = self.place.open()
            except NotFoundError:
                continue
            commits = checkpoints(lake)
            if commits and commits[-1].version not in dict(self.seen):
                lake[len(lake) - 1]
                self.seen.append((commits[-1].version, len(lake)))
            if len(commits) >= self.enough:
                break
        self.commits = len(commits)
        self.gate.touch()


def checkpoints(lake: dasklake.Lake) -> list[Any]:
    """Return the commits that made samples visible, oldest first."""
    found = [commit for commit in lake.log() if commit.progress is not None]
    return sorted(found, key=lambda commit: commit.version)


def write_held(place: Place, index: coco.CocoIndex, images: Any, gate: Path, **more: Any) -> Any:
    """Write the lake with a last sample that waits at the gate."""
    ids = index.image_ids.tolist()
    return dasklake.to_lake(
        db.from_sequence(ids, partition_size=math.ceil(len(ids) / more.pop("npartitions"))),
        place.url,
        schema=coco.schema(index, "link" if isinstance(images, str) else "bytes", verify=False),
        transform=held_sample,
        transform_kwargs={
            "coco_index": delayed(index, traverse=False),
            "images": images,
            "last": ids[-1],
            "gate": str(gate),
        },
        storage_options=place.options,
        **more,
    )


def test_generated(client: Client, place: Place, shapes: ShapeSet, tmp_path: Path) -> None:
    """Checkpoints are visible while the job runs; rows, links and masks are those of the file."""
    index = coco.CocoIndex.from_document(shapes.document)
    watcher = Watcher(place, tmp_path / "gate", 5)
    report = write_held(
        place, index, "s3://b/images", watcher.gate, npartitions=20, checkpoint_every=4
    )
    watcher.thread.join()
    assert watcher.commits >= 5
    lake = place.open()
    assert report.samples == len(lake) == 40
    check_shapes(lake, truth(shapes.document))
    links = [lake["images"][row].url for row in range(len(lake))]
    assert links == [f"s3://b/images/{each['file_name']}" for each in shapes.document["images"]]
    assert checkpoints(lake)[-1].progress.percent == 100


def test_ingest(client: Client, place: Place, shapes: ShapeSet, tmp_path: Path) -> None:
    """The job as one call: JPEG bytes unchanged, a gray one too; once more, nothing to do."""
    (tmp_path / "instances.json").write_text(json.dumps(shapes.document))
    for name, data in shapes.images.items():
        (tmp_path / name).write_bytes(data)
    options: dict[str, Any] = {
        "images": "bytes",
        "npartitions": 8,
        "checkpoint_every": 10,
        "storage_options": place.options,
    }
    arguments = (str(tmp_path / "instances.json"), str(tmp_path), place.url)
    report = coco.ingest(*arguments, **options)
    assert (report.samples, report.partitions) == (40, 8)
    lake = place.open()
    for row, image in enumerate(shapes.document["images"]):
        assert lake["images"].bytes(row) == shapes.images[image["file_name"]]
        assert lake["images"][row].shape[:2] == (image["height"], image["width"])
    assert {lake["images"][row].shape[2] for row in range(len(lake))} == {1, 3}
    check_shapes(lake, truth(shapes.document))
    again = coco.ingest(*arguments, **options)
    assert (again.commits, again.version, again.samples) == (0, report.version, 40)


@pytest.mark.parametrize("how", ["sync", "threads", "processes", "client"])
def test_schedulers(
    request: pytest.FixtureRequest, how: str, shapes: ShapeSet, tmp_path: Path
) -> None:
    """Every scheduler and both coordinators give the same content."""
    if how == "client":
        request.getfixturevalue("client")
        more: dict[str, Any] = {"coordinator": "client"}
    else:
        more = {"options": WriteOptions(scheduler=how)}
    (tmp_path / "instances.json").write_text(json.dumps(shapes.document))
    url = str(tmp_path / "lake")
    report = coco.ingest(
        str(tmp_path / "instances.json"),
        "s3://b/images",
        url,
        verify=False,
        npartitions=20,
        checkpoint_every=8,
        **more,
    )
    assert report.commits >= 2
    lake = dasklake.open(url)
    check_shapes(lake, truth(shapes.document))
    assert checkpoints(lake)[-1].progress.percent == 100


class Traced:
    """An index that writes down each process it arrives in."""

    def __init__(self, index: coco.CocoIndex, journal: str) -> None:
        self.index, self.journal = index, journal

    def __reduce__(self) -> tuple[Any, ...]:
        return arrive, (self.index, self.journal)


def arrive(index: coco.CocoIndex, journal: str) -> Traced:
    """Append the process to the journal."""
    with Path(journal).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return Traced(index, journal)


def traced_sample(image_id: int, *, traced: Traced) -> dict[str, Any]:
    """Make a sample."""
    return coco.sample(image_id, coco=traced.index, images="s3://b/images")


def test_index_arrives_once(client: Client, shapes: ShapeSet, tmp_path: Path) -> None:
    """Each worker process gets the annotation index once, however many tasks it runs."""
    index = coco.CocoIndex.from_document(shapes.document)
    journal = tmp_path / "journal"
    dasklake.to_lake(
        db.from_sequence(index.image_ids.tolist(), npartitions=20),
        str(tmp_path / "lake"),
        schema=coco.schema(index, verify=False),
        transform=traced_sample,
        transform_kwargs={"traced": delayed(Traced(index, str(journal)), traverse=False)},
        checkpoint_every=4,
    )
    arrivals = Counter(map(int, journal.read_text().split()))
    assert [arrivals[pid] for pid in client.run(os.getpid).values()] == [1, 1]


def test_skipped_image(shapes: ShapeSet, tmp_path: Path) -> None:
    """An image file that is not there is skipped and named; the others are written."""
    (tmp_path / "instances.json").write_text(json.dumps(shapes.document))
    for name, data in shapes.images.items():
        (tmp_path / name).write_bytes(data)
    lost = shapes.document["images"][11]
    (tmp_path / lost["file_name"]).unlink()
    report = coco.ingest(
        str(tmp_path / "instances.json"),
        str(tmp_path),
        str(tmp_path / "lake"),
        images="bytes",
        npartitions=4,
        on_error="skip",
        options=WriteOptions(scheduler="sync"),
    )
    assert (report.samples, report.failures) == (39, 1)
    failures = dasklake.open(str(tmp_path / "lake")).failures()
    assert (failures["item"].tolist(), failures["index"].tolist()) == ([str(lost["id"])], [11])
    assert lost["file_name"] in failures["message"][0]


def test_real_571(client: Client, place: Place, coco_dir: Path, tmp_path: Path) -> None:
    """571 real records, 58 partitions: every fact computed apart holds after reading back."""
    name = "instances_571.json"
    index = coco.read_index(str(coco_dir / name))
    watcher = Watcher(place, tmp_path / "gate", 5)
    report = write_held(
        place, index, "s3://b/train", watcher.gate, npartitions=58, checkpoint_every=50
    )
    watcher.thread.join()
    assert watcher.commits >= 5
    assert (report.samples, report.partitions) == (571, 58)
    lake = place.open()
    assert checkpoints(lake)[-1].progress.percent == 100
    assert len(checkpoints(lake)) >= 10
    assert_real(lake, coco_dir, name)
    links = [lake["images"][row].url for row in range(len(lake))]
    assert links == [f"s3://b/train/{each}" for each in index.file_names]


def test_real_68(client: Client, place: Place, coco_dir: Path, tmp_path: Path) -> None:
    """68 real pictures come back with their bytes unchanged, beside every other fact."""
    name = "instances_68.json"
    index = coco.read_index(str(coco_dir / name))
    reader = coco.image_reader(str(coco_dir / "images"))
    (tmp_path / "gate").touch()
    write_held(place, index, reader, tmp_path / "gate", npartitions=10, checkpoint_every=20)
    lake = place.open()
    for row, file in enumerate(index.file_names):
        assert lake["images"].bytes(row) == (coco_dir / "images" / file).read_bytes()
    assert_real(lake, coco_dir, name)


def assert_real(lake: dasklake.Lake, coco_dir: Path, name: str) -> None:
    """Hold a lake against the facts beside the real files, and all of it against pycocotools."""
    expected = json.loads((coco_dir / "expectations.json").read_bytes())[name]
    document = json.loads((coco_dir / name).read_bytes())
    names = lake.schema["categories"].class_names
    totals = dict.fromkeys(expected["totals"], 0)
    totals["crowd"] = sum(each["iscrowd"] for each in document["annotations"])
    checked = 0
    for row, image in enumerate(document["images"]):
        found = lake[row]
        masks = found["masks"]
        labels = [names[label] for label in found["categories"]]
        totals["images"] += 1
        totals["annotations"] += len(labels)
        totals["mask_area"] += int(masks.sum())
        totals["images_without_annotations"] += not labels
        totals["max_annotations"] = max(totals["max_annotations"], len(labels))
        totals["mask_bytes"] += masks.size
        if (want := expected["images"].get(str(image["id"]))) is not None:
            checked += 1
            assert labels == want["categories"]
            assert np.array_equal(found["boxes"], np.array(want["boxes"], "f4").reshape(-1, 4))
            assert list(masks.shape) == want["mask_shape"]
            assert masks.sum(axis=(0, 1)).tolist() == want["mask_areas"]
            digest = hashlib.sha256(np.ascontiguousarray(masks).view("uint8").tobytes())
            assert digest.hexdigest() == want["masks_sha256"]
    assert totals == expected["totals"]
    assert checked == len(expected["images"])
