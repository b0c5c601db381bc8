"""Precision, recall and F1 of every label, by hand."""

import pytest

from tunewright.metrics.statistics.per_label import per_label


def test_by_hand():
    """a: 1 hit, 2 answered, 1 wanted. b: wanted twice, answered once rightly. 10: answered only; it sorts behind 2."""
    answered = [[("a", None)], [("a", None), ("b", None)], [("10", None)], [("2", None)]]
    wanted = [[("a", None)], [("b", None)], [("b", None)], [("2", None)]]
    found = {one.label: one for one in per_label(answered, wanted)}
    assert list(found) == ["2", "10", "a", "b"]
    assert found["a"][1:] == pytest.approx((1 / 2, 1, 2 / 3, 1))
    assert found["b"][1:] == pytest.approx((1, 1 / 2, 2 / 3, 2))
    assert found["10"][1:] == (0, 0, 0, 0)


def test_a_hit_is_at_the_same_place():
    (found,) = per_label([[("PER", (0, 1)), ("PER", (3, 3))]], [[("PER", (0, 1)), ("PER", (3, 4))]])
    assert (found.precision, found.recall, found.count) == (0.5, 0.5, 2)
