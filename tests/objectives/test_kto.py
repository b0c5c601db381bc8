"""KTO: its cost by the published formula, the reference point of a step, mismatched pairs, and that the forest computes the same as
transformers does answer by answer. (Against TRL itself: `test_trl_parity_kto.py`.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.data.forest import Segment, Tree
from tunewright.data.rendering import Refusal, Renderer, Rendering
from tunewright.data.rows import JudgedRow, LabelRow, Message, PreferenceRow
from tunewright.engine.engine import Engine, LayoutName
from tunewright.engine.optimizers import Optimizer
from tunewright.engine.probe import probe
from tunewright.engine.settings import AdamW
from tunewright.methods.lora import LoRA
from tunewright.models import Model
from tunewright.objectives import Objective, room
from tunewright.objectives._reference import Part
from tunewright.objectives.kto import DESIRABLE, KTO, MISMATCHED, UNDESIRABLE, Judged, judged_in, with_mismatched
from tunewright.testing.objective_contract import ObjectiveContract
from tunewright.testing.tiny import tiny


def row(prompt: str, completion: str, label: bool) -> JudgedRow:
    return JudgedRow(messages=(Message(role="user", content=prompt),), completion=completion, label=label, where=f"k:{prompt}")


ROWS = (
    row("what is red?", "a rose", True),
    row("who sings?", "no", False),
    row("where is it?", "over there, behind the house", False),
    row("why?", "because it rains", True),
)
PAIR = PreferenceRow(messages=(Message(role="user", content="how?"),), chosen="gently", rejected="by force", where="k:pair")
USELESS = (row("empty?", "", True), LabelRow(text="text", label="label", where="l:1"))


def of_a_step(objective: KTO, engine: Engine, trees: Sequence[Tree]) -> list[Tree]:
    """The trees as one optimizer step learns from them."""
    with engine.evaluating():
        return objective.referred(trees, objective.point(objective.part_of(engine, trees)))


class KTOContract(ObjectiveContract):
    rows = ROWS
    useless = USELESS

    def _ready(self, family: str, layout: LayoutName | None = None) -> tuple[Engine, Objective, list[Tree]]:
        engine, objective, trees = super()._ready(family, layout)
        assert isinstance(objective, KTO)
        return engine, objective, of_a_step(objective, engine, trees)


class TestKTO(KTOContract):
    objective = KTO(beta=0.5, desirable_weight=1.5, undesirable_weight=0.5)


class TestApoZeroUnpaired(KTOContract):
    objective = KTO(beta=0.5, loss_type="apo_zero_unpaired")
    families = ("llama",)


class TestPairs(KTOContract):
    objective = KTO(beta=0.5)
    rows = (PAIR, replace(PAIR, messages=(Message(role="user", content="when?"),)), *ROWS[:2])  # type: ignore[assignment]
    families = ("llama",)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize(
    ("objective", "costs"),
    [
        # Gains of 3 and 1 from a reference point of 2, at beta 0.5: half a unit above, half a unit below.
        (KTO(beta=0.5), [1 - sigmoid(0.5), 1 - sigmoid(0.5)]),
        (KTO(beta=0.5, desirable_weight=1.2, undesirable_weight=0.6), [1.2 * (1 - sigmoid(0.5)), 0.6 * (1 - sigmoid(0.5))]),
        (KTO(beta=2), [1 - sigmoid(2), 1 - sigmoid(2)]),
    ],
)
def test_what_answers_cost(objective: KTO, costs: list[float]) -> None:
    judged = Judged(torch.zeros(2), torch.tensor([3.0, 1.0]), torch.tensor([True, False]), torch.tensor([2.0, 2.0]))
    assert objective.costs(judged).tolist() == pytest.approx(costs, rel=1e-5)


def test_the_point_is_a_mean_and_never_below_zero() -> None:
    assert KTO().point(Part(6.0, 4)) == 1.5
    assert KTO().point(Part(-6.0, 4)) == 0.0
    assert KTO().point(Part(0.0, 0)) == 0.0
    assert math.isnan(KTO().point(Part(math.nan, 4)))


def trees_of(*rows: tuple[tuple[int, ...], tuple[int, ...]]) -> list[Tree]:
    return [
        Tree((Segment(prompt, row=number), Segment(answer, 0, (1.0,) * len(answer), values=(math.nan, DESIRABLE), row=number)))
        for number, (prompt, answer) in enumerate(rows)
    ]


def mismatches(trees: Sequence[Tree], joined: bool = True) -> list[list[tuple[int, ...]]]:
    return [[one.tokens for one in tree.segments[2:]] for tree in with_mismatched(trees, joined=joined)]


def test_each_prompt_meets_the_answer_before_it() -> None:
    trees = trees_of(((1, 2), (3,)), ((4, 5), (6, 7)), ((8, 9), (3, 3)))
    assert mismatches(trees) == [[(3, 3)], [(3,)], [(6, 7)]]
    extra = with_mismatched(trees, joined=True)[0].segments[2]
    assert (extra.parent, extra.targets, extra.values[1], extra.row) == (0, (1.0, 1.0), MISMATCHED, 0)


def test_answers_to_the_same_prompt_are_no_mismatch_unless_there_is_no_other() -> None:
    assert mismatches(trees_of(((1,), (3,)), ((1,), (4,)), ((2,), (5,)), ((2,), (6,)))) == [[(6,)], [(6,)], [(4,)], [(4,)]]
    assert mismatches(trees_of(((1,), (3,)), ((1,), (4,)), ((1,), (5,)))) == [[(5,)], [(3,)], [(4,)]]
    assert mismatches(trees_of(((1,), (3,)))) == [[]]
    assert with_mismatched([], joined=True) == []


def test_a_mismatched_answer_ends_where_the_longest_row_does() -> None:
    trees = trees_of(((1, 2, 3, 4), (5,)), ((6,), (7, 8, 9)))
    assert mismatches(trees) == [[(7,)], [(5,)]]
    assert mismatches(trees, joined=False) == [[(7, 8, 9)], [(5,)]]


def test_planting_marks_what_was_judged_how() -> None:
    model = tiny("llama")
    renderer = Renderer(model.tokenizer, model.kind, model.context)
    planted = KTO().plant([ROWS[0], ROWS[1], PAIR], renderer)
    kinds = [[one.values[1] for one in item.tree.segments[1:]] for item in planted if not isinstance(item, Refusal)]
    assert kinds == [[DESIRABLE], [UNDESIRABLE], [DESIRABLE, UNDESIRABLE]]


def test_a_prompt_longer_than_the_context_loses_its_beginning_and_too_long_an_answer_is_refused() -> None:
    model = tiny("llama")
    renderer = Renderer(model.tokenizer, model.kind, model.context, Rendering(max_tokens=40))
    planted = KTO().plant([row("x" * 90, "short", True), row("short?", "y" * 90, False), ROWS[0]], renderer)
    assert [isinstance(item, Refusal) for item in planted] == [False, True, False]
    assert isinstance(planted[1], Refusal)
    assert planted[1].reason == "answer_too_long"
    trees = [item.tree for item in planted if not isinstance(item, Refusal)]
    assert max(tree.size for tree in trees) == 40
    for tree in with_mismatched(trees, joined=True):
        assert all(len(tree.segments[0].tokens) + len(one.tokens) <= 40 for one in tree.segments[1:])


def sums(model: Model, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """log p of an answer, by transformers' own forward pass."""
    logits = model.network(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum()


def lora_engine(std: float) -> tuple[Engine, Renderer]:
    """A tiny base with a LoRA away from its start."""
    model = tiny("llama")
    tuning = LoRA(rank=4).attach(model, 0)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.normal_(std=std, generator=torch.Generator().manual_seed(3))
    engine = Engine(model, tuning.parameters(), probe(model))
    engine.optimizer = Optimizer(AdamW(), engine.parameters)
    tuning.follow(engine.first)
    return engine, Renderer(model.tokenizer, model.kind, model.context)


def planted_in(renderer: Renderer, objective: KTO = KTO()) -> list[Tree]:  # noqa: B008 - an immutable value
    return [item.tree for item in objective.plant(ROWS, renderer) if not isinstance(item, Refusal)]


@pytest.mark.parametrize("std", [0.1, 0.3])
@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired"])
def test_loss_and_gradients_are_those_of_the_plain_formula(loss_type: str, std: float) -> None:
    """As TRL has it on a batch in the order of the rows: mismatched completions are those of the row before, z their mean, cut."""
    engine, renderer = lora_engine(std)
    objective = room.make({"name": "kto", "beta": 0.3, "desirable_weight": 1.3, "loss_type": loss_type})
    assert isinstance(objective, KTO)
    trees = of_a_step(objective, engine, objective.prepare(engine, planted_in(renderer)))
    total, count = objective.loss(engine, engine.collate(trees))
    found = torch.autograd.grad(total / count, list(engine.parameters.values()))
    model = engine.model
    model.network.set_attn_implementation("eager")
    tokens = [tuple(segment.tokens for segment in tree.segments[:2]) for tree in trees]
    assert engine.first.disabled is not None
    with torch.no_grad():
        crossed = [(tokens[place][0], tokens[place - 1][1]) for place in range(len(tokens))]
        apart = [sums(model, *pair) for pair in crossed]
        with engine.first.disabled():
            base, apart_base = [sums(model, *pair) for pair in tokens], [sums(model, *pair) for pair in crossed]
    mean = torch.stack(apart).sub(torch.stack(apart_base)).mean()
    point = mean.clamp_min(0) if loss_type == "kto" else torch.zeros(())
    assert (float(mean) > 1) == (std > 0.2)  # one case in which it is cut off, one in which it is not
    costs = []
    for pair, below, asked in zip(tokens, base, ROWS, strict=True):
        apart_from = sums(model, *pair) - below - point
        costs.append(1.3 * (1 - torch.sigmoid(0.3 * apart_from)) if asked.label else 1 - torch.sigmoid(-0.3 * apart_from))
    wanted = torch.stack(costs).mean()
    assert float((total / count).detach()) == pytest.approx(float(wanted.detach()), abs=1e-5)
    for one, other in zip(found, torch.autograd.grad(wanted, list(engine.parameters.values())), strict=True):
        assert torch.allclose(one, other, atol=1e-5 * float(other.abs().max()) + 1e-6)


def test_a_pair_counts_as_two_judged_answers() -> None:
    engine, renderer = lora_engine(0.1)
    apart = [row("how?", PAIR.chosen, True), row("how?", PAIR.rejected, False)]
    objective = KTO(beta=0.4, loss_type="apo_zero_unpaired", undesirable_weight=2)
    sides = []
    for rows in ([PAIR], apart):
        trees = objective.prepare(engine, [item.tree for item in objective.plant(rows, renderer) if not isinstance(item, Refusal)])
        sides.append([float(one.detach()) for one in objective.loss(engine, engine.collate(of_a_step(objective, engine, trees)))])
    assert sides[0] == pytest.approx(sides[1], rel=1e-5)
    assert sides[0][1] == 2


def test_what_was_not_prepared_or_referred_is_computed_beside() -> None:
    engine, renderer = lora_engine(0.3)
    objective, bare = KTO(beta=0.3), planted_in(renderer)
    prepared = objective.prepare(engine, bare)
    whole = of_a_step(objective, engine, prepared)
    wanted = float(objective.loss(engine, engine.collate(whole)).total.detach())
    assert float(objective.loss(engine, engine.collate(prepared)).total.detach()) == pytest.approx(wanted, rel=1e-5)
    without = judged_in(engine, engine.collate(bare))
    assert without.gain_A.tolist() == pytest.approx(judged_in(engine, engine.collate(whole)).gain_A.tolist(), rel=1e-4)
    assert without.point_A.tolist() == [0.0] * len(ROWS)
    assert objective.prepare(engine, prepared) == prepared


def test_readings_say_on_which_side_an_answer_stands() -> None:
    engine, renderer = lora_engine(0.3)
    objective = KTO(beta=0.3)
    trees = of_a_step(objective, engine, objective.prepare(engine, planted_in(renderer)))
    with engine.evaluating():
        found = objective.readings(engine, renderer, (*ROWS[:2], USELESS[0], *ROWS[2:]))
        judged = judged_in(engine, engine.collate(trees))
    assert (found[2].text, found[2].loss) == ("", None)
    found = [*found[:2], *found[3:]]
    costs = objective.costs(judged)
    for reading, asked, gain, point, cost in zip(found, ROWS, judged.gain_A, judged.point_A, costs, strict=True):
        assert reading.text == f"{'desirable' if gain > point else 'undesirable'}: {asked.completion}"
        assert reading.loss == pytest.approx(float(cost), rel=1e-4)
        assert reading.details == {
            "gain": pytest.approx(float(gain), rel=1e-4),
            "reference_point": pytest.approx(float(point), rel=1e-4),
        }
        assert reading.confidence == pytest.approx(sigmoid(0.3 * abs(float(gain - point))), rel=1e-4)
    (pair,) = objective.readings(engine, renderer, [PAIR])
    assert pair.text == (PAIR.chosen if pair.details["preference"] > 0 else PAIR.rejected)
    assert pair.loss is not None


def test_a_model_that_is_its_base_has_gained_nothing() -> None:
    engine, renderer = lora_engine(0.3)
    assert engine.first.disabled is not None
    with engine.evaluating(), engine.first.disabled():
        found = KTO().readings(engine, renderer, ROWS)
    assert {one.text.split(":")[0] for one in found if one.text} == {"undesirable"}
    assert [one.loss for one in found] == pytest.approx([0.5] * len(ROWS), abs=1e-4)
    engine.first.disabled = None  # a tuning that was merged: its base is gone
    engine.first.of_base.clear()
    assert {(one.text, one.loss) for one in KTO().readings(engine, renderer, ROWS)} == {("", None)}


def test_wrong_settings_and_bases_are_refused() -> None:
    for settings in ({"beta": 0}, {"loss_type": "bco"}, {"desirable_weight": -1}, {"weight": 1}):
        with pytest.raises(ConfigurationError):
            room.make({"name": "kto", **settings})
    with pytest.raises(BaseModelError, match="cannot write"):
        KTO().decided("encoder", ROWS)
