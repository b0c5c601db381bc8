"""Hamming loss."""

import pytest

from tunewright.metrics.hamming_loss import HammingLoss

from .sets import SetContract, binarised, drawn_sets


class TestHammingLoss(SetContract):
    metric = HammingLoss()


def test_by_hand():
    """Three labels in all; the first row misses b and has c too many, the second is right: 2/3 and 0."""
    assert HammingLoss().per_row(['["a", "c"]', '["c"]'], ['["a", "b"]', '["c"]']) == pytest.approx([2 / 3, 0])


def test_parity_with_scikit_learn():
    from sklearn.metrics import hamming_loss

    answers, references = drawn_sets(60, seed=4)
    own, right = binarised(answers, references)
    assert HammingLoss().measure(answers, references) == pytest.approx(hamming_loss(right, own))
