"""Precision is chosen by measuring, and bfloat16 leaves what is trained in float32."""

import pytest
import torch

from tunewright.engine import precision
from tunewright.engine.int8 import agreement, gradients
from tunewright.engine.precision import choose, measured_speedup
from tunewright.methods.full import Full
from tunewright.methods.lora import LoRA
from tunewright.methods.selective import Selective
from tunewright.testing.tiny import FAMILIES, tiny
from tunewright.testing.toy import toy_engine, toy_loss, toy_trees, train

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("product", "step", "wanted", "words"),
    [
        (0.2, None, "float32", "0.2x the speed"),
        (1.4, None, "float32", "1.4x the speed"),
        (4.0, 1.05, "float32", "a whole step only 1.05x"),
        (4.0, 2.0, "bfloat16", "a whole step is 2.00x faster"),
        (4.0, None, "float32", ""),
    ],
)
def test_the_choice_and_its_reason(product, step, wanted, words, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(precision, "measured_speedup", lambda width: product)
    chosen, reason = choose(2048, CPU, None if step is None else lambda: step)
    assert chosen == wanted
    assert words in reason


def test_a_narrow_base_keeps_every_digit():
    chosen, reason = choose(64, CPU, lambda: pytest.fail("measured for nothing"))
    assert chosen == "float32"
    assert reason


def test_speed_is_measured():
    assert 0.01 < measured_speedup(64, rows=64) < 100


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", [LoRA(rank=4), Full(), Selective(last_blocks=1)], ids=lambda method: type(method).__name__)
def test_bfloat16_trains_float32_masters(family: str, method):
    model = tiny(family)
    tuning = method.attach(model, 0)
    engine = toy_engine(model, tuning)
    engine.use_precision("bfloat16")
    losses = train(engine, toy_trees(model), 8)
    assert losses[-1] < losses[0]
    assert all(parameter.dtype == torch.float32 for parameter in engine.parameters.values())
    assert all(value.dtype == torch.float32 for value in engine.optimizer.state().values())
    with tuning.disabled():
        pass


@pytest.mark.parametrize("method", [LoRA(rank=4), Selective(last_blocks=1)], ids=lambda method: type(method).__name__)
def test_gradients_arrive_in_float32_and_agree_with_float32_products(method):
    found = []
    for name in ("float32", "bfloat16"):
        model = tiny("llama")
        engine = toy_engine(model, method.attach(model, 0))
        engine.use_precision(name)
        with engine.autocast():
            assert torch.is_autocast_enabled("cpu") is (name == "bfloat16")
        found.append(gradients(engine, toy_loss, engine.collate(toy_trees(model))))
    assert {value.dtype for value in found[1].values()} == {torch.float32}
    assert 0.99 < agreement(*found) < 1 - 1e-9  # rounded, so not the same


def test_a_trained_bias_beside_a_frozen_weight_stays_float32():
    model = tiny("bert")
    tuning = Selective(bias_only=True).attach(model, 0)
    engine = toy_engine(model, tuning)
    engine.use_precision("bfloat16")
    train(engine, toy_trees(model), 2)
    assert {parameter.dtype for parameter in tuning.parameters().values()} == {torch.float32}


def test_frozen_products_are_held_in_bfloat16_and_the_residual_stream_is_not():
    model = tiny("gemma2")
    LoRA(rank=2).attach(model, 0)
    toy_engine(model).use_precision("bfloat16")
    held = {name: parameter.dtype for name, parameter in model.network.named_parameters()}
    assert held["model.layers.0.self_attn.q_proj.weight"] == torch.bfloat16
    assert held["model.layers.0.self_attn.q_proj.lora_0.A_RI"] == torch.float32
    assert held["model.embed_tokens.weight"] == torch.float32  # it is the head too
    assert held["model.norm.weight"] == torch.float32
