"""A storage that throttles, resets connections, loses responses, or denies access during a run."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.bag as db
import pytest
from distributed import Client

import dasklake
from dasklake._api.cli import cli
from dasklake.exceptions import LakeNotFoundError, PermissionDeniedError
from dasklake.sources import coco
from examples.shapes import ShapeSet, truth
from tests.support._work import PATIENCE, SCHEMA, sample
from tests.support.cli import cli_runner
from tests.support.clusters import Stage, check_content, residue, wait_until
from tests.support.coco import check_shapes
from tests.support.proxy import Decide, Fate, Proxy, Request, Weather, fair
from tests.support.s3 import S3Bucket

ITEMS = range(60)

#: Few attempts in s3fs and botocore, so that errors reach our own retries soon.
IMPATIENT = {"config_kwargs": {"read_timeout": 1, "retries": {"total_max_attempts": 1}}}

#: Key prefixes of written objects.
DATA, LOG = "/data/main/", "/_lake/log/main/"


@dataclass(frozen=True)
class Bucket:
    """A lake behind a proxy: the job uses the proxy, the test bypasses it.

    Attributes
    ----------
    proxy : Proxy
        The proxy between job and storage.
    bucket : S3Bucket
        The bucket of the lake.
    """

    proxy: Proxy
    bucket: S3Bucket

    @property
    def url(self) -> str:
        """URL of the lake."""
        return f"{self.bucket.url}/lake"

    @property
    def options(self) -> dict[str, Any]:
        """Storage options that go through the proxy."""
        return {**self.proxy.options, **IMPATIENT}

    def open(self) -> dasklake.Lake:
        """Open the lake, bypassing the proxy."""
        return dasklake.open(self.url, storage_options=self.bucket.options)

    def rows(self) -> int:
        """Return the number of rows of the lake."""
        try:
            return len(self.open())
        except LakeNotFoundError:
            return 0

    def watch(self) -> dict[str, Any]:
        """Call ``dasklake watch --once``."""
        options = [f"-o{name}={value}" for name, value in self.bucket.options.items()]
        result = cli_runner().invoke(cli, ["watch", self.url, "--once", "--json", *options])
        assert result.exit_code == 0, result.output
        return dict(json.loads(result.output))

    def write(self, stage: Stage, client: Client, **more: Any) -> dasklake.WriteReport:
        """Write the items on a cluster, or resume the run."""
        arguments: dict[str, Any] = {
            "schema": SCHEMA,
            "transform": sample,
            "transform_kwargs": {"folder": str(stage.folder)},
            "checkpoint_every": 9,
            "mode": "resume",
            "run": "job",
            "storage_options": self.options,
            "options": dasklake.WriteOptions(scheduler=client),
        }
        bag = db.from_sequence(ITEMS, npartitions=20)
        report = dasklake.to_lake(bag, self.url, **(arguments | more))
        assert isinstance(report, dasklake.WriteReport)
        return report


@pytest.fixture
def bucket(proxy: Proxy, s3_bucket: S3Bucket) -> Bucket:
    """Return an empty bucket behind a proxy."""
    return Bucket(proxy, s3_bucket)


class Gate:
    """A gate that lets some requests pass, then refuses all others until it is opened.

    Parameters
    ----------
    part : str
        Only writes of keys that contain this are refused.
    fate : Fate
        Fate of the refused requests.
    free : int
        Number of requests that pass first.
    most : int or None
        Maximum number of refused requests.
    """

    def __init__(self, part: str, fate: Fate, *, free: int = 0, most: int | None = None) -> None:
        self.part, self.fate, self.free, self.most = part, fate, free, most
        self.refused = 0
        self.opened = False

    def __call__(self, request: Request) -> Fate:
        """Choose the fate of a request."""
        if not request.puts(self.part) or self.opened or self.refused == self.most:
            return Fate.ANSWERED
        if self.free:
            self.free -= 1
            return Fate.ANSWERED
        self.refused += 1
        return self.fate


class LostCreates:
    """Lose the responses to the first attempts of some commits.

    Parameters
    ----------
    weather : callable
        Chooses the fate of all other requests.
    versions : int
        Number of commits, from version 2 on.
    """

    def __init__(self, weather: Decide, versions: int) -> None:
        self.weather = weather
        self.left = {f"{version:020d}.json" for version in range(2, 2 + versions)}
        self.lost = 0

    def __call__(self, request: Request) -> Fate:
        """Choose the fate of a request."""
        name = request.path.rpartition("/")[2]
        if request.puts(LOG) and name in self.left:
            self.left.discard(name)
            self.lost += 1
            return Fate.DROPPED
        return self.weather(request)


def write_coco(bucket: Bucket, client: Client, document: Any, images: Path) -> Any:
    """Write pictures and annotations through a bad network; check that faults occurred."""
    (images / "instances.json").write_text(json.dumps(document))
    weather = LostCreates(Weather(7, slow_down=20, reset=10, dropped=1), 2)
    bucket.proxy.decide = weather
    report = coco.ingest(
        str(images / "instances.json"),
        str(images),
        bucket.url,
        images="bytes",
        npartitions=40,
        checkpoint_every=5,
        storage_options=bucket.options,
        options=dasklake.WriteOptions(scheduler=client),
    )
    counts = bucket.proxy.counts
    share = {fate: counts[fate] / counts.total() for fate in counts}
    assert counts.total() > 60
    assert 0.1 < share[Fate.SLOW_DOWN] < 0.3
    assert 0.03 < share[Fate.RESET] < 0.2
    assert (weather.lost, counts[Fate.DROPPED] >= 2) == (2, True)
    return report


def test_throttled_coco_job_succeeds(
    bucket: Bucket, client: Client, shapes: ShapeSet, tmp_path: Path
) -> None:
    """A job finishes with 20 % of requests refused, 10 % reset and some responses lost."""
    for name, data in shapes.images.items():
        (tmp_path / name).write_bytes(data)
    report = write_coco(bucket, client, shapes.document, tmp_path)
    assert (report.samples, report.partitions, report.failures) == (40, 40, 0)
    lake = bucket.open()
    check_shapes(lake, truth(shapes.document))
    for row, image in enumerate(shapes.document["images"]):
        assert lake["images"].bytes(row) == shapes.images[image["file_name"]]
    assert all(key.startswith("data/") for key in residue(bucket.url, bucket.bucket.options))


def test_throttled_real_coco_job_succeeds(
    bucket: Bucket, client: Client, coco_dir: Path, tmp_path: Path
) -> None:
    """A job with real pictures and annotations finishes on the same network."""
    document = json.loads((coco_dir / "instances_68.json").read_bytes())
    for image in document["images"]:
        name = image["file_name"]
        (tmp_path / name).write_bytes((coco_dir / "images" / name).read_bytes())
    report = write_coco(bucket, client, document, tmp_path)
    assert (report.samples, report.failures) == (68, 0)
    lake = bucket.open()
    check_shapes(lake, truth(document))
    for row, image in enumerate(document["images"]):
        assert lake["images"].bytes(row) == (tmp_path / image["file_name"]).read_bytes()


def test_refused_chunks_are_retried(bucket: Bucket, client: Client, stage: Stage) -> None:
    """If chunks cannot be written, tasks wait and retry the same chunk; no task is repeated."""
    # Two workers; s3fs makes five attempts for each of ours.
    bucket.proxy.decide = gate = Gate(DATA, Fate.SLOW_DOWN, free=6, most=12)
    report = bucket.write(stage, client)
    assert gate.refused == 12
    assert report.samples == 60
    assert stage.executions() == dict.fromkeys(ITEMS, 1)
    check_content(bucket.open(), ITEMS)
    assert residue(bucket.url, bucket.bucket.options) == set()


def test_refused_commits_are_retried(bucket: Bucket, client: Client, stage: Stage) -> None:
    """If commits are refused, tasks continue, the delay is visible, and nothing is lost."""
    bucket.proxy.decide = gate = Gate(LOG, Fate.SLOW_DOWN, free=4)
    reports: list[Any] = []
    thread = threading.Thread(target=lambda: reports.append(bucket.write(stage, client)))
    thread.start()
    try:
        wait_until(lambda: len(stage.executions()) == len(ITEMS), "all tasks run")
        late = wait_until(lambda: _late(bucket.watch()), "the trouble is reported")
        assert late["state"] == "running"
        assert "Please reduce your request rate" in late["trouble"]
        assert (late["written"], late["inputs"]) == (60, bucket.rows())
        assert late["inputs"] < 60
    finally:
        gate.opened = True
        thread.join(PATIENCE)
    assert reports[0].samples == 60
    assert stage.executions() == dict.fromkeys(ITEMS, 1)
    check_content(bucket.open(), ITEMS)
    assert bucket.watch()["trouble"] == ""
    assert residue(bucket.url, bucket.bucket.options) == set()


def _late(seen: dict[str, Any]) -> dict[str, Any] | None:
    return seen if seen["trouble"] and seen["written"] == len(ITEMS) else None


class Session:
    """Storage options with the newest access key from a file."""

    def __init__(self, file: Path, options: dict[str, Any]) -> None:
        self.file, self.options = file, options

    def __call__(self) -> dict[str, Any]:
        """Return the storage options for s3fs."""
        return {**self.options, "key": self.file.read_text()}


class Expiry:
    """Refuse an access key after it has written a number of objects of the lake.

    Parameters
    ----------
    file : Path
        The file of the session's key; the next key is stored before the refusal.
    writes : int
        Number of writes per key.
    """

    def __init__(self, file: Path, writes: int) -> None:
        self.file, self.writes = file, writes
        self.keys = ["key-0"]
        self.left = writes
        file.write_text("key-0")

    def __call__(self, request: Request) -> Fate:
        """Choose the fate of a request."""
        key = request.headers["authorization"].partition("credential=")[2].partition("/")[0]
        if key != self.keys[-1]:
            return Fate.EXPIRED
        if request.puts(DATA):
            self.left -= 1
            if self.left < 0:
                self.keys.append(f"key-{len(self.keys)}")
                self.left = self.writes
                self.file.write_text(self.keys[-1])
                return Fate.EXPIRED
        return Fate.ANSWERED


def test_expired_credentials_are_renewed(bucket: Bucket, client: Client, stage: Stage) -> None:
    """Expired credentials are requested again from the user's function, and the run succeeds."""
    file = stage.folder / "key"
    bucket.proxy.decide = expiry = Expiry(file, writes=6)
    report = bucket.write(stage, client, storage_options=Session(file, bucket.options))
    assert len(expiry.keys) >= 3
    assert (report.samples, report.failures) == (60, 0)
    assert stage.executions() == dict.fromkeys(ITEMS, 1)
    check_content(bucket.open(), ITEMS)


