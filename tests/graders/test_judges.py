"""`reward_model` and `classifier`: what becomes of what a judge says, when it is asked, and what is refused early."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tunewright.core.errors import ConfigurationError, GraderError
from tunewright.data.rows import PromptRow, Row
from tunewright.graders import NOTHING, GradeFailure, made
from tunewright.graders._grading import graded
from tunewright.graders._judges import Asked


class Said:
    """A judge that says what it was told to say, and keeps what it was asked."""

    objective, labels = "reward", ("good", "bad")

    def __init__(self, says: Mapping[str, Mapping[str, float] | str]) -> None:
        self.says, self.read = says, []  # type: ignore[var-annotated]

    def judged(self, asked: Sequence[tuple[Row, str]]) -> list[Mapping[str, float] | str]:
        self.read.append([answer for _, answer in asked])
        return [self.says[answer] for _, answer in asked]

    def spread(self) -> tuple[float, float]:
        return 1.0, 2.0


def grades(row: Row, judge: Said, answers: Sequence[str], **settings: Any) -> list[float]:
    grader = made({"name": "reward_model", "model": "runs/judge", **settings})
    return graded(grader, [(row, one) for one in answers], "fail", {"runs/judge": judge}).values


def rewards(*values: float) -> Said:
    return Said({str(number): {"reward": value} for number, value in enumerate(values)})


def test_a_reward_becomes_a_share_by_mean_and_deviation_of_validated_ones(row: PromptRow) -> None:
    # (5 - 1) / 2 = 2, (1 - 1) / 2 = 0, (-1e6 - 1) / 2 is beyond what exp can take
    assert grades(row, rewards(5.0, 1.0, -1e6), ["0", "1", "2"]) == pytest.approx([1 / (1 + math.exp(-2)), 0.5, 0.0])


def test_standard_rewards_are_cut_and_raw_ones_are_not(row: PromptRow) -> None:
    judge = rewards(5.0, -1e6)
    assert grades(row, judge, ["0", "1"], scale="standard") == [2.0, -5.0]
    assert grades(row, judge, ["0", "1"], scale="standard", clip=1.5) == [1.5, -1.5]
    assert grades(row, judge, ["0", "1"], scale="raw", empty=-3.0) == [5.0, -1e6]


def test_an_empty_answer_gets_the_lowest_grade_and_is_not_read(row: PromptRow) -> None:
    judge = rewards(5.0)
    assert grades(row, judge, ["", " \n"]) == [0.0, 0.0]
    assert grades(row, judge, [""], scale="standard", clip=2.5) == [-2.5]
    assert grades(row, judge, [""], empty=0.25) == [0.25]
    assert [answer for read in judge.read for answer in read] == []
    with pytest.raises(ConfigurationError, match=r"empty: raw rewards have no lowest one for an empty answer\. Give one"):
        made({"name": "reward_model", "model": "runs/judge", "scale": "raw"})


def test_all_answers_are_read_at_once_and_each_only_once(row: PromptRow) -> None:
    judge = rewards(1.0, 3.0)
    assert grades(row, judge, ["0", "1", "0", "0"], scale="standard") == [0.0, 1.0, 0.0, 0.0]
    assert judge.read == [["0", "1"]]
    other = Asked(judge, "{{ sample.output_text }}", [])  # what nobody announced is read when it comes
    assert other(row, "1") == {"reward": 3.0}
    assert judge.read[1:] == [["1"]]


def test_what_is_judged_may_be_more_than_the_answer(row: PromptRow) -> None:
    judge = Said({"0 at level 2": {"reward": 3.0}})
    assert grades(row, judge, ["0"], scale="standard", input="{{ sample.output_text }} at level {{ item.level }}") == [1.0]


@pytest.mark.parametrize(
    ("says", "said"),
    [
        ({"reward": math.nan}, "gave nan, which is no finite number,"),
        ({"reward": math.inf}, "gave inf, which is no finite number,"),
        ("the answer alone has 900 tokens", r"cannot read it \(the answer alone has 900 tokens\)"),
    ],
)
def test_what_is_no_reward_names_the_row(row: PromptRow, says: Mapping[str, float] | str, said: str) -> None:
    asked, judge = [(row, "0"), (row, "1")], {"j": Said({"0": {"reward": 1.0}, "1": says})}
    grader = made({"name": "reward_model", "model": "j", "scale": "raw", "empty": 0.0})
    with pytest.raises(GraderError, match=rf"^sums\.jsonl:3: the grader 'reward_model' {said} for the answer '1'"):
        graded(grader, asked, "fail", judge)
    assert graded(grader, asked, "zero", judge).values == [1.0, 0.0]


def test_a_classifier_gives_the_probability_of_the_label_that_is_wanted(row: PromptRow) -> None:
    judge = {"j": Said({"0": {"good": 0.75, "bad": 0.25}, "1": {"good": 0.125, "bad": 0.875}})}
    asked = [(row, "0"), (row, "1"), (row, "")]
    assert graded(made({"name": "classifier", "model": "j", "label": "good"}), asked, "fail", judge).values == [0.75, 0.125, 0.0]
    with pytest.raises(ConfigurationError, match=r"no label 'god'\. Did you mean 'good'"):
        graded(made({"name": "classifier", "model": "j", "label": "god"}), asked, "fail", judge)


def test_a_formula_may_hold_several_judges(row: PromptRow) -> None:
    parts = {
        "liked": {"name": "reward_model", "model": "one", "scale": "standard"},
        "kind": {"name": "classifier", "model": "two", "label": "good"},
        "right": {"name": "number"},
    }
    grader = made({"name": "multi", "graders": parts, "formula": "liked * kind + right"})
    assert grader.others() == ("one", "two")
    judges = {"one": Said({"1234": {"reward": 7.0}}), "two": Said({"1234": {"good": 0.5, "bad": 0.5}})}
    assert graded(grader, [(row, "1234")], "fail", judges).values == [3.0 * 0.5 + 1.0]
    judges["two"].says = {"1234": "it is too long"}
    with pytest.raises(GraderError, match=r"has a part, 'kind', which cannot read it \(it is too long\)"):
        graded(grader, [(row, "1234")], "fail", judges)


def test_outside_of_a_run_there_is_no_model_to_ask(row: PromptRow) -> None:
    for grader in (made({"name": "reward_model", "model": "j"}), made({"name": "classifier", "model": "j", "label": "good"})):
        with pytest.raises(GradeFailure, match="asks the model 'j', which only a run opens"):
            grader.grade(row, "0")
        with pytest.raises(ConfigurationError, match="the model 'j' is not open"), grader.opened(NOTHING):
            pass


def run_folder(root: Path, objective: str) -> str:
    """What is looked at of a finished run before anything loads."""
    (root / "adapter").mkdir(parents=True)
    (root / "run.yaml").write_text(f"base: embedded\nobjective: {objective}\n")
    return str(root)


REWARD, CLASSES = "{name: reward}", "{name: classification, labels: [good, bad]}"


def test_a_run_that_judges_is_taken(row: PromptRow, tmp_path: Path) -> None:
    made({"name": "reward_model", "model": run_folder(tmp_path / "r", REWARD)}).check(row)
    made({"name": "classifier", "model": run_folder(tmp_path / "c", CLASSES), "label": "good"}).check(row)


@pytest.mark.parametrize(
    ("grader", "objective", "said"),
    [
        (
            {"name": "reward_model"},
            CLASSES,
            r"grader\.model: '.*' was tuned for 'classification' and not 'reward'\. Name",
        ),
        ({"name": "classifier", "label": "good"}, REWARD, "was tuned for 'reward' and not 'classification'"),
        ({"name": "classifier", "label": "god"}, CLASSES, r"grader\.label: .* knows no label 'god'\. Did you mean 'good'"),
        ({"name": "reward_model"}, "null", "does not say what it was tuned for"),
        ({"name": "reward_model", "input": "{{ item.x }}"}, REWARD, r"grader\.input: there is no 'item\.x' to fill in"),
    ],
)
def test_what_does_not_judge_is_refused(row: PromptRow, tmp_path: Path, grader: dict[str, str], objective: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        made({**grader, "model": run_folder(tmp_path / "run", objective)}).check(row)


def test_a_folder_that_is_not_there_and_a_run_that_is_not_done_are_refused(row: PromptRow, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"grader\.model: .*nothing: there is no such folder\. Check the path"):
        made({"name": "reward_model", "model": str(tmp_path / "nothing")}).check(row)
    with pytest.raises(ConfigurationError, match=r"grader\.model: runs/jugde: there is no such folder\. Name the folder"):
        made({"name": "reward_model", "model": "runs/jugde"}).check(row)  # which could be a name on the hub as well
    folder = run_folder(tmp_path / "run", REWARD)
    (tmp_path / "run" / "adapter").rmdir()
    with pytest.raises(ConfigurationError, match=r"grader\.model: .*run: is a run that has no model/ and no adapter/ yet.*resume"):
        made({"name": "reward_model", "model": folder}).check(row)
    with pytest.raises(ConfigurationError, match="'embedded' does not say what it was tuned for"):
        made({"name": "reward_model", "model": "embedded"}).check(row)
