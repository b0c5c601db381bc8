"""Wrappers around the loop: what they fill in, when they stop, when they save."""

import pytest
import torch
from torch.nn import Parameter

from tunewright.core.errors import DivergedError, Interrupted
from tunewright.training.around import Best, checkpointed, stop_early, validated, watched
from tunewright.training.loop import Step


def steps(count: int):
    for number in range(1, count + 1):
        yield Step(number, number / 2, 1.0, 0.1, 1.0, 1, 1, 0.0, last=number == count)


class Weights:
    """An engine as far as `Best` knows one: its only weight is the number of the step."""

    def __init__(self):
        self.parameters = {"w": Parameter(torch.zeros(1))}

    def follow(self, step: Step) -> None:
        self.parameters["w"].data.fill_(step.number)


def run(values: list[float], *, patience: int = 2, higher: bool = False, every: int = 1, count: int | None = None):
    weights, best = Weights(), Best("score", higher)
    given = iter(values)
    found = watched(steps(count or len(values)), weights.follow)
    found = validated(found, every, lambda: {"score": next(given)})
    return list(stop_early(found, best, weights, patience)), best


def test_validation_every_so_often_and_at_the_end():
    found, _ = run([1.0, 0.9, 0.8], every=3, count=7)
    assert [step.number for step in found if step.validation] == [3, 6, 7]


def test_the_best_is_kept_and_not_the_last():
    found, best = run([3.0, 2.0, 1.0, 2.0, 1.5], patience=5)
    assert len(found) == 5
    assert (best.value, best.step, best.waited) == (1.0, 3, 2)
    assert best.parameters["w"].item() == 3


def test_higher_may_be_better():
    _, best = run([0.1, 0.5, 0.3], higher=True)
    assert (best.value, best.step) == (0.5, 2)


def test_patience_ends_the_run_and_marks_the_end():
    found, best = run([3.0, 2.0, 2.5, 2.0, 1.0], patience=2)
    assert [step.number for step in found] == [1, 2, 3, 4]  # equal is no improvement
    assert [step.last for step in found] == [False, False, False, True]
    assert best.step == 2


def test_an_improvement_gives_patience_back():
    found, _ = run([3.0, 3.5, 2.0, 2.5, 1.0, 1.5], patience=2)
    assert len(found) == 6


def test_copies_are_copies():
    weights, best = Weights(), Best("score", False)
    step = next(steps(2))
    step.validation = {"score": 1.0}
    weights.follow(step)
    best.see(step, weights)
    weights.parameters["w"].data.fill_(99)
    assert best.parameters["w"].item() == 1
    assert best.facts() == {"monitor": "score", "value": 1.0, "step": 1, "waited": 0}


def test_without_validation_rows_nothing_stops():
    best = Best("loss", False)
    found = list(stop_early(validated(steps(4), 1, dict), best, Weights(), 1))
    assert len(found) == 4
    assert best.parameters == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_validation_that_is_no_number_ends_the_run(value: float):
    with pytest.raises(DivergedError, match=f"step 2: the validation score is {value}.*Lower the learning rate"):
        run([1.0, value, 1.0])


@pytest.mark.parametrize(
    ("every", "validate", "saved"),
    [(None, 3, [3, 6, 7]), (2, 3, [2, 4, 6, 7]), (10, 10, [7]), (1, 7, [1, 2, 3, 4, 5, 6, 7])],
)
def test_when_checkpoints_are_written(every: int | None, validate: int, saved: list[int]):
    found = []
    list(checkpointed(validated(steps(7), validate, lambda: {"loss": 1.0}), every, lambda step: found.append(step.number)))
    assert found == saved


def test_a_stop_is_kept_and_said():
    saved, seen = [], []
    wrapped = checkpointed(steps(7), 5, lambda step: saved.append(step.number), lambda: len(seen) == 2)

    def drain() -> None:
        for step in wrapped:
            seen.append(step.number)

    with pytest.raises(Interrupted, match="stopped after step 3, as asked"):
        drain()
    assert saved == [3]
    assert seen == [1, 2, 3]


def test_a_stop_at_the_last_step_is_the_end():
    saved = []
    assert len(list(checkpointed(steps(2), None, lambda step: saved.append(step.number), lambda: saved == [] and False))) == 2
    assert saved == [2]
    assert len(list(checkpointed(steps(1), None, lambda step: None, lambda: True))) == 1
