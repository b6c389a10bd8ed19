"""Links that are verified while they are written: over the web, S3 and a disk."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import numpy as np
import pandas as pd
import pytest
import s3fs
from PIL import Image

import dasklake
from dasklake._links import link_target
from dasklake._links.limits import PER_HOST
from dasklake._storage.retry import RetryPolicy
from dasklake.exceptions import (
    InvalidInputError,
    LinkError,
    PermissionDeniedError,
    RunFailedError,
    StoreError,
    TransformError,
    VersionNotFoundError,
)
from tests.benchmarks import links as bench
from tests.support.s3 import S3Bucket
from tests.support.web import Web, web_server

SPEC = dasklake.TensorSpec("link[image]", compression="jpeg")
SCHEMA = {"image": SPEC, "n": dasklake.TensorSpec(dtype="int64", shape=())}


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    with dask.config.set(scheduler="threads"):
        yield


def sample(item: tuple[int, str]) -> dict[str, Any]:
    """Make a sample of a number and a URL."""
    return {"image": dasklake.link(item[1]), "n": item[0]}


def keyed_sample(item: tuple[int, str]) -> dict[str, Any]:
    """Make a sample of a number and a URL that is read with a credentials key."""
    return {"image": dasklake.link(item[1], "vault"), "n": item[0]}


def write(lake: Path | str, urls: list[str], **more: Any) -> dasklake.WriteReport:
    """Write links in two partitions."""
    report: dasklake.WriteReport = dasklake.to_lake(
        db.from_sequence(list(enumerate(urls)), npartitions=2),
        str(lake),
        **{"schema": SCHEMA, "transform": sample, "progress": False, **more},
    )
    return report


def test_wrong_links_fail_with_their_reason(web: Web, tmp_path: Path) -> None:
    """Each dead, non-image, empty or truncated link fails alone, with its reason."""
    kinds = ["good", "dead", "small", "text", "plain", "cut", "busy", "empty", "gone", "good"]
    report = write(
        tmp_path / "lake",
        [f"{web.url}/{kind}/{n}.jpg" for n, kind in enumerate(kinds)],
        on_error="skip",
        max_failures=None,
    )
    assert (report.samples, report.failures) == (5, 5)
    lake = dasklake.open(tmp_path / "lake")
    assert [int(row["n"]) for row in lake] == [0, 2, 4, 6, 9]
    failures = lake.failures()
    assert failures["index"].tolist() == [1, 3, 5, 7, 8]
    assert set(failures["exception"]) == {"LinkError"}
    assert set(failures["tensor"]) == {"image"}
    reasons = ["is dead", "is not an image", "is truncated", "is empty", "is dead"]
    for reason, message in zip(reasons, failures["message"], strict=True):
        assert reason in message
    assert np.array(lake["image"].shapes()).tolist() == [
        [240, 320, 3],
        [20, 30, 3],
        *[[240, 320, 3]] * 3,
    ]


def test_reading_needs_no_request(web: Web, tmp_path: Path) -> None:
    """Shapes, sizes, etags and formats are stored; only bytes and pixels are fetched."""
    write(tmp_path / "lake", [f"{web.url}/good/{n}" for n in range(4)])
    before = web.requests()
    lake = dasklake.open(tmp_path / "lake")
    link = lake[1]["image"]
    assert (link.url, link.shape) == (f"{web.url}/good/1", (240, 320, 3))
    assert (link.format, link.etag) == ("jpeg", "good")
    assert np.array(lake["image"].shapes()).shape == (4, 3)
    assert lake.to_dask_dataframe().compute()["image"].tolist()[3].url.endswith("/good/3")
    assert web.requests() == before
    assert link.numpy().shape == (240, 320, 3)
    assert len(link.bytes()) == link.size
    assert web.requests() == before + 2


def test_unverified_links_need_no_request(web: Web, tmp_path: Path) -> None:
    """With verify=False no target is requested, none of its metadata is stored, and dead links pass."""
    spec = dasklake.TensorSpec("link[image]", verify=False)
    before = web.requests()
    write(tmp_path / "lake", [f"{web.url}/dead/1"] * 3, schema={**SCHEMA, "image": spec})
    assert web.requests() == before
    lake = dasklake.open(tmp_path / "lake")
    assert lake[0]["image"].shape is None
    with pytest.raises(InvalidInputError, match="verify=True"):
        lake["image"].shapes()
    with pytest.raises(LinkError, match="is dead"):
        lake[0]["image"].numpy()


@pytest.mark.parametrize("shape", [True, False])
@pytest.mark.parametrize("info", [True, False])
def test_links_are_verified_without_stored_metadata(
    web: Web, tmp_path: Path, *, shape: bool, info: bool
) -> None:
    """Links are verified even if their shape, or their size and etag, is not stored."""
    spec = dasklake.TensorSpec(
        "link[image]", create_shape_tensor=shape, create_sample_info_tensor=info
    )
    schema = {**SCHEMA, "image": spec}
    write(tmp_path / "lake", [f"{web.url}/good/{n}" for n in range(2)], schema=schema)
    link = dasklake.open(tmp_path / "lake")[1]["image"]
    assert (link.shape is not None, link.etag is not None) == (shape, info)
    with pytest.raises(TransformError, match="is dead"):
        write(tmp_path / "other", [f"{web.url}/dead/1"], schema=schema)


def test_verify_decode_detects_a_damaged_middle(tmp_path: Path) -> None:
    """A file with valid ends and a damaged middle is detected by verify="decode"."""
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8)).save(
        sink, "png"
    )
    data = bytearray(sink.getvalue())
    data[len(data) // 2] ^= 255
    (tmp_path / "bad.png").write_bytes(data)
    urls = [str(tmp_path / "bad.png")]
    spec = dasklake.TensorSpec("link[image]", compression="png")
    assert write(tmp_path / "quick", urls, schema={**SCHEMA, "image": spec}).samples == 1
    spec = dasklake.TensorSpec("link[image]", compression="png", verify="decode")
    with pytest.raises(TransformError, match="truncated or damaged"):
        write(tmp_path / "whole", urls, schema={**SCHEMA, "image": spec})


def test_pictures_of_another_shape_fail(web: Web, tmp_path: Path) -> None:
    """If the tensor declares a shape, a target with another shape fails."""
    spec = dasklake.TensorSpec("link[image]", shape=(240, 320, 3))
    schema = {**SCHEMA, "image": spec}
    write(tmp_path / "lake", [f"{web.url}/good/1"], schema=schema)
    with pytest.raises(TransformError, match=r"got \(20, 30, 3\)"):
        write(tmp_path / "other", [f"{web.url}/good/1", f"{web.url}/small/1"], schema=schema)


def failing(item: tuple[int, str]) -> dict[str, Any]:
    """Fail at every seventh number."""
    if item[0] % 7 == 3:
        raise ValueError(f"no {item[0]}")
    return sample(item)


def test_the_first_failure_ends_the_run(web: Web, tmp_path: Path) -> None:
    """A dead link is reported before the error of a later sample, even if that error came first."""
    urls = [f"{web.url}/{'dead' if n == 1 else 'good'}/{n}" for n in range(4)]
    with dask.config.set(scheduler="sync"), pytest.raises(TransformError) as raised:
        dasklake.to_lake(
            db.from_sequence(list(enumerate(urls)), npartitions=1),
            str(tmp_path / "lake"),
            schema=SCHEMA,
            transform=failing,
            progress=False,
        )
    assert raised.value.position == 1
    assert isinstance(raised.value.__cause__, LinkError)


def test_rows_and_failures_keep_the_input_order(web: Web, tmp_path: Path) -> None:
    """With more links than the look-ahead, rows and failures keep the input order."""
    count = 700
    urls = [f"{web.url}/{'dead' if n % 10 == 5 else 'small'}/{n}" for n in range(count)]
    report = write(tmp_path / "lake", urls, transform=failing, on_error="skip", max_failures=None)
    lost = [n for n in range(count) if n % 10 == 5 or n % 7 == 3]
    lake = dasklake.open(tmp_path / "lake")
    failures = lake.failures()
    for _, failures_of_partition in failures.groupby("partition"):
        assert failures_of_partition["position"].is_monotonic_increasing
    assert sorted(failures["index"]) == lost
    assert [int(row["n"]) for row in lake] == [n for n in range(count) if n not in lost]
    assert (report.samples, report.failures) == (count - len(lost), len(lost))


def reused(item: tuple[int, str], *, buffer: list[np.ndarray[Any, Any]]) -> dict[str, Any]:
    """Reuse one array for every sample."""
    buffer[0][...] = item[0]
    return {"image": dasklake.link(item[1]), "n": item[0], "array": buffer[0]}


@pytest.mark.parametrize("shape", [(3,), (None,)])
def test_queued_samples_are_copied(web: Web, tmp_path: Path, shape: tuple[int | None, ...]) -> None:
    """Later changes of a transform to its arrays do not change queued samples."""
    schema = {**SCHEMA, "array": dasklake.TensorSpec(dtype="int64", shape=shape)}
    with dask.config.set(scheduler="sync"):
        write(
            tmp_path / "lake",
            [f"{web.url}/small/{n}" for n in range(50)],
            schema=schema,
            transform=reused,
            transform_kwargs={"buffer": [np.zeros(3, "int64")]},
        )
    arrays = [row["array"].tolist() for row in dasklake.open(tmp_path / "lake")]
    assert arrays == [[n, n, n] for n in range(50)]


def test_refusals_end_the_run(web: Web, tmp_path: Path) -> None:
    """A link with a credentials key to which access is denied is never skipped."""
    urls = [f"{web.url}/good/1", f"{web.url}/denied/2"]
    with (
        dask.config.set({"dasklake.creds.vault": {}}),
        pytest.raises((RunFailedError, StoreError)) as raised,
    ):
        write(tmp_path / "lake", urls, transform=keyed_sample, on_error="skip", max_failures=None)
    chain = [raised.value, raised.value.__cause__]
    assert any(isinstance(error, PermissionDeniedError) for error in chain)
    assert "'vault'" in "".join(map(str, chain))


def test_storage_that_is_down_ends_the_run(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests to a busy storage are retried; one that stays busy ends the run, even with skipping."""
    monkeypatch.setattr(link_target, "_RETRIES", RetryPolicy(seconds=3.0, first=0.001))
    with dask.config.set({"dasklake.creds.vault": {}}):
        write(tmp_path / "busy", [f"{web.url}/busy/a{n}" for n in range(3)], transform=keyed_sample)
    with (
        dask.config.set({"dasklake.creds.vault": {}}),
        pytest.raises((RunFailedError, StoreError)) as raised,
    ):
        write(
            tmp_path / "lake",
            [f"{web.url}/down/1"],
            transform=keyed_sample,
            on_error="skip",
            max_failures=None,
            options=dasklake.WriteOptions(retries=0),
        )
    assert "503" in "".join(map(str, [raised.value, raised.value.__cause__]))


