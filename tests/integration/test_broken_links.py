"""Lists of links in which many fail: each failure concerns its sample, and takes a bounded time."""

from __future__ import annotations

import contextlib
import gc
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import numpy as np
import psutil  # type: ignore[import-untyped] # it has no types
import pytest
from PIL import Image

import dasklake
from dasklake import LinkPolicy
from dasklake.exceptions import LakeError, LinkError, PermissionDeniedError, StoreError
from tests.support.rude_web import JPEG, PAGES, RudeWeb

SPEC = dasklake.TensorSpec("link[image]", compression="jpeg")
SCHEMA = {"image": SPEC, "n": dasklake.TensorSpec(dtype="int64", shape=())}
#: Long enough for a busy machine.
QUICK = LinkPolicy(retries=1, timeout=2)

#: Pages whose response is a complete picture.
GOOD = {"ok", "unknown-length", "bad-etag", "huge-length"}

#: Pages that a host may serve properly later.
UNAVAILABLE = {"429", "later", "500", "503", "999", "hang", "hang-later", "drip"}

#: Links that never work, without a server.
DEAD = {
    "refused": "http://127.0.0.1:9/a.jpg",
    "no host": "http:///a.jpg",
    "no port": "http://127.0.0.1:port/a.jpg",
    "large port": "http://127.0.0.1:99999/a.jpg",
    "spaces": "http://exa mple/a.jpg",
    "brackets": "http://[::1/a.jpg",
    "zone": "http://[fe80::1%25nope]/a.jpg",
    "long label": f"http://{'a' * 70}.invalid/a.jpg",
    "long host": f"http://{'a.' * 200}invalid/a.jpg",
    "dots": "http://.../a.jpg",
    "idna": "http://xn--/a.jpg",
    "unicode host": "http://\u2603\u200d.invalid/a.jpg",
    "unknown host": "http://no-such-host.invalid/a.jpg",
    "scheme": "gopher://host/a.jpg",
    "script": "javascript:void(0)",
    "mail": "mailto:me@host",
    "data": "data:image/jpeg;base64,AAAA",
    "relative": "//cdn.invalid/a.jpg",
    "no bucket": "s3:///a.jpg",
    "missing file": "/no/such/file.jpg",
    "folder": "/",
    "device": "/dev/zero",
    "not a folder": "/etc/hostname/a.jpg",
    "NUL": "/no/a\0b.jpg",
    "long name": f"/etc/{'n' * 300}.jpg",
    "long path": "/etc/" + "n/" * 3000 + "a.jpg",
    "zip": "zip://a.jpg::/no/such.zip",
    "zip on the web": "zip://a.jpg::http://127.0.0.1:9/b.zip",
    "ftp": "ftp://127.0.0.1:9/a.jpg",
}


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    with dask.config.set(scheduler="threads"):
        yield


def sample(item: tuple[int, str]) -> dict[str, Any]:
    """Make a sample of a number and a URL."""
    return {"image": dasklake.link(item[1]), "n": item[0]}


def write(lake: Path, urls: list[str], **more: Any) -> dasklake.Lake:
    """Write links, skip those that fail, and open the lake."""
    options = {"on_error": "skip", "max_failures": None, "links": QUICK, "progress": False, **more}
    dasklake.to_lake(
        db.from_sequence(list(enumerate(urls)), npartitions=2),
        str(lake),
        **{"schema": SCHEMA, "transform": sample, **options},
    )
    return dasklake.open(lake)


def messages(lake: dasklake.Lake) -> dict[int, str]:
    """Return the messages of the failures by the index of the input."""
    failures = lake.failures()
    assert set(failures["exception"]) == {"LinkError"}
    return dict(zip(failures["index"].tolist(), failures["message"], strict=True))


def test_every_answer_of_a_web_server(rude_web: RudeWeb, tmp_path: Path) -> None:
    """Whatever a web server answers, the run ends, and each failure is recorded with its reason."""
    kinds = [*PAGES, "hang", "hang-later", "drip", "reset"]
    lake = write(tmp_path / "lake", [f"{rude_web.url}/{kind}/1" for kind in kinds])
    failed = messages(lake)
    good = [n for n in range(len(kinds)) if n not in failed]
    assert {kinds[n] for n in good} == GOOD
    assert [int(row["n"]) for row in lake] == good
    assert all(row["image"].shape == (10, 12, 3) for row in lake)
    for n, message in failed.items():
        assert f"/{kinds[n]}/1" in message
        assert ("could not be read" in message) == (kinds[n] in UNAVAILABLE), message
        assert ("was denied" in message) == (kinds[n] in ("401", "403")), message


