"""Macro F1 of sets of labels."""

import pytest

from tunewright.metrics.multi_label_macro_f1 import MultiLabelMacroF1

from .sets import SetContract, binarised, drawn_sets


class TestMultiLabelMacroF1(SetContract):
    metric = MultiLabelMacroF1()


def test_by_hand():
    """a: 1 hit, 2 answered, 1 wanted: 2/3. b: never answered, 1 wanted: 0."""
    assert MultiLabelMacroF1().measure(['["a"]', '["a"]'], ['["a"]', '["b"]']) == pytest.approx((2 / 3 + 0) / 2)
    assert MultiLabelMacroF1().measure(["[]"], ["[]"]) == 1


def test_parity_with_scikit_learn():
    from sklearn.metrics import f1_score

    answers, references = drawn_sets(60, seed=4)
    own, right = binarised(answers, references)
    assert MultiLabelMacroF1().measure(answers, references) == pytest.approx(f1_score(right, own, average="macro", zero_division=0))
