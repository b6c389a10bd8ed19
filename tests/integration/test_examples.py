"""Each example runs as a reader would run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import s3fs

import dasklake
from examples.shapes import ShapeSet
from tests.support.s3 import SECRET, S3Bucket

ROOT = Path(__file__).parents[2]


def run(*arguments: str, **environment: str) -> str:
    """Run Python in the root folder; return its output."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "samples", "prints"),
    [
        ("01_bag_to_lake.py", 100, "[ 1  2  4  7 14 28]"),
        ("02_dataframe_to_lake.py", 1_000, "south"),
        ("03_array_to_lake.py", 1_000, "norms agree: True"),
    ],
)
def test_small_examples_run_twice(name: str, samples: int, prints: str, tmp_path: Path) -> None:
    """An example runs twice with the same URL, and writes a lake."""
    url = str(tmp_path / "lake")
    run(f"examples/{name}", url)
    assert prints in run(f"examples/{name}", url)
    assert len(dasklake.open(url)) == samples


def test_all_examples_are_run() -> None:
    """Every example has a test."""
    scripts = {path.name for path in (ROOT / "examples").glob("*.py")}
    tested = {"01_bag_to_lake.py", "02_dataframe_to_lake.py", "03_array_to_lake.py"}
    modules = {"picture.py", "shapes.py"}
    assert scripts == tested | modules | {"coco_to_lake.py", "compute_coco.py", "demo.py"}


def test_coco_from_bucket_to_bucket(shapes: ShapeSet, s3_bucket: S3Bucket) -> None:
    """The COCO script reads one bucket and writes another; a restart has nothing to do."""
    files = s3fs.S3FileSystem(**s3_bucket.options)
    files.pipe({f"{s3_bucket.url}/images/{name}": data for name, data in shapes.images.items()})
    target: Any = s3_bucket.server.bucket()
    files.pipe(f"{s3_bucket.url}/instances.json", json.dumps(shapes.document).encode())
    arguments = [
        "examples/coco_to_lake.py",
        f"{s3_bucket.url}/instances.json",
        f"{s3_bucket.url}/images",
        f"{target.url}/lake",
        "--npartitions=8",
        "--checkpoint-every=10",
    ]
    environment = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": s3_bucket.options["endpoint_url"],
    }
    assert "100" in run(*arguments, **environment)
    lake = dasklake.open(f"{target.url}/lake", storage_options=target.options)
    assert len(lake) == len(shapes.document["images"])
    run(*arguments, **environment)
    again = dasklake.open(f"{target.url}/lake", storage_options=target.options)
    assert again.version == lake.version


def test_demo_runs_and_cleans_up(tmp_path: Path) -> None:
    """The demo kills, resumes, compares and plots, and removes its temporary folders."""
    picture = tmp_path / "demo.png"
    printed = run("-m", "examples.demo", f"--picture={picture}", TMPDIR=str(tmp_path))
    for sentence in ("SIGKILL", "exactly the last checkpoint", "equal the input", "done"):
        assert sentence in printed
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["demo.png"]
