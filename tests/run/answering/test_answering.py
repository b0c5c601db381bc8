"""Answers of a model here and of a server, as rows; what stopped goes on, and nothing is asked twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunewright.core.errors import BaseModelError, ConfigurationError, DataError, EndpointError, WorkError
from tunewright.core.narrator import Narrator
from tunewright.graders import made
from tunewright.run.answering import How, answer, softened
from tunewright.run.answering.endpoint import Endpoint

from ..conftest import write
from .server import Reply, echo, serving


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def asked(folder: Path, count: int = 6) -> str:
    return str(write(folder / "asked.jsonl", [{"prompt": f"word {number}", "id": number} for number in range(count)]))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def by_server(url: str, **settings: Any) -> How:
    endpoint = {"first_wait": 0.0, "retries": 1, "parallel": 2, **settings.pop("endpoint", {})}
    return How(endpoint=Endpoint(url=url, **endpoint), **settings)


class Heard(Narrator):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.counts: list[tuple[int, int]] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def progress(self, done: int, total: int, facts: Any) -> None:
        self.counts.append((done, total))


def test_a_servers_answers_stand_in_the_order_of_the_questions(tmp_path: Path) -> None:
    def slow(body: dict[str, Any], number: int) -> Reply:
        word = body["messages"][0]["content"]
        return Reply(f"re {word}", seconds=0.1 if word == "word 0" else 0)

    out, heard = tmp_path / "out.jsonl", Heard()
    with serving(slow) as server:
        found = answer(asked(tmp_path), "gpt", out, by_server(server.url, drawing={"temperature": 0.3, "max_new_tokens": 9}), heard)
    assert lines(out) == [{"prompt": f"word {number}", "completion": f"re word {number}", "id": number} for number in range(6)]
    assert (found.rows, found.written, found.left_out, found.ledger) == (6, 6, {}, None)
    assert heard.counts[-1] == (6, 6)
    assert {json.dumps({**body, "messages": 0}) for body in server.asked} == {
        json.dumps({"model": "gpt", "messages": 0, "max_tokens": 9, "temperature": 0.3})
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["asked.jsonl", "out.jsonl"]


def test_what_is_drawn_several_times_is_asked_several_times(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    drawing = {"temperature": 1.0, "seed": 5, "top_p": 0.9}
    with serving(lambda body, number: Reply(f"{body['messages'][-1]['content']} {body['seed'] % 2}")) as server:
        answer(asked(tmp_path, 2), "m", out, by_server(server.url, samples=3, drawing=drawing, system="Be brief."))
    assert sorted(body["seed"] for body in server.asked) == [5, 5, 6, 6, 7, 7]
    assert {body["top_p"] for body in server.asked} == {0.9}
    assert {body["messages"][0]["content"] for body in server.asked} == {"Be brief."}
    # Seeds 5 and 7 gave the same answer, which is one row; the system text is the teacher's alone.
    assert [(one["prompt"], one["completion"]) for one in lines(out)] == [
        ("word 0", "word 0 1"), ("word 0", "word 0 0"), ("word 1", "word 1 1"), ("word 1", "word 1 0")
    ]  # fmt: skip


def test_the_best_of_several_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    data = write(tmp_path / "asked.jsonl", [{"prompt": "2+2", "completion": "4"}, {"prompt": "3+3", "completion": "6"}])
    grader = made({"name": "string_check", "operation": "eq", "reference": "{{ item.reference }}"})
    with serving(lambda body, number: Reply(str(2 * (body["seed"] + 1)))) as server:
        how = by_server(server.url, samples=3, best=grader, drawing={"temperature": 1.0, "seed": 0})
        answer(str(data), "m", out, how)
    assert lines(out) == [{"prompt": "2+2", "completion": "4"}, {"prompt": "3+3", "completion": "6"}]


def test_what_has_no_answer_stands_beside_with_its_reason_and_can_be_asked_again(tmp_path: Path) -> None:
    def some(body: dict[str, Any], number: int) -> Reply:
        word = body["messages"][0]["content"][-1]
        bad = {"1": Reply(""), "2": Reply(status=400, body={"error": "too long"}), "3": Reply("and", reason="length")}
        return bad.get(word) or echo(body, number)

    out = tmp_path / "out.jsonl"
    with serving(some) as server:
        found = answer(asked(tmp_path), "m", out, by_server(server.url))
    assert [one["id"] for one in lines(out)] == [0, 4, 5]
    assert found.left_out == {"empty_answer": 1, "refused": 1, "unfinished": 1}
    assert found.first.endswith("asked.jsonl:2: the answer is empty")
    assert found.ledger == tmp_path / "out.left_out.jsonl"
    left = lines(found.ledger)
    assert [one["prompt"] for one in left] == ["word 1", "word 2", "word 3"]
    assert [one["kind"] for one in left] == ["empty_answer", "refused", "unfinished"]
    with serving() as server:
        again = answer(str(found.ledger), "m", tmp_path / "again.jsonl", by_server(server.url))
    assert again.written == 3


def test_unfinished_answers_are_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    with serving(lambda body, number: Reply("and", reason="length")) as server:
        with pytest.raises(DataError, match="cut off after 128 tokens"):
            answer(asked(tmp_path, 2), "m", tmp_path / "out.jsonl", by_server(server.url))
        found = answer(asked(tmp_path, 2), "m", tmp_path / "out.jsonl", by_server(server.url, unfinished=True))
    assert (found.written, found.resumed, len(server.asked)) == (2, 2, 2)  # nothing was asked twice


def test_what_was_stopped_goes_on_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    def dying(body: dict[str, Any], number: int) -> Reply:
        return echo(body, number) if number <= 4 else Reply(status=401, body={})

    data, out = asked(tmp_path, 9), tmp_path / "out.jsonl"
    with serving(dying) as server:
        with pytest.raises(EndpointError) as caught:
            answer(data, "m", out, by_server(server.url, endpoint={"parallel": 1}))
        assert "4 answers are kept; the same command goes on" in caught.value.hint
        assert not out.exists()
        part = tmp_path / "out.jsonl.part"
        assert len(lines(part)) == 5
        part.write_bytes(part.read_bytes()[:-3])  # and the power was lost while the last one was written
        other = server.url
    heard = Heard()
    with serving() as server:  # at another address, which a user would not have: it is a part of the request
        part.write_text(part.read_text(encoding="utf-8").replace(other, server.url), encoding="utf-8")
        found = answer(data, "m", out, by_server(server.url), heard)
    assert (found.resumed, found.written) == (3, 9)
    assert server.texts() == [f"word {number}" for number in range(3, 9)]
    assert heard.said == ["3 answers are there from before"]
    assert [one["completion"] for one in lines(out)] == [f"WORD {number}" for number in range(9)]
    assert not part.exists()


def test_a_server_that_is_down_leaves_nothing_behind(tmp_path: Path) -> None:
    with serving() as server:
        pass
    with pytest.raises(EndpointError, match="does not answer"):
        answer(asked(tmp_path), "m", tmp_path / "out.jsonl", by_server(server.url))
    with serving(lambda body, number: Reply("")) as server, pytest.raises(WorkError, match="no question has an answer"):
        answer(asked(tmp_path), "m", tmp_path / "out.jsonl", by_server(server.url))
    assert [path.name for path in tmp_path.iterdir()] == ["asked.jsonl"]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({"samples": 0}, "0 answers were asked for"),
    "same": ({"samples": 2}, "all answers are the same"),
    "cold": ({"probabilities": True, "drawing": {"temperature": 0}}, "the likeliest label alone"),
    "one": ({"best": made("number")}, "nothing to choose among"),
    "top": ({"drawing": {"top_k": 5}, "endpoint": Endpoint(url="http://h/v1")}, "no top_k"),
    "soft": ({"probabilities": True, "endpoint": Endpoint(url="http://h/v1")}, "no probabilities"),
    "heat": ({"drawing": {"temperature": 11}, "endpoint": Endpoint(url="http://h/v1")}, "temperature"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_makes_no_sense_is_refused(tmp_path: Path, base: Callable[[str], str], name: str) -> None:
    settings, part = WRONG[name]
    with pytest.raises(ConfigurationError, match=part):
        answer(asked(tmp_path), base("llama"), tmp_path / "out.jsonl", How(**settings))
    assert [path.name for path in tmp_path.iterdir()] == ["asked.jsonl"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("mine")
    for out, part in (("out.jsonl", "exists already"), ("out.csv", "JSON Lines"), ("none/out.jsonl", "no such folder")):
        with pytest.raises(ConfigurationError, match=part):
            answer(asked(tmp_path), "embedded", tmp_path / out)
    assert (tmp_path / "out.jsonl").read_text() == "mine"


def test_a_model_here_answers_and_goes_on(tmp_path: Path, base: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn is a function of seed, question and number, so what goes on writes what would have been written at once."""
    from tunewright.run import answering
    from tunewright.run.answering import journal

    monkeypatch.setattr(answering, "AT_ONCE", 2)
    data, how = asked(tmp_path, 5), How(samples=2, drawing={"temperature": 1.0, "max_new_tokens": 6}, unfinished=True)
    whole = answer(data, base("llama"), tmp_path / "whole.jsonl", how)
    assert whole.written == 10
    kept = journal.Journal.add

    def lost(self: journal.Journal, place: journal.Place, said: journal.Said) -> None:
        if place[0] == 3:
            raise KeyboardInterrupt
        kept(self, place, said)

    monkeypatch.setattr(journal.Journal, "add", lost)
    with pytest.raises(KeyboardInterrupt):
        answer(data, base("llama"), tmp_path / "out.jsonl", how)
    monkeypatch.setattr(journal.Journal, "add", kept)
    assert answer(data, base("llama"), tmp_path / "out.jsonl", how).resumed == 6
    assert lines(tmp_path / "out.jsonl") == lines(tmp_path / "whole.jsonl")


