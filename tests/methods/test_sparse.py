"""The contract, and what is particular: which entries are chosen, and that nothing else ever changes."""

import pytest
import torch

from tunewright.core.errors import BaseModelError, ConfigurationError, DivergedError
from tunewright.methods import Tuning
from tunewright.methods.selective import Selective
from tunewright.methods.sparse import Sparse, SparseTuning, _top
from tunewright.models import Model
from tunewright.testing.method_contract import MethodContract
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, outputs, toy_engine, toy_loss, toy_trees, train


def entries(model: Model, method: Sparse) -> int:
    chosen = Selective(kinds=method.kinds, blocks=method.blocks).attach(model, 0)
    return sum(one.numel() for one in chosen.parameters().values())


class SparseContract(MethodContract):
    """Choosing takes gradients, so that a tuning is whole when an engine has been made for it."""

    def expected_count(self, model: Model) -> int:
        return max(1, round(self.method.share * entries(model, self.method)))

    def _attached(self, family: str, seed: int = 0) -> tuple[Model, Tuning]:
        model, tuning = super()._attached(family, seed)
        if tuning.wants_gradients:
            assert not tuning.parameters()
            with torch.random.fork_rng():  # passes seed their dropout, as the steps of a run do
                toy_engine(model, tuning)
        return model, tuning

    def test_only_its_own_parameters_change(self, family: str) -> None:
        model = tiny(family)
        tensors = {**dict(model.network.named_parameters()), **dict(model.network.named_buffers())}
        before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        tuning = self.method.attach(model, 0)
        train(toy_engine(model, tuning), toy_trees(model), 3)
        places = tuning.chosen_places()
        for name, tensor in tensors.items():
            changed = (tensor.detach() != before[name]).flatten().nonzero().flatten()
            assert set(changed.tolist()) <= set(places.get(name, torch.empty(0)).tolist()), name
            assert bool(len(changed)) == (name in places), name
            assert tensor.grad is None
        for name, value in tuning.state():
            weight = name.removesuffix(".values")
            assert torch.equal(tensors[weight].detach().flatten()[places[weight].long()], value)


class TestFisher(SparseContract):
    method = Sparse(share=0.02)
    families = ("llama", "gpt2", "bert", "t5", "qwen3")
    misspelt = (Sparse(kinds=("attention", "bias")),)


class TestGradient(SparseContract):
    method = Sparse(share=0.01, by="gradient_times_weight", kinds=("embedding", "norm", "mlp"), blocks="1")
    families = ("gpt2", "mixtral")
    everywhere = ()


class TestWeight(SparseContract):
    method = Sparse(share=0.05, by="weight")
    families = ("llama",)
    everywhere = ()


def by_hand(model: Model, one_by_one: bool) -> dict[str, list[torch.Tensor]]:
    """The gradient of every weight, of each row or of all of them together, by plain autograd."""
    engine, found = toy_engine(model), {name: [] for name, _ in model.network.named_parameters()}
    model.network.requires_grad_(True)
    trees = toy_trees(model)
    for some in [[tree] for tree in trees] if one_by_one else [trees]:
        model.network.zero_grad()
        toy_loss(engine, engine.collate(some)).total.backward()
        for name, parameter in model.network.named_parameters():
            found[name].append(parameter.grad.clone())
    return found


