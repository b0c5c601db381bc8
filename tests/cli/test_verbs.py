"""Every verb once, within this process, on tiny bases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

SMALL = ["--threads", "1", "--training.max_steps", "3", "--evaluation.written", "2", "--evaluation.sampling.max_new_tokens", "4"]


@pytest.fixture
def tuned(say: Callable) -> Callable[..., str]:
    """Make a run and give its folder."""

    def make(data: str, base: str, *words: str) -> str:
        found = say("tune", data, "--base", base, "--name", "run", *SMALL, *words)
        assert found.code == 0, found.err
        return "runs/run"

    return make


def test_tune_ends_with_the_verdict_the_table_the_report_and_what_is_next(say: Callable) -> None:
    found = say("tune", "pairs.jsonl", "--base", "llama", "--name", "a", *SMALL)
    assert found.code == 0
    for stage in (
        "Read and check the data",
        "Load the base",
        "Estimate",
        "Measure the base on validation",
        "Tune",
        "Test once",
        "Report",
    ):
        assert f"\n{stage}\n" in f"\n{found.err}"
    for part in (
        "Exact match",
        "before",
        "after",
        "runs/a/report.html",
        "tunewright chat runs/a",
        "tunewright merge runs/a merged-model",
    ):
        assert part in found.out
    assert Path("runs/a/report.html").is_file()


def test_tune_for_programs_is_one_object(say: Callable) -> None:
    data = say("tune", "labels.jsonl", "--base", "bert", "--name", "a", *SMALL, "--json").data
    assert data["run"] == "runs/a"
    assert data["verdict"]["outcome"] in ("better", "worse", "unclear")
    assert {one["metric"] for one in data["measures"]} >= {"accuracy", "macro_f1", "loss"}


def test_a_whole_model_is_not_offered_for_merging(say: Callable) -> None:
    found = say("tune", "pairs.jsonl", "--base", "llama", "--name", "a", "--method", "full", *SMALL)
    assert "tunewright merge" not in found.out
    refused = say("merge", "runs/a", "out")
    assert refused.code == 2
    assert "its weights are whole already. The folder is runs/a/model" in refused.err


def test_check_says_what_was_found(say: Callable) -> None:
    found = say("check", "labels.jsonl")
    for part in ("text_label", "48 train, 6 validation, 6 test", "pos (", "First rows", "labels.jsonl:"):
        assert part in found.out
    assert "learned" not in found.out
    data = say("check", "labels.jsonl", "--json").data
    assert data["splits"] == {"train": 48, "validation": 6, "test": 6}
    assert len(data["first_rows"]) == 3


def test_check_with_a_base_counts_what_is_learned(say: Callable) -> None:
    assert "tokens learned" in say("check", "pairs.jsonl", "--base", "llama").out
    targets = say("check", "pairs.jsonl", "--base", "llama", "--json").data["targets"]
    assert 0 < targets["trained"] < targets["tokens"]
    assert say("check", "labels.jsonl", "--base", "bert").code == 0


def test_estimate_leaves_nothing_behind(say: Callable) -> None:
    found = say("estimate", "pairs.jsonl", "--base", "llama", "--epochs", "2", "--threads", "1")
    assert found.code == 0
    assert "fits" in found.out
    assert not Path("runs").exists()
    data = say("estimate", "pairs.jsonl", "--base", "llama", "--epochs", "2", "--json").data
    assert (data["fits"], data["steps"]) == (True, 12)


def test_estimate_refuses_what_cannot_fit_and_says_what_would(say: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    class Memory:
        available = -(10**12)

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    found = say("estimate", "pairs.jsonl", "--base", "llama", "--json")
    assert found.code == 2
    assert found.data["error"] == "DoesNotFitError"
    assert found.data["hint"]


def test_show_targets_marks_what_is_learned(say: Callable) -> None:
    found = say("show", "targets", "pairs.jsonl", "--base", "llama", "--rows", "2", "--html", "page.html")
    assert found.out.count("⟦") == 2 + 1  # the legend
    assert Path("page.html").read_text().startswith("<!doctype html>")
    data = say("show", "targets", "pairs.jsonl", "--base", "llama", "--rows", "1", "--json").data
    (row,) = data["rows"]
    learned = "".join(piece["text"] for piece in row["segments"][0]["pieces"] if piece["weight"] > 0)
    assert learned.endswith("</s>")


def test_evaluate_measures_with_intervals_and_keeps_predictions(say: Callable, tuned: Callable) -> None:
    run = tuned("labels.jsonl", "bert")
    found = say("evaluate", run, "labels.jsonl", "--predictions", "p.jsonl")
    assert "Accuracy" in found.out
    assert "95 % interval" in found.out
    lines = Path("p.jsonl").read_text().splitlines()
    assert len(lines) == 60
    assert set(json.loads(lines[0])) == {"where", "prompt", "reference", "tuned", "tuned_loss", "confidence"}
    measures = say("evaluate", run, "labels.jsonl", "--metrics", "accuracy", "--json").data["measures"]
    assert [one["metric"] for one in measures] == ["accuracy", "loss"]
    assert measures[0]["tuned"]["low"] <= measures[0]["tuned"]["value"] <= measures[0]["tuned"]["high"]


def test_evaluate_names_labels_that_the_model_does_not_know(say: Callable, tuned: Callable) -> None:
    run = tuned("labels.jsonl", "bert")
    Path("odd.jsonl").write_text('{"text": "a", "label": "pos"}\n{"text": "b", "label": "strange"}\n')
    assert "does not know these labels, so rows with them count as wrong: strange" in say("evaluate", run, "odd.jsonl").err


def test_evaluate_refuses_rows_that_the_model_was_not_made_for(say: Callable, tuned: Callable) -> None:
    found = say("evaluate", tuned("labels.jsonl", "bert"), "pairs.jsonl")
    assert found.code == 2
    assert "Allowed: text_label" in found.err
    assert "a bare encoder has no head" in say("evaluate", "bert", "labels.jsonl").err


def test_evaluate_asks_a_plain_language_model_for_labels_in_words(say: Callable) -> None:
    measures = say("evaluate", "llama", "labels.jsonl", "--json").data["measures"]
    assert measures[0]["metric"] == "accuracy"


def test_generate_gives_a_label_with_its_probability(say: Callable, tuned: Callable) -> None:
    found = say("generate", tuned("labels.jsonl", "bert"), "lovely bird", "--json").data
    (one,) = found["answers"]
    assert one["label"] in ("pos", "neg")
    assert 0.5 <= one["probability"] <= 1


def test_generate_reads_arguments_files_and_standard_input(say: Callable, tuned: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    run = tuned("pairs.jsonl", "llama")
    Path("prompts.txt").write_text("second\n\nthird\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("fourth\n"))
    answers = say("generate", run, "first", "--file", "prompts.txt", "-", "--json").data["answers"]
    assert [one["prompt"] for one in answers] == ["first", "second", "third", "fourth"]
    assert all(set(one) == {"prompt", "answer", "finished"} for one in answers)


def test_generate_draws_the_same_with_the_same_seed(say: Callable) -> None:
    def drawn(seed: str) -> object:
        return say("generate", "llama", "hello", "--temperature", "1", "--seed", seed, "--max-new-tokens", "12", "--json").data[
            "answers"
        ]

    assert drawn("3") == drawn("3")
    assert drawn("3") != drawn("4")


def test_generate_renders_a_prompt_as_the_rows_were(say: Callable, tuned: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunewright.data.rendering import Renderer
    from tunewright.data.rows import ChatRow, PromptRow

    seen = []
    monkeypatch.setattr(Renderer, "prompt", lambda self, row, room=0: seen.append(row) or (5, 6))
    say("generate", "llama", "hello", "--max-new-tokens", "1")
    chats = [{"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "yes"}]} for n in range(30)]
    Path("chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    run = tuned("chats.jsonl", "llama")
    seen.clear()
    say("generate", run, "hello", "--max-new-tokens", "1")
    (row,) = seen
    assert isinstance(row, ChatRow)
    assert [(message.role, message.content) for message in row.messages] == [("user", "hello")]
    seen.clear()
    say("generate", "llama", "hello", "--max-new-tokens", "1")
    assert isinstance(seen[0], PromptRow)


def test_an_encoder_without_a_head_generates_nothing(say: Callable) -> None:
    found = say("generate", "bert", "hello")
    assert found.code == 2
    assert "generates nothing" in found.err


def test_chat_keeps_the_conversation_and_knows_its_commands(say: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("lost\n/reset\n\n/system be brief\none\ntwo\n/help\n/quit\nnever\n"))
    found = say("chat", "llama", "--max-new-tokens", "3", "--json")
    messages = found.data["messages"]
    assert [one["role"] for one in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert [one["content"] for one in messages if one["role"] != "assistant"] == ["be brief", "one", "two"]
    assert "/system TEXT" in found.err


def test_chat_with_a_classifier_points_to_generate(say: Callable, tuned: Callable) -> None:
    found = say("chat", tuned("labels.jsonl", "bert"))
    assert found.code == 2
    assert "tunewright generate runs/run" in found.err


def test_list_shows_runs_with_their_verdict_and_every_name(say: Callable, tuned: Callable) -> None:
    tuned("labels.jsonl", "bert")
    (Path("runs") / "half").mkdir()
    (Path("runs") / "half" / "run.yaml").write_text("seed: 1\n")
    data = say("list", "--json").data
    assert set(data) == {"runs", "methods", "objectives", "metrics", "shapes", "bases"}
    assert (data["runs"]["runs/run"]["state"], data["runs"]["runs/half"]["state"]) == ("done", "unfinished")
    assert "tunewright resume runs/half" in say("list", "runs").out
    assert "lora" in say("list").out


def test_show_run_base_and_entries(say: Callable, tuned: Callable) -> None:
    run = tuned("pairs.jsonl", "llama")
    shown = say("show", "run", run).out
    for part in ("finished", "method.rank", "Exact match", "runs/run/adapter"):
        assert part in shown
    base = say("show", "base", "llama", "--json").data
    assert (base["family"], base["kind"], base["width"]) == ("llama", "decoder", 32)
    assert say("show", "base", run, "--json").data["family"] == "llama"
    for kind, name, word in (
        ("method", "lora", "arXiv 2106.09685"),
        ("objective", "sft", "cross-entropy"),
        ("metric", "bleu", "BLEU"),
    ):
        assert word in say("show", kind, name).out
    assert "--method.rank" in say("show", "method", "lora").out


def test_quickstart_ends_with_rows_and_what_to_try(say: Callable) -> None:
    found = say("quickstart", "--base", "llama", "--name", "quick", *SMALL)
    assert found.code == 0, found.err
    for part in ("Three rows of the test", "reference", "runs/quick/report.html", "tunewright tune your-examples.jsonl"):
        assert part in found.out
    assert "embedded" in json.dumps(say("quickstart", "--help", "--json").data["settings"])


def test_selftest_fails_when_a_check_does(say: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types
    from typing import NamedTuple

    class Check(NamedTuple):
        name: str
        passed: bool
        difference: float | None
        detail: str
        seconds: float

    checks = [Check("packed = alone", True, 1e-7, "", 0.1), Check("merged = attached", False, None, "differs", 0.2)]
    module = types.ModuleType("tunewright.testing.selftest")
    module.run = lambda narrator: checks
    monkeypatch.setitem(sys.modules, "tunewright.testing.selftest", module)
    found = say("selftest")
    assert found.code == 1
    assert "✗" in found.out
    assert "differs" in found.out
    checks.pop()
    assert say("selftest", "--json").data["passed"] is True
