"""The Fisher information against transformers' own backward passes, row by row."""

import pytest
import torch

from tunewright.core.errors import ConfigurationError, DivergedError
from tunewright.engine.engine import Engine
from tunewright.methods import Method, Tuning
from tunewright.methods.bottleneck_adapter import BottleneckAdapter
from tunewright.methods.full import Full
from tunewright.methods.lora import LoRA
from tunewright.methods.stack import Stack
from tunewright.models import Model
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import toy_engine, toy_trees
from tunewright.training.aids.anchors import Held, held_of
from tunewright.training.aids.fisher import measure, watched


def standing(method: Method, family: str = "llama") -> tuple[Model, Tuning, Engine, Held]:
    model = tiny(family)
    tuning = method.attach(model, 0)
    engine = toy_engine(model, tuning)
    return model, tuning, engine, held_of(model, tuning, engine.parameters)


def by_transformers(family: str) -> dict[str, torch.Tensor]:
    """sum over rows of (d sum log p / dw)^2, divided by the tokens that are learned."""
    model = tiny(family)
    found = {name: torch.zeros_like(one) for name, one in model.network.named_parameters()}
    tokens = 0
    for tree in toy_trees(model, 4):
        *_, last = tree.segments
        ids, answer = torch.tensor([tree.segments[0].tokens]), torch.tensor([last.tokens])
        if family == "t5":
            begun = torch.cat([torch.zeros(1, 1, dtype=torch.long), answer[:, :-1]], 1)
            logits = model.network(input_ids=ids, decoder_input_ids=begun).logits[0]
            weights, wanted = torch.tensor(last.targets), answer[0]
        else:
            logits = model.network(input_ids=ids).logits[0, :-1]
            weights, wanted = torch.tensor(last.targets[1:]), ids[0, 1:]
        score = (logits.log_softmax(1).gather(1, wanted[:, None])[:, 0] * weights).sum()
        tokens += int(weights.sum())
        slopes = torch.autograd.grad(score, list(model.network.parameters()), allow_unused=True)
        for name, slope in zip(found, slopes, strict=True):
            found[name] += 0 if slope is None else slope.square()
    return {name: one / tokens for name, one in found.items()}


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("method", [Full(), LoRA(rank=2)], ids=["full", "lora"])
def test_it_is_that_of_the_base(method: Method, family: str):
    model, tuning, engine, held = standing(method, family)
    frozen = {name: one.requires_grad for name, one in model.network.named_parameters()}
    with torch.no_grad():
        for change in held.changes.values():  # a tuning that has moved is switched off
            for one in change.parameters():
                one.add_(0.1)
    found = measure(engine, tuning, held, toy_trees(model, 4))
    wanted = by_transformers(family)
    assert set(found) == (set(held.changes) or set(engine.parameters))
    for name, one in found.items():
        assert one.shape == wanted[name].shape
        assert float((one - wanted[name]).abs().max()) <= 2e-5 * float(wanted[name].max().clamp_min(1e-6)), name
    assert {name: one.requires_grad for name, one in model.network.named_parameters()} == frozen
    assert all(one.grad is None for one in model.network.parameters())


def test_the_penalty_foresees_what_old_rows_lose():
    """Of one weight moved by itself, strength 1 is the rise of -log p a token, to second order and without the slope."""
    model, tuning, engine, held = standing(Full())
    trees = toy_trees(model, 4)
    fisher = measure(engine, tuning, held, trees)
    name = "model.layers.0.mlp.up_proj.weight"
    place = int(fisher[name].argmax())
    weight = engine.parameters[name].data.view(-1)

    def cost(by: float) -> float:
        weight[place] += by
        with engine.evaluating():
            total, count = engine.language_loss(engine.collate(trees))
        weight[place] -= by
        return float(total / count)

    curvature = (cost(0.02) - 2 * cost(0.0) + cost(-0.02)) / 0.02**2
    # Empirical Fisher and curvature agree in size and not in value: these rows are no draws from the base.
    assert 0.05 < float(fisher[name].view(-1)[place]) / abs(curvature) < 20


OTHERS = {
    "adapter": BottleneckAdapter(),
    "dora": LoRA(rank=2, dora=True),
    "stack": Stack(parts=(BottleneckAdapter(), LoRA(rank=2))),
}


@pytest.mark.parametrize("method", list(OTHERS.values()), ids=list(OTHERS))
def test_methods_that_leave_weights_alone_are_refused(method: Method):
    *_, held = standing(method)
    with pytest.raises(ConfigurationError, match=r"training.aids.ewc: `ewc` serves methods that train.*Take `lora` or `full`"):
        watched(held)


def test_weights_in_few_bits_are_refused():
    model, _, _, held = standing(LoRA(rank=2))
    layer = model.network.model.layers[0].self_attn.q_proj
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ConfigurationError, match=r"q_proj.weight' is held in few bits and has no gradients.*`l2_to_base`"):
        watched(held)


def test_what_is_not_finite_is_refused():
    model, tuning, engine, held = standing(LoRA(rank=2))
    with torch.no_grad():
        model.network.model.norm.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"the Fisher information of .* is not finite"):
        measure(engine, tuning, held, toy_trees(model, 1))
