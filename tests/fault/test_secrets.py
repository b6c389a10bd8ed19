"""No output of a run contains a secret."""

from __future__ import annotations

import gzip
import io
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import s3fs
from PIL import Image

from tests.support.clusters import DEEP, ROOT, wait_until
from tests.support.proxy import Fate, Proxy, Request
from tests.support.s3 import S3Bucket

#: Seconds for which the credentials of the pictures are valid.
LIFETIME = 30.0 if DEEP else 8.0

ITEMS = 100

#: Source of a package that provides credentials.
PROVIDER = """
import json, os, urllib.request

def _ask(key):
    with urllib.request.urlopen(f"{os.environ['VAULT']}/{key}") as answer:
        return json.load(answer)

def lake():
    return _ask("lake")

def pictures():
    return _ask("pictures")
"""
ENTRY_POINTS = "[dasklake.creds]\nlake = vault_client:lake\npictures = vault_client:pictures\n"


class Vault:
    """Issue credentials and check their validity.

    Parameters
    ----------
    endpoint : str
        The endpoint that accepts the credentials.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.issued: list[dict[str, str]] = []
        self.ends: dict[str, float] = {}
        self.misused: list[str] = []
        self.expired: list[str] = []
        self._lock = threading.Lock()

    def issue(self, key: str) -> dict[str, str]:
        """Issue credentials; those for the pictures expire."""
        with self._lock:
            end = time.time() + LIFETIME if key == "pictures" else float("inf")
            credentials = {
                "aws_access_key_id": f"akid{key}{len(self.issued)}",
                "aws_secret_access_key": secrets.token_hex(20),
                "aws_session_token": secrets.token_hex(30),
                "endpoint_url": self.endpoint,
            }
            self.issued.append(dict(credentials))
            self.ends[credentials["aws_access_key_id"]] = end
            if key == "pictures":
                credentials["expiration"] = datetime.fromtimestamp(end, UTC).isoformat()
            return credentials

    def judge(self, request: Request) -> Fate:
        """Choose the fate of a request."""
        name = request.headers["authorization"].partition("credential=")[2].partition("/")[0]
        if request.path.endswith("denied.jpg"):
            return Fate.DENIED
        if "pictures" not in name and request.path.endswith(".jpg"):
            self.misused.append(name)
        if time.time() > self.ends[name]:
            self.expired.append(name)
            return Fate.EXPIRED
        return Fate.ANSWERED

    def ids(self, key: str) -> list[str]:
        """Return the access key ids issued for a key."""
        key_ids = [credentials["aws_access_key_id"] for credentials in self.issued]
        return [name for name in key_ids if key in name]


@contextmanager
def serving(vault: Vault) -> Iterator[str]:
    """Serve the vault over HTTP; yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(vault.issue(self.path.strip("/"))).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def provider(tmp_path: Path) -> Path:
    """Install a package that provides credentials under two keys."""
    folder = tmp_path / "provider"
    about = folder / "vault_client-1.dist-info"
    about.mkdir(parents=True)
    (folder / "vault_client.py").write_text(PROVIDER)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vault-client\nVersion: 1\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


def everything(bucket: S3Bucket, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and data of every object and file that was written."""
    files = s3fs.S3FileSystem(**bucket.options, skip_instance_cache=True)
    for key in files.find(bucket.url):
        yield key, files.cat_file(key)
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            yield str(path), gzip.decompress(data) if path.suffix == ".gz" else data


def test_two_keys_one_of_which_expires(
    s3_bucket: S3Bucket, proxy: Proxy, provider: Path, tmp_path: Path
) -> None:
    """Credentials that expire during a run are renewed in each process; no secret is stored."""
    sink = io.BytesIO()
    Image.new("RGB", (30, 20)).save(sink, "jpeg")
    files = s3fs.S3FileSystem(**s3_bucket.options)
    files.pipe({f"{s3_bucket.url}/in/{n}.jpg": sink.getvalue() for n in range(10)})
    vault = Vault(f"http://127.0.0.1:{proxy.port}")
    proxy.decide = vault.judge
    work, output = tmp_path / "work", tmp_path / "output"
    work.mkdir()
    arguments = {
        "lake": f"{s3_bucket.url}/lake",
        "pictures": f"{s3_bucket.url}/in",
        "gate": str(work / "gate"),
        "items": ITEMS,
        "dump": str(work / "dump"),
    }
    paths = os.pathsep.join([str(ROOT), str(provider)])
    with serving(vault) as url, output.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support._secret_job", json.dumps(arguments)],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": paths,
                "VAULT": url,
                "TMPDIR": str(work),
                "DASK_TEMPORARY_DIRECTORY": str(work),
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        wait_until(lambda: vault.ids("pictures") or process.poll() is not None, "a key is used")
        # The first credentials have expired when the second half begins.
        first = vault.ends[vault.ids("pictures")[0]]
        wait_until(lambda: time.time() > first, "credentials expire", LIFETIME + 30)
        (work / "gate").touch()
        assert process.wait(timeout=120) == 0, output.read_text()
    text = output.read_text()
    assert f"samples: {ITEMS}" in text
    assert "was denied" in text
    # Each worker renewed its credentials; a slow machine may renew them only after expiry.
    assert len(vault.ids("pictures")) >= 3
    assert not vault.misused
    assert not (DEEP and vault.expired)
    secrets = [
        credentials[name]
        for credentials in vault.issued
        for name in credentials
        if name.startswith("aws_s")
    ]
    assert len(secrets) == 2 * len(vault.issued)
    count = 0
    for name_of_object, data in everything(s3_bucket, tmp_path):
        count += 1
        assert not [secret for secret in secrets if secret.encode() in data], name_of_object
    assert count > 20
