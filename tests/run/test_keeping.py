"""The run says what is frozen, and fills the cache before training when that is asked for."""

from pathlib import Path

import pytest
import torch

from tunewright.core.narrator import Narrator
from tunewright.data.rendering import Rendered, Renderer
from tunewright.data.rows import TextRow
from tunewright.engine.engine import Engine
from tunewright.engine.probe import probe
from tunewright.engine.settings import Cache
from tunewright.methods.full import Full
from tunewright.methods.selective import Selective
from tunewright.objectives.masked_language_modeling import MaskedLanguageModeling
from tunewright.run.keeping import keep_frozen
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import toy_engine, toy_trees
from tunewright.training.loop import Plan


class Ear(Narrator):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def say(self, text: str) -> None:
        self.heard.append(text)


@pytest.mark.parametrize(("when", "kept"), [("auto", 0), ("at_once", 6), ("off", 0)])
def test_it_is_said_and_filled(when: str, kept: int, tmp_path: Path):
    model, ear = tiny("llama"), Ear()
    engine = toy_engine(model, Selective(last_blocks=1).attach(model, 0))
    plan = Plan(toy_trees(model, 6), batch_size=4, token_budget=40, seed=0, total=8)
    frozen = keep_frozen(engine, Cache(when=when, folder=tmp_path), plan, ear)
    assert frozen is not None
    assert len(ear.heard) == 1
    assert ear.heard[0].startswith("1 of 2 blocks are trained")
    assert (len(frozen.cache) if frozen.cache is not None else 0) == kept
    batch = engine.collate([plan.trees[5], plan.trees[0]])
    with torch.no_grad():
        for _ in range(2):
            frozen.hidden(batch, lambda: engine.hidden(batch))
    assert (frozen.counts.read > 0) == (when == "at_once")


def test_full_tuning_has_nothing_to_keep():
    model, ear = tiny("llama"), Ear()
    engine = toy_engine(model, Full().attach(model, 0))
    assert keep_frozen(engine, Cache(), Plan(toy_trees(model, 2), 2, 100, 0, 1), ear) is None
    assert ear.heard == []


def test_states_of_what_every_epoch_draws_anew_are_not_kept(tmp_path: Path):
    model, ear = tiny("bert", own_head=True), Ear()
    engine = Engine(model, Selective(last_blocks=1).attach(model, 0).parameters(), probe(model))
    objective = MaskedLanguageModeling()
    rows = [TextRow(text=f"text number {number}") for number in range(4)]
    entries = objective.plant(rows, Renderer(model.tokenizer, model.kind, model.context))
    plan = Plan([one.tree for one in entries if isinstance(one, Rendered)], batch_size=2, token_budget=64, seed=0, total=4)
    frozen = keep_frozen(engine, Cache(when="at_once", folder=tmp_path), plan, ear)
    assert frozen is not None
    assert "every epoch hides other parts" in ear.heard[0]
    # Lower blocks still run without a graph, and the loss is that of a network without a cut.
    batch = engine.collate(plan.micro_batches(2)[0])
    without = objective.loss(engine, batch).total.detach()
    engine.prefix = frozen
    within = objective.loss(engine, batch).total.detach()
    assert float(within) == pytest.approx(float(without), rel=1e-6)
    assert (frozen.counts.read, list(tmp_path.rglob("*.*"))) == (0, [])
