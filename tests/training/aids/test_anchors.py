"""Weights held near the base's: the gradients of the penalty as autograd finds it, added once a step, whatever the method."""

import pytest
import torch
from torch import Tensor

from tunewright.engine.engine import Engine
from tunewright.engine.linear import Change
from tunewright.engine.members import Member
from tunewright.engine.optimizers import Optimizer
from tunewright.engine.settings import AdamW
from tunewright.methods import Method
from tunewright.methods.adalora import AdaLoRA
from tunewright.methods.bitfit import BitFit
from tunewright.methods.bottleneck_adapter import BottleneckAdapter
from tunewright.methods.full import Full
from tunewright.methods.lora import LoRA
from tunewright.methods.prompt_tuning import PromptTuning
from tunewright.methods.sparse import Sparse
from tunewright.methods.stack import Stack
from tunewright.methods.vera import VeRA
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import toy_engine, toy_loss, toy_trees
from tunewright.training.aids.anchors import EWC, L2, Anchors, held_of
from tunewright.training.bank import Bank, Trainee
from tunewright.training.loop import Pace, Plan, fit

LOW_RANK = {
    "lora": LoRA(rank=3),
    "pissa": LoRA(rank=3, init="pissa"),
    "embedding": LoRA(rank=2, targets=("embedding", "attention.query")),
    "adalora": AdaLoRA(rank=2, initial_rank=3),
    "vera": VeRA(rank=8),
}


def ready(method: Method, family: str = "llama") -> tuple[Engine, Anchors, dict[str, Tensor]]:
    """An engine whose tuning has been moved at random, with zero gradients; the anchors; and some Fisher information."""
    model = tiny(family)
    tuning = method.attach(model, 0)
    engine = toy_engine(model, tuning)
    held = held_of(model, tuning, engine.parameters)
    generator = torch.Generator().manual_seed(4)
    shapes = {name: one.shape for name, (one, _) in held.weights.items()}
    shapes |= {name: one.host.weight.shape for name, one in held.changes.items()}
    fisher = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    with torch.no_grad():
        for parameter in engine.parameters.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
            parameter.grad = torch.zeros_like(parameter)
    return engine, Anchors(held, 0.3, 0.7, fisher), fisher


def pulled(engine: Engine) -> dict[str, Tensor]:
    return {name: one.grad.clone() for name, one in engine.parameters.items()}


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5", "bert"])
def test_whole_weights_by_hand(family: str):
    """beta d + lambda F d, and half of the sums of beta d^2 and lambda F d^2; a new head is left alone."""
    engine, anchors, fisher = ready(Full(), family)
    anchors.pull()
    base = dict(tiny(family).network.named_parameters())
    l2 = ewc = 0.0
    for name, one in engine.parameters.items():
        if name.startswith("head."):
            assert float(one.grad.abs().max()) == 0
            continue
        apart = one.detach() - base[name].detach()
        torch.testing.assert_close(one.grad, 0.3 * apart + 0.7 * fisher[name] * apart)
        l2 += 0.15 * float(apart.double().square().sum())
        ewc += 0.35 * float((apart.double().square() * fisher[name]).sum())
    assert anchors.penalties == pytest.approx({L2: l2, EWC: ewc}, rel=1e-4)
    assert any(name.startswith("head.") for name in engine.parameters) == (family == "bert")


@pytest.mark.parametrize("name", list(LOW_RANK))
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_changes_beside_weights_as_if_they_were_in_them(name: str, family: str):
    """The penalty of the whole change, [O, I], as merging would add it, by autograd through A and B."""
    if (name, family) == ("embedding", "gpt2"):
        pytest.skip("the query of GPT-2 is a part of one matrix")
    engine, anchors, fisher = ready(LOW_RANK[name], family)
    layers = {path: module for path, module in engine.model.network.named_modules() if isinstance(module, Change)}
    l2 = ewc = torch.zeros(())
    for path, layer in layers.items():
        A, B = layer.pair()
        change = layer.laid(B @ A) * layer.scale
        l2 = l2 + 0.15 * change.square().sum()
        ewc = ewc + 0.35 * (change.square() * fisher[f"{path.rpartition('.')[0]}.weight"]).sum()
    wanted = torch.autograd.grad(l2 + ewc, list(engine.parameters.values()), allow_unused=True)
    anchors.pull()
    assert anchors.penalties == pytest.approx({L2: l2.item(), EWC: ewc.item()}, rel=1e-4)
    for found, slope in zip(pulled(engine).values(), wanted, strict=True):
        torch.testing.assert_close(found, torch.zeros_like(found) if slope is None else slope, atol=1e-5, rtol=1e-4)
    assert sum(float(one.abs().max()) > 0 for one in pulled(engine).values()) > 0


@pytest.mark.parametrize(
    "method", [PromptTuning(virtual_tokens=3), BottleneckAdapter(), LoRA(rank=2, dora=True)], ids=["prompt", "adapter", "dora"]
)
def test_what_is_added_elsewhere_is_held_to_its_start(method: Method):
    start = {name: one.detach().clone() for name, one in method.attach(tiny("llama"), 0).parameters().items()}
    engine, anchors, _ = ready(method)
    anchors.fisher, anchors.ewc = {}, 0.0
    anchors.pull()
    assert set(anchors.penalties) == {L2}
    for name, one in engine.parameters.items():
        torch.testing.assert_close(one.grad, 0.3 * (one.detach() - start[name]))


