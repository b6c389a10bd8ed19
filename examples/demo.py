"""Show the whole story in a minute: COCO to a lake, killed half-way, resumed, read back, drawn.

    python -m examples.demo [--picture demo.png]

Everything is real and runs on this machine: an S3 server in its own process, a Dask cluster with
two worker processes, and a SIGKILL to all of them. The data set consists of coloured shapes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import s3fs
from distributed import Client, LocalCluster

import dasklake
from dasklake.exceptions import NotFoundError
from dasklake.sources import coco
from examples.picture import draw_sample
from examples.shapes import ShapeSet, make_shapes, truth

ANNOTATIONS = "s3://source/annotations/instances.json"
IMAGES = "s3://source/images"
LAKE = "s3://lakes/shapes"
COUNT, PARTITIONS, EVERY = 300, 60, 25

#: Start of the demo; the job gets it too, so that all lines share one clock.
_STARTED = float(os.environ.get("DASKLAKE_DEMO_STARTED", time.time()))


def say(text: str) -> None:
    """Print a line with the seconds since the start."""
    print(f"[{time.time() - _STARTED:5.1f} s] {text}", flush=True)


def options_of(endpoint: str) -> dict[str, Any]:
    """Return the storage options of the demo's server."""
    return {"key": "demo", "secret": "demo", "endpoint_url": endpoint}


def ingest(endpoint: str) -> None:
    """Write the lake, as a user would, in a process of its own."""
    options = options_of(endpoint)
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        say(f"  cluster is up, worker processes {sorted(client.run(os.getpid).values())}")
        report = coco.ingest(
            ANNOTATIONS,
            IMAGES,
            LAKE,
            images="bytes",
            npartitions=PARTITIONS,
            checkpoint_every=EVERY,
            run="shapes",
            source_options=options,
            storage_options=options,
        )
        say(f"  {report}")


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Run an S3 server on loopback in its own process; yield its endpoint."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            while True:
                with contextlib.suppress(ConnectionError):
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def upload(shapes: ShapeSet, options: dict[str, Any]) -> None:
    """Upload the annotation file and the images to one bucket; create the other."""
    files = s3fs.S3FileSystem(**options)
    files.mkdir("source")
    files.mkdir("lakes")
    contents = {f"{IMAGES}/{name}": data for name, data in shapes.images.items()}
    files.pipe({ANNOTATIONS: json.dumps(shapes.document).encode(), **contents})


def start_ingest(endpoint: str, folder: str) -> subprocess.Popen[bytes]:
    """Start the job as the leader of a process group: client, scheduler and workers."""
    environment = {
        **os.environ,
        "TMPDIR": folder,
        "DASK_TEMPORARY_DIRECTORY": folder,
        "DASKLAKE_DEMO_STARTED": str(_STARTED),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "examples.demo", "--ingest", endpoint],
        cwd=Path(__file__).parents[1],
        env=environment,
        start_new_session=True,
    )


def wait_for_checkpoints(
    number: int, job: subprocess.Popen[bytes], options: dict[str, Any]
) -> None:
    """Read the lake repeatedly until its log has a number of checkpoints."""
    seen = 0
    while seen < number:
        if job.poll() is not None:
            raise SystemExit(f"the job ended early with exit code {job.returncode}")
        time.sleep(0.02)
        with contextlib.suppress(NotFoundError):
            seen = len(checkpoints(dasklake.open(LAKE, storage_options=options)))


def checkpoints(lake: dasklake.Lake) -> list[Any]:
    """Return the commits that made samples visible, the newest first."""
    return [commit for commit in lake.log() if commit.progress is not None]


def written_by_second_job(options: dict[str, Any]) -> int:
    """Count the partitions whose chunks the second job wrote."""
    files = s3fs.S3FileSystem(**options)
    # A chunk's name is <partition>-<epoch>-<attempt>-<number>.arrow; each job is an epoch.
    names = [path.split("/")[-1].split("-") for path in files.find(f"{LAKE}/data")]
    return len({partition for partition, epoch, *_ in names if epoch == "2"})


