"""The head of tags: one answer a token, whatever stands beside it."""

from pathlib import Path

import pytest
import torch

from tunewright.core.errors import ConfigurationError
from tunewright.models.heads import Head, TokenHead
from tunewright.models.heads.token_classification import TokenClassificationHead

PLACES = (torch.zeros(6, dtype=torch.long), torch.tensor([0]), torch.tensor([5]))


def head(dropout: float = 0.0) -> TokenClassificationHead:
    return TokenClassificationHead(8, ("O", "B-X", "I-X"), torch.Generator().manual_seed(0), dropout=dropout)


def test_every_token_is_answered_by_its_own_state():
    made, hidden_TD = head(), torch.randn(6, 8)
    logits_TC = made(hidden_TD, *PLACES)
    assert logits_TC.shape == (6, 3)
    torch.testing.assert_close(logits_TC[2], made.output(hidden_TD[2]))
    assert made(hidden_TD.bfloat16(), *PLACES).dtype == torch.float32


def test_dropout_only_in_training_and_from_its_generator():
    made, hidden_TD = head(0.5), torch.randn(6, 8)
    seeded = [torch.Generator().manual_seed(seed) for seed in (1, 1, 2)]
    one, same, other = (made.train()(hidden_TD, *PLACES, generator=generator) for generator in seeded)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    torch.testing.assert_close(made.eval()(hidden_TD, *PLACES), made.output(hidden_TD))


def test_saved_and_loaded(tmp_path: Path):
    head(0.1).save(tmp_path)
    again = Head.load(tmp_path)
    assert isinstance(again, TokenClassificationHead)
    assert isinstance(again, TokenHead)
    assert (again.labels, again.dropout) == (("O", "B-X", "I-X"), 0.1)


def test_wrong_settings():
    with pytest.raises(ConfigurationError, match="a token classification needs two labels or more"):
        TokenClassificationHead(8, ("O",), torch.Generator())
    with pytest.raises(ConfigurationError, match=r"dropout 1\.0"):
        head(1.0)