def test_links_that_never_work(tmp_path: Path) -> None:
    """Invalid hosts, ports, names and schemes are failures of their samples, and cost no time."""
    began = time.monotonic()
    policy = LinkPolicy(timeout=60)
    failed = messages(write(tmp_path / "lake", list(DEAD.values()), links=policy))
    assert time.monotonic() - began < 50  # each would take 60 seconds with retries
    assert len(failed) == len(DEAD)


def test_certificates_that_are_not_trusted(rude_web: RudeWeb, tmp_path: Path) -> None:
    """A self-signed certificate, and TLS with a server that has none, are failures of the sample."""
    plain = rude_web.tls.replace("127.0.0.1", "localhost")
    failed = messages(write(tmp_path / "lake", [f"{rude_web.tls}/ok/2", f"{plain}/ok/3"]))
    assert len(failed) == 2
    assert "certificate" in failed[0].lower()
    assert rude_web.seen["/ok/2"] == 0


@pytest.mark.parametrize(("kind", "requests"), [("503", 3), ("403", 1), ("404", 1), ("loop", 11)])
def test_retries_are_bounded(rude_web: RudeWeb, tmp_path: Path, kind: str, requests: int) -> None:
    """A busy host is asked again as often as the policy says, others are not."""
    path = f"/{kind}/retries"
    rude_web.seen.clear()
    write(tmp_path / "lake", [rude_web.url + path], links=LinkPolicy(retries=2, timeout=10))
    assert (rude_web.seen[path] or rude_web.seen["/loop"]) <= requests
    assert (rude_web.seen[path] == requests) or kind == "loop"


def test_a_busy_host_is_asked_again(rude_web: RudeWeb, tmp_path: Path) -> None:
    """A link that works at the second attempt is written."""
    urls = [f"{rude_web.url}/flaky/{n}" for n in range(5)]
    assert len(write(tmp_path / "lake", urls)) == 5


def test_a_run_with_failed_links_can_be_resumed(rude_web: RudeWeb, tmp_path: Path) -> None:
    """The failures of links do not end the run, and a second call has nothing to do."""
    urls = [f"{rude_web.url}/{kind}/r" for kind in ("ok", "reset", "404", "ok")]
    lake = write(tmp_path / "lake", urls)
    assert (len(lake), len(lake.failures())) == (2, 2)
    again = write(tmp_path / "lake", urls, mode="resume", run=next(iter(lake.commit.runs)))
    assert again.version == lake.version


def test_the_first_failure_ends_a_run_that_raises(rude_web: RudeWeb, tmp_path: Path) -> None:
    """Without skipping, the error names the link and the cause is a LinkError with its reason."""
    with pytest.raises(LakeError, match=r"/503/x could not be read in 2 seconds") as raised:
        write(tmp_path / "lake", [f"{rude_web.url}/503/x"], on_error="raise")
    assert isinstance(raised.value.__cause__, LinkError)
    assert raised.value.__cause__.reason == "unavailable"
    assert "503" in str(raised.value)


@pytest.mark.parametrize("kind", ["endless", "huge"])
@pytest.mark.parametrize("verify", [True, "decode"])
def test_streams_without_end(rude_web: RudeWeb, tmp_path: Path, kind: str, *, verify: Any) -> None:
    """A stream without an end, announced or not, is read up to the limit."""
    path = f"/{kind}/{verify}"
    spec = dasklake.TensorSpec("link[image]", compression="jpeg", verify=verify)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    policy = LinkPolicy(max_bytes="1 MiB", timeout=20)
    schema = {**SCHEMA, "image": spec}
    failed = messages(write(tmp_path / "lake", [rude_web.url + path], schema=schema, links=policy))
    assert "has more than 1,048,576 bytes" in failed[0]
    assert "LinkPolicy(max_bytes=" in failed[0]
    # The kernel buffers a few megabytes.
    assert rude_web.sent[path] < 40 * 2**20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 2**10  # KiB


