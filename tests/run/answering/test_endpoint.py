"""A server for chat completions: what it is asked, what is tried again, what stops everything, what leaves a row out."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from httpx2 import Client

from tunewright.core.configuration import build
from tunewright.core.errors import ConfigurationError, EndpointError
from tunewright.run.answering import endpoint as endpoints
from tunewright.run.answering.endpoint import Asked, Endpoint, asked_of
from tunewright.run.answering.journal import Place, Said

from .server import Reply, Server, serving


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("TUNEWRIGHT_API_KEY", raising=False)


def questions(*texts: str) -> list[Asked]:
    return [Asked((number, 0), {"model": "m", "messages": [{"role": "user", "content": one}]}) for number, one in enumerate(texts)]


def ask(server: Server | str, *texts: str, **settings: Any) -> dict[Place, Said]:
    url = server if isinstance(server, str) else server.url
    given = {"first_wait": 0.0, "retries": 2, **settings}
    return dict(asked_of(Endpoint(url=url, **given), questions(*texts)))


def test_every_question_has_its_own_answer() -> None:
    with serving() as server:
        found = ask(server, *(f"word {number}" for number in range(30)), parallel=5)
    assert found == {(number, 0): Said(f"WORD {number}") for number in range(30)}
    assert set(server.paths) == {"/v1/chat/completions"}
    assert not any("authorization" in headers for headers in server.headers)


def test_several_at_a_time_and_no_more() -> None:
    with serving(lambda body, number: Reply("yes", seconds=0.03)) as server:
        ask(server, *map(str, range(12)), parallel=3)
    assert server.most == 3


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    with serving() as server:
        ask(server, "a", key_from="MY_KEY")
    assert server.headers[0]["authorization"] == "Bearer secret"


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_may_pass_is_tried_again(status: int) -> None:
    def twice(body: dict[str, Any], number: int) -> Reply:
        return Reply("at last") if number > 2 else Reply(status=status, body={"error": {"message": "busy"}})

    with serving(twice) as server:
        assert ask(server, "a") == {(0, 0): Said("at last")}
    assert len(server.asked) == 3


class Clock(threading.Event):
    """An event that never waits, and notes for how long it was asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return False


def test_waits_grow_and_a_server_may_ask_for_more() -> None:
    clock = Clock()
    headers = {3: {"Retry-After": "20"}, 4: {"Retry-After": "9999"}, 5: {"Retry-After": "Sat, 21 Nov 2026 00:00:00 GMT"}}

    def busy(body: dict[str, Any], number: int) -> Reply:
        return Reply("done") if number > 5 else Reply(status=429, body={}, headers=headers.get(number, {}))

    with serving(busy) as server:
        line = endpoints._Line(Endpoint(url=server.url, first_wait=1.0), Client(timeout=5))
        line.stopped = clock
        assert line.answered(questions("a")[0]) == Said("done")
    first, *others, last = clock.waits
    assert first == 0
    assert 0.75 <= others[0] <= 1.25
    assert 1.5 <= others[1] <= 2.5
    assert others[2:] == [20, endpoints.LONGEST_WAIT]
    assert 12 <= last <= 20  # a date is not understood: its own measure goes on


def test_one_question_that_is_never_answered_is_left_out() -> None:
    def broken(body: dict[str, Any], number: int) -> Reply:
        return Reply(status=500, body={"error": "boom"}) if body["messages"][0]["content"] == "3" else Reply("yes")

    with serving(broken) as server:
        found = ask(server, *map(str, range(8)), parallel=2)
    assert Counter(said.text for said in found.values()) == {"yes": 7, "": 1}
    assert found[3, 0].why == ("no_answer", "the server answers 500 (boom) after 3 tries")


