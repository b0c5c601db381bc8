"""Ranking in a browser: one page, served by this machine to this machine, with no network behind it.

The address holds a random token, and only requests for this host under that token are answered: neither another user nor a web
page that is open beside it can read or give answers. What is sent never says whose an answer is.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import webbrowser
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.cli.rank_summary import facts, next_command
from tunewright.core.errors import ConfigurationError, StorageError
from tunewright.run.ranking import CHOICES

if TYPE_CHECKING:
    from rich.console import Console

    from tunewright.run.ranking import Question
    from tunewright.run.ranking.candidates import Prompt
    from tunewright.run.ranking.journal import Sitting

HOST = "127.0.0.1"
LARGEST = 4096  # bytes of a request's body; an answer has about fifty
PATIENCE = 10  # seconds for a request to arrive


def serve(sitting: Sitting, screen: Console, port: int = 0) -> None:
    """Serve the page until the person finishes there or presses Ctrl-C here.

    Raises:
        ConfigurationError: the port is taken.
        StorageError: an answer could not be written.
    """
    with opened_page(sitting, port) as server:
        screen.print(f"Open {server.address}", soft_wrap=True)
        screen.print("Finish there, or press Ctrl-C here; every answer is kept at once.", style="dim")
        if screen.is_terminal:
            _show(server.address)
        with suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.2)
        with server.lock:  # an answer that is being written is finished, and none begins
            server.over = True
        if server.failure is not None:
            raise server.failure


def opened_page(sitting: Sitting, port: int = 0) -> PageServer:
    """The server of a page, listening; `serve_forever` answers. Raises `ConfigurationError`: the port is taken."""
    try:
        return PageServer(sitting, port)
    except OSError as error:
        hint = "Leave --port out to take a free one."
        raise ConfigurationError(f"the port cannot be used ({error.strerror})", where=f"--port {port}", hint=hint) from None


def _show(address: str) -> None:
    with suppress(webbrowser.Error):
        found = webbrowser.get()
        # The plain kind is a browser of the terminal (lynx, w3m): it would take this one away.
        if type(found) is not webbrowser.GenericBrowser:
            found.open(address)


class PageServer(ThreadingHTTPServer):
    """The page and what it asks for. Requests come in threads (browsers open connections in advance); answers come one by one.

    Args:
        sitting: what is asked and kept.
        port: 0 takes a free one.
    """

    daemon_threads = True

    def __init__(self, sitting: Sitting, port: int = 0) -> None:
        self.sitting, self.lock = sitting, threading.Lock()
        self.token = secrets.token_urlsafe(24)
        self.failure: StorageError | None = None
        self.over = False
        super().__init__((HOST, port), _Handler)
        self.names = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}
        self.address = f"http://{HOST}:{self.server_port}/{self.token}/"

    def state(self, finished: bool = False) -> dict[str, Any]:
        """What the page shows: the question that waits, or what the answers say."""
        ranking = self.sitting.ranking
        question = None if finished else ranking.current
        over = question is None
        return {
            "total": len(ranking.questions),
            "done": len(ranking.questions) - len(ranking.waiting),
            "question": None if question is None else _shown(question),
            "undo": bool(ranking.answers) and not finished,
            "finished": finished,
            "facts": facts(self.sitting) if over else [],
            "next": next_command(self.sitting) if over else "",
        }

    def act(self, path: str, body: dict[str, Any]) -> tuple[HTTPStatus, dict[str, Any]]:
        """Do what the page asks for: `give`, `undo` or `finish`."""
        if self.over:
            return HTTPStatus.GONE, {"error": "the command in the terminal has ended"}
        if path == "give":
            if body.get("answer") not in CHOICES:
                return HTTPStatus.BAD_REQUEST, {"error": "there is no such answer"}
            # A second click, or the page in a second tab: that question was answered, and the page is shown the one that waits.
            taken = self.sitting.give(str(body.get("id")), body["answer"])
            return (HTTPStatus.OK if taken else HTTPStatus.CONFLICT), self.state()
        if path == "undo":
            self.sitting.take_back()
            return HTTPStatus.OK, self.state()
        if path == "finish":
            return HTTPStatus.OK, self.state(finished=True)
        return HTTPStatus.NOT_FOUND, {"error": "there is nothing here"}

    def stop(self) -> None:
        """End `serve_forever`; may be called by a request that it serves."""
        threading.Thread(target=self.shutdown, daemon=True).start()


def _shown(question: Question) -> dict[str, Any]:
    return {
        "id": question.id,
        "prompt": _turns(question.prompt),
        "left": question.left.text,
        "right": question.right.text,
    }


def _turns(prompt: Prompt) -> list[dict[str, str]]:
    turns = [{"role": "", "content": prompt}] if isinstance(prompt, str) else prompt
    return [{"role": one["role"], "content": one["content"]} for one in turns]


def page() -> tuple[bytes, str]:
    """The page, and the policy under which it runs: its own script and style, its own server, nothing else."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from tunewright.evaluation.report.html import environment

    here = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    style = environment().get_template("colours.css.jinja").render() + here.get_template("rank.css.jinja").render()
    script = here.get_template("rank.js.jinja").render()
    text = here.get_template("rank.html.jinja").render(style=Markup(style), script=Markup(script))
    kinds = {
        "style-src": f"'sha256-{_digest(style)}'",
        "script-src": f"'sha256-{_digest(script)}'",
        "connect-src": "'self'",
        "img-src": "data:",
    }
    rules = "; ".join(f"{kind} {source}" for kind, source in kinds.items())
    return text.encode(), f"default-src 'none'; {rules}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