def test_streams_without_end_leave_no_memory(rude_web: RudeWeb, tmp_path: Path) -> None:
    """The bytes of refused streams are freed at once, not when cycles are collected."""
    process = psutil.Process()
    policy = LinkPolicy(max_bytes="16 MiB")
    write(tmp_path / "first", [f"{rude_web.url}/endless/m"], links=policy)
    urls = [f"{rude_web.url}/endless/m{n}" for n in range(60)]
    before = process.memory_info().rss
    gc.disable()
    try:
        assert len(messages(write(tmp_path / "lake", urls, links=policy))) == 60
    finally:
        gc.enable()
    grown = process.memory_info().rss - before
    assert grown < 400 * 2**20, grown  # 60 streams have 960 MiB


def test_the_remedy_for_long_streams_works(rude_web: RudeWeb, tmp_path: Path) -> None:
    """A picture beyond the limit of bytes is accepted with a higher limit."""
    path = tmp_path / "noise.tiff"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 3), "uint8")).save(path)
    spec = dasklake.TensorSpec("link[image]", compression="tiff", verify="decode")
    schema = {**SCHEMA, "image": spec}
    small, large = LinkPolicy(max_bytes=9_000), LinkPolicy(max_bytes="1 MiB")
    assert (
        "9,000 bytes" in messages(write(tmp_path / "a", [str(path)], schema=schema, links=small))[0]
    )
    assert len(write(tmp_path / "b", [str(path)], schema=schema, links=large)) == 1


def test_a_host_that_hangs_does_not_stop_the_others(rude_web: RudeWeb, tmp_path: Path) -> None:
    """Links to other hosts are verified while a host hangs; after some timeouts its links cost less."""
    other = rude_web.url.replace("127.0.0.1", "localhost")
    urls = [f"{rude_web.url}/hang/{n}" if n % 2 else f"{other}/ok/{n}" for n in range(160)]
    lake = write(tmp_path / "lake", urls, links=LinkPolicy(timeout=3, per_host=8))
    # 80 links, 8 at a time: only the first ones take the full time.
    assert lake.failures()["message"].str.contains("TimeoutError").all()
    assert (len(lake), len(lake.failures())) == (80, 80)


