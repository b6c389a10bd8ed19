"""No error that leaves dasklake holds a secret: not in its causes, contexts, notes or traceback."""

from __future__ import annotations

import logging
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import fsspec
import pytest
from distributed import Client, LocalCluster

import dasklake
from dasklake import TensorSpec, creds
from dasklake._api.files import read
from dasklake._codecs.registry import codec_for
from dasklake._storage import retry
from dasklake.exceptions import LakeError
from tests.support.s3 import S3Bucket

#: The values that must not be seen anywhere.
TOKEN = "tok-58b1d6aa0e"  # noqa: S105 # of this test only
PASSWORD = "pw-91c3f2/+x"  # noqa: S105 # of this test only
SECRETS = (TOKEN, PASSWORD)

#: Addresses of a cluster, whose dashboard the oldest releases of Dask start in any case.
LOOPBACK: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}

SCHEMA = {"image": TensorSpec("link[image]", verify=True)}


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and everything that it refers to, also suppressed contexts."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        part = pending.pop()
        if part is not None and id(part) not in seen:
            seen.add(id(part))
            yield part
            pending += [part.__cause__, part.__context__, *getattr(part, "exceptions", ())]


def shown(error: BaseException) -> str:
    """Return everything that an error shows, before and after pickling."""
    texts = []
    for one in (error, pickle.loads(pickle.dumps(error))):
        texts += traceback.format_exception(one)
        for part in chain(one):
            texts += [repr(part), str(part), repr(part.args), repr(getattr(part, "__notes__", ""))]
            texts.append(repr(vars(part)))
    return "\n".join(texts)


def without_secrets(call: Callable[[], Any]) -> LakeError:
    """Call a function that must fail, and check its error."""
    with pytest.raises(LakeError) as caught:
        call()
    text = shown(caught.value)
    assert not [secret for secret in SECRETS if secret in text], text
    return caught.value


@pytest.fixture
def denying() -> Iterator[str]:
    """Serve a host that denies everything and repeats the request in its answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"denied {self.path} {self.headers}".encode()
            self.send_response(403, f"no {self.path}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_PUT(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_key_remains() -> Iterator[None]:
    """Remove the credentials key of a test."""
    yield
    creds.populate("vault", None)


@pytest.fixture(autouse=True)
def _short_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail at once, in this process."""
    policy = retry.RetryPolicy(seconds=0.2)
    for module in ("object_reader", "user_files"):
        monkeypatch.setattr(f"dasklake._storage.{module}.STORE_RETRIES", policy)


def s3_options(host: str) -> dict[str, Any]:
    """Return wrong credentials of an S3 endpoint."""
    return {
        "key": "me",
        "secret": PASSWORD,
        "token": TOKEN,
        "endpoint_url": f"http://{host}",
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }


def calls(url: str, options: Any) -> dict[str, Callable[[], Any]]:
    """Return the calls that meet a storage."""
    bag = db.from_sequence([{"x": 1}], npartitions=1)
    schema = {"x": "int64"}

    return {
        "open": lambda: dasklake.open(url, storage_options=options),
        "read_lake": lambda: dasklake.read_lake(url, storage_options=options),
        "to_lake": lambda: dasklake.to_lake(bag, url, schema=schema, storage_options=options),
        "empty": lambda: dasklake.empty(url, storage_options=options),
    }


@pytest.mark.parametrize("call", ["open", "read_lake", "to_lake", "empty"])
def test_a_storage_that_denies_access(call: str, denying: str) -> None:
    """Wrong keys of an S3 host that repeats them in its answers are in no part of the error."""
    error = without_secrets(calls("s3://bucket/lake", s3_options(denying))[call])
    assert "s3://bucket/lake" in str(error)


@pytest.mark.parametrize("call", ["open", "read_lake"])
@pytest.mark.parametrize(
    "url",
    [
        f"http://HOST/lake?token={TOKEN}",
        f"http://me:{TOKEN}@HOST/lake",
        f"http://HOST/lake?sv=2024&sig={TOKEN}",
        f"simplecache::http://HOST/lake?token={TOKEN}",
        f"zip://a::http://HOST/b.zip?X-Amz-Signature={TOKEN}",
    ],
)
def test_urls_with_a_token(call: str, url: str, denying: str) -> None:
    """Tokens, passwords and signatures of a URL are in no part of the error."""
    without_secrets(calls(url.replace("HOST", denying), None)[call])


