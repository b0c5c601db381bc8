"""Subset accuracy."""

import pytest

from tunewright.metrics.subset_accuracy import SubsetAccuracy

from .sets import SetContract, binarised, drawn_sets


class TestSubsetAccuracy(SetContract):
    metric = SubsetAccuracy()


def test_by_hand():
    found = SubsetAccuracy().per_row(['["b", "a"]', '["a"]', "[]", "[]"], ['["a", "b"]', '["a", "b"]', "[]", '["a"]'])
    assert found == [1, 0, 1, 0]


def test_parity_with_scikit_learn():
    from sklearn.metrics import accuracy_score

    answers, references = drawn_sets(60, seed=4)
    own, right = binarised(answers, references)
    assert SubsetAccuracy().measure(answers, references) == pytest.approx(accuracy_score(right, own))