def test_links_to_s3_use_the_credentials_of_their_key(s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """Objects are verified with the credentials of their key; etag and size are those of S3."""
    files = s3fs.S3FileSystem(**s3_bucket.options)
    sink = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    Image.fromarray(noise).save(sink, "jpeg")
    data = sink.getvalue()
    files.pipe(f"{s3_bucket.url}/a.jpg", data)
    files.pipe(f"{s3_bucket.url}/cut.jpg", data[: len(data) // 2])
    files.pipe(f"{s3_bucket.url}/empty.jpg", b"")
    links = [dasklake.link(f"{s3_bucket.url}/{n}.jpg", "mine") for n in ("a", "cut", "empty", "no")]
    with dask.config.set({"dasklake.creds.mine": s3_bucket.options}):
        dasklake.to_lake(
            db.from_sequence([{"image": link} for link in links], npartitions=1),
            tmp_path / "lake",
            schema={"image": SPEC},
            transform=dict,
            on_error="skip",
            max_failures=None,
            progress=False,
        )
        lake = dasklake.open(tmp_path / "lake")
        (image,) = [row["image"] for row in lake]
        assert image.bytes() == data
    assert (image.shape, image.size, image.creds_key) == ((200, 300, 3), len(data), "mine")
    assert image.etag == files.info(f"{s3_bucket.url}/a.jpg")["ETag"].strip('"')
    reasons = zip(("is truncated", "is empty", "is dead"), lake.failures()["message"], strict=True)
    assert all(reason in message for reason, message in reasons)


def test_an_unknown_credentials_key_ends_the_run(tmp_path: Path) -> None:
    """A link whose credentials key has no values in the writing process is an error at once."""
    for verify in (True, False):
        spec = dasklake.TensorSpec("link[image]", verify=verify)
        with pytest.raises((RunFailedError, StoreError)) as raised:
            dasklake.to_lake(
                db.from_sequence([{"image": dasklake.link("s3://b/a.jpg", "nobody")}]),
                tmp_path / str(verify),
                schema={"image": spec},
                on_error="skip",
                progress=False,
            )
        assert "nobody" in "".join(map(str, [raised.value, raised.value.__cause__]))


def test_missing_credentials_prevent_a_run(tmp_path: Path) -> None:
    """A run does not begin if the values of the lake's credentials keys are missing."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("image", "link[image]", verify=False)
    lake.add_creds_key("unset")
    assert lake.creds_keys == ["unset"]
    bag = db.from_sequence([{"image": dasklake.link("memory://a", "unset")}])
    with pytest.raises(PermissionDeniedError, match="unset"):
        dasklake.to_lake(bag, tmp_path / "lake", mode="append", progress=False)
    version = lake.refresh().version
    lake.populate_creds("unset", {"anon": True})
    dasklake.to_lake(bag, tmp_path / "lake", mode="append", progress=False)
    assert lake.refresh().version > version
    assert "unset" not in lake.schema


def test_links_are_read_with_renamed_keys(tmp_path: Path) -> None:
    """Links written with a former name of a key are read with its current name."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("image", "link[image]", verify=False)
    lake.add_creds_key("first")
    lake.populate_creds("first", {"anon": True})
    bag = db.from_sequence([{"image": dasklake.link("memory://a", "first")}])
    dasklake.to_lake(bag, tmp_path / "lake", mode="append", progress=False)
    lake.refresh()
    lake.update_creds_key("first", "second")
    assert lake.creds_keys == ["second"]
    assert [row["image"].creds_key for row in lake] == ["second"]
    assert lake[0]["image"].creds_key == "second"
    assert dasklake.open(tmp_path / "lake")[0]["image"].creds_key == "second"
    for name in ("first", "a b", ""):
        with pytest.raises(InvalidInputError, match="key"):
            lake.add_creds_key(name)
    with pytest.raises(VersionNotFoundError):
        lake.update_creds_key("first", "third")
    lake.update_creds_key("second", managed=True)
    with pytest.raises(InvalidInputError, match="managed"):
        lake.populate_creds("second", {"anon": True})


def pictures(folder: Path, count: int) -> list[str]:
    """Write pictures and return their paths."""
    for n in range(count):
        Image.new("RGB", (20 + n, 10), (n, n, n)).save(folder / f"{n}.jpg")
    return [str(folder / f"{n}.jpg") for n in range(count)]


def test_check_links_lists_problems(tmp_path: Path) -> None:
    """All links are verified again; changed, missing and broken ones are listed."""
    urls = pictures(tmp_path, 9)
    write(tmp_path / "lake", urls)
    lake = dasklake.open(tmp_path / "lake")
    assert lake.check_links().empty
    Path(urls[2]).unlink()
    Path(urls[4]).write_bytes(Path(urls[4]).read_bytes()[:300])
    Image.new("RGB", (99, 99)).save(urls[7])
    problems = lake.check_links()
    assert problems["sample"].tolist() == [2, 4, 7]
    assert problems["problem"].tolist() == ["broken", "broken", "changed"]
    assert problems["url"].tolist() == [urls[2], urls[4], urls[7]]
    assert isinstance(problems, pd.DataFrame)
    with pytest.raises(InvalidInputError, match="does not contain links"):
        lake.check_links(["n"])


def test_materialized_lake_has_the_same_samples(tmp_path: Path) -> None:
    """A lake with materialized links has the same samples; missing targets can be skipped."""
    urls = pictures(tmp_path, 9)
    write(tmp_path / "lake", urls)
    lake = dasklake.open(tmp_path / "lake")
    lake.materialize_links(tmp_path / "whole", progress=False)
    whole = dasklake.open(tmp_path / "whole")
    assert whole.schema["image"].htype == "image"
    assert [whole["image"].bytes(n) for n in range(9)] == [Path(u).read_bytes() for u in urls]
    assert [int(row["n"]) for row in whole] == list(range(9))
    Path(urls[3]).unlink()
    with pytest.raises(TransformError, match="is dead"):
        lake.materialize_links(tmp_path / "failed", progress=False)
    report = lake.materialize_links(
        tmp_path / "rest", on_error="skip", max_failures=None, progress=False
    )
    assert (report.samples, report.failures) == (8, 1)
    # A second call has nothing to do.
    again = lake.materialize_links(
        tmp_path / "whole", mode="resume", run=next(iter(whole.commit.runs)), progress=False
    )
    assert again.commits == 0


def test_slow_links_are_verified_concurrently(tmp_path: Path) -> None:
    """A server that takes 50 ms for each response has at least 20 requests at the same time."""
    with web_server(bench.DELAY) as web:
        report = bench.written(web, str(tmp_path / "lake"))
        asked, at_once = web.requests(), web.most_at_once()
    assert 20 <= at_once <= PER_HOST
    assert (report.samples, report.failures) == (1_700, 300)
    failures = dasklake.open(tmp_path / "lake").failures()["message"]
    for reason in ("is dead", "is not an image", "is truncated"):
        assert failures.str.contains(reason).sum() == 100
    # Two requests per link, for its first and last bytes; one for dead links and non-images;
    # three for truncated ones.
    assert asked == 1_700 * 2 + 100 + 100 + 300
