"""A policy against a model: pairs to reward model to policy, what is won by it that nobody wanted, and what is refused."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunewright.core.configuration import build, read_file
from tunewright.core.errors import BaseModelError, ConfigurationError, GraderError, Interrupted
from tunewright.data.stored import read_rows
from tunewright.engine.settings import Sampling
from tunewright.evaluation.opening import open_model
from tunewright.finetune import Run, finetune, resume
from tunewright.graders._grading import graded
from tunewright.objectives.grpo import GRPO

from .conftest import describe, weights, write
from .test_policies import steps_of

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ROOT / "src" / "tunewright" / "examples" / "quickstart.jsonl"
WANTED = re.compile(r"\s*On \w+day\b")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
EVENTS = (
    "there was a message from {}",
    "a letter came for {}",
    "{} went to the tea house",
    "{} wanted to plant a tree",
    "the shop of {} was closed",
    "{} walked along the river",
)


def asked(count: int) -> list[str]:
    return [json.loads(line)["prompt"] for line in PROMPTS.read_text(encoding="utf-8").splitlines()[:count]]


def liked(prompts: list[str]) -> list[dict[str, str]]:
    """Pairs of somebody who likes to be told on which day something happens."""
    draw, rows = random.Random(3), []
    for prompt in prompts:
        name, other = draw.choice(("Karen", "Victor", "Lucy", "Tom")), draw.choice(("Fred", "Ella", "Ruth"))
        said = draw.choice(EVENTS).format(other)
        rows.append(
            {
                "prompt": prompt,
                "chosen": f"On {draw.choice(DAYS)} {draw.choice(EVENTS).format(name)}",
                "rejected": draw.choice((said[0].upper() + said[1:], f"In the room {said}", f"One morning {said}")),
            }
        )
    return rows


def on_embedded(root: Path, rows: Path, objective: dict[str, Any], **settings: Any) -> Run:
    given = {
        "data": {"train": str(rows), "validation_share": 0.15, "test_share": 0.3, "cleaning": {"near_duplicates": "off"}},
        "method": {"name": "lora", "rank": 8},
        "objective": objective,
        "training": {"batch_size": 8, "schedule": "constant", "precision": "float32", **settings.pop("training", {})},
        **{"threads": 1, "folder": str(root)},
    }
    return build(Run, given | settings)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model on the embedded base, from 64 pairs."""
    root = tmp_path_factory.mktemp("judge")
    rows = write(root / "pairs.jsonl", liked(asked(64)))
    run = on_embedded(root, rows, {"name": "reward"}, name="judge", training={"max_steps": 10, "learning_rate": 2e-3})
    folder, report = finetune(run)
    assert report.measures[0].tuned.value >= 0.9  # of pairs that it never saw
    return folder


@pytest.mark.parametrize(
    ("name", "settings", "training"),
    [
        ("grpo", {"group": 8}, {"max_steps": 9, "learning_rate": 5e-3}),
        ("ppo", {"group": 4, "updates": 2}, {"max_steps": 14, "learning_rate": 5e-3}),
    ],
)
def test_pairs_make_a_judge_and_the_judge_a_policy(
    judge: Path, tmp_path: Path, name: str, settings: dict[str, Any], training: dict[str, Any]
) -> None:
    """Nobody tells the policy what is wanted: the pairs did, and it is checked by a rule that neither model knows."""
    prompts = write(tmp_path / "prompts.jsonl", [{"prompt": one, "completion": "-"} for one in asked(64)])
    grader = {"name": "reward_model", "model": str(judge)}
    objective = {"name": name, "grader": grader, "max_new_tokens": 8, "validation": "sampled", **settings}
    folder, report = finetune(on_embedded(tmp_path, prompts, objective, name=name, training=training))
    lines = [json.loads(line) for line in (folder / "predictions" / "test.jsonl").read_text().splitlines()]
    before, after = (sum(WANTED.match(line[side]) is not None for line in lines) / len(lines) for side in ("base", "tuned"))
    assert before < 0.3
    assert after > 0.8
    assert max(step["facts"]["kl"] for step in steps_of(folder)) < 1.0  # the bound that is set where nobody sets one
    assert not report.warnings
    (measure,) = report.measures
    assert measure.base is not None
    assert 0 <= measure.base.value < measure.tuned.value <= 1


# ---- what a judge is won by that nobody wanted, and what goes wrong -------------------------------------------------------------