@pytest.mark.parametrize(
    ("reply", "kind", "part"),
    [
        (Reply(status=400, body={"error": {"message": "maximum context\nlength"}}), "refused", "400: maximum context length"),
        (Reply(status=422, body=b"not even JSON"), "refused", "422: not even JSON"),
        (Reply(""), "empty_answer", "empty"),
        (Reply("  \n"), "empty_answer", "empty"),
        (Reply(None), "empty_answer", "empty"),
        (Reply("no", reason="content_filter"), "filtered", "withheld"),
        (Reply(body={"choices": []}), "no_completion", "no chat completion"),
        (Reply(body=[1, 2]), "no_completion", "no chat completion: [1, 2]"),
        (Reply(body=b"<html>login</html>"), "no_completion", "<html>login</html>"),
        (Reply(body={"choices": [{"message": {"content": ["a"]}}]}), "no_completion", "no text but list"),
    ],
)
def test_what_is_no_answer_leaves_its_row_out_with_the_reason(reply: Reply, kind: str, part: str) -> None:
    with serving(lambda body, number: reply if body["messages"][0]["content"] == "1" else Reply("yes")) as server:
        found = ask(server, *map(str, range(6)))
    assert [number for (number, _), said in sorted(found.items()) if said.why is not None] == [1]
    why = found[1, 0].why
    assert why is not None
    assert why[0] == kind
    assert part in why[1]
    assert len(server.asked) == 6  # it is not asked again: nothing would change


def test_an_answer_that_was_cut_off_says_so() -> None:
    with serving(lambda body, number: Reply("and so", reason="length")) as server:
        assert ask(server, "a") == {(0, 0): Said("and so", finished=False)}


def test_a_server_that_is_down_stops_everything_and_says_how_it_was_tried() -> None:
    with serving() as server:
        pass
    with pytest.raises(EndpointError, match="does not answer") as caught:
        ask(server, *map(str, range(9)))
    assert "after 3 tries, 3 questions in a row" in caught.value.problem
    assert caught.value.where == server.url
    assert caught.value.exit_code == 1


def test_a_server_that_never_answers_is_given_up() -> None:
    with serving(lambda body, number: Reply("late", seconds=0.4)) as server, pytest.raises(EndpointError, match="ReadTimeout"):
        ask(server, *map(str, range(4)), timeout=0.05, retries=0)


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "TUNEWRIGHT_API_KEY is not set, so no key was sent"), (403, "--key-from"), (404, "--model")]
)
def test_what_concerns_all_questions_stops_at_once(status: int, hint: str) -> None:
    with (
        serving(lambda body, number: Reply(status=status, body={"error": {"message": "no"}})) as server,
        pytest.raises(EndpointError) as caught,
    ):
        ask(server, *map(str, range(40)), parallel=2)
    assert f"answers {status} (no)" in str(caught.value)
    assert hint in caught.value.hint
    assert len(server.asked) < 10


def test_the_key_is_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_API_KEY", "sk-secret")
    with serving(lambda body, number: Reply(status=401, body={})) as server, pytest.raises(EndpointError) as caught:
        ask(server, "a")
    assert "was sent and is not the right one" in str(caught.value)
    assert "sk-secret" not in str(caught.value) + repr(caught.value.as_dict())


def test_what_was_answered_before_the_end_is_given() -> None:
    def dying(body: dict[str, Any], number: int) -> Reply:
        return Reply("yes") if int(body["messages"][0]["content"]) < 5 else Reply(status=401, body={})

    found: dict[Place, Said] = {}
    with serving(dying) as server, pytest.raises(EndpointError):
        found.update(asked_of(Endpoint(url=server.url, parallel=3, first_wait=0), questions(*map(str, range(20)))))
    assert found == {(number, 0): Said("yes") for number in range(5)}


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", "http://", "http://a b/v1", "http://me:key@host/v1", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build(Endpoint, {"url": url})
    assert "is no address of a server" in caught.value.problem
    assert "http://localhost:8000/v1" in caught.value.hint


@pytest.mark.parametrize("given", [{"parallel": 0}, {"retries": -1}, {"timeout": 0}, {"key_from": ""}, {"paralel": 3}])
def test_settings_out_of_range_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(given))):
        build(Endpoint, {"url": "http://host/v1", **given})


def test_an_address_may_be_given_whole() -> None:
    assert Endpoint(url="http://host/v1/chat/completions").url == Endpoint(url="http://host/v1/").url == "http://host/v1"
