"""The corpus of wrong requests: each is refused in words, with exit code 2, before anything heavy is done.

A message says where, what was given, what is allowed or near, and what to do; no traceback, and quickly.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

RUN = ["tune", "pairs.jsonl", "--base", "llama"]
TOO_LONG = 10.0  # seconds; measured below 1 in a process that has loaded nothing


def refused(found: object, *parts: str) -> str:
    code, out, err = found  # type: ignore[misc]
    message = err.splitlines()[-1] if err else ""
    assert code == 2, err
    assert not out
    assert message.startswith("✗ ")
    for part in parts:
        assert part in message
    return message


FLAGS = {
    "--method.rank 0": ("--method.rank: ", "greater than or equal to 1", "got 0"),
    "--training.learning_rate -1": ("--training.learning_rate: ", "greater than 0", "got -1"),
    "--training.learning_rate nan": ("--training.learning_rate: ", "finite number", "'nan'"),
    "--training.learning_rate 1e3": ("--training.learning_rate: ", "less than or equal to 10"),
    "--training.epochs two": ("--training.epochs: ", "valid number", "'two'"),
    "--method lorra": ("--method: ", "'lorra'", "Did you mean 'lora'?", "Allowed: adalora"),
    "--method.name lorra": ("--method: ", "'lorra'", "Did you mean 'lora'?"),
    "--objective sfft": ("--objective: ", "'sfft'", "Did you mean 'sft'?"),
    "--objective.head nwe": ("--objective.head: ", "'auto', 'new' or 'words'"),
    "--evaluation.metrics accuracyy": ("--evaluation.metrics: ", "'accuracyy'", "Did you mean 'accuracy'?"),
    "--training.monitor los": ("--training.monitor: ", "'los'", "Did you mean 'loss'?"),
    "--data.shape cht": ("--data.shape: ", "'cht'", "Did you mean 'chat'?"),
    "--learning-rat 1": ("--learning-rat: ", "no such flag", "Did you mean '--learning_rate'?"),
    "--basee x": ("--basee: ", "Did you mean '--base'?"),
    "--method.rnk 8": ("--method.rnk: ", "Did you mean '--method.rank'?", "--method.alpha"),
    "--trainng.epochs 1": ("--trainng.epochs: ", "Did you mean '--training.epochs'?"),
    "--training.optimizer.bta1 1": ("--training.optimizer.bta1: ", "Did you mean '--training.optimizer.beta1'?"),
    "--evaluation.sampling.temprature 1": ("Did you mean '--evaluation.sampling.temperature'?",),
    "--rendering.max_token 9": ("Did you mean '--rendering.max_tokens'?",),
    "--zzzzzz 1": ("--zzzzzz: there is no such flag", "--method", "See `tunewright tune --help`"),
    "--method full --method.rank 4": ("--method.rank: there is no such flag",),
    "--name a/b": ("--name: ", "pattern"),
    "--base embeded": ("there is no base or folder 'embeded'", "Did you mean 'embedded'?"),
    "--base ./nowhere": ("./nowhere: there is no such folder",),
    "--objective classification": ("objective: ", "rows of shape 'prompt_completion'", "Allowed: text_label"),
    "--test nowhere.jsonl": ("nowhere.jsonl: there is no such file",),
    "--data.columns.question prompt": ("question",),
    "--config nowhere.yaml": ("nowhere.yaml: there is no such run file",),
}


@pytest.mark.parametrize("flags", FLAGS)
def test_a_wrong_flag_is_refused_by_name(say: Callable, flags: str) -> None:
    began = time.perf_counter()
    own_base = "--base" in flags
    refused(say(*(RUN[:2] if own_base else RUN), *flags.split()), *FLAGS[flags])
    assert time.perf_counter() - began < TOO_LONG
    assert not any(Path().glob("runs/*"))


FILES = {
    "yaml: trainng: {epochs: 1}": ("trainng", "Did you mean 'training'?"),
    "yaml: training: {epochz: 1}": ("training.epochz", "Did you mean 'epochs'?"),
    "yaml: training: {optimizer: {bta1: 0.5}}": ("training.optimizer.bta1", "Did you mean 'beta1'?"),
    "yaml: method: {name: lora, rnk: 2}": ("method.rnk", "Did you mean 'rank'?"),
    "yaml: method: {nam: lora}": ("method", "'name' is missing"),
    "yaml: method: {name: lorra}": ("method", "Did you mean 'lora'?"),
    "yaml: objective: {name: classification, hed: new}": ("objective.hed", "Did you mean 'head'?"),
    "yaml: evaluation: {sampling: {top_q: 1}}": ("evaluation.sampling.top_q", "Did you mean 'top_p'?"),
    "yaml: seed: 1\nseed: 2": ("given twice",),
    "yaml: seed: [1": ("not readable as YAML",),
    "toml: [trainng]\nepochs = 1": ("trainng", "Did you mean 'training'?"),
    "toml: [training]\nepochz = 1": ("training.epochz", "Did you mean 'epochs'?"),
    "toml: [method]\nname = 'lora'\nrnk = 2": ("method.rnk", "Did you mean 'rank'?"),
    "toml: seed = ": ("not readable as TOML",),
}


@pytest.mark.parametrize("text", FILES)
def test_a_wrong_key_in_a_run_file_is_refused_by_name(say: Callable, text: str) -> None:
    kind, _, content = text.partition(": ")
    Path(f"run.{kind}").write_text(content + "\n")
    refused(say(*RUN, "--config", f"run.{kind}"), f"run.{kind}", *FILES[text])


def spoil(desk: Path) -> dict[str, tuple[str, ...]]:
    """Write data that cannot be used; what each file's message must say."""
    good = (desk / "pairs.jsonl").read_text().splitlines()
    (desk / "empty.jsonl").write_text("")
    (desk / "binary.jsonl").write_bytes(bytes(range(256)) * 20)
    (desk / "broken.jsonl").write_text("\n".join([*good[:4], '{"prompt": "x", "completion": ', *good[4:8]]) + "\n")
    labels = (desk / "labels.jsonl").read_text().splitlines()
    (desk / "one.jsonl").write_text("\n".join(line for line in labels if '"pos"' in line) + "\n")
    (desk / "columns.jsonl").write_text('{"foo": "a", "bar": 3}\n{"foo": "b", "bar": 4}\n')
    return {
        "missing.jsonl": ("missing.jsonl: there is no such file",),
        "pears.jsonl": ("pears.jsonl", "Did you mean 'pairs.jsonl'"),
        "empty.jsonl": ("empty.jsonl: is empty",),
        "binary.jsonl": ("binary.jsonl", "binary"),
        "broken.jsonl": ("broken.jsonl:5", "not valid JSON"),
        "one.jsonl": ("one.jsonl", "same label, 'pos'"),
        "columns.jsonl": ("columns.jsonl", "foo"),
    }


