"""Exact match as SQuAD counts it."""

from tunewright.metrics.squad_exact_match import SquadExactMatch
from tunewright.testing.metric_contract import MetricContract


class TestSquadExactMatch(MetricContract):
    metric = SquadExactMatch()


def test_by_hand():
    """Case, punctuation, articles and spacing are forgiven; another word is not, nor another order."""
    pairs = [("The  Cat.", "cat"), ("a-b", "ab"), ("", ""), ("cat", "cats"), ("dog cat", "cat dog"), ("", "cat")]
    found = SquadExactMatch().per_row([own for own, _ in pairs], [right for _, right in pairs])
    assert found == [1, 1, 1, 0, 0, 0]
