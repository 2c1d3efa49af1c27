"""An S3 store as a process, and a line to it that a test can cut, freeze or count."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from urllib.request import Request, urlopen

import obstore
from obstore.store import S3Store

KEYS = {"AWS_ACCESS_KEY_ID": "test-key-id", "AWS_SECRET_ACCESS_KEY": "test-secret-key"}
_SIGNED = "AWS4-HMAC-SHA256 Credential={}/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x"


@dataclass(frozen=True, slots=True)
class S3:
    """moto's server: it keeps everything in memory."""

    port: int
    process: subprocess.Popen[str]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def freeze(self) -> None:
        """Let it take connections and answer nothing, as behind a network that is cut."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def reset(self) -> None:
        self._ask("/moto-api/reset", "POST")
        self._ask("/moto-api/reset-auth", "POST", b"inf")

    def check_keys(self) -> None:
        """From now on refuse keys that nobody was given; at first any is good."""
        self._ask("/moto-api/reset-auth", "POST", b"0")

    def add_bucket(self, name: str) -> None:
        self._ask(f"/{name}", "PUT")

    def objects(self, bucket: str) -> dict[str, int]:
        """Return the objects of a bucket and their sizes."""
        listed = obstore.list(self._store(bucket)).collect()
        return {str(item["path"]): int(item["size"]) for item in listed}

    def read(self, bucket: str, name: str) -> bytes:
        return bytes(obstore.get(self._store(bucket), name).bytes())

    def write(self, bucket: str, name: str, content: bytes) -> None:
        obstore.put(self._store(bucket), name, content)

    def delete(self, bucket: str, name: str) -> None:
        obstore.delete(self._store(bucket), name)

    def unfinished(self, bucket: str) -> int:
        """Return how many uploads were begun, and neither finished nor withdrawn."""
        return self._ask(f"/{bucket}?uploads", "GET").count(b"<Upload>")

    def _store(self, bucket: str) -> S3Store:
        return S3Store(
            bucket,
            region="us-east-1",
            endpoint=self.endpoint,
            virtual_hosted_style_request=False,
            access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            client_options={"allow_http": True},
        )

    def _ask(self, path: str, method: str, body: bytes | None = None) -> bytes:
        signed = {
            "Authorization": _SIGNED.format(KEYS["AWS_ACCESS_KEY_ID"]),
            "Content-Type": "text/plain",
        }
        with urlopen(
            Request(self.endpoint + path, body, signed, method=method), timeout=30
        ) as reply:
            found: bytes = reply.read()
            return found


@contextmanager
def running_s3() -> Iterator[S3]:
    child = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None, "it is a pipe"
    try:
        found = next(
            match for line in child.stderr if (match := re.search(r"127.0.0.1:(\d+)", line))
        )
        # It logs every request: a pipe that nobody reads would stop it.
        reading = threading.Thread(target=child.stderr.read)
        reading.start()
        yield S3(int(found[1]), child)
    finally:
        child.kill()
        child.wait()
        reading.join()
        child.stderr.close()


@dataclass
class Line:
    """A line to a port: whole at first; `stop_after` bytes towards the store it is cut, or stands still.

    `slow_down` lets through so many bytes a second towards the store.
    """

    target: int
    port: int = 0
    sent: int = 0
    rate: int | None = None
    limit: int | None = None
    cuts: bool = True
    """At the limit: cut it (else it stands still)."""
    reached: threading.Event = field(default_factory=threading.Event)
    _whole: threading.Event = field(default_factory=threading.Event)
    _open: list[socket.socket] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop_after(self, limit: int, *, cuts: bool) -> None:
        with self._lock:
            self.sent, self.limit, self.cuts = 0, limit, cuts
        self.reached.clear()

    def slow_down(self, rate: int) -> None:
        self._whole.clear()
        with self._lock:
            self.rate = rate

    def mend(self) -> None:
        with self._lock:
            self.limit = self.rate = None
        self._whole.set()
        self._close_all()

    def _close_all(self) -> None:
        with self._lock:
            ends, self._open = self._open, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def accept(self, server: socket.socket) -> None:
        while True:
            try:
                near, _ = server.accept()
                if self._is_over() and self.cuts:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                self._close_all()
                return
            with self._lock:
                self._open += [near, far]
            for source, sink, counts in ((near, far, True), (far, near, False)):
                threading.Thread(
                    target=self._pump, args=(source, sink, counts), daemon=True
                ).start()

    def _is_over(self) -> bool:
        with self._lock:
            return self.limit is not None and self.sent > self.limit

    def _pump(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if counts:
                    with self._lock:
                        self.sent += len(data)
                    if self.rate is not None:
                        self._whole.wait(len(data) / self.rate)
                if self._is_over():
                    self.reached.set()
                    if self.cuts:
                        break
                    continue  # swallowed: nobody answers any more
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def line_to(target: int) -> Iterator[Line]:
    """Open a line to a port of this machine."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        line = Line(target, server.getsockname()[1])
        accepting = threading.Thread(target=line.accept, args=(server,), daemon=True)
        accepting.start()
        yield line
        server.shutdown(socket.SHUT_RDWR)
    accepting.join()