def expect(condition: bool, promise: str) -> None:  # noqa: FBT001 # reads like assert
    """End the demo if a promise does not hold."""
    if not condition:
        raise SystemExit(f"not as promised: {promise}")


def compare(lake: dasklake.Lake, shapes: ShapeSet) -> None:
    """Compare every sample with the result of pycocotools."""
    names = lake.schema["categories"].class_names
    expected = truth(shapes.document)
    expect(len(lake) == len(expected), "every sample once")
    for row, record in enumerate(shapes.document["images"]):
        sample, annotation = lake[row], expected[record["id"]]
        data = lake["images"].bytes(row)
        expect(data == shapes.images[record["file_name"]], f"image bytes of sample {row}")
        classes = [names[label] for label in sample["categories"]]
        expect(classes == annotation.names, f"classes of {row}")
        expect(np.array_equal(sample["boxes"], annotation.boxes), f"boxes of {row}")
        expect(np.array_equal(sample["masks"], annotation.masks), f"masks of {row}")
    say(f"all {len(lake)} samples equal the input: JPEG bytes, classes, boxes, every mask pixel")


def draw(lake: dasklake.Lake, path: str) -> None:
    """Draw a sample with many classes and up to eight objects."""
    names = lake.schema["categories"].class_names
    labels = lake["categories"][:40]
    rows = [row for row, classes in enumerate(labels) if len(classes) <= 8]
    row = max(rows, key=lambda row: (len(set(labels[row])), len(labels[row])))
    sample = lake[row]
    draw_sample(
        sample["images"],
        sample["categories"],
        sample["boxes"],
        sample["masks"],
        list(names),
        title=f"{LAKE}, sample {row}: image, and its boxes and masks as read back",
    ).save(path, optimize=True)
    say(f"picture of sample {row}: {path}")


def main(picture: str) -> None:
    """Run the demo."""
    with tempfile.TemporaryDirectory(prefix="dasklake-demo-") as folder, s3_server() as endpoint:
        options = options_of(endpoint)
        say(f"an S3 server is up at {endpoint}")
        shapes = make_shapes(COUNT)
        upload(shapes, options)
        say(f"{COUNT} images, {len(shapes.document['annotations'])} annotations are in s3://source")

        say(f"the job starts: {PARTITIONS} partitions, a checkpoint every {EVERY} samples")
        job = start_ingest(endpoint, folder)
        wait_for_checkpoints(2, job, options)
        os.killpg(job.pid, signal.SIGKILL)
        expect(job.wait() == -signal.SIGKILL, "a return code of -9")
        say("two checkpoints are visible: SIGKILL to client, scheduler and workers")

        lake = dasklake.open(LAKE, storage_options=options)
        last = checkpoints(lake)[0]
        expect(len(lake) == last.progress.inputs, "exactly the last checkpoint")
        expect(0 < len(lake) < COUNT, "a crash half-way")
        checked = sum(sample["masks"].shape[2] for sample in lake)
        say(
            f"a reader sees exactly the last checkpoint: {len(lake)} samples of "
            f"{last.progress.partitions} partitions, all readable ({checked} masks)"
        )

        say("the same job starts again")
        job = start_ingest(endpoint, folder)
        if job.wait():
            raise SystemExit(f"the second job ended with {job.returncode}")
        lake = dasklake.open(LAKE, storage_options=options)
        expect(lake.is_complete, "a complete lake")
        again = written_by_second_job(options)
        say(f"of {PARTITIONS} partitions, the second job wrote {again}")
        expect(
            again <= PARTITIONS - last.progress.partitions, "only missing partitions are written"
        )
        say("the log, newest first:")
        print(lake.log())
        compare(lake, shapes)
        draw(lake, picture)
    say("done")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Show what dasklake does, in a minute.")
    parser.add_argument("--picture", default="demo.png", help="where to write the picture")
    parser.add_argument("--ingest", metavar="ENDPOINT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ingest:
        ingest(arguments.ingest)
    else:
        main(arguments.picture)
