from tunewright.metrics.exact_match import ExactMatch
from tunewright.testing.metric_contract import MetricContract


class TestExactMatch(MetricContract):
    metric = ExactMatch()


def test_only_outer_space_is_forgiven():
    assert ExactMatch().per_row([" 42\n", "-5", "Yes"], ["42", "5", "yes"]) == [1, 0, 0]
