"""An object store on this machine that speaks S3, and counts what it is asked for."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import fsspec
import pytest

from gandist.data.remote import retry

KEY = "HUSH-HUSH"
"""That nobody may print."""


class Store:
    """The store, and what it was asked."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.asked: list[tuple[str, str, str | None]] = []
        self.broken = 0
        self.refusing = False
        self._lock = threading.Lock()

    def note(self, method: str, path: str, wanted: str | None) -> bool:
        """Note a request; return whether to break it."""
        with self._lock:
            self.asked.append((method, path, wanted))
            broken = self.broken > 0 and method == "GET" and path.endswith(".tar")
            self.broken -= broken
            return broken

    def gets(self) -> Counter[str]:
        return Counter(path for method, path, _ in self.asked if method == "GET" and path.endswith(".tar"))


@pytest.fixture(scope="session")
def running() -> Iterator[Store]:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = DomainDispatcherApplication(create_backend_app)
    store = Store("")

    def watched(environ: dict[str, Any], start: Any) -> Any:
        if store.note(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("HTTP_RANGE")):
            start("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        if store.refusing:
            start("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>InvalidAccessKeyId</Code><Message>There is no such key.</Message></Error>"]
        return application(environ, start)

    server = make_server("127.0.0.1", 0, watched, threaded=True)
    store.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield store
    server.shutdown()
    server.server_close()
    thread.join()


def begin_new_forkserver() -> None:
    """Let the next workers inherit this environment; the server of the earlier ones ends with the last of them."""
    server = forkserver._forkserver
    with server._lock:
        if server._forkserver_alive_fd is not None:
            os.close(server._forkserver_alive_fd)
        server._forkserver_alive_fd = server._forkserver_address = server._forkserver_pid = None


@pytest.fixture
def store(running: Store, shards: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A bucket with the shards and their index below s3://bucket/sets/small; the environment says how to reach it."""
    environment = {
        "AWS_ENDPOINT_URL": running.endpoint, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": KEY,
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    running.asked.clear()
    running.broken, running.refusing = 0, False
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    begin_new_forkserver()
    driver = fsspec.filesystem("s3")
    if not driver.exists("bucket"):
        driver.mkdir("bucket")
        for path in sorted(shards.iterdir()):
            if path.is_file():
                driver.pipe_file(f"bucket/sets/small/{path.name}", path.read_bytes())
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)
    running.asked.clear()
    return running