@pytest.mark.parametrize("by", ["fisher", "gradient", "gradient_times_weight"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_entries_are_those_of_the_published_formula(family: str, by: str) -> None:
    model = tiny(family)
    gradients = by_hand(tiny(family), by == "fisher")
    wanted = {}
    for name, parameter in model.network.named_parameters():
        summed = sum(gradient * gradient for gradient in gradients[name]) if by == "fisher" else gradients[name][0].abs()
        wanted[name] = summed * parameter.detach().abs() if by == "gradient_times_weight" else summed
    tuning = Sparse(share=0.03, by=by).attach(model, 0)
    toy_engine(model, tuning)
    inside = torch.cat([wanted[name].flatten()[places.long()] for name, places in tuning.chosen_places().items()])
    outside = [wanted[name].flatten() for name in tuning.candidates]
    for place, name in enumerate(tuning.candidates):
        if name in tuning.chosen_places():
            outside[place] = outside[place].index_fill(0, tuning.chosen_places()[name].long(), 0.0)
    assert len(inside) == tuning.count()
    assert float(inside.min()) >= float(torch.cat(outside).max()) * (1 - 1e-4)
    assert len(tuning.chosen_places()) > 1


def test_training_entries_is_training_the_weights_with_a_mask() -> None:
    """Against whole weights whose gradients are masked by hand: the same values, bit for bit."""
    model, other = tiny("llama"), tiny("llama")
    tuning = Sparse(share=0.1).attach(model, 0)
    engine = toy_engine(model, tuning)
    whole = Selective(kinds=("attention", "mlp")).attach(other, 0)
    masked = toy_engine(other, whole)
    places = {name: one.long() for name, one in tuning.chosen_places().items()}
    trees = toy_trees(model)
    for _ in range(3):
        engine.forward_backward([engine.collate(trees[:2]), engine.collate(trees[2:])], toy_loss)
        engine.step(1e-2, clip=None)
        masked.forward_backward([masked.collate(trees[:2]), masked.collate(trees[2:])], toy_loss)
        for name, parameter in whole.parameters().items():
            mask = torch.zeros(parameter.numel())
            mask[places.get(name, torch.empty(0, dtype=torch.long))] = 1
            parameter.grad *= mask.view_as(parameter)
        masked.step(1e-2, clip=None)
    for (name, one), (_, same) in zip(model.network.named_parameters(), other.network.named_parameters(), strict=True):
        torch.testing.assert_close(one, same, rtol=1e-6, atol=1e-7, msg=name)


def test_values_that_come_from_outside_reach_the_weights() -> None:
    model = tiny("llama")
    tuning = Sparse(share=0.05).attach(model, 0)
    engine = toy_engine(model, tuning)
    trees, base = toy_trees(model), {name: value.clone() for name, value in tuning.state()}
    start = outputs(model, trees)
    train(engine, trees, 2)
    assert not torch.equal(outputs(model, trees), start)
    engine.put_back(base)
    assert torch.equal(outputs(model, trees), start)


def test_what_was_chosen_is_taken_and_not_chosen_again() -> None:
    model, again = tiny("gpt2"), tiny("gpt2")
    first, second = (Sparse(share=0.02).attach(one, 0) for one in (model, again))
    toy_engine(model, first)
    second.take(first.chosen_places())
    assert not second.wants_gradients
    trees = toy_trees(model)
    train(toy_engine(model, first), trees, 2)
    train(toy_engine(again, second), trees, 2)
    assert torch.equal(outputs(model, trees), outputs(again, trees))


def test_it_leaves_the_base_as_it_was() -> None:
    model, trees = tiny("llama"), toy_trees(tiny("llama"))
    base = outputs(model, trees)
    tuning = Sparse(share=0.05).attach(model, 0)
    engine = toy_engine(model, tuning)
    train(engine, trees, 2)
    tuned = outputs(model, trees)
    tuning.interpolate(0.5)
    assert 0 < difference(outputs(model, trees), base) < difference(tuned, base)
    tuning.detach()
    tuning.detach()
    assert torch.equal(outputs(model, trees), base)
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert not any(parameter._post_accumulate_grad_hooks for parameter in model.network.parameters())


@pytest.mark.parametrize("share", [0.0001, 0.3, 0.5, 1.0])
def test_the_largest_are_found_and_ties_are_broken_by_place(share: float) -> None:
    draw = torch.Generator().manual_seed(0)
    scores = {"b": torch.rand(40, 5, generator=draw), "a": torch.rand(300, generator=draw), "c": torch.zeros(7)}
    scores["a"][:50] = 0.5
    count = max(1, round(share * 507))
    found = _top(scores, share)
    assert sum(map(len, found.values())) == count
    kept = torch.cat([scores[name].flatten()[places] for name, places in found.items()]).sort().values
    assert torch.equal(kept, torch.cat([one.flatten() for one in scores.values()]).sort().values[-count:])
    assert all(torch.equal(places, places.unique()) for places in found.values())
    equal = [place for place in found.get("a", torch.empty(0)).tolist() if scores["a"][place] == 0.5]
    assert equal == list(range(len(equal)))


def test_gradients_that_are_no_numbers_choose_nothing() -> None:
    with pytest.raises(DivergedError, match="not finite"):
        _top({"a": torch.tensor([1.0, float("nan")])}, 0.5)


@pytest.mark.parametrize(
    ("places", "name"),
    [({"nowhere": torch.tensor([0])}, "nowhere"), ({"model.layers.0.mlp.up_proj.weight": torch.tensor([10**6])}, "up_proj")],
)
def test_places_of_another_base_are_refused(places: dict[str, torch.Tensor], name: str) -> None:
    with pytest.raises(BaseModelError, match=f"no such entries in the weight .*{name}"):
        Sparse().attach(tiny("llama"), 0).take(places)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Sparse(blocks="0,5"), r"method.blocks: names block 5 and the base has 2. They are numbered from 0 to 1"),
        (Sparse(kinds=("norm",), blocks="0"), None),
        (Sparse(kinds=("attention", "head")), None),
        (Sparse(kinds="bias"), r"method.kinds: a llama network has no weights of the kind 'bias'.*kinds: \[norm\]"),
    ],
)
def test_where_entries_are_chosen(method: Sparse, message: str | None) -> None:
    if message is None:
        tuning = method.attach(tiny("llama"), 0)
        assert isinstance(tuning, SparseTuning)
        assert tuning.wants_gradients
        return
    with pytest.raises(ConfigurationError, match=message):
        method.attach(tiny("llama"), 0)
