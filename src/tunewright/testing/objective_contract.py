"""The battery every objective must pass: inherit `ObjectiveContract`, give rows, and pytest runs it over several families.

>>> class TestMine(ObjectiveContract):
...     objective = Mine()
...     rows = tuple(MyRow(text=word) for word in ("one", "two", "three", "four"))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from tunewright.data.forest import Tree
from tunewright.data.rendering import Refusal, Renderer
from tunewright.data.rows import Row
from tunewright.engine.beside import Beside
from tunewright.engine.engine import Engine, LayoutName
from tunewright.engine.optimizers import Optimizer
from tunewright.engine.probe import probe
from tunewright.engine.settings import AdamW
from tunewright.methods.lora import LoRA
from tunewright.metrics import room as metrics
from tunewright.models import Model
from tunewright.objectives import Objective
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference

SAME = 1e-5


class ObjectiveContract:
    """What holds for every objective. Subclass with `objective` and `rows`.

    Attributes:
        objective: what is tested, with its settings.
        rows: at least four rows that it can use.
        useless: rows that it must refuse, each with its reason.
        families: the tiny models (`tunewright.testing.tiny`) it is tested on.
    """

    objective: Objective
    rows: tuple[Row, ...]
    useless: tuple[Row, ...] = ()
    families: tuple[str, ...] = ("llama", "gpt2", "t5")

    def resolved(self, model: Model) -> Objective:
        """The objective with everything decided that the kind of base decides."""
        return self.objective

    def model(self, family: str) -> Model:
        """The tiny model of a family, with what the objective needs of a base."""
        return tiny(family, own_head=self.objective.own_head)

    def labels(self) -> tuple[str, ...]:
        """The labels of a new head, where the objective has one."""
        return ()

    def beside(self, family: str) -> Mapping[str, Beside]:
        """The models that the objective names (`Objective.others`), by their names."""
        return {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Each test that asks for a family runs once a family."""
        if "family" in metafunc.fixturenames:
            metafunc.parametrize("family", self.families)

    def _ready(self, family: str, layout: LayoutName | None = None) -> tuple[Engine, Objective, list[Tree]]:
        """An engine with a small LoRA away from its start, the objective for it, and the rows as trees."""
        model = self.model(family)
        objective = self.resolved(model)
        renderer = Renderer(model.tokenizer, model.kind, model.context)
        trees = [item.tree for item in objective.plant(self.rows, renderer) if not isinstance(item, Refusal)]
        tuning, head = LoRA(rank=8).attach(model, 0), objective.make_head(model, self.labels(), 0)
        parameters = tuning.parameters() | {f"head.{name}": one for name, one in (head.named_parameters() if head else ())}
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
        found = probe(model)
        engine = Engine(model, parameters, found._replace(layout=layout or found.layout), head=head.eval() if head else None)
        engine.optimizer, engine.beside = Optimizer(AdamW(), engine.parameters), self.beside(family)
        tuning.follow(engine.first)
        return engine, objective, objective.prepare(engine, trees)

    @staticmethod
    def _sums(engine: Engine, objective: Objective, cut: Sequence[Sequence[Tree]]) -> tuple[float, float, dict[str, Tensor]]:
        engine.forward_backward([engine.collate(trees) for trees in cut], objective.loss)
        sums = engine.accumulated.total, engine.accumulated.count
        gradients = {
            name: torch.zeros_like(one) if one.grad is None else one.grad.clone() for name, one in engine.parameters.items()
        }
        engine.forget()
        return *sums, gradients

    def _same(self, one: tuple[float, float, dict[str, Tensor]], other: tuple[float, float, dict[str, Tensor]]) -> None:
        assert one[:2] == pytest.approx(other[:2], rel=SAME)
        largest = max(float(gradient.abs().max()) for gradient in other[2].values())
        for name, gradient in one[2].items():
            assert float((gradient - other[2][name]).abs().max()) <= SAME * largest, name

    def test_says_what_it_is(self) -> None:
        text = type(self.objective).__doc__ or ""
        for part in ("Source:", "Cost:", "Use when", "Avoid when", "Raises"):
            assert part in text
        assert self.objective.rows
        assert all(metrics[name] for name in self.objective.metrics)

    def test_loss_is_a_sum_and_a_count(self, family: str) -> None:
        engine, objective, trees = self._ready(family)
        total, count = objective.loss(engine, engine.collate(trees))
        assert total.ndim == count.ndim == 0
        assert total.requires_grad
        assert bool(torch.isfinite(total))
        assert not count.requires_grad
        assert float(count) > 0
        twice = objective.loss(engine, engine.collate([*trees, *trees]))
        assert difference(twice.total.detach(), 2 * total.detach()) <= SAME
        assert float(twice.count) == pytest.approx(2 * float(count))

    def test_cuts_and_orders_do_not_matter(self, family: str) -> None:
        engine, objective, trees = self._ready(family)
        whole = self._sums(engine, objective, [trees])
        for cut in ([trees[:1], trees[1:]], [[tree] for tree in trees], [trees[::-1]], [trees[2:], trees[1::-1]]):
            self._same(self._sums(engine, objective, cut), whole)

    def test_layouts_do_not_matter(self, family: str) -> None:
        engine, objective, trees = self._ready(family)
        if engine.layout != "forest":
            pytest.skip("this family has one layout")
        other, same, again = self._ready(family, "padded")
        self._same(self._sums(other, same, [again]), self._sums(engine, objective, [trees]))

    def test_every_tree_counts(self, family: str) -> None:
        engine, objective, trees = self._ready(family)
        for tree in trees:
            assert float(objective.loss(engine, engine.collate([tree])).count) > 0

    def test_it_learns(self, family: str) -> None:
        engine, objective, trees = self._ready(family)
        losses = []
        for _ in range(20):
            engine.forward_backward([engine.collate(trees)], objective.loss)
            losses.append(engine.step(2e-2)[0])
        assert losses[-1] < 0.7 * losses[0]

    def test_rows_stand_in_order(self, family: str) -> None:
        model = self.model(family)
        planted = self.resolved(model).plant(self.rows, Renderer(model.tokenizer, model.kind, model.context))
        assert [item.row for item in planted] == list(range(len(self.rows)))
        for number, item in enumerate(planted):
            assert not isinstance(item, Refusal)
            assert {segment.row for segment in item.tree.segments} == {number}

    def test_useless_rows_are_refused(self, family: str) -> None:
        model = self.model(family)
        mixed = [row for pair in zip(self.useless, self.rows, strict=False) for row in pair]
        planted = self.resolved(model).plant(mixed, Renderer(model.tokenizer, model.kind, model.context))
        for number, (row, item) in enumerate(zip(mixed, planted, strict=True)):
            assert isinstance(item, Refusal) == (row in self.useless)
            if isinstance(item, Refusal):
                assert (item.row, item.where) == (number, row.where)
                assert item.reason
                assert item.message
