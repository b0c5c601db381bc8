"""The head of several labels: its thresholds, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.models.heads import ClassificationHead, Head
from tunewright.models.heads.multi_label import MultiLabelHead


def head(**settings: Any) -> MultiLabelHead:
    return MultiLabelHead(8, ("a", "b", "c"), torch.Generator().manual_seed(0), **settings)


def test_thresholds_are_half_unless_chosen_and_are_kept(tmp_path: Path):
    made = head(pooling="last", dropout=0.1)
    assert made.thresholds == (0.5, 0.5, 0.5)
    made.thresholds = (0.25, 0.5, 0.75)
    made.save(tmp_path)
    again = Head.load(tmp_path)
    assert isinstance(again, MultiLabelHead)
    assert (again.thresholds, again.labels, again.pooling) == ((0.25, 0.5, 0.75), ("a", "b", "c"), "last")
    hidden_TD, places = torch.randn(5, 8), (torch.zeros(5, dtype=torch.long), torch.tensor([0]), torch.tensor([4]))
    assert torch.equal(again(hidden_TD, *places), made.eval()(hidden_TD, *places))
    with pytest.raises(BaseModelError, match="of the kind 'multi_label', not classification"):
        ClassificationHead.load(tmp_path)


def test_one_label_is_enough_and_none_is_not():
    assert MultiLabelHead(8, ("a",), torch.Generator()).output.out_features == 1
    with pytest.raises(ConfigurationError, match="one label or more"):
        MultiLabelHead(8, (), torch.Generator())


@pytest.mark.parametrize("thresholds", [(0.5, 0.5), (0.5, 0.5, 1.5)])
def test_wrong_thresholds(thresholds: tuple[float, ...]):
    made = head()
    with pytest.raises(ConfigurationError, match="one threshold from 0 to 1 for each label"):
        made.settle({"thresholds": thresholds})
