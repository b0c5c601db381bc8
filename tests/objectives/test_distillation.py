"""Distillation: what a token costs beside transformers' own forward passes, teachers in every layout, what is asked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.data.forest import Tree
from tunewright.data.rendering import Refusal, Renderer
from tunewright.data.rows import LabelRow, PromptRow, Row, TextRow
from tunewright.engine.beside import Beside
from tunewright.engine.engine import Engine
from tunewright.engine.probe import probe
from tunewright.methods import Method, room
from tunewright.methods.lora import LoRA
from tunewright.models import Model
from tunewright.models.heads import ClassificationHead
from tunewright.objectives import _teacher
from tunewright.objectives.distillation import Distillation
from tunewright.testing.objective_contract import ObjectiveContract
from tunewright.testing.tiny import tiny

NAME = "runs/teacher"
ROWS = (
    PromptRow(prompt="what is red?", completion="a rose"),
    PromptRow(prompt="who sings?", completion="a bird in the tree"),
    PromptRow(prompt="where is it?", completion="over there, behind the house"),
    PromptRow(prompt="why?", completion="so"),
)


class Opened(Beside):
    """A teacher as a run would have opened it; counts how often it reads."""

    def __init__(self, model: Model, layout: str | None = None) -> None:
        found = probe(model)
        self.name, self.objective, self.labels = NAME, "sft", ()
        self.engine = Engine(model, probed=found._replace(layout=layout or found.layout))
        self.renderer = Renderer(model.tokenizer, model.kind, model.context)
        self.passes = 0
        model.network.register_forward_pre_hook(self._count)
        if model.kind == "decoder":
            model.body.register_forward_pre_hook(self._count)

    def _count(self, module: torch.nn.Module, given: object) -> None:
        self.passes += 1

    def judged(self, asked: Sequence[tuple[Row, str]]) -> list[Mapping[str, float] | str]:
        raise AssertionError("a teacher judges nothing")

    def spread(self) -> tuple[float, float]:
        raise AssertionError("a teacher judges nothing")


def taught(family: str, method: Method | None = None, layout: str | None = None) -> Opened:
    """A teacher: the tiny base with a tuning that is far from its start."""
    model = tiny(family)
    tuning = (method or LoRA(rank=4)).attach(model, 1)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return Opened(model, layout)


def ready(family: str, teacher: Opened, method: Method | None = None, layout: str | None = None) -> tuple[Engine, list[Tree]]:
    """A student with that teacher beside it, and the rows as trees."""
    model = tiny(family)
    tuning = (method or LoRA(rank=4)).attach(model, 0)
    found = probe(model)
    engine = Engine(model, tuning.parameters(), found._replace(layout=layout or found.layout))
    engine.beside = {NAME: teacher}
    tuning.follow(engine.first)
    planted = Distillation(teacher=NAME).plant(ROWS, Renderer(model.tokenizer, model.kind, model.context))
    return engine, [item.tree for item in planted if not isinstance(item, Refusal)]


class FromTeacher(ObjectiveContract):
    rows = ROWS
    useless = (PromptRow(prompt="?", completion="", where="l:1"),)

    def beside(self, family: str) -> Mapping[str, Beside]:
        return {NAME: taught(family)}


class TestForward(FromTeacher):
    objective = Distillation(teacher=NAME, temperature=2.0, sft_weight=0.3)


class TestJensenShannon(FromTeacher):
    objective = Distillation(teacher=NAME, divergence="jensen_shannon", beta=0.3)
    families = ("llama",)


class TestReverseOfSome(FromTeacher):
    objective = Distillation(teacher=NAME, divergence="reverse_kl", top_k=8)


class TestLeftOut(FromTeacher):
    objective = Distillation(teacher=NAME, top_k=8, rest="left_out")
    families = ("gpt2",)


def total(engine: Engine, trees: Sequence[Tree], **settings: object) -> float:
    """The summed loss of some rows."""
    return float(Distillation(**{"teacher": NAME, **settings}).loss(engine, engine.collate(trees)).total.detach())


def logits(model: Model, tree: Tree) -> tuple[Tensor, Tensor]:
    """Logits at a row's targets and the targets, by transformers' own forward pass."""
    model.network.set_attn_implementation("eager")
    if model.kind == "encoder_decoder":
        source, answer = (segment.tokens for segment in tree.segments)
        start = model.network.config.decoder_start_token_id
        given = {"input_ids": torch.tensor([source]), "decoder_input_ids": torch.tensor([(start, *answer[:-1])])}
        return model.network(**given).logits[0], torch.tensor(answer)
    tokens, weights = tree.segments[0].tokens, tree.segments[0].targets
    places = [place for place, weight in enumerate(weights) if weight]
    found = model.network(input_ids=torch.tensor([tokens])).logits[0]
    return found[torch.tensor(places) - 1], torch.tensor(tokens)[places]


@pytest.mark.parametrize("family", ["llama", "gemma2", "t5"])
def test_a_token_costs_what_the_formula_says(family: str) -> None:
    teacher = taught(family)
    engine, trees = ready(family, teacher)
    objective = Distillation(teacher=NAME, temperature=2.0, sft_weight=0.25)
    found = objective.loss(engine, engine.collate(trees))
    slopes = torch.autograd.grad(found.total, list(engine.parameters.values()))
    summed, count = torch.zeros(()), 0
    for tree in trees:
        own, targets = logits(engine.model, tree)
        with torch.no_grad():
            p = (logits(teacher.engine.model, tree)[0] / 2).softmax(1)
        apart = (p * (p.log() - (own / 2).log_softmax(1))).sum()
        summed = summed + 0.75 * 4 * apart - 0.25 * own.log_softmax(1).gather(1, targets[:, None]).sum()
        count += len(targets)
    assert float(found.count) == count
    torch.testing.assert_close(found.total, summed, rtol=1e-5, atol=1e-5)
    for own, theirs in zip(slopes, torch.autograd.grad(summed, list(engine.parameters.values())), strict=True):
        assert float((own - theirs).abs().max()) <= 1e-5 * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize(
    ("of_teacher", "of_student", "layouts"),
    [
        ("lora", "prompt_tuning", (None, None)),
        ("prompt_tuning", "lora", (None, None)),
        ("lora", "lora", ("padded", "forest")),
        ("prefix_tuning", "lora", ("forest", "padded")),
    ],
)
def test_teacher_and_student_need_no_layout_in_common(of_teacher: str, of_student: str, layouts) -> None:
    small = {"prompt_tuning": {"virtual_tokens": 3}, "prefix_tuning": {"virtual_tokens": 3}}
    methods = [room.make({"name": name, **small.get(name, {})}) for name in (of_teacher, of_student)]
    teacher = taught("llama", methods[0], layouts[0])
    engine, trees = ready("llama", teacher, methods[1], layouts[1])
    assert total(engine, trees) == pytest.approx(sum(total(engine, [tree]) for tree in trees), rel=1e-4)
    # The same teacher, asked by a plain student in the forest: its distributions do not depend on who asks.
    said = _teacher.asked(teacher.engine, engine.collate(trees))(slice(None))
    other, _ = ready("llama", teacher)
    torch.testing.assert_close(said, _teacher.asked(teacher.engine, other.collate(trees))(slice(None)), rtol=1e-4, atol=1e-4)


def test_a_part_of_a_bank_is_compared_with_its_own_rows() -> None:
    teacher = taught("llama")
    engine, trees = ready("llama", teacher)
    second = LoRA(rank=2).attach(engine.model, 3)
    mixed = engine.collate([*trees[:2], *(tree.owned_by(second.slot) for tree in trees[2:])])
    objective = Distillation(teacher=NAME)
    for slot, own in ((0, trees[:2]), (second.slot, trees[2:])):
        found = objective._goal(engine, mixed.part(slot))
        assert found.teacher(slice(None)).shape[0] == sum(tree.trained for tree in own) == len(found.targets_N)


def test_what_is_kept_is_asked_once_a_row() -> None:
    teacher = taught("llama")
    engine, trees = ready("llama", teacher)
    some = {"top_k": 5, "temperature": 1.5}
    assert Distillation(teacher=NAME, **some).prepare(engine, trees) == trees
    passes = teacher.passes
    assert passes > 0
    values = [total(engine, order, **some) for order in (trees, trees[::-1], trees)]
    assert teacher.passes == passes
    assert values[0] == values[2] == pytest.approx(values[1], rel=1e-5)
    Distillation(teacher=NAME, top_k=6).prepare(engine, trees)  # another question is asked again
    assert teacher.passes > passes
    total(engine, trees)
    before = teacher.passes
    total(engine, trees)
    assert teacher.passes > before  # whole distributions are never kept


def test_almost_all_tokens_are_nearly_all() -> None:
    teacher = taught("llama")
    engine, trees = ready("llama", teacher)
    whole, few = total(engine, trees), total(engine, trees, top_k=2)
    most = total(engine, trees, top_k=engine.model.vocabulary - 1)
    assert most == pytest.approx(whole, rel=1e-4)
    assert 0 < few < whole


def test_the_student_comes_near_its_teacher_on_rows_it_has_not_seen() -> None:
    teacher = taught("llama")
    engine, trees = ready("llama", teacher, LoRA(rank=16))
    objective = Distillation(teacher=NAME)
    unseen = [PromptRow(prompt=f"what is {word}?", completion=f"a {word} in the house") for word in ("tea", "rain", "bread")]
    items = objective.plant(unseen, Renderer(engine.model.tokenizer, engine.model.kind))
    held_out = [item.tree for item in items if not isinstance(item, Refusal)]

    def apart() -> float:
        with engine.evaluating():
            found = objective.losses(engine, held_out)
        assert found is not None
        assert [count for _, count in found] == [tree.trained for tree in held_out]
        return sum(total for total, _ in found) / sum(count for _, count in found)

    from tunewright.engine.optimizers import Optimizer
    from tunewright.engine.settings import AdamW

    engine.optimizer = Optimizer(AdamW(), engine.parameters)
    before = apart()
    for _ in range(40):
        engine.forward_backward([engine.collate(trees)], objective.loss)
        engine.step(1e-2)
    assert apart() < 0.5 * before


def test_a_loss_is_unknown_where_the_teacher_is_gone() -> None:
    engine, trees = ready("llama", taught("llama"))
    engine.beside = {}
    assert Distillation(teacher=NAME).losses(engine, trees) == [(0.0, 0)] * len(trees)
    with pytest.raises(ValueError, match="does not stand beside"):
        Distillation(teacher=NAME).loss(engine, engine.collate(trees))


def test_another_vocabulary_is_refused_with_both_sizes_and_the_first_difference() -> None:
    teacher = taught("llama")
    teacher.engine.model.tokenizer.add_tokens(["<other>"])
    engine, trees = ready("llama", teacher)
    with pytest.raises(BaseModelError) as caught:
        Distillation(teacher=NAME).prepare(engine, trees)
    sizes = [
        len(one.engine.model.tokenizer.get_vocab()) if one is teacher else len(engine.model.tokenizer.get_vocab())
        for one in (teacher, 0)
    ]
    assert f"it has {sizes[0]} tokens, the student's {sizes[1]}" in caught.value.problem
    assert "number 261 is '<other>' for it and nothing for the student" in caught.value.problem
    assert "tunewright answer" in caught.value.hint


def test_teachers_that_have_no_tokens_to_compare_are_refused() -> None:
    other = taught("t5")
    engine, trees = ready("llama", other)
    with pytest.raises(BaseModelError, match="is an encoder-decoder, the student a decoder"):
        Distillation(teacher=NAME).prepare(engine, trees)
    judge = taught("llama")
    judge.engine.first.head = ClassificationHead(
        judge.engine.model.width, ("a", "b"), torch.Generator().manual_seed(0), pooling="last"
    )
    engine, trees = ready("llama", judge)
    with pytest.raises(BaseModelError, match="is a classifier"):
        Distillation(teacher=NAME).prepare(engine, trees)


def test_rows_that_a_teacher_cannot_read_are_refused() -> None:
    teacher = taught("gpt2")
    engine, trees = ready("gpt2", teacher)
    teacher.engine.model.network.config.n_positions = 16
    with pytest.raises(BaseModelError, match="reads 16 tokens, and the longest row has"):
        Distillation(teacher=NAME).prepare(engine, trees)


@pytest.mark.parametrize("count", [300, 4000])
def test_more_than_the_vocabulary_cannot_be_kept(count: int) -> None:
    engine, trees = ready("llama", taught("llama"))
    with pytest.raises(ConfigurationError) as caught:
        Distillation(teacher=NAME, top_k=count).prepare(engine, trees)
    assert caught.value.where == "objective.top_k"
    assert f"{count} of 300 tokens" in caught.value.problem


def test_what_can_be_refused_early_is(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError) as caught:
        Distillation(teacher="embeded").decided("decoder", ROWS)
    assert caught.value.where == "objective.teacher"
    assert "Did you mean 'embedded'" in str(caught.value)
    with pytest.raises(BaseModelError, match="'runs/a/nowhere'"):
        Distillation(teacher="runs/a/nowhere").decided("decoder", ROWS)
    with pytest.raises(BaseModelError, match="an encoder reads"):
        Distillation(teacher="embedded").decided("encoder", ROWS)
    (tmp_path / "run.yaml").write_text("base: embedded\nobjective:\n  name: reward\n", encoding="utf-8")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BaseModelError) as caught:
        Distillation(teacher=str(tmp_path)).decided("decoder", ROWS)
    assert "was tuned for 'reward'" in caught.value.problem
    assert Distillation(teacher="embedded").decided("decoder", ROWS).others() == ("embedded",)


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0}, {"beta": 1.5}, {"top_k": 0}, {"sft_weight": -0.1}, {"divergence": "kl"}, {"teacher": ""}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises((ConfigurationError, ValueError)):
        Distillation(**{"teacher": NAME, **wrong})


def test_beta_has_the_two_divergences_at_its_ends() -> None:
    engine, trees = ready("llama", taught("llama"))
    assert total(engine, trees, divergence="jensen_shannon", beta=0) == total(engine, trees, divergence="forward_kl")
    assert total(engine, trees, divergence="jensen_shannon", beta=1) == total(engine, trees, divergence="reverse_kl")
    assert total(engine, trees, temperature=2.0) == pytest.approx(
        4 * total(engine, trees, temperature=2.0, squared=False), rel=1e-6
    )
    assert total(engine, trees, sft_weight=1.0) == pytest.approx(
        float(engine.language_loss(engine.collate(trees)).total.detach()), rel=1e-5
    )


def test_rows_of_other_shapes_are_not_for_it() -> None:
    assert LabelRow not in Distillation.rows
    assert TextRow in Distillation.rows


def test_bfloat16_is_near_float32_and_the_teacher_keeps_its_own_precision() -> None:
    teacher = taught("llama")
    engine, trees = ready("llama", teacher)
    exact = total(engine, trees)
    said = _teacher.asked(teacher.engine, engine.collate(trees))(slice(None))
    engine.use_precision("bfloat16")
    assert total(engine, trees) == pytest.approx(exact, rel=0.05)
    with engine.autocast():
        again = _teacher.asked(teacher.engine, engine.collate(trees))(slice(None))
    assert again.dtype == torch.float32
    assert torch.equal(said, again)
