"""Which layout a model takes is measured; what breaks in a packed row is found and said."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tunewright.engine.probe import probe
from tunewright.methods.lora import LoRA
from tunewright.models import Model
from tunewright.testing.tiny import DECODERS, ENCODER_DECODERS, ENCODERS, byte_tokenizer, tiny
from tunewright.testing.toy import difference, toy_engine, toy_trees


@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_every_family_takes_the_forest(family: str):
    model = tiny(family)
    found = probe(model)
    assert found.layout == "forest"
    assert found.difference < 1e-5
    assert found.own_head
    assert found.position_offset == (1 if family == "roberta" else 0)
    assert model.network.config._attn_implementation == "tunewright_forest"
    assert not model.network.training


@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_encoder_decoders_are_paired(family: str):
    assert probe(tiny(family)).layout == "sequence_to_sequence"


def broken(family: str, change) -> Model:
    """A model whose body's forward call passes through `change(keywords)`."""
    model = tiny(family)
    forward = model.body.forward

    def passed(*inputs, **keywords):
        return forward(*inputs, **change(keywords))

    model.body.forward = passed
    return model


def test_ignored_positions_are_found():
    model = broken("gpt2", lambda keywords: {**keywords, "position_ids": None})
    found = probe(model)
    assert found.layout == "padded"
    assert found.difference > 1e-2
    assert found.reason.startswith("packed differs from alone by")
    assert model.network.config._attn_implementation == "sdpa"


def test_a_leak_between_segments_is_found():
    def joined(keywords):
        layout = keywords.get("forest")
        if layout is None:
            return keywords
        return {**keywords, "forest": type(layout)((sum(layout.lengths),), ((),))}

    assert probe(broken("llama", joined)).layout == "padded"


def test_an_objection_is_quoted():
    def objecting(keywords):
        if "forest" in keywords:
            raise AttributeError("no forest, please")
        return keywords

    model = broken("llama", objecting)
    found = probe(model)
    assert found.layout == "padded"
    assert found.reason == "the packed layout is not supported (AttributeError: no forest, please)"
    assert model.network.config._attn_implementation == "sdpa"


def foreign(family: str, **settings) -> Model:
    """A family that there is no tiny model of."""
    config = AutoConfig.for_model(family, vocab_size=300, pad_token_id=0, bos_token_id=1, eos_token_id=2, **settings)
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    return Model(network, byte_tokenizer(), "decoder", family, family, None, "")


FOREIGN = {
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3},
    "gpt_oss": {
        **{"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
        **{"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1, "initializer_range": 0.3},
    },
}


@pytest.mark.parametrize("family", FOREIGN)
def test_families_that_cannot_be_packed_fall_back_and_train(family: str):
    """Bloom adds a bias by distance to its attention, GPT-OSS a sink: both are trained padded, as right as alone."""
    model = foreign(family, **FOREIGN[family])
    found = probe(model)
    assert found.layout == "padded", found
    tuning = LoRA(rank=2).attach(model, 0)
    engine, trees = toy_engine(model, tuning), toy_trees(model)
    with engine.evaluating():
        together, alone = engine.score(trees)[0], torch.cat([engine.score([tree])[0] for tree in trees])
    assert difference(together, alone) < 1e-5


def test_a_head_that_does_more_is_left_to_the_model():
    model = tiny("llama")
    forward = model.network.forward

    def louder(*inputs, **keywords):
        output = forward(*inputs, **keywords)
        output.logits = output.logits * 1.5
        return output

    model.network.forward = louder
    found = probe(model)
    assert not found.own_head
    engine, trees = toy_engine(model), toy_trees(model)
    assert engine.language_head is None
    batch = engine.collate(trees)
    wanted = engine.target_logits(batch).log_softmax(1).gather(1, batch.targets_N[:, None])[:, 0]
    assert difference(engine.score(trees)[0], wanted) < 1e-5
