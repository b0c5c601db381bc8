from tunewright.metrics.token_f1 import TokenF1
from tunewright.testing.metric_contract import MetricContract


class TestTokenF1(MetricContract):
    metric = TokenF1()


def test_words_as_squad_takes_them():
    values = TokenF1().per_row(["The Eiffel Tower!", "Paris, France", "the", ""], ["eiffel tower", "Paris", "an", "Paris"])
    assert values == [1, 2 / 3, 1, 0]
