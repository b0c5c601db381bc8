"""The page of `rank`: who is answered, what a request does, and what the page may not say."""

from __future__ import annotations

import http.client
import json
import re
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tunewright.cli.rank_page import LARGEST, PageServer, opened_page, page
from tunewright.core.errors import ConfigurationError, StorageError
from tunewright.run.ranking import Ranking, questions_of
from tunewright.run.ranking.candidates import Answer, Asked, Candidates
from tunewright.run.ranking.journal import Sitting, opened

OUT = Path("pairs.jsonl")


class Reply(NamedTuple):
    """What came back: status, headers and the JSON, or the text of the page."""

    status: int
    headers: Any
    body: Any


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PageServer]:
    monkeypatch.chdir(tmp_path)
    rows = [
        Asked(f"<b>prompt</b> {number}", (Answer(f"good {number}", "secret one"), Answer("</script>", "secret two")))
        for number in range(3)
    ]
    rows[2] = rows[2]._replace(prompt=[{"role": "user", "content": "hi"}])
    asked = questions_of(Candidates(tuple(rows))).asked
    with opened(OUT, asked) as journal, opened_page(Sitting(Ranking(asked, journal.before), journal)) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.shutdown()
        thread.join(10)


def send(server: PageServer, path: str, body: Any = None, **headers: str) -> Reply:
    data = None if body is None else json.dumps(body).encode()
    names = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(server.address + path, data, names)
    try:
        with urllib.request.urlopen(request, timeout=10) as found:
            text = found.read().decode()
            return Reply(found.status, found.headers, json.loads(text) if "json" in found.headers["Content-Type"] else text)
    except urllib.error.HTTPError as error:
        return Reply(error.code, error.headers, json.loads(error.read()))


def give(server: PageServer, answer: str) -> Reply:
    return send(server, "give", {"id": send(server, "state").body["question"]["id"], "answer": answer})


def pairs() -> int:
    return len(OUT.read_text().splitlines()) if OUT.exists() else 0


def test_from_the_first_question_to_the_end(server: PageServer) -> None:
    first = send(server, "state").body
    assert (first["done"], first["total"], first["undo"], first["facts"]) == (0, 3, False, [])
    second = give(server, "left").body
    assert (second["done"], second["undo"]) == (1, True)
    assert pairs() == 1
    give(server, "tie")
    over = give(server, "right").body
    assert over["question"] is None
    assert dict(over["facts"])["answered"] == "3: 2 decided, 1 tied"
    assert over["next"] == "tunewright tune pairs.jsonl --objective dpo"
    assert send(server, "undo", {}).body["question"]["id"]
    assert pairs() == 1
    assert send(server, "finish", {}).body["finished"] is True


def test_nothing_says_whose_an_answer_is_while_it_is_judged(server: PageServer) -> None:
    said = json.dumps(send(server, "state").body) + send(server, "").body
    assert "secret" not in said


def test_a_prompt_is_shown_as_its_turns(server: PageServer) -> None:
    seen = [send(server, "state").body["question"]["prompt"], *(give(server, "skip").body["question"]["prompt"] for _ in range(2))]
    assert [{"role": "user", "content": "hi"}] in seen
    assert [{"role": "", "content": "<b>prompt</b> 0"}] in seen


def test_a_second_click_answers_nothing(server: PageServer) -> None:
    first = send(server, "state").body["question"]["id"]
    send(server, "give", {"id": first, "answer": "left"})
    again = send(server, "give", {"id": first, "answer": "right"})
    assert again.status == 409
    assert again.body["done"] == 1
    assert again.body["question"]["id"] != first
    assert pairs() == 1


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("give", {"id": "x", "answer": "best"}, 400),
        ("give", ["left"], 400),
        ("give", {"id": "x" * LARGEST, "answer": "left"}, 400),
        ("else", {}, 404),
        ("else", None, 404),
        ("state/", None, 404),
    ],
)
def test_a_wrong_request_is_refused(server: PageServer, path: str, body: Any, status: int) -> None:
    found = send(server, path, body)
    assert found.status == status
    assert found.body["error"]
    assert not server.sitting.ranking.answers


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Content_Type": "text/plain"}]
)
def test_other_hosts_origins_and_kinds_are_refused(server: PageServer, headers: dict[str, str]) -> None:
    name = server.sitting.ranking.current
    assert name is not None
    found = send(server, "give", {"id": name.id, "answer": "left"}, **headers)
    assert found.status in (400, 404)
    assert not server.sitting.ranking.answers


def test_without_the_token_nothing_is_there(server: PageServer) -> None:
    for path in ("/", "/state", f"/{server.token}", f"/{server.token[:-1]}x/state", "/%00/state", "//state"):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        connection.request("GET", path)
        found = connection.getresponse()
        assert found.status == 404, path
        assert server.token not in found.read().decode()
        connection.close()


def test_only_this_machine_is_listened_to(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(ConfigurationError, match=f"--port {server.server_port}: the port cannot be used"):
        opened_page(server.sitting, server.server_port)


def test_after_the_end_nothing_is_taken(server: PageServer) -> None:
    server.over = True
    name = server.sitting.ranking.current
    assert name is not None
    assert send(server, "give", {"id": name.id, "answer": "left"}).status == 410
    assert not server.sitting.ranking.answers


def test_an_answer_that_cannot_be_written_is_told_and_ends_the_page(server: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StorageError("could not be written (No space left on device)", where="pairs.log.jsonl")

    monkeypatch.setattr(server.sitting.journal, "keep", full)
    found = give(server, "left")
    assert found.status == 507
    assert found.body["error"] == "pairs.log.jsonl: could not be written (No space left on device)."
    assert isinstance(server.failure, StorageError)


class Parts(HTMLParser):
    """The tags of a page, and the text of its scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside = {"script": "", "style": ""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in self.inside:
            self.inside[self.tags[-1][0]] += data


def test_the_page_runs_its_own_script_and_nothing_else(server: PageServer) -> None:
    found = send(server, "")
    policy = found.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    parts = Parts(found.body)
    for kind in ("script", "style"):
        text = re.search(rf"<{kind}>(.*?)</{kind}>", found.body, re.DOTALL)
        assert text is not None
        digest = b64encode(sha256(text[1].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    # Nothing is fetched from anywhere, and no text becomes markup.
    assert not re.search(r"(src|href)=\"(?!data:,)", found.body)
    assert "innerHTML" not in parts.inside["script"] + found.body
    assert "http:" not in found.body
    assert (found.headers["Referrer-Policy"], found.headers["Cache-Control"]) == ("no-referrer", "no-store")


def test_the_page_can_be_used_without_a_mouse_and_without_eyes() -> None:
    text = page()[0].decode()
    tags = Parts(text).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    # Everything that the script asks for is there, and every button says its key.
    assert set(re.findall(r'at\("([\w-]+)"\)', text)) <= set(ids)
    buttons = [attributes for tag, attributes in tags if tag == "button"]
    assert len(buttons) == 7
    assert all("aria-keyshortcuts" in one for one in buttons)
    assert {one["data-answer"] for one in buttons if "data-answer" in one} == {"left", "right", "tie", "both_bad", "skip"}
    assert ("html", {"lang": "en"}) in tags
    roles = {attributes.get("role") for _, attributes in tags}
    assert {"progressbar", "status", "alert", "group"} <= roles
    for part in ("prefers-color-scheme: dark", "prefers-reduced-motion", ":focus-visible", "<noscript>"):
        assert part in text
