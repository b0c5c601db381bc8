"""Flags: dotted names, both spellings, types that come out as they were meant, and files that flags override."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunewright.cli.flags import parse
from tunewright.cli.settings import SHORT, settings
from tunewright.core.configuration import build
from tunewright.core.errors import ConfigurationError
from tunewright.finetune import Run
from tunewright.methods.lora import LoRA


def run_of(*words: str) -> Run:
    return parse(["data.jsonl", *words]).run()


def test_data_alone_is_a_run() -> None:
    assert run_of() == build(Run, {"data": {"train": "data.jsonl"}})


@pytest.mark.parametrize(
    "words",
    [
        ["--training.learning_rate", "1e-4"],
        ["--training.learning_rate=1e-4"],
        ["--training.learning-rate", "0.0001"],
        ["--learning-rate", "1e-4"],
        ["--learning_rate=1e-4"],
    ],
)
def test_one_setting_has_several_spellings(words: list[str]) -> None:
    assert run_of(*words).training.learning_rate == 1e-4


def test_conveniences_are_settings() -> None:
    assert set(SHORT.values()) <= set(settings({"method": "lora", "objective": None}))
    run = run_of("--epochs", "2", "--rank", "8", "--validation", "v.jsonl", "--test", "t.jsonl")
    assert (run.training.epochs, run.method.rank, run.data.validation, run.data.test) == (2.0, 8, "v.jsonl", "t.jsonl")


@pytest.mark.parametrize(
    "words", [["--method.targets", "mlp", "--method.targets", "attention.query"], ["--method.targets", "[mlp, attention.query]"]]
)
def test_lists_are_repeated_or_written_as_such(words: list[str]) -> None:
    assert run_of(*words).method == LoRA(targets=("mlp", "attention.query"))


def test_one_word_is_a_list_of_one() -> None:
    assert run_of("--evaluation.metrics", "accuracy").evaluation.metrics == ("accuracy",)


def test_text_stays_text_and_null_is_nothing() -> None:
    run = run_of("--name", "2024", "--data.columns.my-question", "prompt", "--rendering.separator", ": ", "--training.clip", "null")
    assert (run.name, run.data.columns, run.rendering.separator, run.training.clip) == (
        "2024",
        {"my-question": "prompt"},
        ": ",
        None,
    )


def test_a_path_may_look_like_yaml() -> None:
    assert str(parse(["{odd}: [file].jsonl"]).run().data.train) == "{odd}: [file].jsonl"


def test_switches_need_no_value() -> None:
    assert parse(["--method.rank_stabilized", "data.jsonl"]).run().method.rank_stabilized
    assert not run_of("--method.rank_stabilized", "false").method.rank_stabilized


def test_a_name_may_stand_behind_its_settings() -> None:
    assert run_of("--method.rank", "8", "--method", "lora").method == LoRA(rank=8)
    assert run_of("--method", "{name: lora, rank: 3}").method == LoRA(rank=3)


def test_settings_of_an_objective_name_it_where_only_one_has_them() -> None:
    objective = run_of("--objective.head", "new").objective
    assert type(objective).__name__ == "Classification"
    assert objective.head == "new"


def test_flags_override_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("data: {train: old.jsonl}\nmethod: {name: lora, rank: 2, dropout: 0.1}\nseed: 1\n")
    run = parse(["--config", str(file), "--method.rank", "8"]).run()
    assert (run.method, run.seed, run.data.train) == (LoRA(rank=8, dropout=0.1), 1, "old.jsonl")
    assert str(parse(["new.jsonl", f"--config={file}"]).run().data.train) == "new.jsonl"


def test_toml_is_read_too(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('seed = 3\n[data]\ntrain = "x.jsonl"\n[method]\nname = "lora"\nrank = 5\n')
    assert parse(["--config", str(file)]).run().method == LoRA(rank=5)


def test_the_message_says_whether_a_value_stood_in_the_file_or_in_a_flag(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("data: {train: old.jsonl}\nmethod: {name: lora, rank: 0}\n")
    with pytest.raises(ConfigurationError, match=r"run\.yaml: method\.rank"):
        parse(["--config", str(file)]).run()
    with pytest.raises(ConfigurationError, match=r"^--method\.rank"):
        parse(["--config", str(file), "--rank", "0"]).run()


def test_flags_of_the_verb_are_kept_apart() -> None:
    asked = parse(["data.jsonl", "--rows", "4", "--html=x.html"], {"rows": True, "html": True})
    assert asked.own == {"rows": "4", "html": "x.html"}
    with pytest.raises(ConfigurationError, match="--rows: there is no such flag"):
        parse(["data.jsonl", "--rows", "4"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs"], "--epochs: needs a value"),
        (["--epochs", "--rank", "3"], "--epochs: needs a value"),
        (["--epochs", "1", "--training.epochs", "2"], "is given twice"),
        (["other.jsonl"], "Give one data file"),
        (["--method.targets", "[a, b"], "--method.targets: not readable as YAML"),
        (["--config", "nothing.yaml"], "nothing.yaml: there is no such run file"),
        (["--data.shap", "chat"], "Did you mean '--data.shape'"),
        (["--batch-size", "3"], "Did you mean '--training.batch_size'"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(["data.jsonl", *words])
    assert message in str(caught.value)


def test_every_setting_is_explained_and_can_be_given() -> None:
    known = settings({"method": "lora", "objective": "classification"})
    silent = [one.name for one in known.values() if not one.about and not one.name.startswith(("training.optimizer.", "seed"))]
    assert not silent
    assert known["rendering.truncate"].about.endswith("prompt | refuse | answer")
