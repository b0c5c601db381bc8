"""Pearson's correlation."""

import pytest

from tunewright.metrics.pearson import Pearson

from .sets import NumberContract, as_arrays, drawn_numbers


class TestPearson(NumberContract):
    metric = Pearson()


@pytest.mark.parametrize("targets", [1, 3])
def test_parity(targets: int):
    import numpy as np
    from scipy.stats import pearsonr

    answers, references = drawn_numbers(50, 5, targets)
    own, right = as_arrays(answers, references)
    assert Pearson().measure(answers, references) == pytest.approx(
        np.mean([pearsonr(a, b)[0] for a, b in zip(right.T, own.T, strict=True)]), rel=1e-9
    )


def test_by_hand():
    """A line is 1 however steep, the same line downwards -1, and a constant says nothing."""
    assert Pearson().measure(["10", "20", "30"], ["1", "2", "3"]) == pytest.approx(1)
    assert Pearson().measure(["3", "2", "1"], ["1", "2", "3"]) == pytest.approx(-1)
    assert Pearson().measure(["5", "5", "5"], ["1", "2", "3"]) == 0
    assert Pearson().measure(["0.1", "0.1", "0.1"], ["1000.1", "1000.1", "1000.1"]) == 0
