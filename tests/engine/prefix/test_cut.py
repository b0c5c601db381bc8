"""Where training begins is found for every family, and the two sides of the cut together are the network, bit for bit."""

import pytest
import torch
from torch import nn

from tunewright.engine.prefix.cut import Prefix, entrance, lowest_trainable_block, obstacle
from tunewright.engine.recompute import Recomputing
from tunewright.methods.full import Full
from tunewright.methods.head import Head
from tunewright.methods.lora import LoRA
from tunewright.methods.selective import Selective
from tunewright.models import Model
from tunewright.testing.tiny import DECODERS, ENCODERS, tiny
from tunewright.testing.toy import toy_engine, toy_loss, toy_trees

UPPER = r"re:.*\.1\..*(q_proj|up_proj|c_attn|query)"


def frozen(family: str) -> Model:
    model = tiny(family)
    model.network.requires_grad_(False)
    return model


@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
@pytest.mark.parametrize("cut", [1, 2])
def test_both_sides_together_are_the_whole(family: str, cut: int):
    model = frozen(family)
    engine = toy_engine(model)
    batch = engine.collate(toy_trees(model, 3))
    prefix = Prefix(model, cut)
    with torch.no_grad():
        plain = engine.hidden(batch)
        state = prefix.below(lambda: engine.hidden(batch))
        assert state.shape == (*batch.tokens_BT.shape, model.width)
        assert torch.equal(prefix.above(state, lambda: engine.hidden(batch)), plain)
        # the state is really what is used, and nothing of it stays on the network
        assert not torch.equal(prefix.above(state + 1, lambda: engine.hidden(batch)), plain)
        assert torch.equal(engine.hidden(batch), plain)
    assert not any("forward" in vars(module) for module in model.network.modules())


@pytest.mark.parametrize(
    ("family", "method", "cut"),
    [
        ("llama", LoRA(rank=2, targets=("linear",)), 0),
        ("llama", LoRA(rank=2, targets=(UPPER,)), 1),
        ("llama", LoRA(rank=2, targets=("embedding", UPPER)), 0),
        ("bert", LoRA(rank=2, targets=("position_embeddings", UPPER)), 0),
        ("llama", LoRA(rank=2, targets=("head",)), 2),
        ("gpt2", LoRA(rank=2, targets=(UPPER,)), 1),
        ("bert", LoRA(rank=2, targets=(UPPER,)), 1),
        ("bert", Head(), 2),
        ("llama", Full(), 0),
        ("llama", Selective(last_blocks=1), 1),
        ("opt", Selective(last_blocks=1), 1),
        ("phi3", Selective(train=("model.norm",)), 2),
        ("llama", Selective(train=("embed_tokens",)), 0),
        ("roberta", Selective(train=("position_embeddings",)), 0),
        ("electra", Selective(train=("embeddings_project",)), 0),
        ("t5", LoRA(rank=2, targets=(r"re:decoder\.block\.1\..*\.q",)), 0),
    ],
    ids=str,
)
def test_training_begins_at_the_lowest_trained_block(family: str, method, cut: int):
    model = tiny(family)
    tuning = method.attach(model, 0)
    assert lowest_trainable_block(model, tuning.parameters()) == cut


def test_several_tunings_on_the_embeddings_are_below_too():
    model = tiny("llama")
    for seed in range(2):
        tuning = LoRA(rank=2, targets=("embedding", UPPER)).attach(model, seed)
    assert lowest_trainable_block(model, tuning.parameters()) == 0


def test_a_head_is_above_and_a_soft_prompt_is_below():
    model = frozen("bert")
    assert lowest_trainable_block(model, {"head.output.weight": nn.Parameter(torch.zeros(2, 2))}) == 2
    assert lowest_trainable_block(model, {"prompt": nn.Parameter(torch.zeros(2, 2))}) == 0


def test_a_tied_head_trains_the_embeddings():
    model = tiny("gemma")
    assert model.network.get_output_embeddings().weight is model.network.get_input_embeddings().weight
    model.network.requires_grad_(False)
    model.network.get_output_embeddings().weight.requires_grad_(True)
    assert lowest_trainable_block(model, {}) == 0


