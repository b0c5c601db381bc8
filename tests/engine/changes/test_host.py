"""Where changes stand: beside each other, on layers that are exchanged, around calls that are broken off."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tunewright.data.forest import Segment, Tree
from tunewright.engine.changes import HiddenChange, Spot, Tokens, put_on, take_off
from tunewright.engine.changes.host import changes_on, hand_over_changes
from tunewright.engine.narrow import Narrow
from tunewright.engine.scoring import score_continuations
from tunewright.methods._reft import Positions
from tunewright.methods.bottleneck_adapter import BottleneckAdapter
from tunewright.methods.ia3 import IA3
from tunewright.methods.lora import LoRA
from tunewright.methods.loreft import LoReFT
from tunewright.models import Model
from tunewright.models.lanes import Lane, Places
from tunewright.models.sites import linear_layers
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, outputs, toy_engine, toy_trees


class Shift(HiddenChange):
    """Adds a number, and notes what it was given."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))
        self.given: list[tuple[Tokens, Tensor]] = []

    def forward(self, hidden_TD: Tensor, tokens: Tokens, read_TD: Tensor) -> Tensor:
        self.given.append((tokens, read_TD))
        return hidden_TD + self.by

    def resize(self, factor: float) -> None:
        self.by.mul_(factor)


class Twice(nn.Module):
    """Gives two things."""

    def forward(self, x: Tensor) -> tuple[Tensor, str]:
        return x, "kept"


def stand(model: Model, spots: list[Spot]) -> int:
    slot = model.lanes.open()
    put_on(model.network, model.lanes, slot, spots)
    return slot


def test_each_tuning_changes_its_own_tokens_in_the_order_of_the_row() -> None:
    model = tiny("llama")
    path = next(iter(linear_layers(model.network)))
    layer, shifts = model.network.get_submodule(path), [Shift(1.0), Shift(10.0), Shift(100.0)]
    for shift in shifts:
        stand(model, [Spot(shift, path)])
    x = torch.zeros(1, 9, layer.in_features)
    with model.lanes.during([Lane(2, 0, 2), Lane(0, 2, 2), Lane(1, 3, 7)]), pytest.raises(ValueError, match="end at token 7 and a"):
        layer(x)
    with model.lanes.during([Lane(2, 0, 2), Lane(0, 2, 2), Lane(1, 3, 9)]):
        assert layer(x)[0, :, 0].tolist() == [100.0, 100.0, 0.0, *[10.0] * 6]
    assert shifts[0].given == []
    assert shifts[1].given[0][0][:2] == (3, 9)


def test_two_of_one_tuning_stand_behind_each_other() -> None:
    model = tiny("llama")
    path = next(iter(linear_layers(model.network)))
    layer, (one, other) = model.network.get_submodule(path), (Shift(1.0), Shift(2.0))
    spots = [Spot(one, path), Spot(other, path), Spot(Shift(5.0), path, "input")]
    stand(model, spots)
    x = torch.zeros(4, layer.in_features)
    plain = nn.functional.linear(x + 5, layer.weight, layer.bias)
    assert torch.equal(layer(x), plain + 1 + 2)
    assert torch.equal(other.given[0][1], plain + 1)
    one.enabled = False
    assert torch.equal(layer(x), plain + 2)
    take_off(model.network, spots[1:])
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
    take_off(model.network, spots)
    assert changes_on(layer) is None


def test_what_a_change_reads_is_noted_and_forgotten() -> None:
    model = tiny("llama")
    gate, down = "model.layers.0.mlp.gate_proj", "model.layers.0.mlp.down_proj"
    shift = Shift(1.0)
    stand(model, [Spot(shift, down, source=gate)])
    outputs(model, toy_trees(model, 1))
    ((tokens, read),) = shift.given
    assert read.shape == (tokens.stop, model.width)
    source = changes_on(model.network.get_submodule(gate))
    assert source is not None
    assert source._seen is None
    with pytest.raises(RuntimeError, match="did not run before"):
        model.network.get_submodule(down)(torch.zeros(2, 64))


def test_the_first_of_several_outputs_is_changed() -> None:
    model = tiny("mixtral")
    model.network.add_module("extra", Twice())
    stand(model, [Spot(Shift(2.0), "extra")])
    changed, rest = model.network.extra(torch.zeros(2, 3))
    assert (changed.tolist(), rest) == ([[2.0] * 3] * 2, "kept")


