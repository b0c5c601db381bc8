import subprocess
import sys
from pathlib import Path

import pytest

from tunewright.core.errors import BaseModelError
from tunewright.models.facts import blocks_in, context_of, facts, kind_of
from tunewright.testing.tiny import FAMILIES, save_tiny, tiny


@pytest.mark.parametrize("family", FAMILIES)
def test_the_headers_say_what_the_network_is(family: str, tmp_path: Path):
    model, found = tiny(family), facts(save_tiny(family, tmp_path / family))
    held = sum(item.numel() for item in model.network.parameters())
    if family == "bart":
        held += 300  # its files keep final_logits_bias, a buffer of zeros
    assert (found.family, found.kind, found.parameters) == (family, model.kind, held)
    assert (found.width, found.blocks, found.vocabulary, found.context) == (
        model.width,
        len(model.blocks),
        model.vocabulary,
        model.context,
    )
    assert (found.heads, found.head_width, found.dtype) == (4, 8, "F32")
    assert found.kv_heads == (
        2 if "num_key_value_heads" in model.network.config.to_dict() and family not in ("phi", "gpt_neox") else 4
    )
    assert found.bytes == 4 * held
    head = model.network.get_output_embeddings()
    assert found.tied == (head is None or head.weight is model.network.get_input_embeddings().weight)


def test_a_mixture_uses_a_part_of_its_experts(tmp_path: Path):
    found = facts(save_tiny("mixtral", tmp_path))
    idle = 2 * (4 - 2) * 3 * 32 * 64  # blocks, experts, the three matrices of one
    assert found.parameters - found.body == idle + 2 * 300 * 32


def test_no_torch_and_no_transformers(tmp_path: Path):
    save_tiny("llama", tmp_path)
    look = "print({'torch', 'transformers'} & set(sys.modules))"
    code = f"import sys; from tunewright.models.facts import facts; facts({str(tmp_path)!r}); {look}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"


def test_what_the_configuration_leaves_out_comes_from_the_tensors(tmp_path: Path, edit):
    save_tiny("llama", tmp_path)
    edit(tmp_path / "config.json", hidden_size=None, num_hidden_layers=None, vocab_size=None, num_attention_heads=None)
    found = facts(tmp_path)
    assert (found.width, found.blocks, found.vocabulary, found.heads) == (32, 2, 300, 0)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "encoder"),
        ({"model_type": "bert", "architectures": ["BertModel"]}, "encoder"),
        ({"model_type": "bert", "architectures": ["BertLMHeadModel"]}, "decoder"),
        ({"model_type": "llama"}, "decoder"),
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "decoder"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "encoder_decoder"),
        ({"model_type": "newbert", "architectures": ["NewBertForMaskedLM"]}, "encoder"),
    ],
)
def test_kinds(config: dict, kind: str):
    assert kind_of(config) == kind


def test_positions_that_begin_late_are_not_counted():
    assert context_of({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}) == 512
    assert context_of({"model_type": "llama", "max_position_embeddings": 4096}) == 4096
    assert context_of({"model_type": "t5", "n_positions": 512}) is None


def test_blocks_are_counted_by_list_and_extras_left_out():
    names = dict.fromkeys(
        [
            *(f"model.layers.{index}.w" for index in range(8)),
            "mtp.layers.0.w",
            "model.layers.0.mlp.experts.7.w",
            "albert_layer_groups.0.w",
        ]
    )
    assert blocks_in(names) == {"model.layers": 8}
    assert blocks_in(dict.fromkeys(["encoder.block.0.layer.1.w", "encoder.block.1.layer.0.w", "decoder.block.0.layer.2.w"])) == {
        "encoder.block": 2,
        "decoder.block": 1,
    }


def test_a_missing_folder():
    with pytest.raises(BaseModelError, match="no such folder"):
        facts("./nowhere")