def test_a_prompt_that_does_not_fit_is_left_out(tmp_path: Path, base: Callable[[str], str]) -> None:
    data = write(tmp_path / "asked.jsonl", [{"prompt": "short"}, {"messages": [{"role": "user", "content": "long " * 400}]}])
    how = How(drawing={"max_new_tokens": 4}, unfinished=True)
    found = answer(str(data), base("llama"), tmp_path / "out.jsonl", how)
    assert found.written + sum(found.left_out.values()) == 2


def test_models_that_cannot_do_it_are_refused(tmp_path: Path, base: Callable[[str], str]) -> None:
    with pytest.raises(BaseModelError, match="generates nothing"):
        answer(asked(tmp_path), base("bert"), tmp_path / "out.jsonl")
    with pytest.raises(BaseModelError, match="is no classifier"):
        answer(asked(tmp_path), base("llama"), tmp_path / "out.jsonl", How(probabilities=True))
    with pytest.raises(BaseModelError, match="no such folder"):
        answer(asked(tmp_path), "a/folder/nowhere", tmp_path / "out.jsonl")


def test_softer_probabilities_are_those_of_divided_logits() -> None:
    # logits ln 4 and 0 give 0.8 and 0.2; halved, ln 2 and 0, they give 2/3 and 1/3
    assert softened({"a": 0.8, "b": 0.2}, 2.0) == pytest.approx({"a": 2 / 3, "b": 1 / 3})
    assert softened({"a": 0.8, "b": 0.2}, 1.0) == pytest.approx({"a": 0.8, "b": 0.2})
    assert softened({"a": 1.0, "b": 0.0}, 4.0) == {"a": 1.0, "b": 0.0}
