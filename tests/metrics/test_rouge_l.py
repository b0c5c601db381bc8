from tunewright.metrics.rouge_l import RougeL
from tunewright.testing.metric_contract import MetricContract


class TestRougeL(MetricContract):
    metric = RougeL()
