"""Models beside the trained one: what they say is what they say alone, and what both have in memory is there once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tunewright.core.configuration import build
from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.data.rows import ChatRow, LabelRow, Message, PreferenceRow, PromptRow, RankingRow, Row
from tunewright.data.stored import read_rows, write_rows
from tunewright.engine.beside import Beside
from tunewright.engine.engine import Engine
from tunewright.engine.settings import Sampling
from tunewright.evaluation.beside import Besides, StandsBeside, hold_once, settle_beside
from tunewright.evaluation.opening import Opened, open_model
from tunewright.evaluation.tuned import Tuned
from tunewright.finetune import Run, finetune
from tunewright.methods.bitfit import BitFit
from tunewright.methods.lora import LoRA
from tunewright.models.loading import load_folder
from tunewright.testing.tiny import save_tiny, tiny

ANSWERS = ("yes", "no", "yes, it is", "maybe")


def run_on(root: Path, family: str, rows: list[dict[str, Any]], name: str, **settings: Any) -> str:
    """The folder of a tiny run of four steps."""
    base = root / family
    path = root / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {
        "data": {"train": str(path), "validation_share": 0.2, "test_share": 0.2},
        "base": str(base if base.is_dir() else save_tiny(family, base)),
        "training": {"max_steps": 4, "batch_size": 6, "learning_rate": 2e-2, "precision": "float32"},
        "evaluation": {"written": 3, "sampling": {"max_new_tokens": 4}},
        **{"threads": 1, "name": name, "folder": str(root)},
    }
    return str(finetune(build(Run, given | settings)).folder)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("beside")


@pytest.fixture(scope="module")
def judge(root: Path) -> str:
    """A reward model on a tiny llama."""
    rows = [{"prompt": f"is {n} large?", "chosen": f"yes, {n} is", "rejected": f"no {n}"} for n in range(24)]
    return run_on(root, "llama", rows, "judge", objective={"name": "reward"})


@pytest.fixture(scope="module")
def classify(root: Path) -> Callable[[str], str]:
    """A classifier on a tiny base of a family: a head on an encoder, label words on a decoder."""
    rows = [{"text": f"the {'ant' if n % 2 else 'bee'} number {n}", "label": "ant" if n % 2 else "bee"} for n in range(24)]
    return lambda family: run_on(root, family, rows, f"classes-{family}", objective={"name": "classification"})


def beside(folder: str) -> StandsBeside:
    return StandsBeside(folder, open_model(folder))


def rewards(asked: Sequence[tuple[Row, str]], judge: Beside) -> list[float]:
    return [said["reward"] for said in judge.judged(asked) if not isinstance(said, str)]


def test_the_rewards_are_those_that_the_run_itself_reads(judge: str) -> None:
    opened, rows = open_model(judge), read_rows(Path(judge) / "data" / "test.jsonl")
    with opened.engine.evaluating():
        wanted = [one.details["rewards"] for one in opened.objective.readings(opened.engine, opened.renderer, rows)]
    asked = [(row, answer) for row in rows if isinstance(row, PreferenceRow) for answer in (row.chosen, row.rejected)]
    found = rewards(asked, beside(judge))
    assert found == pytest.approx([one for pair in wanted for one in pair], abs=1e-5)
    assert max(found) - min(found) > 1e-2


def test_a_reward_depends_on_row_and_answer_alone(judge: str) -> None:
    rows: list[Row] = [
        PromptRow(prompt="is 4 large?", completion="never looked at"),
        ChatRow(messages=(Message(role="user", content="is 4 large?"), Message(role="assistant", content="nor this"))),
        PreferenceRow(messages=(Message(role="user", content="is 4 large?"),), chosen="a", rejected="b"),
        PromptRow(prompt="is 4 large, or is it " + "very " * 90 + "small?", completion=""),
    ]
    model = beside(judge)
    together = rewards([(row, answer) for row in rows for answer in (*ANSWERS, ANSWERS[0])], model)
    alone = [reward for row in rows for answer in (*ANSWERS, ANSWERS[0]) for reward in rewards([(row, answer)], model)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert together[:5] == pytest.approx(together[5:10], abs=1e-5)  # one question in three shapes
    assert together[:5] == pytest.approx(together[10:15], abs=1e-5)


def test_an_answer_that_cannot_be_read_has_its_reason(judge: str) -> None:
    row = PromptRow(prompt="is 4 large?", completion="")
    found = beside(judge).judged([(row, "yes"), (row, "long " * 200), (row, "no")])
    assert [type(one) for one in found] == [dict, str, dict]
    assert "512" in str(found[1])


def test_the_spread_is_that_of_the_validation_rows(judge: str, tmp_path: Path) -> None:
    rows = read_rows(Path(judge) / "data" / "validation.jsonl")
    pairs = [(row, answer) for row in rows if isinstance(row, PreferenceRow) for answer in (row.chosen, row.rejected)]
    found = torch.tensor(rewards(pairs, beside(judge)), dtype=torch.float64)
    assert beside(judge).spread() == pytest.approx((float(found.mean()), float(found.std())), rel=1e-6)
    ranked = shutil.copytree(judge, tmp_path / "ranked")  # somebody may as well have compared several answers
    asked = (Message(role="user", content="is 4 large?"),)
    write_rows(Path(ranked) / "data" / "validation.jsonl", [RankingRow(messages=asked, answers=ANSWERS)])
    four = torch.tensor(rewards([(PromptRow(prompt="is 4 large?", completion=""), one) for one in ANSWERS], beside(judge)))
    assert beside(str(ranked)).spread() == pytest.approx((float(four.mean()), float(four.std())), rel=1e-4)
    copy = Path(shutil.copytree(judge, tmp_path / "copy"))
    (copy / "data" / "validation.jsonl").write_text("")
    with pytest.raises(ConfigurationError, match=r"grader\.scale: .* has no validation rows.*Take `scale: raw`"):
        beside(str(copy)).spread()


def test_a_reward_model_that_gives_one_reward_is_refused(judge: str) -> None:
    model = beside(judge)
    head = model.engine.head
    assert head is not None
    for parameter in head.parameters():
        parameter.data.zero_()
    with pytest.raises(ConfigurationError, match="gives all its validation rows the reward 0, so it tells nothing apart"):
        model.spread()


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_classifier_says_how_probable_each_label_is(classify: Callable[[str], str], family: str) -> None:
    folder = classify(family)
    model, opened = beside(folder), open_model(folder)
    texts = ["the ant number 3", "a bee", "the"]
    found = model.judged([(PromptRow(prompt="?", completion=""), text) for text in texts])
    answers = Tuned(opened.engine, opened.renderer, opened.objective, labels=opened.labels, sampling=Sampling(), name="").answer(
        [LabelRow(text=text, label="") for text in texts], 3
    )
    for said, answer in zip(found, answers, strict=True):
        assert not isinstance(said, str)
        assert set(said) == {"ant", "bee"}
        assert sum(said.values()) == pytest.approx(1.0)
        assert said[answer.text or ""] == pytest.approx(answer.confidence, abs=1e-5)


def test_what_does_not_judge_says_what_it_was_tuned_for(root: Path, judge: str) -> None:
    with pytest.raises(ConfigurationError, match=r"grader\.model: .* was tuned for 'sft', which does not judge answers"):
        beside(str(root / "llama")).judged([(PromptRow(prompt="?", completion=""), "yes")])


def test_models_are_opened_when_asked_for_and_once(root: Path, judge: str) -> None:
    opened: list[str] = []

    def opens(name: str) -> Opened:
        opened.append(name)
        return open_model(name)

    others = Besides((judge, "gone", judge), opens, Engine(load_folder(root / "llama")))
    assert (list(others), len(others), opened) == ([judge, "gone"], 2, [])
    assert others[judge] is others[judge]
    assert opened == [judge]
    with pytest.raises(BaseModelError, match="there is no base or folder 'gone'"):
        others["gone"]
    with pytest.raises(KeyError):
        others["nobody"]


def shares(one: Any, other: Any) -> list[str]:
    theirs = dict(other.network.named_parameters())
    return [name for name, value in one.network.named_parameters() if value.data_ptr() == theirs[name].data_ptr()]


def test_the_base_is_held_once_where_it_is_the_same(root: Path, judge: str) -> None:
    own = load_folder(root / "llama")
    LoRA(rank=2).attach(own, 0)
    engine = Engine(own)
    engine.beside = others = Besides((judge,), open_model, engine)
    row = PromptRow(prompt="is 4 large?", completion="")
    before = others[judge].judged([(row, "yes"), (row, "no")])
    assert others[judge].engine.model is not own
    settle_beside(engine)
    names = {name for name, _ in load_folder(root / "llama").network.named_parameters()}
    assert {name for name in shares(others[judge].engine.model, own) if name in names} == names
    assert others[judge].judged([(row, "yes"), (row, "no")]) == before
    assert not any(one.requires_grad for one in others[judge].engine.model.network.parameters())


def test_what_is_trained_or_differs_is_not_shared() -> None:
    own, other = tiny("gpt2"), tiny("gpt2")
    BitFit().attach(own, 0)
    changed = "transformer.h.0.mlp.c_fc.weight"
    with torch.no_grad():
        dict(other.network.named_parameters())[changed][0, 0] += 1
    trained = {name for name, one in own.network.named_parameters() if one.requires_grad}
    saved = hold_once(other, own)
    names = {name for name, _ in other.network.named_parameters()}
    assert trained
    assert set(shares(other, own)) == names - trained - {changed}
    assert saved == sum(one.nbytes for name, one in other.network.named_parameters() if name not in trained | {changed})
    assert hold_once(other, own) == 0
