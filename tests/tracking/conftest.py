"""A W&B server of our own on loopback, and a machine on which nobody has set W&B up."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gandist.runtime import wandb_link
from gandist.runtime.wandb_link import WandbLink

KEY = "local-" + "c0ffee" * 7


class StandIn:
    """As much of a W&B server as a run needs, remembering all that it was sent."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.silent = threading.Event()  # while set, requests are taken and never answered
        self.stopped = threading.Event()
        handler = type("Handler", (_Handler,), {"stand_in": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._thread.join()
        self._server.socket.close()

    def history(self, run_id: str) -> list[dict[str, Any]]:
        """Return the rows of a run, without what wandb adds."""
        rows = [json.loads(line) for line in self.runs[run_id]["history"]]
        return [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]

    def graphql(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(operation)
        answer = getattr(self, f"_{operation}", None)
        return {"data": answer(given) if answer else None}

    def stream(self, run_id: str, content: dict[str, Any]) -> None:
        run = self.runs[run_id]
        for name, part in content.get("files", {}).items():
            lines = run["history"] if name == "wandb-history.jsonl" else run.setdefault(name, [])
            lines[part["offset"] :] = part["content"]
        run.update({key: value for key, value in content.items() if key in ("complete", "exitcode", "preempting")})

    def _Viewer(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}

    def _RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run = self.runs.get(given["name"])
        project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": "me"}}
        return {"model": {**project, "bucket": run and _bucket(given["name"], run)}}

    def _UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        new = given["name"] not in self.runs
        run = self.runs.setdefault(given["name"], {"history": [], "config": "{}", "wandb-events.jsonl": []})
        run.update({key: value for key, value in given.items() if value is not None})
        project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": "me"}}
        bucket = {**_bucket(given["name"], run), "description": "", "sweepName": None, "project": project}
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def _CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        files = [{"name": name, "uploadUrl": f"{self.url}/put/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def _OrganizationCoreWeaveOrganizationID(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}


def _bucket(run_id: str, run: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": run_id,
        "name": run_id,
        "displayName": run.get("displayName"),
        "summaryMetrics": "{}",
        "logLineCount": 0,
        "historyLineCount": len(run["history"]),
        "eventsLineCount": len(run["wandb-events.jsonl"]),
        "historyTail": json.dumps(run["history"][-1:]),
        "eventsTail": json.dumps(run["wandb-events.jsonl"][-1:]),
        "config": run["config"],
        "tags": [],
        "notes": None,
        "wandbConfig": "{}",
    }


class _Handler(BaseHTTPRequestHandler):
    stand_in: StandIn
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self._body() or b"{}")
        if self.path == "/graphql":
            self._reply(self.stand_in.graphql(body.get("operationName", ""), body.get("variables") or {}))
        elif self.path.endswith("/file_stream"):
            self.stand_in.stream(self.path.split("/")[-2], body)
            self._reply({})
        else:
            self._reply({})

    def do_PUT(self) -> None:
        self.stand_in.files[self.path.removeprefix("/put/")] = self._body()
        self._reply({})

    def do_GET(self) -> None:
        self._reply({})

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.stand_in.silent.is_set():
            self.stand_in.stopped.wait()
        return body

    def _reply(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:  # the client was killed, as some tests want
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine W&B takes longer over what it mostly does within seconds."""
    monkeypatch.setattr(wandb_link, "CONNECT_GRACE_SECONDS", 60.0)
    monkeypatch.setattr(WandbLink.close, "__defaults__", (180.0,))


@pytest.fixture
def no_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user who has never used W&B: no variables, an empty home. Returns the home."""
    for name in [*os.environ]:
        if name.startswith("WANDB_") or name == "NETRC":
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return home


@pytest.fixture
def key(no_wandb: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The user's key, in the environment."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    return KEY


@pytest.fixture
def server(key: str, _patient: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A server that answers."""
    stand_in = StandIn()
    monkeypatch.setenv("WANDB_BASE_URL", stand_in.url)
    yield stand_in
    stand_in.close()


@pytest.fixture
def no_server(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")


@pytest.fixture
def black_hole(key: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield
