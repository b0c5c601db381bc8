"""A server for chat completions on this machine, that does what a test tells it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[[dict[str, Any], int], "Reply"]


@dataclass
class Reply:
    """What is sent back: a completion with `text`, or, with another `body`, that (bytes as they are)."""

    text: str | None = None
    status: int = 200
    body: Any = None
    reason: str = "stop"
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def content(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        choice = {"index": 0, "message": {"role": "assistant", "content": self.text}, "finish_reason": self.reason}
        return json.dumps({"object": "chat.completion", "choices": [choice]} if self.body is None else self.body).encode()


@dataclass
class Server:
    """Where it listens, and what it was asked."""

    url: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    most: int = 0  # requests at a time
    now: int = 0

    def texts(self) -> list[str]:
        """The last message of each request, sorted."""
        return sorted(body["messages"][-1]["content"] for body in self.asked)


def echo(body: dict[str, Any], number: int) -> Reply:
    """The question in capitals."""
    return Reply(body["messages"][-1]["content"].upper())


@contextmanager
def serving(behaviour: Behaviour = echo) -> Iterator[Server]:
    """A server that answers request `number` (from 1) as `behaviour` says."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                seen.asked.append(body)
                seen.paths.append(self.path)
                seen.headers.append({name.lower(): value for name, value in self.headers.items()})
                number = len(seen.asked)
                seen.now += 1
                seen.most = max(seen.most, seen.now)
            reply = behaviour(body, number)
            time.sleep(reply.seconds)
            with lock:
                seen.now -= 1
            content = reply.content()
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *given: Any) -> None:
            return

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            return  # a client that went away

    with Quiet(("127.0.0.1", 0), Handler) as server:
        seen = Server(f"http://127.0.0.1:{server.server_address[1]}/v1")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            server.shutdown()
            thread.join()
