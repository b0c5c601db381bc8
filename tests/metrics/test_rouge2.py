from tunewright.metrics.rouge2 import Rouge2
from tunewright.testing.metric_contract import MetricContract


class TestRouge2(MetricContract):
    metric = Rouge2()