@pytest.mark.parametrize("verb", ["tune", "check", "estimate"])
def test_data_that_cannot_be_used_is_refused_with_file_and_line(say: Callable, desk: Path, verb: str) -> None:
    for name, parts in spoil(desk).items():
        refused(say(verb, name, "--base", "llama"), *parts)


def test_a_label_that_training_never_saw_is_refused(say: Callable, desk: Path) -> None:
    (desk / "test.jsonl").write_text('{"text": "what now", "label": "strange"}\n')
    refused(say("tune", "labels.jsonl", "--test", "test.jsonl", "--base", "bert"), "test.jsonl:1", "strange", "neg, pos")


def test_a_run_folder_is_never_overwritten(say: Callable, desk: Path) -> None:
    (desk / "runs" / "a").mkdir(parents=True)
    (desk / "runs" / "a" / "run.yaml").write_text("seed: 1\n")
    refused(say(*RUN, "--name", "a"), "already holds a run", "tunewright resume runs/a")
    (desk / "runs" / "b").mkdir()
    (desk / "runs" / "b" / "mine.txt").write_text("keep me")
    refused(say(*RUN, "--name", "b"), "not empty")
    assert (desk / "runs" / "b" / "mine.txt").read_text() == "keep me"


def test_a_folder_that_cannot_be_written_is_refused(say: Callable) -> None:
    refused(say(*RUN, "--folder", "/proc/nowhere"), "/proc/nowhere", "cannot be written", "Choose another --folder")
    refused(say(*RUN, "--folder", "pairs.jsonl"), "pairs.jsonl", "cannot be written")


