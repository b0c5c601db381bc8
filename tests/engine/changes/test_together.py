"""Changes of hidden states beside everything else that is done to a network: the numbers stay the same."""

from __future__ import annotations

import pytest
import torch

from tunewright.data.forest import Segment, Tree
from tunewright.engine.changes.host import changes_on
from tunewright.engine.engine import Engine
from tunewright.engine.members import Member
from tunewright.engine.recompute import Recomputing
from tunewright.engine.regions import Compiled
from tunewright.methods import Method, Tuning
from tunewright.methods._reft import Positions
from tunewright.methods.bottleneck_adapter import BottleneckAdapter
from tunewright.methods.direft import DiReFT
from tunewright.methods.ia3 import IA3
from tunewright.methods.lora import LoRA
from tunewright.methods.loreft import LoReFT
from tunewright.methods.stack import Stack
from tunewright.models import Model
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, outputs, toy_engine, toy_loss, toy_trees, train

ENDS = Positions(first=2, last=3)
METHODS: dict[str, Method] = {
    "sequential": BottleneckAdapter(width=4, activation="gelu"),
    "parallel": BottleneckAdapter(width=4, kind="parallel", activation="swish", layer_norm=True),
    "loreft": LoReFT(rank=3, positions=ENDS),
    "direft": DiReFT(rank=3, positions=ENDS, share=False),
    "ia3": IA3(),
    "ia3 and lora": Stack(parts=(IA3(), LoRA(rank=2))),
    "parallel and lora": Stack(parts=(LoRA(rank=2), BottleneckAdapter(width=4, kind="parallel"))),
}
every_method = pytest.mark.parametrize("name", METHODS)


def trees(tuning: int = 0, seed: int = 0) -> list[Tree]:
    """Long prompts with short answers, so that few rows are read."""
    draw = torch.Generator().manual_seed(seed)
    found = []
    for count in (5, 14, 3, 20):
        tokens = tuple(torch.randint(5, 260, (count + 3,), generator=draw).tolist())
        found.append(Tree((Segment(tokens, None, (0.0,) * count + (1.0,) * 3, tuning=tuning),)))
    return found