def test_what_runs_first_is_found_by_running():
    model = frozen("gpt2")
    assert {type(module).__name__ for module in entrance(model)} == {"GPT2Model", "Embedding", "Dropout"}
    assert not any(module._forward_pre_hooks for module in model.network.modules())


def test_blocks_left_out_at_random_are_no_prefix():
    model = frozen("opt")
    assert lowest_trainable_block(model, {}) == 2
    model.network.config.layerdrop = 0.1
    assert lowest_trainable_block(model, {}) == 0


def test_rotary_tables_that_depend_on_the_batch_are_an_obstacle():
    model = frozen("llama")
    assert obstacle(model) is None
    model.network.config.rope_parameters = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    assert "longest row" in (obstacle(model) or "")


@pytest.mark.parametrize("cut", [0, 3])
def test_there_must_be_something_below(cut: int):
    with pytest.raises(ValueError, match=f"nothing below block {cut} of 2"):
        Prefix(frozen("llama"), cut)


def test_no_tensor_of_the_lower_blocks_is_saved():
    model = tiny("llama")
    engine = toy_engine(model, LoRA(rank=2, targets=(UPPER,)).attach(model, 0))
    # a graph through the lower block is what a careless engine would make: ask for one
    model.network.get_input_embeddings().register_forward_hook(lambda _module, _inputs, output: output.requires_grad_(True))
    prefix = Prefix(model, 1)
    batch = engine.collate(toy_trees(model, 3))
    lower = {parameter.data_ptr() for parameter in model.blocks[0].parameters()}

    def saved(run) -> set[int]:
        found = set()

        def pack(tensor):
            found.add(tensor.data_ptr())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            run()
        return found

    def cut_pass():
        toy = prefix.below(lambda: engine.hidden(batch))
        assert not toy.requires_grad
        return prefix.above(toy, lambda: toy_loss(engine, batch)).total

    assert lower & saved(lambda: toy_loss(engine, batch).total)
    assert not lower & saved(cut_pass)
    cut_pass().backward()
    assert all(parameter.grad is not None for parameter in engine.parameters.values())


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_below_the_cut_there_is_no_dropout_and_above_it_there_is(family: str):
    model = frozen(family)
    for module in model.network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    engine = toy_engine(model)
    batch = engine.collate(toy_trees(model, 3))
    model.network.train()
    before = [module.training for module in model.network.modules()]
    prefix = Prefix(model, 1)
    states = [prefix.below(lambda: engine.hidden(batch)) for _ in range(2)]
    assert torch.equal(*states)
    with torch.no_grad():
        tops = [prefix.above(states[0], lambda: engine.hidden(batch)) for _ in range(2)]
    assert not torch.equal(*tops)
    assert [module.training for module in model.network.modules()] == before


def test_activations_computed_again_see_the_state_that_was_put_in():
    def gradients(recomputing: bool) -> list[torch.Tensor]:
        model = tiny("llama")
        engine = toy_engine(model, Selective(last_blocks=1).attach(model, 0))
        if recomputing:
            Recomputing(model)
        model.network.train()
        batch, prefix = engine.collate(toy_trees(model, 3)), Prefix(model, 1)
        state = prefix.below(lambda: engine.hidden(batch))
        prefix.above(state * 2, lambda: toy_loss(engine, batch)).total.backward()
        return [parameter.grad for parameter in engine.parameters.values()]

    assert all(map(torch.equal, gradients(True), gradients(False)))


def test_an_error_in_the_pass_leaves_nothing_behind():
    model = frozen("llama")
    prefix, engine = Prefix(model, 1), toy_engine(model)
    batch = engine.collate(toy_trees(model, 2))
    state = prefix.below(lambda: engine.hidden(batch))

    def broken():
        raise KeyError("broken")

    for side in (lambda: prefix.below(broken), lambda: prefix.above(state, broken)):
        with pytest.raises(KeyError):
            side()
    assert not any("forward" in vars(module) or module._forward_hooks for module in model.network.modules())
    for side in (lambda: prefix.below(lambda: None), lambda: prefix.above(state, lambda: None)):
        with pytest.raises(RuntimeError, match="never came to block 0"):
            side()