class _Handler(BaseHTTPRequestHandler):
    timeout = PATIENCE
    server_version, sys_version = "tunewright", ""

    @property
    def _page(self) -> PageServer:
        assert isinstance(self.server, PageServer)
        return self.server

    def do_GET(self) -> None:
        path = self._path()
        if path == "":
            text, policy = page()
            self._send(HTTPStatus.OK, text, "text/html; charset=utf-8", policy)
        elif path == "state":
            with self._page.lock:
                self._json(HTTPStatus.OK, self._page.state())
        else:
            self._json(HTTPStatus.NOT_FOUND, {"error": "there is nothing here"})

    def do_POST(self) -> None:
        path, body = self._path(), self._body()
        if path is None or body is None:
            self._json(HTTPStatus.NOT_FOUND if path is None else HTTPStatus.BAD_REQUEST, {"error": "there is nothing here"})
            return
        try:
            with self._page.lock:
                status, facts_ = self._page.act(path, body)
        except StorageError as error:
            self._page.failure = error
            self._json(HTTPStatus.INSUFFICIENT_STORAGE, {"error": str(error)})
            self._page.stop()
            return
        self._json(status, facts_)
        if facts_.get("finished"):
            self._page.stop()

    def _path(self) -> str | None:
        """What is asked for, below the token; None where host, origin or token are not ours."""
        ours = self.headers.get("Host") in self._page.names
        origin = self.headers.get("Origin")
        ours = ours and (origin is None or origin.removeprefix("http://") in self._page.names)
        token, slash, path = self.path.removeprefix("/").partition("/")
        known = hmac.compare_digest(token.encode(), self._page.token.encode())
        return path if ours and known and slash else None

    def _body(self) -> dict[str, Any] | None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST or self.headers.get_content_type() != "application/json":
            return None
        try:
            value = json.loads(self.rfile.read(int(length)))
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    def _json(self, status: HTTPStatus, value: dict[str, Any]) -> None:
        self._send(status, json.dumps(value).encode(), "application/json", "default-src 'none'")

    def _send(self, status: HTTPStatus, body: bytes, kind: str, policy: str) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Content-Security-Policy": policy}
        headers |= {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):  # the tab was closed meanwhile
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal shows what the person needs, and the address is a secret."""
