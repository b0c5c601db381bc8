"""Answers from an OpenAI-compatible server: chat completions, several at once, asked again where that may help."""

from __future__ import annotations

import itertools
import math
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import Field, field_validator

from tunewright.core.configuration import Strict
from tunewright.core.errors import ConfigurationError, EndpointError
from tunewright.core.surroundings import variable
from tunewright.run.answering.journal import Place, Said

if TYPE_CHECKING:
    from httpx2 import Client, Response

AGAIN = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))  # a later try may succeed
DENIED = frozenset((401, 403))
LONGEST_WAIT = 60.0  # seconds between two tries, also where a server asks for more
LOST = 3  # questions in a row without an answer, from which on a server counts as down
SHOWN = 200  # characters of a server's own words


class Endpoint(Strict):
    """A server, and how it is asked.

    Args:
        url: what `/chat/completions` stands behind ("http://localhost:8000/v1").
        parallel: requests at a time.
        retries: further tries of a request that failed in a way that may pass: 429, 5xx, no connection, no answer in time.
        timeout: seconds until a request counts as lost.
        first_wait: seconds before the second try; each further one waits twice as long, with a little chance.
        key_from: the environment variable that holds the key; none is sent where it is not set.
    """

    url: str
    parallel: int = Field(default=4, ge=1, le=256)
    retries: int = Field(default=5, ge=0, le=100)
    timeout: float = Field(default=120.0, gt=0)
    first_wait: float = Field(default=1.0, ge=0)
    key_from: str = Field(default="TUNEWRIGHT_API_KEY", min_length=1)

    @field_validator("url")
    @classmethod
    def _http(cls, url: str) -> str:
        kind, _, rest = url.partition("://")
        if kind not in ("http", "https") or not rest.strip("/") or any(letter.isspace() for letter in url) or "@" in rest:
            hint = "Write it like http://localhost:8000/v1; a key comes from the environment."
            raise ConfigurationError(f"'{url}' is no address of a server", where="endpoint", hint=hint)
        return url.rstrip("/").removesuffix("/chat/completions")


@dataclass(frozen=True)
class Asked:
    """One question: where its answer belongs, and the body of its request."""

    place: Place
    body: dict[str, Any]


