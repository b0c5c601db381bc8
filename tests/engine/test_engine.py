"""The primitives: one sum, one division, whatever a step was cut into."""

import pytest
import torch

from tunewright.core.errors import DivergedError
from tunewright.data.forest import single
from tunewright.engine.engine import Engine, Probed
from tunewright.engine.loss import Loss
from tunewright.methods.lora import LoRA
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, toy_engine, toy_loss, toy_trees


def ready(family: str = "llama", layout: str | None = None):
    model = tiny(family)
    engine = toy_engine(model, LoRA(rank=4).attach(model, 0), layout)
    with torch.no_grad():
        for name, parameter in engine.parameters.items():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.05)
    return engine, toy_trees(model, 6)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "bert", "t5"])
@pytest.mark.parametrize("cut", [(6,), (1, 5), (2, 2, 2), (1,) * 6], ids=str)
def test_a_cut_step_is_a_whole_one(family: str, cut: tuple[int, ...]):
    results = []
    for parts in ((6,), cut):
        engine, trees = ready(family)
        begins = [sum(parts[:index]) for index in range(len(parts))]
        batches = [engine.collate(trees[begin : begin + size]) for begin, size in zip(begins, parts, strict=True)]
        engine.forward_backward(batches, toy_loss)
        gradients = {name: parameter.grad.clone() for name, parameter in engine.parameters.items()}
        loss, norm, done = engine.step(1e-2)
        results.append((gradients, loss, norm, done.count, {name: one.detach() for name, one in engine.parameters.items()}))
    (one, *first, weights), (other, *second, others) = results
    assert first == pytest.approx(second, rel=1e-5)
    for name in one:
        assert difference(other[name], one[name]) < 1e-5
        torch.testing.assert_close(others[name], weights[name], atol=1e-4, rtol=1e-3)


def test_gradients_are_divided_and_clipped_once():
    engine, trees = ready()
    engine.forward_backward([engine.collate(trees)], toy_loss)
    count = engine.accumulated.count
    raw = torch.cat([parameter.grad.flatten() for parameter in engine.parameters.values()])
    seen = {}
    engine.optimizer.update = lambda rate: seen.update(
        rate=rate, norm=torch.cat([one.grad.flatten() for one in engine.parameters.values()]).norm()
    )
    loss, norm, done = engine.step(0.5, clip=1e-3)
    assert norm == pytest.approx(float(raw.norm() / count), rel=1e-5)
    assert float(seen["norm"]) == pytest.approx(1e-3, rel=1e-2)
    assert seen["rate"] == 0.5
    assert loss == pytest.approx(done.total / count)
    assert engine.accumulated.count == 0


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda engine, batch: Loss(engine.language_loss(batch).total * float("nan"), torch.tensor(1.0)), "the loss is nan"),
        (lambda engine, batch: Loss(engine.language_loss(batch).total * 1e38, torch.tensor(1.0)), "not a finite number"),
        (
            lambda engine, batch: Loss(engine.language_loss(batch).total * 0, torch.tensor(0.0)),
            "there was no target in the whole step",
        ),
    ],
)
def test_a_diverged_step_changes_nothing_and_leaves_nothing(broken, message: str):
    engine, trees = ready()
    before = {name: parameter.detach().clone() for name, parameter in engine.parameters.items()}

    def step() -> None:
        engine.forward_backward([engine.collate(trees)], broken)
        engine.step(1e-2)

    with pytest.raises(DivergedError, match=message):
        step()
    assert all(torch.equal(parameter, before[name]) for name, parameter in engine.parameters.items())
    assert all(parameter.grad is None for parameter in engine.parameters.values())
    assert engine.accumulated.count == 0
    engine.forward_backward([engine.collate(trees)], toy_loss)
    engine.step(1e-2)  # goes on as if nothing had been


def test_dropout_is_a_function_of_the_seed():
    losses = []
    for seed in (3, 3, 4):
        model = tiny("llama")
        tuning = LoRA(rank=4, dropout=0.5).attach(model, 0)
        with torch.no_grad():
            for parameter in tuning.parameters().values():
                parameter.fill_(0.1)
        engine = toy_engine(model, tuning)
        model.network.train()
        torch.manual_seed(len(losses))
        engine.forward_backward([engine.collate(toy_trees(model))] * 2, toy_loss, seed)
        losses.append(engine.accumulated.total)
    assert losses[0] == losses[1] != losses[2]


def test_values_are_put_back_and_checked():
    engine, _ = ready()
    kept = {name: parameter.detach().clone() for name, parameter in engine.parameters.items()}
    name = next(iter(kept))
    with torch.no_grad():
        engine.parameters[name][0, 0] = float("inf")
    with pytest.raises(DivergedError, match=name):
        engine.check_finite()
    engine.put_back(kept)
    engine.check_finite()


def test_an_engine_for_evaluation_makes_no_step():
    model = tiny("llama")
    with pytest.raises(ValueError, match="has no optimizer"):
        Engine(model).step(1e-3)
    with pytest.raises(ValueError, match="no task head"):
        Engine(model).label_logits(Engine(model).collate(toy_trees(model)))
    seq = Engine(tiny("t5"), probed=Probed("sequence_to_sequence"))
    with pytest.raises(ValueError, match="gives logits"):
        seq.hidden(seq.collate(toy_trees(seq.model)))


def test_evaluating_leaves_the_mode_as_it_was():
    engine, _ = ready("bert")
    engine.model.network.train()
    engine.head.eval()
    with engine.evaluating():
        assert not engine.model.network.training
        assert not torch.is_grad_enabled()
    assert engine.model.network.training
    assert not engine.head.training


@pytest.mark.parametrize("family", ["gpt2", "roberta", "opt", "llama"])
def test_a_row_as_long_as_the_context(family: str):
    model = tiny(family)
    assert model.context is not None
    engine = toy_engine(model)
    weights = (0.0, *[1.0] * (model.context - 1)) if model.kind == "decoder" else ()
    tree = single(tuple(5 + place % 200 for place in range(model.context)), weights, label=0)
    with engine.evaluating():
        total, count = toy_loss(engine, engine.collate([tree, tree]))
    assert torch.isfinite(total)
    assert float(count) == 2 * (model.context - 1 if model.kind == "decoder" else 1)