def roughened(tuning: Tuning, seed: int = 1) -> Tuning:
    """Large changes, so that a wrong one shows."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
    return tuning


def attached(family: str, name: str) -> tuple[Model, Tuning]:
    model = tiny(family)
    return model, roughened(METHODS[name].attach(model, 0))


def gradients(engine: Engine, tuning: Tuning, some: list[Tree]) -> tuple[float, dict[str, torch.Tensor]]:
    engine.forget()
    engine.forward_backward([engine.collate(some)], toy_loss)
    return engine.accumulated.total, {name: one.grad.clone() for name, one in tuning.parameters().items() if one.grad is not None}


def assert_same(one, other, close: float = 2e-5) -> None:
    assert one[0] == pytest.approx(other[0], rel=close)
    assert one[1].keys() == other[1].keys()
    largest = max(float(gradient.abs().max()) for gradient in other[1].values())
    for name, gradient in one[1].items():
        scale = max(float(other[1][name].abs().max()), 1e-2 * largest)
        assert float((gradient - other[1][name]).abs().max()) <= close * scale, name


@every_method
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_narrowed_block_gives_the_same(family: str, name: str) -> None:
    model, tuning = attached(family, name)
    engine = toy_engine(model, tuning)
    assert engine.probed.narrows
    narrowed = gradients(engine, tuning, trees())
    engine.narrow.parts = {}
    assert_same(narrowed, gradients(engine, tuning, trees()))
    assert not any(changes.narrowed for changes in map(changes_on, model.network.modules()) if changes is not None)


@every_method
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_recomputed_blocks_give_the_same_bits(family: str, name: str) -> None:
    model, tuning = attached(family, name)
    engine = toy_engine(model, tuning)
    engine.narrow.parts = {}
    some = toy_trees(model) if family == "bert" else trees()
    engine.training()
    kept = gradients(engine, tuning, some)
    recomputing = Recomputing(model)
    calls = []
    layer = next(iter(model.sites("attention.output").values()))
    counted = layer.register_forward_hook(lambda *_: calls.append(layer))
    again = gradients(engine, tuning, some)
    counted.remove()
    recomputing.remove()
    assert again[0] == kept[0]
    assert all(torch.equal(again[1][one], gradient) for one, gradient in kept[1].items())
    assert len(calls) == 2  # it was computed twice indeed


@every_method
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_padded_rows_give_the_same(family: str, name: str) -> None:
    model, tuning = attached(family, name)
    some = toy_trees(model) if family == "bert" else trees()
    forest = gradients(toy_engine(model, tuning), tuning, some)
    assert_same(gradients(toy_engine(model, tuning, layout="padded"), tuning, some), forest)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch hides it itself, unless warnings are errors
def test_a_compiled_block_gives_the_same() -> None:
    """One change in the graph, one between graphs."""
    model = tiny("llama")
    tuning = roughened(Stack(parts=(IA3(), METHODS["loreft"])).attach(model, 0))
    engine = toy_engine(model, tuning)
    engine.narrow.parts = {}
    plain = gradients(engine, tuning, trees())
    compiled = Compiled(model, backend="eager")
    try:
        assert_same(gradients(engine, tuning, trees()), plain)
    finally:
        compiled.remove()
        torch.compiler.reset()


PAIRS = (("sequential", "loreft"), ("ia3", "parallel"), ("direft", "ia3 and lora"), ("loreft", "direft"))


@pytest.mark.parametrize("pair", PAIRS, ids=" beside ".join)
@pytest.mark.parametrize("layout", [None, "padded"])
def test_two_tunings_in_one_batch_are_each_alone(pair: tuple[str, str], layout: str | None) -> None:
    alone = []
    for number, name in enumerate(pair):
        model, tuning = attached("llama", name)
        alone.append(gradients(toy_engine(model, tuning, layout), tuning, trees(seed=number)))
    model = tiny("llama")
    tunings = [roughened(METHODS[name].attach(model, 0)) for name in pair]
    engine = Engine(model, tunings[0].parameters(), toy_engine(model, None, layout).probed)
    engine.join(1, Member(dict(tunings[1].parameters())))
    batch = engine.collate([*trees(1, seed=1), *trees(0, seed=0)])
    engine.forward_backward([batch], {0: toy_loss, 1: toy_loss})
    for number, tuning in enumerate(tunings):
        found = {name: one.grad for name, one in tuning.parameters().items()}
        assert_same((engine.members[number].accumulated.total, found), alone[number])


def test_several_tunings_without_lanes_are_refused() -> None:
    model = tiny("llama")
    for _ in range(2):
        IA3().attach(model, 0)
    with pytest.raises(ValueError, match=r"tunings \[0, 1\] stand on one layer, and no lanes say whose tokens these are"):
        outputs(model, toy_trees(model))


@every_method
def test_nothing_is_left_when_all_have_left(name: str) -> None:
    model = tiny("llama")
    base = outputs(tiny("llama"), toy_trees(model))
    first, second = METHODS[name].attach(model, 0), METHODS[name].attach(model, 1)
    train(toy_engine(model, first), toy_trees(model), 1)
    first.detach()
    assert any(changes_on(module) for module in model.network.modules())
    second.detach()
    for module in model.network.modules():
        assert "forward" not in vars(module)
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert changes_on(module) is None
    assert torch.equal(outputs(model, toy_trees(model)), base)
    assert model.lanes.edges == {}


@every_method
def test_masters_stay_float32_and_bfloat16_is_close(name: str) -> None:
    model, tuning = attached("llama", name)
    exact = outputs(model, toy_trees(model))
    engine = Engine(model, tuning.parameters(), precision="bfloat16")
    assert {parameter.dtype for parameter in tuning.parameters().values()} == {torch.float32}
    with engine.autocast():
        assert difference(outputs(model, toy_trees(model)).float(), exact) < 0.1
    loss, found = gradients(engine, tuning, trees())
    assert torch.isfinite(torch.tensor(loss))
    assert all(gradient.dtype == torch.float32 and bool(torch.isfinite(gradient).all()) for gradient in found.values())


@every_method
def test_half_and_none_of_a_change(name: str) -> None:
    model, tuning = attached("llama", name)
    base, whole = outputs(tiny("llama"), toy_trees(model)), outputs(model, toy_trees(model))
    tuning.interpolate(1.0)
    assert difference(outputs(model, toy_trees(model)), whole) < 1e-5
    tuning.interpolate(0.5)
    assert difference(outputs(model, toy_trees(model)), whole) > 1e-3
    tuning.interpolate(0.0)
    assert difference(outputs(model, toy_trees(model)), base) < 1e-5
