"""``@dasklake.compute`` on real workers: the ported script, local clusters, large arguments."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
import s3fs
from hypothesis import settings

import dasklake
from dasklake.exceptions import TransformError
from examples.shapes import ShapeSet, truth
from tests.integration.test_coco import assert_real
from tests.integration.test_examples import run
from tests.support._heavy import ITEMS, PAUSES
from tests.support.clusters import Stage, StartCluster, kill, start, wait_until
from tests.support.coco import check_shapes
from tests.support.s3 import SECRET, S3Bucket

# Dask's own clusters leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

#: Size of the large argument in bytes; larger in a deep search.
LARGE = 200 * 10**6 if settings.get_current_profile_name() == "deep" else 5 * 10**6


def script(annotations: str, lake: str, *arguments: str, **environment: str) -> str:
    """Run the ported script on two worker processes; return its output."""
    fixed = ("--num-workers=2", "--checkpoint-interval=10")
    images = "s3://source/images"
    environment["DASK_DASKLAKE__CREDS__COCO__ANON"] = "True"
    return run(
        "examples/compute_coco.py", annotations, images, lake, *fixed, *arguments, **environment
    )


def environment(bucket: S3Bucket) -> dict[str, str]:
    """Return the environment variables with which a process can access a bucket."""
    return {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": bucket.options["endpoint_url"],
    }


def test_script_on_s3(shapes: ShapeSet, s3_bucket: S3Bucket) -> None:
    """The ported script writes every image of a bucket; a resume has nothing to do."""
    files = s3fs.S3FileSystem(**s3_bucket.options)
    in_order = sorted(shapes.document["images"], key=lambda image: image["id"])
    document = {**shapes.document, "images": in_order}
    document["categories"] = sorted(document["categories"], key=lambda category: category["id"])
    files.pipe(f"{s3_bucket.url}/instances.json", json.dumps(document).encode())
    target = f"{s3_bucket.url}/lake"
    printed = script(f"{s3_bucket.url}/instances.json", target, **environment(s3_bucket))
    assert "100% progress" in printed
    lake = dasklake.open(target, storage_options=s3_bucket.options)
    assert len(lake) == len(in_order)
    check_shapes(lake, truth(document))
    links = [lake["images"][row].url for row in range(len(lake))]
    assert links == [f"s3://source/images/{image['file_name']}" for image in in_order]
    script(f"{s3_bucket.url}/instances.json", target, "--resume", **environment(s3_bucket))
    assert lake.refresh().commit.totals.samples == len(in_order)


def test_script_on_real_records(coco_dir: Path, tmp_path: Path) -> None:
    """The ported script's real records equal the independently computed facts after reading."""
    name = "instances_68.json"
    source = json.loads((coco_dir / name).read_bytes())
    script(f"file://{coco_dir / name}", str(tmp_path / "lake"))
    lake = dasklake.open(tmp_path / "lake")
    rows = {image["file_name"]: position for position, image in enumerate(source["images"])}
    order = [rows[lake["images"][row].url.rpartition("/")[2]] for row in range(len(lake))]
    assert sorted(order) == list(range(len(source["images"])))
    if order == sorted(order):
        assert_real(lake, coco_dir, name)
    else:
        assert_real(_Sorted(lake, order), coco_dir, name)  # type: ignore[arg-type] # as far as it is used


class _Sorted:
    """A lake with its rows in file order."""

    def __init__(self, lake: dasklake.Lake, order: list[int]) -> None:
        self.schema = lake.schema
        self._rows = {position: row for row, position in enumerate(order)}
        self._lake = lake

    def __getitem__(self, position: int) -> object:
        return self._lake[self._rows[position]]


@dasklake.compute
def pids(sample_in: int, sample_out: dasklake.SampleOut) -> None:
    """Write the process id; fail at the last sample."""
    sample_out.append({"x": 1 // (sample_in - 39) * 0 + sample_in, "pid": os.getpid()})


def test_local_cluster_ends_with_the_call(tmp_path: Path) -> None:
    """``num_workers`` starts processes for the call, which end with it even after an error."""
    lake = dasklake.empty(tmp_path / "lake")
    with lake:
        lake.create_tensor("x", dtype="int64", shape=())
        lake.create_tensor("pid", dtype="int64", shape=())
    with pytest.raises(TransformError):
        pids().eval(range(40), lake, num_workers=2, progressbar=False)
    assert [int(row["x"]) for row in lake] == list(range(39))
    workers = set(map(int, lake["pid"]))
    assert len(workers) == 2
    for pid in workers:
        assert pid != os.getpid()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def arrivals(stage: Stage) -> Counter[int]:
    """Return the bytes of the argument received by each process."""
    received: Counter[int] = Counter()
    for line in (stage.folder / "journal").read_text().splitlines():
        pid, size = map(int, line.split())
        received[pid] += size
    return received


def heavy_lake(stage: Stage) -> dasklake.Lake:
    """Make the lake for a heavy job."""
    lake = dasklake.empty(stage.url)
    with lake:
        lake.create_tensor("x", dtype="int64", shape=())
        lake.create_tensor("size", dtype="int64", shape=())
    return lake


def test_argument_arrives_once(start_cluster: StartCluster, stage: Stage) -> None:
    """A large argument reaches each worker once, with 50 partitions and 10 checkpoints.

    This includes a worker that joins after a kill and after the client has ended.
    """
    cluster = start_cluster(2)
    lake = heavy_lake(stage)
    command = ["-m", "tests.support._heavy", cluster.file, stage.url, str(stage.folder)]
    with (stage.folder / "client.log").open("w") as log:
        job = start(["-W", "ignore", *command, str(LARGE)], output=log)
    cluster.others.append(job)
    stage.reached(PAUSES[0])
    kill(job)
    stage.let_go(PAUSES[0])
    victim = cluster.worker(stage.reached(PAUSES[1]))
    kill(victim)
    cluster.add_worker()
    stage.let_go(PAUSES[1])
    wait_until(lambda: lake.refresh().commit.runs["job"].finished, "the run ends")
    assert [int(row["x"]) for row in lake] == list(range(ITEMS))
    assert set(map(int, lake["size"])) == {LARGE}
    assert len(stage.checkpoints()) >= 5
    received = arrivals(stage)
    workers = [worker.pid for worker in cluster.workers]
    assert [received[pid] for pid in workers[:2]] == [LARGE, LARGE]
    assert received[workers[2]] in (0, LARGE)  # it may have joined too late to get a task
