"""Which parameters learn alike, and what is refused."""

import pytest
import torch
from torch.nn import Parameter

from tunewright.core.configuration import build
from tunewright.core.errors import ConfigurationError, UnknownNameError
from tunewright.engine.optimizers import Optimizer
from tunewright.engine.optimizers.groups import grouped
from tunewright.engine.settings import AdamW
from tunewright.training.settings import Training


def parameters() -> dict[str, Parameter]:
    names = ("norm.weight", "q.lora_A.weight", "q.lora_B.weight", "q.bias", "v.lora_A.weight", "v.lora_B.weight")
    return {name: Parameter(torch.zeros(4) if "lora" not in name else torch.zeros(2, 2)) for name in names}


def test_groups_are_by_rate_and_decay():
    found = grouped(AdamW(weight_decay=0.1, learning_rate_ratio=16), parameters())
    assert {(group.rate, group.weight_decay): list(group.parameters) for group in found} == {
        (1.0, 0.0): ["norm.weight", "q.bias"],
        (1.0, 0.1): ["q.lora_A.weight", "v.lora_A.weight"],
        (16.0, 0.1): ["q.lora_B.weight", "v.lora_B.weight"],
    }
    assert len(grouped(AdamW(), parameters())) == 1
    assert grouped(AdamW(), {}) == []


def test_a_new_head_learns_at_a_rate_of_its_own():
    body, head = Parameter(torch.zeros(3)), Parameter(torch.zeros(3))
    optimizer = Optimizer(AdamW(), {"lm_head.bias": body, "head.output.bias": head}, head=20.0)
    body.grad, head.grad = torch.ones(3), torch.ones(3)
    optimizer.update(1e-3)
    assert torch.allclose(body, torch.full((3,), -1e-3))
    assert torch.allclose(head, torch.full((3,), -2e-2))


def test_a_ratio_without_lora_is_refused():
    with pytest.raises(ConfigurationError, match=r"learning_rate_ratio: a ratio of 16 is for the B matrices of LoRA") as caught:
        Optimizer(AdamW(learning_rate_ratio=16), {"norm.weight": Parameter(torch.zeros(3))})
    assert "method: lora" in str(caught.value)


def test_a_parameter_under_two_names_is_refused():
    one = Parameter(torch.zeros(3))
    with pytest.raises(ValueError, match="under two names"):
        Optimizer(AdamW(), {"one": one, "two": one})


def test_unknown_optimizers_are_refused_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"optimizer.name: there is no optimizer 'adamw8bit'. Did you mean 'adamw_8bit'"):
        build(Training, {"optimizer": {"name": "adamw8bit"}}, "training")
    assert build(Training, {"optimizer": {"name": "adamw_8bit", "learning_rate_ratio": 4}}).optimizer.learning_rate_ratio == 4
    with pytest.raises(ConfigurationError, match="learning_rate_ratio"):
        build(Training, {"optimizer": {"learning_rate_ratio": 0}})
