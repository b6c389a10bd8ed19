"""A web server on loopback that misbehaves, with raw sockets: one thread for each connection.

The first part of a path selects the response; see :data:`PAGES`. ``/ok`` is a small JPEG.
"""

from __future__ import annotations

import datetime as dt
import io
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from PIL import Image


def jpeg(height: int = 10, width: int = 12) -> bytes:
    """Make a JPEG."""
    sink = io.BytesIO()
    Image.new("RGB", (width, height), (9, 99, 199)).save(sink, "jpeg")
    return sink.getvalue()


JPEG = jpeg()


def _answer(body: bytes = b"", status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _announced(body: bytes, length: int, *headers: str) -> bytes:
    return _answer(body, "200 OK", f"Content-Length: {length}", *headers)


def _moved(location: str) -> bytes:
    return _answer(b"", "302 Found", f"Location: {location}", "Content-Length: 0")


def _refused(status: str, *headers: str) -> bytes:
    return _answer(b"no", status, "Content-Length: 2", *headers)


#: Responses by the first part of a path.
PAGES: dict[str, bytes] = {
    "ok": _announced(JPEG, len(JPEG)),
    "unknown-length": _answer(JPEG),
    "short": _announced(JPEG, len(JPEG) + 99),
    "bad-gzip": _announced(JPEG, len(JPEG), "Content-Encoding: gzip"),
    "bad-encoding": _announced(JPEG, len(JPEG), "Content-Encoding: deflate"),
    "bad-chunk": _answer(b"zz\r\n" + JPEG, "200 OK", "Transfer-Encoding: chunked"),
    "cut-chunk": _answer(b"ffff\r\n" + JPEG, "200 OK", "Transfer-Encoding: chunked"),
    "negative-length": _announced(JPEG, -5),
    "two-lengths": _announced(JPEG, len(JPEG), "Content-Length: 3"),
    "bad-etag": _announced(JPEG, len(JPEG), "ETag: \xff\xfe"),
    "huge-length": _answer(
        JPEG, "206 Partial Content", f"Content-Range: bytes 0-{len(JPEG) - 1}/{'9' * 30}"
    ),
    "http-0.9": JPEG,
    "garbage": b"\x00\xff\xfe garbage\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "closed": b"",
    "long-header": _announced(JPEG, len(JPEG), "X-Long: " + "y" * 70_000),
    "loop": _moved("/loop"),
    "to-ftp": _moved("ftp://host/a.jpg"),
    "to-file": _moved("file:///etc/hostname"),
    "to-nowhere": _moved("http://[bad"),
    "to-refused": _moved("http://127.0.0.1:9/a.jpg"),
    "login": _announced(b"<html>login</html>", 18),
    "empty": _announced(b"", 0),
    "404": _refused("404 Not Found"),
    "410": _refused("410 Gone"),
    "400": _refused("400 Bad Request"),
    "451": _refused("451 Unavailable For Legal Reasons"),
    "501": _refused("501 Not Implemented"),
    "401": _refused("401 Unauthorized"),
    "403": _refused("403 Forbidden"),
    "429": _refused("429 Too Many Requests"),
    "later": _refused("429 Too Many Requests", "Retry-After: 3600"),
    "500": _refused("500 Internal Server Error"),
    "503": _refused("503 Service Unavailable"),
    "999": _refused("999 Request denied"),
}


class RudeWeb:
    """A running server.

    Attributes
    ----------
    port : int
        Its port.
    url, tls : str
        URL of the server, without encryption and with a self-signed certificate.
    seen : Counter
        Number of requests by path.
    sent : Counter
        Number of bytes sent by endless responses, by path.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.seen: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.stopped = threading.Event()
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.tls = f"https://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if connection.recv(1, socket.MSG_PEEK) == b"\x16":  # the first byte of a TLS handshake
                connection = self._context.wrap_socket(connection, server_side=True)
            request = b""
            while b"\r\n\r\n" not in request:
                data = connection.recv(65536)
                if not data:
                    return
                request += data
            path = request.split(b" ")[1].decode()
            self.seen[path] += 1
            kind = path.split("/")[1]
            streams: dict[str, Callable[[socket.socket, str], None]] = {
                "reset": self._reset,
                "hang": self._hang,
                "hang-later": self._hang_later,
                "drip": self._drip,
                "endless": self._endless,
                "huge": self._huge,
                "flaky": self._flaky,
            }
            if kind in streams:
                streams[kind](connection, path)
                return
            connection.sendall(PAGES[kind])
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)  # otherwise the close may reset the connection

    def _reset(self, connection: socket.socket, _: str) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _hang(self, *_: object) -> None:
        self.stopped.wait(60)

    def _hang_later(self, connection: socket.socket, _: str) -> None:
        connection.sendall(_announced(JPEG[:50], len(JPEG)))
        self.stopped.wait(60)

    def _drip(self, connection: socket.socket, _: str) -> None:
        connection.sendall(_announced(b"", 10**6))
        while not self.stopped.is_set():
            connection.sendall(b"\xff")
            time.sleep(0.02)

    def _endless(self, connection: socket.socket, path: str) -> None:
        connection.sendall(_answer(JPEG[:-2]))
        self._fill(connection, path)

    def _huge(self, connection: socket.socket, path: str) -> None:
        connection.sendall(_announced(JPEG[:-2], 10**14))
        self._fill(connection, path)

    def _fill(self, connection: socket.socket, path: str) -> None:
        while not self.stopped.is_set():
            connection.sendall(bytes(2**16))
            self.sent[path] += 2**16

    def _flaky(self, connection: socket.socket, path: str) -> None:
        connection.sendall(PAGES["503" if self.seen[path] == 1 else "ok"])

    def close(self) -> None:
        """Stop."""
        self.stopped.set()
        self._listener.close()


def certificate(folder: Path) -> Path:
    """Write a self-signed certificate for loopback and its key, as one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    today = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - dt.timedelta(days=1))
        .not_valid_after(today + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return pem


@contextmanager
def rude_web_server(folder: Path) -> Iterator[RudeWeb]:
    """Run a server; its certificate is written into ``folder``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(folder))
    server = RudeWeb(context)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def rude_web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RudeWeb]:
    """Run a server that misbehaves."""
    with rude_web_server(tmp_path_factory.mktemp("rude")) as server:
        yield server