def test_parts_of_the_weights():
    for method, family in ((BitFit(), "gpt2"), (Sparse(share=0.1), "llama")):
        engine, anchors, _ = ready(method, family)
        before = {name: value.clone() for name, (_, value) in anchors.held.weights.items()}
        anchors.fisher = {}
        anchors.pull()
        assert set(before) == set(engine.parameters)
        for name, one in engine.parameters.items():
            torch.testing.assert_close(one.grad, 0.3 * (one.detach() - before[name]))


def test_each_part_of_a_stack_in_its_own_way():
    engine, anchors, _ = ready(Stack(parts=(PromptTuning(virtual_tokens=2), LoRA(rank=2))))
    assert len(anchors.held.weights) == 1
    assert len(anchors.held.changes) == 14
    anchors.pull()
    assert all(float(one.abs().max()) > 0 for one in pulled(engine).values())


def test_what_a_step_did_not_touch_stays():
    engine, anchors, _ = ready(LoRA(rank=2))
    for one in engine.parameters.values():
        one.grad = None
    anchors.pull()
    assert all(one.grad is None for one in engine.parameters.values())
    assert anchors.penalties == {L2: 0.0, EWC: 0.0}


# ---- in training --------------------------------------------------------------------------------------------------------------


def trained(budget: int, method: Method, l2: float, steps: int = 4) -> tuple[Engine, Anchors]:
    model = tiny("llama")
    tuning = method.attach(model, 0)
    engine = toy_engine(model, tuning)
    anchors = Anchors(held_of(model, tuning, engine.parameters), l2)
    anchors.join(engine.first)
    tuning.begin(steps)
    plan = Plan(toy_trees(model, 8), 4, budget, 3, steps)
    list(fit(engine, toy_loss, plan, Pace(1e-2, "constant", clip=None)))
    return engine, anchors


@pytest.mark.parametrize("method", [Full(), LoRA(rank=2)], ids=["full", "lora"])
def test_the_pull_is_added_once_however_a_step_is_cut(method: Method):
    whole, _ = trained(1000, method, 0.5)
    cut, _ = trained(16, method, 0.5)
    free, _ = trained(1000, method, 0.0)
    for name, one in whole.parameters.items():
        assert float((one - cut.parameters[name]).detach().abs().max()) < 2e-4
    assert max(float((one - free.parameters[name]).detach().abs().max()) for name, one in whole.parameters.items()) > 5e-3


def test_the_gradient_is_that_of_mean_loss_plus_penalty():
    """One plain step by hand: what the optimizer is given is d (total / count) / dw + beta (w - w_base)."""
    model = tiny("llama")
    tuning = Full().attach(model, 0)
    engine = toy_engine(model, tuning)
    anchors = Anchors(held_of(model, tuning, engine.parameters), 0.5)
    anchors.join(engine.first)
    with torch.no_grad():
        for one in engine.parameters.values():
            one.mul_(1.01)
    batches = [engine.collate([tree]) for tree in toy_trees(model, 3)]
    count = sum(float(batch.weights_N.sum()) for batch in batches)
    losses = [engine.language_loss(batch).total for batch in batches]
    slopes = torch.autograd.grad(sum(losses) / count, list(engine.parameters.values()))
    given = {}

    class Watching(Optimizer):
        def update(self, learning_rate: float) -> None:
            given.update({name: one.grad.clone() for name, one in engine.parameters.items()})

    engine.optimizer = Watching(AdamW(), engine.parameters)
    engine.forward_backward(batches, toy_loss)
    engine.step(1e-3, clip=None)
    for (name, (one, start)), slope in zip(anchors.held.weights.items(), slopes, strict=True):
        torch.testing.assert_close(given[name], slope + 0.5 * (one.detach() - start), atol=1e-5, rtol=1e-4)


def test_what_a_method_adds_comes_after():
    calls = []
    member = Member({}, arriving=lambda: calls.append("method"))
    anchors = ready(LoRA(rank=2))[1]
    anchors.pull = lambda: calls.append("pull")
    anchors.join(member)
    member.arriving()
    assert calls == ["pull", "method"]
    trained(1000, AdaLoRA(rank=1, initial_rank=2), 0.5)


def test_a_tuning_in_a_bank_is_held_alone():
    """Two tunings, one of them held: each ends where it would have ended by itself."""
    model = tiny("llama")
    engine = Engine(model, {}, toy_engine(model).probed)
    bank, plans = Bank(engine, 1000), Plan(toy_trees(model, 8), 4, 1000, 3, 4)
    tunings = [LoRA(rank=2).attach(model, 0) for _ in range(2)]
    for tuning, l2 in zip(tunings, (0.5, 0.0), strict=True):
        member = Member(tuning.parameters(), Optimizer(AdamW(), tuning.parameters()))
        bank.join(tuning.slot, member, Trainee(toy_loss, plans, Pace(1e-2, "constant", clip=None)), tuning)
        engine.members[tuning.slot] = member
        Anchors(held_of(model, tuning, member.parameters), l2).join(member)
    for _ in bank.rounds():
        pass
    for tuning, l2 in zip(tunings, (0.5, 0.0), strict=True):
        alone, _ = trained(1000, LoRA(rank=2), l2)
        for name, one in tuning.parameters().items():
            assert float((one - alone.parameters[name]).detach().abs().max()) < 1e-4