STEPS = {"max_steps": 40, "learning_rate": 1e-2, "batch_size": 8}
DATA = {"validation_share": 0.2, "test_share": 0.2, "cleaning": {"near_duplicates": "off"}}


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory, base: Callable[[str], str]) -> Callable[..., Run]:
    """A tiny policy that says a word or a few, and a judge that likes the longer of two answers: `chatty(length_limit=2)`."""
    root, draw = tmp_path_factory.mktemp("chatty"), random.Random(5)
    words = ["say " + "".join(draw.choices("abcdefgh", k=3)) for _ in range(40)]
    said = [{"prompt": one, "completion": " ".join(["so"] * draw.choice((1, 1, 1, 2, 3)))} for one in words]
    rejected = ("so", "so so")
    longer = [
        {"prompt": one, "chosen": " ".join(["so"] * draw.choice((4, 6, 8))), "rejected": draw.choice(rejected)} for one in words
    ]
    files = write(root / "said.jsonl", said), write(root / "longer.jsonl", longer)

    def run(name: str, file: Path, **settings: Any) -> Run:
        given = {"data": {"train": str(file), **DATA}, "training": STEPS, "evaluation": {"written": 0}, **settings}
        return describe(root, given.pop("base", None) or base("llama"), file, name=name, **given)

    talker = str(finetune(run("talker", files[0], method="full")).folder)
    judge, report = finetune(run("judge", files[1], base=talker, objective={"name": "reward"}))
    assert report.measures[0].tuned.value >= 0.9

    def make(name: str, *, steps: int = 40, grader: dict[str, Any] | None = None, **settings: Any) -> Run:
        grading = grader if "name" in (grader or {}) else {"name": "reward_model", "model": str(judge), **(grader or {})}
        objective = {"name": "grpo", "grader": grading, "group": 8, "max_new_tokens": 32, **NO_LIMITS, **settings}
        return run(name, files[0], base=talker, objective=objective, training=STEPS | {"max_steps": steps, "learning_rate": 5e-3})

    return make


NO_LIMITS = {"kl_limit": None, "length_limit": None, "repetition_limit": None}


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"length_limit": 2.0}, r"answers have grown from \d[\d.]* to \d[\d.]* tokens \(length_limit 2 times\)"),
        ({"repetition_limit": 0.15}, r"repeated word triples have risen from \d+% to \d+% \(repetition_limit 0.15\)"),
        ({"kl_limit": 0.15}, r"the policy is [\d.]+ nats a token from the base \(kl_limit 0.15\)"),
    ],
)
def test_a_judge_that_likes_length_is_won_by_length_and_the_run_stops(
    chatty: Callable[..., Run], limit: dict[str, float], said: str
) -> None:
    (setting,) = limit
    folder, report = finetune(chatty(setting, **limit))
    (warning,) = report.warnings
    found = re.search(rf"Stopped at step (\d+): {said}.*the parameters of step (\d+) were put back", warning)
    assert found is not None, warning
    stopped, good = (int(number) for number in found.groups())
    steps = steps_of(folder)
    assert good < stopped == len(steps) < 40
    name, bound = setting.removesuffix("_limit"), limit[setting]
    first, measured = steps[0]["facts"][name], [step["facts"][name] for step in steps]
    bound = {"kl": bound, "length": bound * first, "repetition": bound + first}[name]
    assert all(value <= bound for value in measured[:-1])
    assert measured[-1] > bound
    opened = open_model(str(folder))  # what there was before the alarm is kept: a run with a report and a tuning that answers
    (answer,) = opened.approach(Sampling(max_new_tokens=4)).answer(read_rows(folder / "data" / "test.jsonl")[:1], 1)
    assert 0 <= answer.scores["reward"] <= 1


def test_a_run_with_a_judge_resumes_with_the_same_bits(chatty: Callable[..., Run], tmp_path: Path) -> None:
    whole, seen = finetune(chatty("whole", steps=3)).folder, iter(range(1, 9))
    with pytest.raises(Interrupted):
        finetune(chatty("stopped", steps=3), stop_asked=lambda: next(seen) >= 2)
    shutil.copytree(whole.parent / "stopped", whole.parent / "elsewhere")
    resume(whole.parent / "stopped")
    assert [step["facts"] for step in steps_of(whole.parent / "stopped")] == [step["facts"] for step in steps_of(whole)]
    assert all(torch.equal(one, weights(whole.parent / "stopped")[name]) for name, one in weights(whole).items())
    stopped = whole.parent / "elsewhere"
    settings = (stopped / "run.yaml").read_text()
    judge = read_file(stopped / "run.yaml")["objective"]["grader"]["model"]
    changed = broken(judge, tmp_path / "changed")
    manifest = (stopped / "manifest.json").read_text()
    (stopped / "run.yaml").write_text(
        settings.replace(judge, changed).replace("sigmoid", "raw").replace("empty: null", "empty: 0.0")
    )
    (stopped / "manifest.json").write_text(manifest.replace(f"beside/{judge}", f"beside/{changed}"))
    with pytest.raises(BaseModelError, match=r"changed: the model that the run asks has changed since it began\. Put the old one"):
        resume(stopped)


