"""The head of numbers: standardising and back, and what it keeps."""

from pathlib import Path

import pytest
import torch

from tunewright.core.errors import ConfigurationError
from tunewright.models.heads import Head
from tunewright.models.heads.regression import RegressionHead


def test_numbers_go_in_and_come_back():
    head = RegressionHead(4, ("price", "size"), torch.Generator())
    assert head.numbers(torch.tensor([[1.5, 2.0]])).tolist() == [[1.5, 2.0]]
    head.settle({"means": (100.0, -2.0), "deviations": (20.0, 0.5)})
    values_SC = torch.tensor([[120.0, -2.5], [100.0, -2.0]])
    standardised_SC = head.standardised(values_SC)
    assert standardised_SC.tolist() == [[1.0, -1.0], [0.0, 0.0]]
    assert head.numbers(standardised_SC).tolist() == values_SC.tolist()


def test_means_and_deviations_are_kept_in_the_folder(tmp_path: Path):
    head = RegressionHead(4, ("price",), torch.Generator())
    head.settle({"means": (0.1,), "deviations": (3.5,)})
    head.save(tmp_path)
    again = Head.load(tmp_path)
    assert isinstance(again, RegressionHead)
    assert (again.labels, again.means, again.deviations) == (("price",), (0.1,), (3.5,))


@pytest.mark.parametrize("settings", [{"deviations": (0.0,)}, {"deviations": (1.0, 1.0)}, {"means": (0.0, 0.0)}])
def test_wrong_scales(settings: dict):
    head = RegressionHead(4, ("price",), torch.Generator())
    with pytest.raises(ConfigurationError, match="a mean and a deviation above 0 for each target"):
        head.settle({"means": (0.0,), "deviations": (1.0,), **settings})
