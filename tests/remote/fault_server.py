"""A web server on this machine that misbehaves as it is told, and counts what it is asked for and what it sends."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = random.Random(7).randbytes(40_000)


def await_that(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.005)


@dataclass(frozen=True)
class Fault:
    """What goes wrong in one answer.

    Attributes:
        after: bytes of the body that are sent before the connection is dropped, or before ``stall``.
        stall: be silent after ``after`` bytes until the server is told to go on, or stops.
        status: answer this instead of the file.
        headers: of such an answer.
        whole: ignore the Range that was asked for.
        body: serve these bytes in place of the file's.
        tag: the entity tag of this answer.
        heedless: answer a Range whatever version it was asked of.
        unsized: do not say how long the body is.

    """

    after: int | None = None
    stall: bool = False
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    whole: bool = False
    body: bytes | None = None
    tag: str | None = None
    heedless: bool = False
    unsized: bool = False


FINE = Fault()


@dataclass
class FaultServer:
    """Serves ``files`` by path; each request takes the next of ``faults``, and all is well once they are used up."""

    files: dict[str, bytes]
    ranges: bool = True
    faults: list[Fault] = field(default_factory=list)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    sent_bytes: int = 0
    go_on: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next_fault(self, path: str, wanted: str | None) -> Fault:
        with self._lock:
            self.asked.append((path, wanted))
            return self.faults.pop(0) if self.faults and path.endswith(".tar") else FINE

    def count(self, sent: int) -> None:
        with self._lock:
            self.sent_bytes += sent

    @contextlib.contextmanager
    def running(self) -> Iterator[FaultServer]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler.of(self))
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.go_on.set()
            server.shutdown()
            server.server_close()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    served: FaultServer

    @classmethod
    def of(cls, served: FaultServer) -> type[BaseHTTPRequestHandler]:
        return type("HandlerOfOne", (cls,), {"served": served})

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        wanted = self.headers.get("Range")
        fault = self.served.next_fault(path, wanted)
        content = self.served.files.get(path) if fault.body is None else fault.body
        if fault.status is not None or content is None:
            self._plain(fault.status or 404, fault.headers)
            return
        tag = fault.tag or f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        start = 0
        same = fault.heedless or self.headers.get("If-Range", tag) == tag
        if wanted and self.served.ranges and not fault.whole and same:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self._plain(416, (("Content-Range", f"bytes */{len(content)}"),))
                return
        self._send(content, start, tag, fault)

    def _plain(self, status: int, headers: tuple[tuple[str, str], ...]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, content: bytes, start: int, tag: str, fault: Fault) -> None:
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if not fault.unsized:
            self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", tag)
        self.end_headers()
        stop = len(content) if fault.after is None else min(start + fault.after, len(content))
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content[start:stop])
            self.served.count(stop - start)
            self.wfile.flush()
            if fault.stall:
                self.served.go_on.wait(30)

    def log_message(self, *_: object) -> None:
        pass