def test_a_judge_may_stand_on_another_base_and_be_a_part_of_a_formula(chatty: Callable[..., Run], judge: Path) -> None:
    parts = {"liked": {"name": "reward_model", "model": str(judge)}, "brief": {"name": "python", "source": BRIEF}}
    grader = {"name": "multi", "graders": parts, "formula": "liked + brief"}
    run = chatty("other", steps=1, grader=grader)
    folder, report = finetune(run)
    assert isinstance(run.objective, GRPO)
    opened = open_model(str(folder))
    assert list(opened.engine.beside) == [str(judge)]
    rows = read_rows(folder / "data" / "test.jsonl")
    (value,) = graded(run.objective.grader, [(rows[0], "so")], "fail", opened.engine.beside).values
    (alone,) = graded(run.objective.grader.graders["liked"], [(rows[0], "so")], "fail", opened.engine.beside).values  # type: ignore[attr-defined]
    assert value == pytest.approx(1 + alone)
    assert report.measures[0].tuned.value > 0


BRIEF = "def grade(sample, item):\n    return len(sample['output_text'].split()) < 5\n"


def broken(judge: str, place: Path) -> str:
    """A copy of a judge whose head gives no numbers."""
    copy = Path(shutil.copytree(judge, place))
    (path,) = copy.rglob("head*.safetensors")
    save_file({name: torch.full_like(one, float("nan")) for name, one in load_file(path).items()}, path)
    return str(copy)


def test_what_is_wrong_with_a_judge_is_said_before_anything_is_trained(chatty: Callable[..., Run], tmp_path: Path) -> None:
    run = chatty("refused")
    assert isinstance(run.objective, GRPO)
    judge = run.objective.grader.model  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match=r"grader\.model: 'embedded' does not say what it was tuned for"):
        finetune(chatty("refused", grader={"model": "embedded"}))
    moved = Path(shutil.copytree(judge, tmp_path / "moved"))
    text = (moved / "run.yaml").read_text()
    (moved / "run.yaml").write_text(text.replace(read_file(moved / "run.yaml")["base"], str(tmp_path / "gone")))
    with pytest.raises(BaseModelError, match="gone"):
        finetune(chatty("refused", grader={"model": str(moved)}))
    with pytest.raises(ConfigurationError, match=r"grader\.model: .* rewards that are no finite numbers"):
        finetune(chatty("refused", grader={"model": broken(judge, tmp_path / "broken")}))
    assert not (run.folder / "refused").exists()


def test_a_reward_that_is_no_number_names_the_row(chatty: Callable[..., Run], tmp_path: Path) -> None:
    run = chatty("nan")
    assert isinstance(run.objective, GRPO)
    judge = broken(run.objective.grader.model, tmp_path / "broken")  # type: ignore[attr-defined]
    with pytest.raises(GraderError, match=r"said\.jsonl:\d+: the grader 'reward_model' gave nan, which is no finite number"):
        finetune(chatty("nan", grader={"model": judge, "scale": "raw", "empty": 0.0}))
    assert finetune(chatty("zero", steps=1, on_error="zero", grader={"model": judge, "scale": "raw", "empty": 0.0})).report


def test_what_a_judge_said_can_be_asked_again_only_while_it_is_there(chatty: Callable[..., Run], tmp_path: Path) -> None:
    run = chatty("kept", steps=1)
    assert isinstance(run.objective, GRPO)
    copy = Path(shutil.copytree(run.objective.grader.model, tmp_path / "judge"))  # type: ignore[attr-defined]
    folder = finetune(chatty("kept", steps=1, grader={"model": str(copy)})).folder
    shutil.rmtree(copy)
    opened, rows = open_model(str(folder)), read_rows(folder / "data" / "test.jsonl")
    assert opened.tuning is not None  # to write it needs no judge; to be measured it does
    with pytest.raises(BaseModelError, match="there is no such folder"):
        opened.approach(Sampling(max_new_tokens=4)).answer(rows[:1], 1)