def test_a_storage_with_a_key_ends_the_run(
    rude_web: RudeWeb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is read with a credentials key and is down, or denies access, ends the run."""
    from dasklake._links import link_target  # noqa: PLC0415 # only here
    from dasklake._storage.retry import RetryPolicy  # noqa: PLC0415 # only here

    monkeypatch.setattr(link_target, "_RETRIES", RetryPolicy(0.3, first=0.01))

    def keyed(item: tuple[int, str]) -> dict[str, Any]:
        return {"image": dasklake.link(item[1], "vault"), "n": item[0]}

    options = {"transform": keyed, "options": dasklake.WriteOptions(retries=0)}
    with dask.config.set({"dasklake.creds.vault": {}}):
        for kind, expected in (("403", PermissionDeniedError), ("503", StoreError)):
            with pytest.raises(LakeError) as raised:
                write(tmp_path / kind, [f"{rude_web.url}/{kind}/k"], **options)
            chain = [raised.value, raised.value.__cause__]
            assert any(isinstance(error, expected) for error in chain), chain
        # What is wrong with one link only is skipped here, too.
        urls = [f"{rude_web.url}/{kind}/k" for kind in ("404", "loop", "to-ftp", "ok")]
        urls.append("http://[::1/a.jpg")
        assert len(write(tmp_path / "dead", urls, **options)) == 1


def test_checks_and_reads_have_the_same_limits(rude_web: RudeWeb, tmp_path: Path) -> None:
    """check_links, the values of a lake and read() follow the policy."""
    spec = dasklake.TensorSpec("link[image]", verify=False)
    urls = [f"{rude_web.url}/{kind}/c" for kind in ("ok", "403", "hang", "loop", "endless")]
    write(tmp_path / "lake", urls, schema={**SCHEMA, "image": spec})
    policy = LinkPolicy(retries=0, timeout=1, max_bytes="1 MiB")
    lake = dasklake.open(tmp_path / "lake", links=policy)
    problems = lake.check_links()
    assert problems["sample"].tolist() == [1, 2, 3, 4]
    assert problems["problem"].tolist() == ["denied", "unavailable", "broken", "unavailable"]
    generous = LinkPolicy(retries=0, timeout="1s", max_bytes="2 MiB")
    assert "2,097,152" in lake.check_links(links=generous)["message"].tolist()[3]
    assert lake[0]["image"].bytes() == JPEG
    for row, reason in ((1, "denied"), (3, "broken"), (4, "unavailable")):
        with pytest.raises(LinkError) as raised:
            lake[row]["image"].bytes()
        assert raised.value.reason == reason
    rows = lake.to_dask_bag().compute(scheduler="processes")
    with pytest.raises(LinkError, match="1,048,576"):
        rows[4]["image"].bytes()
    report = lake.materialize_links(
        tmp_path / "whole",
        compression="jpeg",
        on_error="skip",
        max_failures=None,
        progress=False,
    )
    assert (report.samples, report.failures) == (1, 4)


def read_sample(item: tuple[int, str]) -> dict[str, Any]:
    """Make a sample of a file on the web."""
    return {"image": dasklake.read(item[1]), "n": item[0]}


def test_files_on_the_web_have_the_same_limits(rude_web: RudeWeb, tmp_path: Path) -> None:
    """Files that read() names follow the policy of the write."""
    schema = {**SCHEMA, "image": dasklake.TensorSpec("image", compression="jpeg")}
    kinds = ["ok", "hang-later", "reset", "endless", "404", "503"]
    urls = [f"{rude_web.url}/{kind}/f" for kind in kinds]
    policy = LinkPolicy(retries=0, timeout=1, max_bytes="1 MiB")
    lake = write(tmp_path / "lake", urls, schema=schema, transform=read_sample, links=policy)
    assert sorted(messages(lake)) == [1, 2, 3, 4, 5]


def test_append_and_eval_use_the_policy(rude_web: RudeWeb, tmp_path: Path) -> None:
    """The methods of a lake take the policy it was opened with, or their own."""
    lake = write(tmp_path / "lake", [f"{rude_web.url}/ok/a"])
    lake = dasklake.open(lake.url, links=LinkPolicy(retries=0, timeout=0.2))
    with pytest.raises(LinkError, match=r"in 0\.2 seconds and 0 retries"):
        lake.append({"image": f"{rude_web.url}/hang/a", "n": 1})

    @dasklake.compute
    def linked(url: str, out: Any) -> None:
        out.append({"image": dasklake.link(url), "n": 2})

    urls = [f"{rude_web.url}/{kind}/a" for kind in ("hang", "ok")]
    own: dict[str, Any] = {"ignore_errors": True, "links": LinkPolicy(timeout=1.5)}
    report = linked().eval(urls, lake, progressbar=False, **own)
    assert (report.samples, report.failures) == (1, 1)
    assert "in 1.5 seconds" in lake.failures()["message"].iloc[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"retries": -1}, "retries must be a whole number of at least 0, got -1"),
        ({"retries": 1.5}, "retries must be a whole number"),
        ({"per_host": 0}, "per_host must be a whole number of at least 1, got 0"),
        ({"timeout": 0}, "timeout must be a positive duration, got 0"),
        ({"timeout": "soon"}, "timeout must be a positive duration, got 'soon'"),
        ({"timeout": float("nan")}, "timeout must be a positive duration"),
        ({"max_bytes": "many"}, "max_bytes must be a positive number of bytes, got 'many'"),
        ({"max_bytes": 0}, "max_bytes must be a positive number of bytes, got 0"),
    ],
)
def test_policies_are_validated(values: dict[str, Any], message: str) -> None:
    """A policy with a value that is not valid is refused at once."""
    with pytest.raises(dasklake.exceptions.InvalidInputError, match=message):
        LinkPolicy(**values)


def test_links_must_be_a_policy(tmp_path: Path) -> None:
    """Another type than a LinkPolicy is refused before anything is written."""
    with pytest.raises(
        dasklake.exceptions.InvalidInputError, match=r"links must be a dasklake\.LinkP"
    ):
        write(tmp_path / "lake", ["/a.jpg"], links={"retries": 3})
    with contextlib.suppress(FileNotFoundError):
        assert not list((tmp_path / "lake").iterdir())