def test_files_with_a_token(denying: str) -> None:
    """A file or link whose URL has a token, or an invalid port, is in no part of the error."""
    for url in (f"http://{denying}/a.jpg?sig={TOKEN}", f"http://me:{TOKEN}@{denying}/a.jpg"):
        without_secrets(read(url).bytes)
    for url in (f"http://me:{TOKEN}@{denying}/a.jpg", f"http://u:1:{TOKEN}@h:{TOKEN}/a.jpg"):
        without_secrets(partial(codec_for(SCHEMA["image"]).encode, url))


def _failing_values() -> dict[str, Any]:
    raise ConnectionError(f"the vault refused {TOKEN}")


def test_functions_of_credentials_that_fail() -> None:
    """The error of a function that looks up credentials is in no part of the error."""
    error = without_secrets(lambda: creds.resolve(_failing_values))
    assert "ConnectionError" in str(error)


def test_options_that_a_storage_does_not_have(s3_bucket: S3Bucket) -> None:
    """A wrong option beside right credentials shows neither of them."""
    options = {**s3_bucket.options, "client_kwargs": {"nonsense": TOKEN, "token": TOKEN}}
    options |= {"secret": PASSWORD}
    without_secrets(lambda: dasklake.open(f"{s3_bucket.url}/lake", storage_options=options))


def from_web(item: str) -> dict[str, Any]:
    """Read a URL with a token, as a user's transform does."""
    with fsspec.open(item) as file:
        return {"x": len(file.read())}


def with_password(item: str) -> dict[str, Any]:
    """Fail with the values of a credentials key in the error, its context and its note."""
    creds.populate("vault", {"secret": PASSWORD})
    password = creds.resolve("vault")["secret"]
    try:
        raise KeyError(password)  # noqa: TRY301 # an error with a context is meant
    except KeyError:
        error = ValueError(f"{item}: the password {password} is wrong")
        error.add_note(f"tried {password}")
        raise error  # noqa: B904 # the context is meant


def failing_write(folder: Path, transform: Callable[..., Any], url: str) -> Callable[[], Any]:
    """Return a write that fails in its transform."""
    bag = db.from_sequence([url], npartitions=1)
    return lambda: dasklake.to_lake(
        bag, folder / "lake", schema={"x": "int64"}, transform=transform
    )


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
def test_a_transform_that_shows_a_secret(scheduler: str, denying: str, tmp_path: Path) -> None:
    """The error of a transform keeps its type and text, but not the secrets in them."""
    with dask.config.set(scheduler=scheduler):
        web = f"http://{denying}/a?token={TOKEN}"
        without_secrets(failing_write(tmp_path / "web", from_web, web))
        error = without_secrets(failing_write(tmp_path / "key", with_password, "item"))
    assert "is wrong" in str(error)


def test_errors_of_workers_of_a_cluster(
    denying: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Errors that come from a worker process, and what the worker logs, show no secret."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, **LOOPBACK) as cluster,
        Client(cluster) as client,
        caplog.at_level(logging.WARNING),
    ):
        web = f"http://{denying}/a?token={TOKEN}"
        without_secrets(failing_write(tmp_path / "web", from_web, web))
        without_secrets(failing_write(tmp_path / "key", with_password, "item"))
        bag = db.from_sequence([{"image": f"http://{denying}/a.jpg?v={TOKEN}"}], npartitions=1)
        without_secrets(lambda: dasklake.to_lake(bag, tmp_path / "links", schema=SCHEMA))
        options = s3_options(denying)
        without_secrets(
            lambda: client.submit(
                dasklake.open, "s3://bucket/lake", storage_options=options
            ).result()
        )
        logs = repr(client.get_worker_logs())
    assert not [secret for secret in SECRETS if secret in logs + caplog.text]