def test_a_layer_that_takes_anothers_place_takes_its_changes() -> None:
    model = tiny("llama")
    path = next(iter(linear_layers(model.network)))
    old, new = model.network.get_submodule(path), nn.Linear(32, 32)
    stand(model, [Spot(Shift(1.0), path)])
    hand_over_changes(old, new)
    x = torch.zeros(2, 32)
    assert torch.equal(new(x), nn.functional.linear(x, new.weight, new.bias) + 1)
    assert torch.equal(old(x), nn.functional.linear(x, old.weight, old.bias))
    assert changes_on(old) is None
    hand_over_changes(old, nn.Linear(2, 2))  # nothing stands there any more


def test_places_are_told_in_the_rows_that_a_layer_computes() -> None:
    model = tiny("llama")
    places = Places(torch.arange(5), torch.arange(5).flip(0))
    with model.lanes.during((), places=places):
        assert model.lanes.here is places
        with model.lanes.during((), rows=torch.tensor([1, 4])):
            here = model.lanes.here
            assert here is not None
            assert (here.ahead_T.tolist(), here.behind_T.tolist()) == ([1, 4], [3, 0])
    assert model.lanes.here is None


@pytest.mark.parametrize("kind", ["sequential", "parallel"])
def test_in_a_narrowed_block_only_the_rows_are_changed(kind: str) -> None:
    model = tiny("llama")
    tuning = BottleneckAdapter(width=2, kind=kind, blocks=(1,)).attach(model, 0)  # type: ignore[arg-type]
    seen: list[int] = []
    for change in tuning.changes:
        change.register_forward_hook(lambda _module, given, _: seen.append(len(given[0])))
    engine = toy_engine(model, tuning)
    tree = Tree((Segment(tuple(range(5, 25)), None, (0.0,) * 18 + (1.0,) * 2),))
    seen.clear()
    engine.score([tree])
    assert seen == [2, 2]


def test_a_pass_that_is_broken_off_leaves_no_lanes_behind() -> None:
    model = tiny("llama")
    tuning = IA3(targets="mlp.down").attach(model, 0)
    layer = model.network.get_submodule("model.layers.1.mlp.down_proj")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    handle = layer.register_forward_hook(fail)
    before = model.lanes.rows
    with pytest.raises(KeyboardInterrupt), model.lanes.during([Lane(0, 0, 6)]), Narrow(model).to(torch.tensor([3])):
        model.network(input_ids=torch.tensor([[5, 6, 7, 8, 9, 10]]))
    handle.remove()
    assert model.lanes.rows is before
    assert model.lanes.runs == ()
    tuning.detach()
    assert not layer._forward_hooks


@pytest.mark.parametrize("first", ["lora", "adapter"])
def test_layers_that_carry_are_changed_in_any_order(first: str) -> None:
    """The adapter's change is of what the layer gives with its LoRA, whoever came first."""
    found = []
    for order in (first, "lora" if first == "adapter" else "adapter"):
        model = tiny("llama")
        methods = {"lora": LoRA(rank=2, targets=("mlp.down",)), "adapter": IA3(targets="mlp.down")}
        names = [order, *({"lora", "adapter"} - {order})]
        with model.lanes.joined(0):
            tunings = {name: methods[name].attach(model, 0) for name in names}
        with torch.no_grad():
            for name in ("lora", "adapter"):
                for parameter in tunings[name].parameters().values():
                    parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
        found.append(outputs(model, toy_trees(model)))
        tunings[first].detach()
        other = next(name for name in names if name != first)
        with tunings[other].disabled():
            assert torch.equal(outputs(model, toy_trees(model)), outputs(tiny("llama"), toy_trees(model)))
        tunings[other].detach()
        assert {type(module) for module in model.network.modules()} == {type(module) for module in tiny("llama").network.modules()}
    assert torch.equal(*found)


def test_options_are_scored_as_each_text_alone() -> None:
    """Prompts that begin alike are shared up to their last tokens, which are told apart."""
    model = tiny("llama")
    method = LoReFT(rank=4, positions=Positions(first=2, last=5))
    engine = toy_engine(model, method.attach(model, 0))
    beginning = tuple(range(30, 55))
    prompts = [(*beginning, 7), (*beginning, 8, 9, 10, 11, 12, 13, 14), beginning[:23]]
    options = [[(60, 61), (62,)], [(63, 64, 65), (60,)], [(61,), ()]]
    together = score_continuations(engine, prompts, options)
    for prompt, own, found in zip(prompts, options, together, strict=True):
        for option, score in zip(own, found, strict=True):
            if option:
                tree = Tree((Segment((*prompt, *option), None, (0.0,) * len(prompt) + (1.0,) * len(option)),))
                alone = engine.score([tree])[0].sum()
                assert difference(torch.tensor(score.log_probability), alone) < 1e-5
