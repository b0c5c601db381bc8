"""Pair accuracy."""

import itertools
import json
import random

import pytest

from tunewright.metrics.pair_accuracy import PairAccuracy
from tunewright.testing.metric_contract import MetricContract


class TestPairAccuracy(MetricContract):
    metric = PairAccuracy()


def test_by_hand() -> None:
    """Of a > b > c the order b, a, c has two pairs of three right, c, b, a has none."""
    orders = [["b", "a", "c"], ["c", "b", "a"], ["a", "b", "c"]]
    found = PairAccuracy().per_row([json.dumps(order) for order in orders], [json.dumps(["a", "b", "c"])] * 3)
    assert found == pytest.approx([2 / 3, 0, 1])


def test_a_pair_is_right_or_wrong() -> None:
    assert PairAccuracy().per_row(["yes", "no", ""], ["yes", "yes", "yes"]) == [1.0, 0.0, 0.0]


def test_parity_with_kendalls_tau() -> None:
    from scipy.stats import kendalltau

    draw = random.Random(3)
    for _ in range(20):
        wanted = list("abcdef")
        own = draw.sample(wanted, 6)
        tau = kendalltau(range(6), [own.index(one) for one in wanted]).statistic
        assert PairAccuracy().measure([json.dumps(own)], [json.dumps(wanted)]) == pytest.approx((1 + tau) / 2)


@pytest.mark.parametrize("answer", ["", "[", "[1, 2]", '["a", "b", "c"]', '["a"]', '{"a": 1}', "a"])
def test_what_is_no_order_of_these_answers_is_wrong(answer: str) -> None:
    assert PairAccuracy().measure([answer], ['["a", "b"]']) == 0.0


def test_answers_that_are_lists_themselves_are_pairs_as_all_others() -> None:
    for own, wanted in itertools.permutations(['["x", "y"]', '["y", "x"]', '["z"]'], 2):
        assert PairAccuracy().measure([own], [wanted]) == 0.0