class _RowRefused(Exception):
    """The server refuses this one question, or answers it with nothing."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def asked_of(endpoint: Endpoint, questions: Sequence[Asked]) -> Iterator[tuple[Place, Said]]:
    """The answers, as they come in; a question that the server refuses gives a `Said` with the reason.

    Raises:
        EndpointError: the server is down, out of reach, wants another key, or does not know the address or the model. What it had
            answered by then was given before.
    """
    from httpx2 import Client, Limits

    key = variable(endpoint.key_from)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with (
        Client(headers=headers, timeout=endpoint.timeout, limits=Limits(max_connections=endpoint.parallel)) as client,
        ThreadPoolExecutor(endpoint.parallel) as pool,
    ):
        line = _Line(endpoint, client)
        try:
            yield from _gathered(line, pool, iter(questions))
        finally:
            line.stopped.set()
    if line.failure is not None:
        raise line.failure


def _gathered(line: _Line, pool: ThreadPoolExecutor, waiting: Iterator[Asked]) -> Iterator[tuple[Place, Said]]:
    """Hand out questions until there are none, or until all is over; what was under way by then is waited for."""
    running: dict[Future[Said], Place] = {}
    while True:
        # Enough that no thread waits for work, and few enough that little is lost when everything stops.
        room = 0 if line.failure else 2 * line.endpoint.parallel - len(running)
        for asked in itertools.islice(waiting, room):
            running[pool.submit(line.answered, asked)] = asked.place
        if not running:
            return
        for done in wait(running, return_when=FIRST_COMPLETED).done:
            place, said = running.pop(done), line.taken(done)
            if said is not None:
                yield place, said


class _Line:
    """What the threads share: the connection, whether all is over and why, how many questions in a row went unanswered."""

    def __init__(self, endpoint: Endpoint, client: Client) -> None:
        self.endpoint, self.client, self.stopped = endpoint, client, threading.Event()
        self.failure: EndpointError | None = None
        self._lost, self._lock = 0, threading.Lock()

    def taken(self, done: Future[Said]) -> Said | None:
        """What came of one question; None where it is what ends everything, or was ended by that."""
        try:
            return done.result()
        except EndpointError as error:
            self.failure = self.failure or error
            self.stopped.set()
            return None

    def answered(self, asked: Asked) -> Said:
        """The answer to one question, or why it has none."""
        try:
            return _said(self._tried(asked))
        except _RowRefused as refused:
            return Said(why=(refused.kind, str(refused)))

    def _tried(self, asked: Asked) -> Response:
        from httpx2 import HTTPError, InvalidURL, StreamError

        url, wait_s = f"{self.endpoint.url}/chat/completions", 0.0
        problem = ""
        for number in range(self.endpoint.retries + 1):
            if self.stopped.wait(wait_s):
                raise EndpointError("was not asked any more", where=self.endpoint.url)
            wait_s = min(LONGEST_WAIT, self.endpoint.first_wait * 2**number * random.uniform(0.75, 1.25))
            try:
                response = self.client.post(url, json=asked.body)
            except (HTTPError, InvalidURL, StreamError, UnicodeError) as error:
                problem = f"does not answer ({type(error).__name__}{': ' if str(error) else ''}{error})"
                continue
            if response.status_code not in AGAIN:
                self._require_good(response)
                self._lost = 0
                return response
            problem = f"answers {response.status_code} ({_words(response)})"
            wait_s = max(wait_s, _asked_wait(response))
        return self._give_up(problem)

    def _give_up(self, problem: str) -> NoReturn:
        """One question that is never answered is left out; several in a row are a server that is down."""
        with self._lock:
            self._lost += 1
            lost = self._lost
        tries = f" after {self.endpoint.retries + 1} tries" if self.endpoint.retries else ""
        if lost >= LOST:
            hint = "Is the server up, and is this its address?"
            raise EndpointError(f"{problem}{tries}, {LOST} questions in a row", where=self.endpoint.url, hint=hint)
        raise _RowRefused("no_answer", f"the server {problem}{tries}")

    def _require_good(self, response: Response) -> None:
        """Raise for what no later try will mend: everything stops, or this one row is left out."""
        status = response.status_code
        if status in DENIED:
            had = "was sent and is not the right one" if variable(self.endpoint.key_from) else "is not set, so no key was sent"
            hint = f"The environment variable {self.endpoint.key_from} {had}; --key-from names another."
            raise EndpointError(f"answers {status} ({_words(response)})", where=self.endpoint.url, hint=hint)
        if status == 404:
            hint = "The address ends before /chat/completions, often with /v1; --model is the server's name for it."
            raise EndpointError(f"answers 404 ({_words(response)})", where=self.endpoint.url, hint=hint)
        if status != 200:
            raise _RowRefused("refused", f"the server answers {status}: {_words(response)}")


def _said(response: Response) -> Said:
    try:
        choice = response.json()["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError):
        raise _RowRefused("no_completion", f"the server's answer is no chat completion: {_words(response)}") from None
    if reason == "content_filter":
        raise _RowRefused("filtered", "the server's filter withheld the answer")
    if text is not None and not isinstance(text, str):
        raise _RowRefused("no_completion", f"the answer is no text but {type(text).__name__}")
    if not text or not text.strip():
        raise _RowRefused("empty_answer", "the answer is empty")
    return Said(text.strip(), finished=reason != "length")


def _words(response: Response) -> str:
    """What the server says, as one short line."""
    try:
        value = response.json()
        inner = value.get("error", value) if isinstance(value, dict) else value
        text = str(inner.get("message", inner)) if isinstance(inner, dict) else str(inner)
    except ValueError:
        text = response.text
    text = " ".join(text.split()) or "no further words"
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def _asked_wait(response: Response) -> float:
    """How many seconds the server asks to be left alone; a date is not understood and counts as none."""
    try:
        seconds = float(response.headers.get("retry-after", "0"))
    except ValueError:
        return 0.0
    return min(LONGEST_WAIT, max(0.0, seconds)) if math.isfinite(seconds) else 0.0