@pytest.mark.parametrize(
    ("part", "free", "fate", "said"),
    [(DATA, 8, Fate.EXPIRED, "expired"), (LOG, 4, Fate.DENIED, "Denied")],
    ids=["data", "log"],
)
def test_lost_access_ends_the_run_and_allows_a_resume(
    bucket: Bucket, client: Client, stage: Stage, fate: Fate, said: str, part: str, free: int
) -> None:
    """Lost or expired access ends the run soon; with restored access it resumes."""
    bucket.proxy.decide = Gate(part, fate, free=free)
    with pytest.raises(PermissionDeniedError, match=said) as caught:
        bucket.write(stage, client)
    text = str(caught.value)
    committed = [row["x"] for row in bucket.open()]
    assert f"Last checkpoint: {len(committed)} samples committed" in text
    assert "mode='resume', run='job'" in text
    assert str(bucket.options["secret"]) not in text
    assert 9 <= len(committed) < 60
    # No sample is computed twice: another attempt would be denied as well.
    assert set(stage.executions().values()) == {1}
    check_content(bucket.open(), sorted(committed))
    assert bucket.watch()["state"] == "stopped"

    bucket.proxy.decide = fair
    bucket.open().reset()
    # The segment of the refused commit remains until a vacuum.
    leftovers = residue(bucket.url, bucket.bucket.options)
    assert len(leftovers) == (part == LOG)
    assert all(key.startswith("_lake/segments/") for key in leftovers)
    stage.forget_executions()
    bucket.write(stage, client)
    check_content(bucket.open(), ITEMS)
    assert stage.executions() == dict.fromkeys(set(ITEMS) - set(committed), 1)
    assert residue(bucket.url, bucket.bucket.options) == leftovers
