"""Micro F1 of sets of labels."""

import json

import pytest

from tunewright.metrics.multi_label_micro_f1 import MultiLabelMicroF1

from .sets import SetContract, binarised, drawn_sets


class TestMultiLabelMicroF1(SetContract):
    metric = MultiLabelMicroF1()


def test_by_hand():
    """Hits a; answered a b, c; wanted a, d: 2 * 1 / (3 + 2)."""
    assert MultiLabelMicroF1().measure(['["a", "b"]', '["c"]'], ['["a"]', '["d"]']) == pytest.approx(0.4)


def test_nothing_wanted_and_nothing_answered_is_right():
    assert MultiLabelMicroF1().measure(["[]"], ["[]"]) == 1
    assert MultiLabelMicroF1().measure(["no list"], [json.dumps(["a"])]) == 0


def test_parity_with_scikit_learn():
    from sklearn.metrics import f1_score

    answers, references = drawn_sets(60, seed=4)
    own, right = binarised(answers, references)
    assert MultiLabelMicroF1().measure(answers, references) == pytest.approx(f1_score(right, own, average="micro", zero_division=1))
