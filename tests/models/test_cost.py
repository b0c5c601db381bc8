from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tunewright.models.cost import flops_per_token, parameters
from tunewright.models.facts import facts
from tunewright.testing.tiny import save_tiny, tiny


def test_parameters():
    network = tiny("gpt2").network
    total, trainable = parameters(network)
    assert total == trainable == sum(item.numel() for item in network.parameters())
    network.requires_grad_(False)
    network.lm_head.weight.requires_grad_(True)  # tied: the embedding too, counted once
    assert parameters(network) == (total, 300 * 32)


@pytest.mark.parametrize(
    "family", ["llama", "gemma", "qwen3", "phi3", "gpt_neox", "gpt2", "mixtral", "bert", "roberta", "modernbert", "electra"]
)
def test_operations_agree_with_torchs_own_count(family: str, tmp_path: Path):
    model, found = tiny(family), facts(save_tiny(family, tmp_path))
    model.network.set_attn_implementation("eager")
    if family == "mixtral":
        model.network.set_experts_implementation("eager")  # torch does not count the grouped product
    tokens = 64
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.network(input_ids=torch.full((1, tokens), 9))
    # The eager path multiplies the whole square, so each token is charged for all tokens.
    counted, ours = counter.get_total_flops() / tokens, flops_per_token(found, seen=tokens)
    assert ours == pytest.approx(counted, rel=0.05)


def test_the_head_is_paid_where_targets_are(tmp_path: Path):
    found = facts(save_tiny("llama", tmp_path))
    assert flops_per_token(found) - flops_per_token(found, target_share=0) == 2 * 300 * 32
    assert flops_per_token(found, seen=0, target_share=0) == 2 * found.body
