"""The reward head: one number from the last hidden state of each answer."""

import pytest
import torch

from tunewright.core.errors import ConfigurationError
from tunewright.models.heads import Head
from tunewright.models.heads.reward import RewardHead


def test_it_reads_the_last_state_of_each_segment(tmp_path) -> None:
    head = RewardHead(4, generator=torch.Generator().manual_seed(0))
    hidden_TD = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    found = head(hidden_TD, torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 2]), torch.tensor([1, 4]))
    assert found.shape == (2, 1)
    assert torch.allclose(found, head.output(hidden_TD[[1, 4]]))
    head.save(tmp_path)
    again = Head.load(tmp_path)
    assert isinstance(again, RewardHead)
    assert torch.equal(again.output.weight, head.output.weight)


def test_it_has_one_number() -> None:
    assert sum(parameter.numel() for parameter in RewardHead(8).parameters()) == 9
    with pytest.raises(ConfigurationError, match="a reward needs one label"):
        RewardHead(8, ())
