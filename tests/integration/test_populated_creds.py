"""Credentials that are populated on the client reach the workers that ``eval`` starts."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster
from PIL import Image

import dasklake
from dasklake import creds
from dasklake.exceptions import InvalidInputError, PermissionDeniedError

TOKEN = "Bearer 5b1a77e0c2"  # noqa: S105 # of this test only

#: Addresses of a cluster, whose dashboard the oldest releases of Dask start in any case.
LOOPBACK: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}


@pytest.fixture
def guarded() -> Iterator[str]:
    """Serve a picture to requests with the token."""
    sink = io.BytesIO()
    Image.new("RGB", (4, 3)).save(sink, "png")
    picture = sink.getvalue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers["Authorization"] == TOKEN
            self.send_response(200 if allowed else 403)
            self.send_header("Content-Length", str(len(picture) if allowed else 0))
            self.end_headers()
            self.wfile.write(picture if allowed else b"")

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/a.png"
    finally:
        creds.populate("pictures", None)
        server.shutdown()
        thread.join()
        server.server_close()


def _lake(folder: Path) -> dasklake.Lake:
    """Create a lake of links with a key."""
    lake = dasklake.empty(folder / "lake")
    lake.create_tensor("image", htype="link[image]", sample_compression="png")
    lake.add_creds_key("pictures")
    return lake


@dasklake.compute
def links(url: str, sample_out: Any, flag: str | None = None) -> None:
    """Link to a URL, after killing the first worker if a flag is missing."""
    if flag is not None and not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    sample_out.append({"image": dasklake.link(url, creds_key="pictures")})


def _function() -> dict[str, Any]:
    return {"headers": {"Authorization": TOKEN}}


def test_workers_of_eval_have_the_values_of_the_client(guarded: str, tmp_path: Path) -> None:
    """Worker processes read links with a populated function, also after a restart."""
    lake = _lake(tmp_path)
    lake.populate_creds("pictures", _function)
    report = links(flag=str(tmp_path / "flag")).eval([guarded] * 2, lake, num_workers=1)
    assert report.samples == 2
    assert (tmp_path / "flag").exists()
    assert lake[0]["image"].shape == (3, 4, 3)
    written = [path.read_bytes() for path in (tmp_path / "lake").rglob("*") if path.is_file()]
    assert not [data for data in written if TOKEN.encode() in data]


def test_values_that_cannot_be_sent_are_refused(guarded: str, tmp_path: Path) -> None:
    """A function that cannot be pickled is an error before the workers start, without its values."""
    lake, lock = _lake(tmp_path), threading.Lock()

    def locked() -> dict[str, Any]:
        with lock:
            return _function()

    lake.populate_creds("pictures", locked)
    with pytest.raises(InvalidInputError, match=r"key 'pictures' must be picklable.*mapping"):
        links().eval([guarded], lake, num_workers=1)
    lake.populate_creds("pictures", _function())  # the remedy
    assert links().eval([guarded], lake, num_workers=1).samples == 1


def test_a_cluster_of_the_user_is_told_where_values_are_known(guarded: str, tmp_path: Path) -> None:
    """Workers that eval did not start have no values, and the error says how they get them."""
    lake = _lake(tmp_path)
    lake.populate_creds("pictures", _function)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, **LOOPBACK) as cluster,
        Client(cluster),
        pytest.raises(
            PermissionDeniedError, match=r"dasklake\.creds\.pictures.*populate_creds\(\)"
        ),
    ):
        links().eval([guarded], lake)
