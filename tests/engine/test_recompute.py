"""Recomputed activations: the same bits, less memory, only where gradients flow, and gone when taken off."""

import pytest
import torch

from tunewright.data.forest import Tree
from tunewright.engine.recompute import Recomputing
from tunewright.methods.full import Full
from tunewright.methods.lora import LoRA
from tunewright.methods.selective import Selective
from tunewright.models import Model
from tunewright.models.lanes import Lane
from tunewright.testing.tiny import FAMILIES, tiny
from tunewright.testing.toy import toy_engine, toy_loss, toy_trees


def gradients(engine, trees: list[Tree], seed: int = 0) -> dict[str, torch.Tensor]:
    engine.model.network.train()
    engine.forward_backward([engine.collate(trees)], toy_loss, seed)
    found = {name: value.grad for name, value in engine.parameters.items() if value.grad is not None}
    engine.forget()
    return found


def calls_of(model: Model) -> list[int]:
    """How often each block ran, counted by its MLP."""
    counts = [0] * len(model.blocks)
    for number, block in enumerate(model.blocks):

        def count(*_: object, number: int = number) -> None:
            counts[number] += 1

        block.get_submodule("mlp").register_forward_pre_hook(count)
    return counts


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_the_same_bits(family: str):
    model = tiny(family)
    engine = toy_engine(model, LoRA(rank=4, dropout=0.3).attach(model, 0))
    trees = toy_trees(model, 4)
    before = gradients(engine, trees, 7)
    assert any(bool(value.any()) for value in before.values())
    recomputing = Recomputing(model)
    after = gradients(engine, trees, 7)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    recomputing.remove()
    assert all("forward" not in vars(block) for block in model.blocks)


def test_a_block_that_learns_runs_twice_and_one_below_the_lowest_trained_once():
    model = tiny("llama")
    engine = toy_engine(model, Selective(last_blocks=1).attach(model, 0))
    Recomputing(model)
    counts = calls_of(model)
    engine.hidden(engine.collate(toy_trees(model))).sum().backward()
    assert counts == [1, 2]


def test_nothing_is_recomputed_where_nothing_is_differentiated():
    model = tiny("llama")
    engine = toy_engine(model, Full().attach(model, 0))
    Recomputing(model)
    counts = calls_of(model)
    with engine.evaluating():
        engine.score(toy_trees(model))
    assert counts == [1, 1]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_less_is_kept_for_the_backward_pass(precision):
    model = tiny("llama")
    engine = toy_engine(model, LoRA(rank=2).attach(model, 0))
    engine.use_precision(precision)
    batch = engine.collate(toy_trees(model, 32))

    def kept() -> int:
        sizes = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            toy_loss(engine, batch)
        return sum(sizes.values())

    whole = kept()
    recomputing = Recomputing(model)
    assert kept() < 0.6 * whole
    recomputing.remove()
    assert kept() > 0.9 * whole


def test_the_second_time_sees_the_lanes_of_the_first():
    model = tiny("llama")
    engine = toy_engine(model, LoRA(rank=2).attach(model, 0))
    Recomputing(model)
    seen = []
    model.blocks[0].get_submodule("mlp").register_forward_pre_hook(lambda *_: seen.append(model.lanes.runs))
    batch = engine.collate(toy_trees(model))
    with model.lanes.during([Lane(0, 0, 5)]):
        total = model.body(input_ids=batch.tokens_BT, forest=batch.layout, use_cache=False).last_hidden_state.sum()
    total.backward()
    assert seen == [(Lane(0, 0, 5),)] * 2
    assert model.lanes.runs == ()


def test_a_last_block_that_computes_a_few_rows_is_not_recomputed():
    model = tiny("llama")
    engine = toy_engine(model, LoRA(rank=2).attach(model, 0))
    trees = toy_trees(model)
    batch = engine.collate(trees)
    counts = calls_of(model)

    def found(rows: torch.Tensor | None) -> list[torch.Tensor]:
        given = {"input_ids": batch.tokens_BT, "forest": batch.layout, "use_cache": False}
        with engine.narrow.to(rows):
            hidden_TD = model.body(**given).last_hidden_state[0]
        hidden_TD[:2].sum().backward()
        gradients = [value.grad for value in engine.parameters.values() if value.grad is not None]
        engine.forget()
        return gradients

    rows = torch.arange(2)
    before, whole = found(rows), found(None)
    counts[:] = [0, 0]
    Recomputing(model)
    after = found(rows)
    assert counts == [2, 1]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    counts[:] = [0, 0]
    again = found(None)
    assert counts == [2, 2]
    assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True))
