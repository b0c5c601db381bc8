"""`answer`, as it is called: rows that a student learns, and what is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

SMALL = ["--threads", "1", "--training.max_steps", "2", "--training.precision", "float32"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that says every question backwards, to whoever has the key."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["messages"][-1]["content"]
            known = self.headers["authorization"] == "Bearer open sesame"
            content = json.dumps({"choices": [{"message": {"content": asked[::-1]}, "finish_reason": "stop"}]}).encode()
            self.send_response(200 if known else 401)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *given: Any) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}/v1"
        running.shutdown()


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def test_a_servers_answers_become_a_student(say: Callable, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("answer", "pairs.jsonl", "--model", "m", "--endpoint", server, "-o", "told.jsonl", "--retries", "0")
    refused = say(*words)
    assert refused.code == 1
    assert "TUNEWRIGHT_API_KEY is not set" in refused.err
    monkeypatch.setenv("OTHER_KEY", "open sesame")
    found = say(*words, "--key-from", "OTHER_KEY")
    assert found.code == 0, found.err
    assert "next  tunewright tune told.jsonl" in found.out
    assert "open sesame" not in found.out + found.err
    rows = lines("told.jsonl")
    assert len(rows) == 60
    assert all(row["completion"] == row["prompt"][::-1] for row in rows)
    tuned = say("tune", "told.jsonl", "--base", "llama", "--name", "student", *SMALL, "--json")
    assert tuned.code == 0, tuned.err


def test_a_teacher_here_is_asked_and_its_student_tuned(say: Callable) -> None:
    teacher = say("tune", "labels.jsonl", "--base", "bert", "--name", "teacher", *SMALL, "--json")
    assert teacher.code == 0, teacher.err
    words = ("answer", "labels.jsonl", "--model", "runs/teacher", "--probabilities", "-o", "soft.jsonl")
    data = say(*words, "--temperature", "2", "--json").data
    assert (data["out"], data["written"], data["left_out"], data["ledger"]) == ("soft.jsonl", 60, {}, None)
    assert all(abs(sum(row["distribution"].values()) - 1) < 1e-5 for row in lines("soft.jsonl"))
    again = say(
        "tune", "soft.jsonl", "--base", "bert", "--objective.temperature", "2", "--objective", "classification", *SMALL, "--json"
    )
    assert again.code == 0, again.err
    writer = say("tune", "pairs.jsonl", "--base", "llama", "--name", "writer", *SMALL, "--json")
    assert writer.code == 0, writer.err
    flags = ("--objective", "distillation", "--objective.teacher", "runs/writer", "--objective.top_k", "8")
    student = say("tune", "pairs.jsonl", "--base", "llama", *flags, *SMALL, "--json")
    assert student.code == 0, student.err


def test_the_page_names_what_was_left_out(say: Callable, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_API_KEY", "open sesame")
    Path("asked.jsonl").write_text('{"prompt": "ab"}\n{"prompt": ""}\n', encoding="utf-8")
    found = say("answer", "asked.jsonl", "--model", "m", "--endpoint", server, "-o", "told")
    assert found.code == 0, found.err
    assert "1 empty prompt (first: asked.jsonl:2: the prompt is empty)" in found.out.replace("\n", " ")
    assert Path("told.left_out.jsonl").is_file()
    assert lines("told.jsonl") == [{"prompt": "ab", "completion": "ba"}]


WRONG = {
    "answer pairs.jsonl -o out.jsonl": ("model is missing",),
    "answer pairs.jsonl --model llama": ("output", "is missing"),
    "answer nothing.jsonl --model llama -o out.jsonl": ("nothing.jsonl",),
    "answer pairs.jsonl --model embeded -o out.jsonl": ("there is no base or folder 'embeded'", "Did you mean 'embedded'"),
    "answer pairs.jsonl --model llama -o out.csv": ("JSON Lines",),
    "answer pairs.jsonl --model llama -o none/out.jsonl": ("no such folder",),
    "answer pairs.jsonl --model llama -o out.jsonl --samples 3": ("--temperature: at 0 all answers are the same",),
    "answer pairs.jsonl --model m -o out.jsonl --endpoint localhost": ("'localhost' is no address of a server",),
    "answer pairs.jsonl --model m -o out.jsonl --endpoint http://h --parallel 0": ("parallel",),
    "answer pairs.jsonl --model m -o out.jsonl --endpoint http://h --top-k 4": ("--top-k: chat completions have no top_k",),
    "answer pairs.jsonl --model llama -o out.jsonl --samples 2 --temperature 1 --best strin_check": (
        "'strin_check'",
        "string_check",
    ),
    "answer pairs.jsonl --model llama -o out.jsonl --probabilities": ("llama: is no classifier",),
    "answer pairs.jsonl --model llama -o out.jsonl --temperature 11": ("temperature",),
    "answer pairs.jsonl --model llama -o out.jsonl --endpont x": ("--endpont", "Did you mean '--endpoint'"),
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_requests_are_named(say: Callable, words: str) -> None:
    before = sorted(path.name for path in Path().iterdir())
    said = say(*words.split())
    assert said.code == 2
    assert all(part in said.err for part in WRONG[words]), said.err
    assert sorted(path.name for path in Path().iterdir()) == before
