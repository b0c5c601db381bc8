"""A LoRA on a base: folded into the weights and out again, made smaller, beside others, and switched by request and by row."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from tunewright.core.errors import ConfigurationError
from tunewright.engine.engine import use_layout
from tunewright.engine.sampling import Prompt, sample
from tunewright.engine.settings import Sampling
from tunewright.methods.lora import LoRA, LoRATuning
from tunewright.models import Model
from tunewright.models.lanes import Lane
from tunewright.models.loading import load_folder
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, outputs, toy_engine, toy_trees

KINDS = {
    "lora": LoRA(rank=3),
    "dora": LoRA(rank=3, dora=True),
    "pissa": LoRA(rank=3, init="pissa", targets=("attention.query", "mlp.down")),
    "embedding": LoRA(rank=3, targets=("embedding", "head", "mlp.up")),
}
TOKENS = torch.arange(10, 34).view(2, 12)


def roughened(model: Model, method: LoRA, seed: int = 1) -> LoRATuning:
    tuning = method.attach(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return tuning


@pytest.mark.parametrize("family", ["gpt2"])
@pytest.mark.parametrize("method", KINDS.values(), ids=list(KINDS))
def test_folded_is_attached_and_unfolded_is_the_base_bit_for_bit(family: str, method: LoRA):
    model = tiny(family)
    trees, held = toy_trees(model), {name: value.clone() for name, value in model.network.state_dict().items()}
    plain = outputs(model, trees)
    tuning = roughened(model, method)
    attached = outputs(model, trees)
    kept = {name: value for name, value in model.network.named_parameters() if ".lora_" not in name}
    for _ in range(2):
        tuning.fold()
        tuning.fold()  # it is folded already
        assert difference(outputs(model, trees), attached) < 1e-5
        assert not torch.equal(outputs(model, trees), attached)  # the product is in the weights, and not beside them
        with tuning.disabled():
            assert torch.equal(outputs(model, trees), plain)
        assert difference(outputs(model, trees), attached) < 1e-5
        tuning.unfold()
        tuning.unfold()
        assert torch.equal(outputs(model, trees), attached)
    now = dict(model.network.named_parameters())
    assert all(now[name] is value for name, value in kept.items())
    tuning.fold()
    tuning.detach()
    assert torch.equal(outputs(model, trees), plain)
    assert all(torch.equal(value, held[name]) for name, value in model.network.state_dict().items())


@pytest.mark.parametrize(
    ("family", "targets"),
    [
        ("t5", ("encoder.embed_tokens", "decoder.embed_tokens", "head")),
        ("bart", ("encoder.embed_tokens", "head")),
        ("gemma2", ("embedding",)),
    ],
)
def test_weights_that_are_shared_part_when_one_of_them_changes(family: str, targets: tuple[str, ...], tmp_path: Path):
    model = tiny(family)
    trees, tuning = toy_trees(model), roughened(model, LoRA(rank=2, targets=targets))
    attached = outputs(model, trees)
    tuning.fold()
    assert difference(outputs(model, trees), attached) < 1e-5
    tuning.unfold()
    assert torch.equal(outputs(model, trees), attached)
    tuning.merge()
    assert difference(outputs(model, trees), attached) < 1e-5
    model.network.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    assert difference(outputs(load_folder(tmp_path), trees), attached) < 1e-5


def test_what_is_folded_can_be_saved_loaded_resized_and_merged(tmp_path: Path):
    model = tiny("llama")
    trees, tuning = toy_trees(model), roughened(model, LoRA(rank=3))
    attached = outputs(model, trees)
    tuning.fold()
    tuning.save(tmp_path)
    tuning.interpolate(0.5)
    assert difference(outputs(model, trees), attached) > 1e-2
    tuning.load(tmp_path)
    assert difference(outputs(model, trees), attached) < 1e-5
    tuning.merge()
    assert difference(outputs(model, trees), attached) < 1e-5
    assert {type(module) for module in model.network.modules()} == {type(module) for module in tiny("llama").network.modules()}


def test_a_folded_base_is_nobody_elses():
    model = tiny("llama")
    first, second = (roughened(model, LoRA(rank=2), seed) for seed in (0, 1))
    with pytest.raises(ConfigurationError, match="other tunings stand on this base"):
        first.fold()
    second.detach()
    first.fold()
    with pytest.raises(ValueError, match="unfold it before another joins"):
        LoRA(rank=2).attach(model, 0)


class Kept(nn.Linear):
    """Stands in for a layer whose weight is not kept as numbers."""

    def __init__(self, host: nn.Linear) -> None:
        super(nn.Linear, self).__init__()
        self.in_features, self.out_features, self.held = host.in_features, host.out_features, (host.weight * 64).detach()
        self.register_parameter("bias", None)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(input, self.weight)

    @property
    def weight(self) -> torch.Tensor:
        return self.held / 64


@pytest.mark.parametrize(
    "method", [LoRA(rank=3), LoRA(rank=3, dora=True), LoRA(rank=3, init="pissa")], ids=["lora", "dora", "pissa"]
)
def test_layers_without_a_plain_weight_carry_all_the_same(method: LoRA):
    model, other = tiny("llama"), tiny("llama")
    for block in other.network.model.layers:
        block.mlp.up_proj = Kept(block.mlp.up_proj)
        block.self_attn.q_proj = Kept(block.self_attn.q_proj)
    tunings = [roughened(one, method.model_copy(update={"targets": ("mlp.up", "attention.query")})) for one in (model, other)]
    found = [outputs(one, toy_trees(model)) for one in (model, other)]
    assert difference(*found) < 1e-5
    for one, tuning in zip((model, other), tunings, strict=True):
        one.network(input_ids=TOKENS).logits.pow(2).mean().backward()
        assert all(parameter.grad is not None for parameter in tuning.parameters().values())
    for name, parameter in tunings[0].parameters().items():
        assert difference(parameter.grad, tunings[1].parameters()[name].grad) < 1e-4, name
    for act in (tunings[1].merge, tunings[1].fold):
        with pytest.raises(ConfigurationError, match="does not hold its weight as numbers"):
            act()


@pytest.mark.parametrize("method", [KINDS["lora"], KINDS["pissa"], KINDS["embedding"]], ids=["lora", "pissa", "embedding"])
def test_a_change_can_be_made_smaller_and_turned_round(method: LoRA):
    model = tiny("llama")
    trees, plain = toy_trees(model), outputs(model, toy_trees(model))
    tuning = roughened(model, method)
    changes = {path: layer.change() for path, layer in tuning.layers.items()}
    tuning.interpolate(-0.5)
    for path, layer in tuning.layers.items():
        torch.testing.assert_close(layer.change(), -0.5 * changes[path], rtol=1e-4, atol=1e-6)
    tuning.interpolate(0.0)
    assert torch.equal(outputs(model, trees), plain)


def test_magnitudes_have_no_size():
    with pytest.raises(ConfigurationError, match=r"`dora`.*Merge it"):
        roughened(tiny("llama"), LoRA(rank=2, dora=True)).interpolate(0.5)


BANK = (
    LoRA(rank=2),
    LoRA(rank=4, dora=True, targets=("mlp.up", "attention.query")),
    LoRA(rank=3, targets=("embedding", "mlp.down")),
)


def test_requests_and_rows_choose_their_tuning():
    """Each prompt is answered by its own tuning as if that stood alone, and so is each row of a batch."""
    model = tiny("llama")
    for seed, method in enumerate(BANK):
        roughened(model, method, seed)
    prompts = [tuple(range(20 + row, 26 + 2 * row)) for row in range(6)]
    settings = Sampling(max_new_tokens=8, temperature=0.0)
    together = sample(
        toy_engine(model), [Prompt(tokens, row % 3) for row, tokens in enumerate(prompts)], settings, ends=frozenset()
    )
    answers, rows = set(), []
    for number, method in enumerate(BANK):
        alone = tiny("llama")
        roughened(alone, method, number)
        own = sample(toy_engine(alone), [Prompt(prompts[row]) for row in range(6) if row % 3 == number], settings, ends=frozenset())
        assert [answer.tokens for answer in own] == [together[row].tokens for row in range(6) if row % 3 == number]
        answers.add(sample(toy_engine(alone), [Prompt(prompts[0])], settings, ends=frozenset())[0].tokens)
        use_layout(alone, "padded")
        rows.append(alone.network(input_ids=TOKENS).logits)
    assert len(answers) > 1
    use = (2, 1)
    use_layout(model, "padded")
    with model.lanes.during([Lane(use[0], 0, 12), Lane(use[1], 12, 24)]):
        found = model.network(input_ids=TOKENS).logits
    for row, number in enumerate(use):
        torch.testing.assert_close(found[row], rows[number][row], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", KINDS.values(), ids=list(KINDS))
def test_a_copy_of_a_tuned_network_is_one_of_its_own(method: LoRA):
    model = tiny("llama")
    tuning = roughened(model, method)
    twin = copy.deepcopy(model)
    wanted = outputs(twin, toy_trees(model))
    assert torch.equal(wanted, outputs(model, toy_trees(model)))
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.mul_(1.5)
    assert torch.equal(outputs(twin, toy_trees(model)), wanted)
    assert not torch.equal(outputs(model, toy_trees(model)), wanted)


def test_what_is_subtracted_is_kept_in_checkpoints():
    tuning = LoRA(rank=2, init="olora", targets=("q_proj",)).attach(tiny("llama"), 0)
    kept = tuning.kept()
    assert sorted(kept)[:2] == ["model.layers.0.self_attn.q_proj.A0_RI", "model.layers.0.self_attn.q_proj.B0_OR"]
    assert all(one is other for one, other in zip(kept.values(), tuning.kept().values(), strict=True))
    assert not LoRA(rank=2).attach(tiny("llama"), 0).kept()