OTHER_VERBS = {
    "tuen x": ("there is no verb 'tuen'", "Did you mean 'tune'?"),
    "tune": ("no data was given",),
    "show targtes x": ("Did you mean 'targets'?",),
    "show method lor": ("Did you mean 'lora'?",),
    "show metric accurcy": ("Did you mean 'accuracy'?",),
    "show run runs/none": ("not a run folder",),
    "show base embeded": ("Did you mean 'embedded'?",),
    "show targets pairs.jsonl --base llama --rows none": ("--rows: should be a whole number",),
    "list mthods": ("Did you mean 'methods'?",),
    "resume runs/none": ("runs/none: is not a run folder",),
    "evaluate llama": ("evaluate: DATA is missing",),
    "evaluate llama nowhere.jsonl": ("nowhere.jsonl: there is no such file",),
    "evaluate llama pairs.jsonl --metrics acuracy": ("--metrics: ", "Did you mean 'accuracy'?"),
    "evaluate llama pairs.jsonl --writen 3": ("--writen: there is no such flag", "Did you mean '--written'?"),
    "evaluate llama pairs.jsonl --written x": ("--written: should be a whole number, got 'x'",),
    "evaluate llama pairs.jsonl more.jsonl": ("does not know what to do with 'more.jsonl'",),
    "generate llama": ("generate: there is no prompt",),
    "generate llama --file nowhere.txt": ("nowhere.txt: the prompts cannot be read",),
    "generate embeded hello": ("Did you mean 'embedded'?",),
    "generate llama hello --temprature 1": ("--temprature: ", "Did you mean '--temperature'?"),
    "generate llama hello --temperature -1": ("temperature: ", "greater than or equal to 0"),
    "generate llama hello --max-new-tokens": ("--max-new-tokens: needs a value",),
    "chat embeded": ("Did you mean 'embedded'?",),
    "merge nowhere-at-all out": ("there is no base or folder 'nowhere-at-all'",),
    "merge llama bert": ("bert: exists already",),
}


@pytest.mark.parametrize("words", OTHER_VERBS)
def test_a_wrong_call_of_a_verb_is_refused_by_name(say: Callable, words: str) -> None:
    refused(say(*words.split()), *OTHER_VERBS[words])


def test_an_error_for_programs_is_one_object_with_all_its_parts(say: Callable) -> None:
    found = say(*RUN, "--method.rnk", "8", "--json")
    assert found.code == 2
    assert not found.err
    facts = found.data
    assert set(facts) == {"error", "message", "where", "given", "allowed", "hint"}
    assert (facts["error"], facts["where"], facts["allowed"][0]) == ("ConfigurationError", "--method.rnk", "--method.rank")  # type: ignore[index]


@pytest.mark.parametrize(
    "words", [["tune", "missing.jsonl"], [*RUN, "--trainng.epochs", "1"], ["tuen"], [*RUN, "--training.monitor", "los"]]
)
def test_a_process_of_its_own_refuses_quickly_and_without_a_traceback(shell: Callable, words: list[str]) -> None:
    began = time.perf_counter()
    refused(shell(*words))
    assert time.perf_counter() - began < TOO_LONG
    assert json.loads(shell(*words, "--json").out)["error"]
