"""The COCO job end to end: real processes, local disk and S3, generated and real annotations."""

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
from dasklake.exceptions import NotFoundError, PlanMismatchError, TransformError
from dasklake.sources import coco
from examples.shapes import ShapeSet, truth
from tests.support.coco import check_shapes
from tests.support.s3 import S3Bucket

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@dataclass(frozen=True)
class LakeLocation:
    """URL and storage options of a test's lake."""

    url: str
    options: dict[str, Any] | None = field(default=None, repr=False)

    def open(self) -> dasklake.Lake:
        """Open the lake."""
        return dasklake.open(self.url, storage_options=self.options)


@pytest.fixture(params=["local", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> LakeLocation:
    """Return a new location, on a local disk and in a bucket."""
    if request.param == "local":
        return LakeLocation(str(tmp_path / "lake"))
    bucket: S3Bucket = request.getfixturevalue("s3_bucket")
    return LakeLocation(f"{bucket.url}/lake", bucket.options)


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
    """Make a sample; wait at the last one until the gate is open."""
    deadline = time.monotonic() + 60
    while image_id == last and not Path(gate).exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the gate was not opened in time")
        time.sleep(0.01)
    return coco.sample(image_id, coco=coco_index, images=images)


class Watcher:
    """A concurrent reader that opens the gate after enough checkpoints."""

    def __init__(self, location: LakeLocation, gate: Path, enough: int) -> None:
        self.location, self.gate, self.enough = location, gate, enough
        self.seen: list[tuple[int, int]] = []
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        deadline = time.monotonic() + 60
        while len(self.seen) < self.enough and time.monotonic() < deadline:
            try:
                lake = self.location.open()
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
    commits = [commit for commit in lake.log() if commit.progress is not None]
    return sorted(commits, key=lambda commit: commit.version)


def write_held(
    location: LakeLocation, index: coco.CocoIndex, images: Any, gate: Path, **more: Any
) -> Any:
    """Write a lake whose last sample waits at the gate."""
    ids = index.image_ids.tolist()
    return dasklake.to_lake(
        db.from_sequence(ids, partition_size=math.ceil(len(ids) / more.pop("npartitions"))),
        location.url,
        schema=coco.schema(index, "link" if isinstance(images, str) else "bytes", verify=False),
        transform=held_sample,
        transform_kwargs={
            "coco_index": delayed(index, traverse=False),
            "images": images,
            "last": ids[-1],
            "gate": str(gate),
        },
        storage_options=location.options,
        **more,
    )


def test_generated_data_equal_the_annotations(
    client: Client, location: LakeLocation, shapes: ShapeSet, tmp_path: Path
) -> None:
    """Checkpoints are visible during the job; rows, links and masks equal those of the file."""
    index = coco.CocoIndex.from_document(shapes.document)
    watcher = Watcher(location, tmp_path / "gate", 5)
    report = write_held(
        location, index, "s3://b/images", watcher.gate, npartitions=20, checkpoint_every=4
    )
    watcher.thread.join()
    assert watcher.commits >= 5
    lake = location.open()
    assert report.samples == len(lake) == 40
    check_shapes(lake, truth(shapes.document))
    links = [lake["images"][row].url for row in range(len(lake))]
    assert links == [f"s3://b/images/{image['file_name']}" for image in shapes.document["images"]]
    assert checkpoints(lake)[-1].progress.percent == 100


def test_ingest_stores_unchanged_bytes(
    client: Client, location: LakeLocation, shapes: ShapeSet, tmp_path: Path
) -> None:
    """One call stores JPEG bytes unchanged, also gray ones; a second call has nothing to do."""
    (tmp_path / "instances.json").write_text(json.dumps(shapes.document))
    for name, data in shapes.images.items():
        (tmp_path / name).write_bytes(data)
    options: dict[str, Any] = {
        "images": "bytes",
        "npartitions": 8,
        "checkpoint_every": 10,
        "storage_options": location.options,
    }
    arguments = (str(tmp_path / "instances.json"), str(tmp_path), location.url)
    report = coco.ingest(*arguments, **options)
    assert (report.samples, report.partitions) == (40, 8)
    lake = location.open()
    for row, image in enumerate(shapes.document["images"]):
        assert lake["images"].bytes(row) == shapes.images[image["file_name"]]
        assert lake["images"][row].shape[:2] == (image["height"], image["width"])
    assert {lake["images"][row].shape[2] for row in range(len(lake))} == {1, 3}
    check_shapes(lake, truth(shapes.document))
    again = coco.ingest(*arguments, **options)
    assert (again.commits, again.version, again.samples) == (0, report.version, 40)


@pytest.mark.parametrize("how", ["sync", "threads", "processes", "client"])
def test_schedulers_write_the_same_content(
    request: pytest.FixtureRequest, how: str, shapes: ShapeSet, tmp_path: Path
) -> None:
    """Every scheduler and both coordinators write the same content."""
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
    """An index that records each process that receives it."""

    def __init__(self, index: coco.CocoIndex, journal: str) -> None:
        self.index, self.journal = index, journal

    def __reduce__(self) -> tuple[Any, ...]:
        return arrive, (self.index, self.journal)


def arrive(index: coco.CocoIndex, journal: str) -> Traced:
    """Append the process id to the journal."""
    with Path(journal).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return Traced(index, journal)


def traced_sample(image_id: int, *, traced: Traced) -> dict[str, Any]:
    """Make a sample."""
    return coco.sample(image_id, coco=traced.index, images="s3://b/images")


def test_index_arrives_once(client: Client, shapes: ShapeSet, tmp_path: Path) -> None:
    """Each worker process receives the annotation index once, for any number of tasks."""
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


def test_changed_annotations_are_another_input(shapes: ShapeSet, tmp_path: Path) -> None:
    """A run is not continued with an annotation file whose boxes changed, though its images did not."""
    document = json.loads(json.dumps(shapes.document))
    for name, data in shapes.images.items():
        (tmp_path / name).write_bytes(data)
    missing = tmp_path / document["images"][-1]["file_name"]
    data = missing.read_bytes()
    missing.unlink()
    annotations = tmp_path / "instances.json"
    annotations.write_text(json.dumps(document))

    def ingest() -> Any:
        return coco.ingest(
            str(annotations),
            str(tmp_path),
            str(tmp_path / "lake"),
            images="bytes",
            npartitions=4,
            options=WriteOptions(scheduler="sync"),
        )

    with pytest.raises(TransformError):
        ingest()
    missing.write_bytes(data)
    annotations.write_text(json.dumps(document, indent=1))  # the same annotations, formatted
    document["annotations"][0]["bbox"][2] += 1
    unchanged = annotations.read_text()
    annotations.write_text(json.dumps(document))
    with pytest.raises(PlanMismatchError, match="input_id is coco-"):
        ingest()
    annotations.write_text(unchanged)
    assert ingest().samples == 40


def test_missing_image_is_skipped(shapes: ShapeSet, tmp_path: Path) -> None:
    """A missing image file is skipped and named; the remaining images are written."""
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


def test_571_real_records_equal_the_facts(
    client: Client, location: LakeLocation, coco_dir: Path, tmp_path: Path
) -> None:
    """571 real records in 58 partitions equal the independently computed facts after reading."""
    name = "instances_571.json"
    index = coco.read_index(str(coco_dir / name))
    watcher = Watcher(location, tmp_path / "gate", 5)
    report = write_held(
        location, index, "s3://b/train", watcher.gate, npartitions=58, checkpoint_every=50
    )
    watcher.thread.join()
    assert watcher.commits >= 5
    assert (report.samples, report.partitions) == (571, 58)
    lake = location.open()
    assert checkpoints(lake)[-1].progress.percent == 100
    assert len(checkpoints(lake)) >= 10
    assert_real(lake, coco_dir, name)
    links = [lake["images"][row].url for row in range(len(lake))]
    assert links == [f"s3://b/train/{file_name}" for file_name in index.file_names]


def test_68_real_pictures_equal_the_facts(
    client: Client, location: LakeLocation, coco_dir: Path, tmp_path: Path
) -> None:
    """68 real pictures are read back with unchanged bytes and equal facts."""
    name = "instances_68.json"
    index = coco.read_index(str(coco_dir / name))
    reader = coco.image_reader(str(coco_dir / "images"))
    (tmp_path / "gate").touch()
    write_held(location, index, reader, tmp_path / "gate", npartitions=10, checkpoint_every=20)
    lake = location.open()
    for row, file in enumerate(index.file_names):
        assert lake["images"].bytes(row) == (coco_dir / "images" / file).read_bytes()
    assert_real(lake, coco_dir, name)


def assert_real(lake: dasklake.Lake, coco_dir: Path, name: str) -> None:
    """Compare a lake with the facts of the real files and with pycocotools."""
    expected = json.loads((coco_dir / "expectations.json").read_bytes())[name]
    document = json.loads((coco_dir / name).read_bytes())
    names = lake.schema["categories"].class_names
    totals = dict.fromkeys(expected["totals"], 0)
    totals["crowd"] = sum(annotation["iscrowd"] for annotation in document["annotations"])
    checked = 0
    for row, image in enumerate(document["images"]):
        sample = lake[row]
        masks = sample["masks"]
        labels = [names[label] for label in sample["categories"]]
        totals["images"] += 1
        totals["annotations"] += len(labels)
        totals["mask_area"] += int(masks.sum())
        totals["images_without_annotations"] += not labels
        totals["max_annotations"] = max(totals["max_annotations"], len(labels))
        totals["mask_bytes"] += masks.size
        if (want := expected["images"].get(str(image["id"]))) is not None:
            checked += 1
            assert labels == want["categories"]
            assert np.array_equal(sample["boxes"], np.array(want["boxes"], "f4").reshape(-1, 4))
            assert list(masks.shape) == want["mask_shape"]
            assert masks.sum(axis=(0, 1)).tolist() == want["mask_areas"]
            digest = hashlib.sha256(np.ascontiguousarray(masks).view("uint8").tobytes())
            assert digest.hexdigest() == want["masks_sha256"]
    assert totals == expected["totals"]
    assert checked == len(expected["images"])
